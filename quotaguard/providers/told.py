"""What providers say of their own limits in the headers of their answers, whoever they are."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

MINUTE, DAY = 60.0, 86_400.0
"""Seconds."""


class Quota(NamedTuple):
    """How one of a provider's limits stands."""

    metric: str
    """``"requests"``, ``"tokens"``, ``"input_tokens"`` or ``"output_tokens"``."""
    limit: float
    """The most in a period, above 0."""
    remaining: float | None
    """What was left when the provider looked, rounded down."""
    period: float = MINUTE
    """Seconds in which the limit comes back."""
    cached: float = 1.0
    """What a token read from the prompt cache counts."""


class Told(NamedTuple):
    """What one answer says."""

    quotas: tuple[Quota, ...] = ()
    again: float | None = None
    """Seconds after which to come back; None: it does not say."""


def number(headers: Mapping[str, str], name: str) -> float | None:
    """A header's number >= 0; None if it is missing or anything else."""
    try:
        value = float(headers.get(name, ""))
    except ValueError:
        return None
    return value if 0.0 <= value < math.inf else None


_UNITS = {"d": DAY, "h": 3600.0, "m": MINUTE, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|d|h|m|s)", re.ASCII)
_DURATION = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)


def duration(text: str) -> float | None:
    """Seconds of a text such as ``"1m2.5s"``, ``"6ms"`` or ``"30"``; None if it is none, or longer
    than two days, which is no time until a limit is back.
    """
    seconds: float | None = None
    if _DURATION.fullmatch(text) is not None:
        seconds = sum(float(count) * _UNITS[unit] for count, unit in _PART.findall(text))
    elif text.replace(".", "", 1).isdecimal():
        seconds = float(text)
    return seconds if seconds is not None and seconds <= 2 * DAY else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that ``retry-after-ms`` or ``retry-after`` says; None if neither says any.

    A date counts from the ``date`` of the same answer: the provider's clock may be wrong by as much
    as it likes (https://www.rfc-editor.org/rfc/rfc9110#field.retry-after).
    """
    milliseconds = number(headers, "retry-after-ms")
    if milliseconds is not None:
        return milliseconds / 1000.0
    seconds = number(headers, "retry-after")
    if seconds is not None:
        return seconds
    from email.utils import parsedate_to_datetime  # an eighth of what importing this package takes

    try:
        then = parsedate_to_datetime(headers.get("retry-after", ""))
        now = parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, (then - now).total_seconds())
    except (TypeError, ValueError):  # no dates, or one with and one without a time zone
        return None
