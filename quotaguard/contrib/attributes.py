"""What an event says as names and plain values, for logs and spans.

The names are OpenTelemetry's semantic conventions for generative AI (``gen_ai.``) where they have
one, and ``quotaguard.`` and the event's own field where not. Prompts and keys are in no event.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import TypeAlias

from ..errors import ModelNotAllowed, QuotaExceeded
from ..events import Event
from ..identity import Identity
from ..usage import NANO, Usage

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

_USAGE = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}
"""Count of a `Usage` -> its name in the conventions."""

COST = "quotaguard.cost.usd"
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
        yield from usage_facts(value, "" if field == "used" else field)
    elif isinstance(value, (QuotaExceeded, ModelNotAllowed)):
        yield REASON, reason(value)
        facts = value.as_dict()
        if "limit" in facts:
            yield LIMIT, facts["limit"]
        for fact in _FACTS:
            if facts.get(fact) is not None:
                yield f"quotaguard.{fact}", facts[fact]
    elif field == "in_full" and isinstance(value, int):
        yield "quotaguard.in_full.usd", value / NANO
    elif isinstance(value, (str, bool, int, float)):
        yield _NAMES.get(f"{kind}.{field}") or _NAMES.get(field, f"quotaguard.{field}"), value


def usage_facts(usage: Usage, before: str = "") -> Iterator[tuple[str, Value]]:
    """Tokens and cost that were used; or, of an estimate, its ``quotaguard.reserved.`` ones."""
    if before:
        yield f"quotaguard.{before}.input_tokens", usage.input_tokens
        yield f"quotaguard.{before}.output_tokens", usage.output_tokens
        return
    for count, name in _USAGE.items():
        yield name, getattr(usage, count)
    if usage.nano_usd is not None:
        yield COST, usage.nano_usd / NANO


def reason(error: BaseException) -> str:
    """Why a call was refused, as a word: ``quota_exceeded``, ``request_too_large``, ..."""
    return str(getattr(error, "code", None) or type(error).__name__)
