"""The provider's own limits: requests and tokens a minute, told in its headers, refused with 429.

Written apart from `quotaguard`'s own buckets on purpose: a check must not be made
of what it checks.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from .routes import Flavour

_MINUTE = 60.0


class Standing(NamedTuple):
    """How one limit stands after a request was let through or refused."""

    name: str
    """`requests` or `tokens`."""
    limit: int
    remaining: int
    reset: float
    """Seconds until it is full again."""


class Verdict(NamedTuple):
    """Whether a request is let through, and how the limits stand."""

    standings: list[Standing]
    binding: Standing | None = None
    """The limit that refuses; `None`: let through."""
    retry_after: float | None = None
    """Seconds until the same request fits; `None`: let through, or never."""


class RateLimits:
    """Two buckets that refill continuously, held in common by all the provider's clients.

    Args:
        rpm: requests a minute; `None` for no limit.
        tpm: tokens a minute, input and output together; `None` for no limit.
        clock: seconds, never going back.

    Raises:
        ValueError: a limit below one.
    """

    def __init__(self, rpm: int | None, tpm: int | None, clock: Callable[[], float]) -> None:
        for name, limit in (("rpm", rpm), ("tpm", tpm)):
            if limit is not None and limit < 1:
                raise ValueError(f"{name} must be one or more, or None for no limit, not {limit!r}")
        limits = {"requests": rpm, "tokens": tpm}
        self._limits = {name: limit for name, limit in limits.items() if limit is not None}
        self._levels: dict[str, float] = dict(self._limits)
        self._clock = clock
        self._filled = clock()
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._limits)

    def take(self, tokens: int) -> Verdict:
        """Charges one request of so many tokens to both limits, or to neither."""
        amounts = {"requests": 1, "tokens": tokens}
        with self._lock:
            now = self._clock()
            for name, limit in self._limits.items():
                refilled = self._levels[name] + (now - self._filled) * limit / _MINUTE
                self._levels[name] = min(refilled, limit)
            self._filled = now
            waits = {
                name: (amounts[name] - self._levels[name]) * _MINUTE / limit
                for name, limit in self._limits.items()
            }
            slowest = max(waits, key=lambda name: waits[name])
            refused = waits[slowest] > 0
            if not refused:
                for name in self._limits:
                    self._levels[name] -= amounts[name]
            standings = [
                Standing(
                    name,
                    limit,
                    int(self._levels[name]),
                    (limit - self._levels[name]) * _MINUTE / limit,
                )
                for name, limit in self._limits.items()
            ]
        if not refused:
            return Verdict(standings)
        binding = next(standing for standing in standings if standing.name == slowest)
        fits = amounts[slowest] <= binding.limit
        return Verdict(standings, binding, waits[slowest] if fits else None)


def limit_headers(verdict: Verdict, flavour: Flavour) -> dict[str, str]:
    """How the limits stand, in the provider's headers; on a refusal, when to come back."""
    headers: dict[str, str] = {}
    for name, limit, remaining, reset in verdict.standings:
        if flavour in ("openai", "azure"):
            headers[f"x-ratelimit-limit-{name}"] = str(limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(remaining)
            headers[f"x-ratelimit-reset-{name}"] = _duration(reset)
        elif flavour == "anthropic":
            full = datetime.now(timezone.utc) + timedelta(seconds=reset)
            headers[f"anthropic-ratelimit-{name}-limit"] = str(limit)
            headers[f"anthropic-ratelimit-{name}-remaining"] = str(remaining)
            headers[f"anthropic-ratelimit-{name}-reset"] = full.isoformat(timespec="seconds")
    if verdict.retry_after is not None:
        headers["retry-after"] = str(math.ceil(verdict.retry_after))
        if flavour in ("openai", "azure"):
            headers["retry-after-ms"] = str(math.ceil(verdict.retry_after * 1000))
    elif verdict.binding is not None:
        headers["x-should-retry"] = "false"
    return headers


def refusal(verdict: Verdict, model: str, tokens: int) -> str:
    """The message of a refusal."""
    assert verdict.binding is not None
    name, limit, remaining, _ = verdict.binding
    asked = f"Limit {limit}, Requested {tokens if name == 'tokens' else 1}"
    if verdict.retry_after is None:
        return f"Request too large for {model} on {name} per min: {asked}."
    return (
        f"Rate limit reached for {model} on {name} per min: {asked}, Used {limit - remaining}. "
        f"Please try again in {_duration(verdict.retry_after)}."
    )


def _duration(seconds: float) -> str:
    """Seconds as OpenAI writes them: 12ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"
