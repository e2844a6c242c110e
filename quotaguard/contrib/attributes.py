"""What an event says as names and plain values, for logs and spans.

The names are OpenTelemetry's semantic conventions for generative AI (``gen_ai.``) where they have
one, and ``quotaguard.`` and the event's own field where not. Prompts and keys are in no event.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from decimal import Decimal
from typing import TypeAlias

from ..errors import ModelNotAllowed, QuotaExceeded
from ..events import Event
from ..identity import Identity
from ..usage import Usage

Value: TypeAlias = str | bool | int | float

REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
USER = "quotaguard.user"
LIMIT = "quotaguard.limit"
REASON = "quotaguard.reason"

_NAMES = {
    "model": REQUEST_MODEL,
    "served": RESPONSE_MODEL,
    "Waiting.seconds": "quotaguard.expected_wait",
    "Waited.seconds": "quotaguard.waited",
    "FellBack.limit": "quotaguard.because",
}
"""Field, or event and field -> its name, where that is not ``quotaguard.`` and the field."""

USAGE = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}
"""Count of a `Usage` -> its name in the conventions."""

_RESERVED = {name: f"quotaguard.reserved.{name}" for name in ("input_tokens", "output_tokens")}
_FACTS = ("asked", "left", "capacity", "retry_after")


def name_of(event: Event) -> str:
    """The stable name of an event: ``quotaguard.fell_back`` for `FellBack`."""
    return "quotaguard." + re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()


def attributes(event: Event) -> dict[str, Value]:
    """The event's facts by name; what it does not know is left out.

    Tokens are whole numbers, times seconds, money US dollars.
    """
    kind = type(event).__name__
    return {
        name: value
        for field in fields(event)
        for name, value in _facts(kind, field.name, getattr(event, field.name))
    }


def _facts(kind: str, field: str, value: object) -> Iterator[tuple[str, Value]]:
    if isinstance(value, Identity):
        for part, name in zip(value._fields, value, strict=True):
            if name is not None:
                yield f"quotaguard.{part}", name
    elif isinstance(value, Usage):
        names = _RESERVED if field == "reserved" else USAGE
        for count, name in names.items():
            yield name, getattr(value, count)
    elif isinstance(value, (QuotaExceeded, ModelNotAllowed)):
        yield REASON, reason(value)
        facts = value.as_dict()
        if "limit" in facts:
            yield LIMIT, facts["limit"]
        for fact in _FACTS:
            if facts.get(fact) is not None:
                yield f"quotaguard.{fact}", facts[fact]
    elif isinstance(value, Decimal):
        yield f"quotaguard.{field}", float(value)
    elif isinstance(value, (str, bool, int, float)):
        yield _NAMES.get(f"{kind}.{field}") or _NAMES.get(field, f"quotaguard.{field}"), value


def reason(error: BaseException) -> str:
    """Why a call was refused, as a word: ``quota_exceeded``, ``request_too_large``, ..."""
    return str(getattr(error, "code", None) or type(error).__name__)
