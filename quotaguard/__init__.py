"""Token quotas around LLM clients.

Counts tokens before a call, reserves them from the caller's buckets in one atomic step, makes the
call and settles with what was really used. See `Guard`, `GuardedOpenAI` and `token_limited`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .admin import Adjustment
from .core.lease import Lease
from .core.ops import BucketState
from .errors import (
    BackendError,
    ConfigurationError,
    ModelNotAllowed,
    PriceUnknown,
    QuotaExceeded,
    QuotaguardError,
    QuotaWarning,
    RequestTooLarge,
    UnmeteredEndpoint,
)
from .guard import Guard
from .identity import Identity, acting_as
from .limits import Limit
from .policies import Fallback, Refuse, Wait
from .pricing import Price
from .receipts import Receipt, receipt
from .tiers import Tier
from .usage import Usage
from .weights import Weights

if TYPE_CHECKING:
    from .clients.anthropic import AsyncGuardedAnthropic, GuardedAnthropic
    from .clients.openai import (
        AsyncGuardedAzureOpenAI,
        AsyncGuardedOpenAI,
        GuardedAzureOpenAI,
        GuardedOpenAI,
    )
    from .clients.patch import Patch, patch
    from .config import load_guard, reload_guard
    from .decorator import token_limited
    from .entries import Entry
    from .journal import Journal
    from .report import Report
    from .simulation import Simulation

__all__ = [
    "Adjustment",
    "AsyncGuardedAnthropic",
    "AsyncGuardedAzureOpenAI",
    "AsyncGuardedOpenAI",
    "BackendError",
    "BucketState",
    "ConfigurationError",
    "Entry",
    "Fallback",
    "Guard",
    "GuardedAnthropic",
    "GuardedAzureOpenAI",
    "GuardedOpenAI",
    "Identity",
    "Journal",
    "Lease",
    "Limit",
    "ModelNotAllowed",
    "Patch",
    "Price",
    "PriceUnknown",
    "QuotaExceeded",
    "QuotaWarning",
    "QuotaguardError",
    "Receipt",
    "Refuse",
    "Report",
    "RequestTooLarge",
    "Simulation",
    "Tier",
    "UnmeteredEndpoint",
    "Usage",
    "Wait",
    "Weights",
    "acting_as",
    "load_guard",
    "patch",
    "receipt",
    "reload_guard",
    "token_limited",
]

_LAZY = {
    "AsyncGuardedAnthropic": "clients.anthropic",
    "AsyncGuardedAzureOpenAI": "clients.openai",
    "AsyncGuardedOpenAI": "clients.openai",
    "Entry": "entries",
    "GuardedAnthropic": "clients.anthropic",
    "GuardedAzureOpenAI": "clients.openai",
    "GuardedOpenAI": "clients.openai",
    "Journal": "journal",
    "Patch": "clients.patch",
    "Report": "report",
    "Simulation": "simulation",
    "patch": "clients.patch",
    "load_guard": "config",
    "reload_guard": "config",
    "token_limited": "decorator",
}
"""Loaded when first asked for: importing an SDK takes a second or two, wrapt longer than we do."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("quotaguard")
    home = _LAZY.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = getattr(import_module(f".{home}", __name__), name)
    except ModuleNotFoundError as error:
        sdk = home.rpartition(".")[2]
        if error.name != sdk:
            raise
        raise ImportError(f"{name} needs {sdk}: pip install 'quotaguard[{sdk}]'") from error
    globals()[name] = found
    return found


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext quotaguard``: see `quotaguard.contrib.notebook`."""
    from .contrib.notebook import load_ipython_extension as _load

    _load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext quotaguard``."""
    from .contrib.notebook import unload_ipython_extension as _unload

    _unload(shell)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
