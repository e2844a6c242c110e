"""Guarded clients of the SDKs."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, TypeVar

from ..errors import ConfigurationError
from ..guard import Guard
from .seam import bind, guarded_class, twin

C = TypeVar("C")


def wrap(client: C, guard: Guard, **identity: Any) -> C:
    """See `Guard.wrap`."""
    binding = bind({"guard": guard, **identity})
    for name in ("openai", "anthropic"):
        if name in sys.modules:  # where an SDK is not loaded there is no client of it
            sdk = import_module(f".{name}", __package__).SDK
            if (seam := sdk.seam_of(client)) is not None:
                made: C = twin(client, guarded_class(type(client), sdk, seam), binding)
                return made
    raise ConfigurationError(
        f"wrap takes a client of the openai or anthropic SDK, not {type(client).__name__}"
    )
