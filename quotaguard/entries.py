"""One call as the journal keeps it: whose, which model, what it used and cost, or why it was
refused. No prompt text and no key is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

from .errors import ModelNotAllowed, QuotaExceeded
from .events import Adjusted, Event, FellBack, Refused, Settled, Waiting
from .usage import Usage

_REMEMBERED = 10_000
"""Calls of which something was told before they are over; a call that is never over is forgotten
when there are more."""


_NOTHING = Usage()


@dataclass(frozen=True, slots=True)
class Entry:
    """One call that was served or refused, or one adjustment by hand.

    Attributes:
        time: when it was over, in seconds since the epoch.
        id: the reservation's id, as in events and receipts, or the adjustment's.
        outcome: ``"served"``, ``"refused"`` or ``"adjusted"``.
        user, org, tier: whose it is; the user hashed if the guard was told to.
        requested: the model that was asked for; None for calls without one.
        served: the model that served it.
        reason: of a refusal: ``"quota_exceeded"``, ``"request_too_large"`` or
            ``"model_not_allowed"``.
        limit: the limit that refused it, or would have (see ``observed``), as text.
        because: why the model asked for did not serve it; None if it did.
        observed: what a guard that only observes would have done with it: ``"refused"``,
            ``"delayed"`` or ``"downgraded"``.
        began: when it was admitted, in seconds since the epoch; None: it was not.
        waited: seconds that it stood in line.
        reserved: what it was estimated to use, with what that costs where a price is known.
        stated: whether the request stated the most that its answer might have; None: it is not
            known, or a guess was reserved for it, which alone refuses nothing.
        used: what it used, with its cost where a price is known; None: nobody can tell, it was
            charged as reserved.
        in_full: nano-dollars that the usage costs with the model asked for; None: unknown.
        by: who adjusted, as they said.
        changes: of an adjustment: the limits, with what each bucket was given (negative: what was
            taken) and what it had then, in units of its metric.
    """

    time: float
    id: str
    outcome: str
    user: str | None = None
    org: str | None = None
    tier: str | None = None
    requested: str | None = None
    served: str | None = None
    reason: str | None = None
    limit: str | None = None
    because: str | None = None
    observed: str | None = None
    began: float | None = None
    waited: float = 0.0
    reserved: Usage = _NOTHING
    used: Usage | None = None
    in_full: int | None = None
    stated: bool | None = None
    by: str | None = None
    changes: tuple[tuple[str, float, float], ...] = ()

    @property
    def charged(self) -> Usage:
        """What a served call was charged: what it used, or what was reserved if nobody can tell."""
        if self.outcome != "served":
            return Usage(nano_usd=0)
        used = self.reserved if self.used is None else self.used
        if used.nano_usd is None and not any(used.counts):  # nothing was sent
            return used._replace(nano_usd=0)
        return used

    @property
    def saved(self) -> int | None:
        """Nano-dollars that it would have cost more without limits; None: unknown.

        A refused call: what it was estimated to cost. A call that another model served: what it
        would have cost with the model asked for, minus what it cost; negative if that was dearer.
        """
        if self.outcome == "refused":
            return self.reserved.nano_usd
        if self.because is None:
            return 0
        paid = self.charged.nano_usd
        return None if paid is None or self.in_full is None else self.in_full - paid

    def as_dict(self) -> dict[str, Any]:
        """Its facts as JSON values, without those that say nothing."""
        said: dict[str, Any] = {"time": self.time}
        for name in _NAMES:
            value = getattr(self, name)
            if isinstance(value, Usage):
                said[name] = _counts(value)
            elif value is not None and value != ():
                said[name] = value
        return said

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Entry:
        """The entry that `as_dict` was made from; keys that it does not know are left out.

        Raises:
            ValueError: it is no entry.
        """
        try:
            known = {name: said[name] for name in _NAMES if name in said}
            for name in ("reserved", "used"):
                if name in known:
                    known[name] = _usage(known[name])
            if "changes" in known:
                known["changes"] = tuple(
                    (str(a), float(b), float(c)) for a, b, c in said["changes"]
                )
            entry = cls(float(said["time"]), **known)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no entry of a journal: {error!r}") from error
        entry._check()
        return entry

    def _check(self) -> None:
        texts = [getattr(self, name) for name in _TEXTS]
        if not all(text is None or isinstance(text, str) for text in texts):
            raise ValueError("no entry of a journal: a name is no text")
        if self.outcome not in ("served", "refused", "adjusted"):
            raise ValueError(f"no entry of a journal: its outcome is {self.outcome!r}")
        numbers = [*self.reserved, *(self.used or ()), self.in_full, self.waited, self.began]
        if self.stated not in (None, True, False):
            raise ValueError(f"no entry of a journal: stated is {self.stated!r}")
        if not all(n is None or type(n) in (int, float) for n in numbers):
            raise ValueError("no entry of a journal: a count is no number")
        if not all(
            type(n) is int for n in (*self.reserved.counts, *(self.used or _NOTHING).counts)
        ):
            raise ValueError("no entry of a journal: a count is no whole number")


_NAMES = tuple(field.name for field in fields(Entry))[1:]
_COUNTS = Usage._fields
_TEXTS = tuple(field.name for field in fields(Entry) if str(field.type).startswith("str"))


def _usage(said: Mapping[str, int]) -> Usage:
    return Usage(**{name: n for name, n in said.items() if name in _COUNTS})


def _counts(usage: Usage) -> dict[str, int]:
    counts = {name: n for name, n in zip(_COUNTS[:7], usage.counts, strict=True) if n}
    return counts if usage.nano_usd is None else counts | {"nano_usd": usage.nano_usd}


class Bookkeeper:
    """A hook that makes entries of a guard's events.

    Args:
        take: what is given each entry.
        now: seconds since the epoch.
    """

    def __init__(self, take: Callable[[Entry], object], now: Callable[[], float]) -> None:
        self._take = take
        self._now = now
        self._so_far: dict[str, tuple[str | None, str | None]] = {}
        """Reason and limit of what was in a call's way, by the call's id."""

    def __call__(self, event: Event, /) -> None:
        """Take note of an event."""
        if isinstance(event, Settled):
            self._take(self._settled(event))
        elif isinstance(event, Refused):
            if event.enforced:
                self._take(self._refused(event))
            else:
                self._note(event, *_why(event))
        elif isinstance(event, (FellBack, Waiting)):
            self._note(event, None, event.limit)
        elif isinstance(event, Adjusted):
            self._take(self._adjusted(event))

    def _note(self, event: Event, reason: str | None, limit: str | None) -> None:
        so_far = self._so_far
        so_far[event.id] = reason, limit
        if len(so_far) > _REMEMBERED:
            with suppress(RuntimeError, StopIteration):  # other threads change it too
                so_far.pop(next(iter(so_far)), None)

    def _settled(self, event: Settled) -> Entry:
        reason, limit = self._so_far.pop(event.id, (None, None))
        seen = event.observed is not None
        return Entry(
            self._now(),
            event.id,
            "served",
            *event.identity,
            requested=event.model,
            served=event.served,
            reason=reason if seen else None,
            limit=limit if seen else None,
            because=event.because,
            observed=event.observed,
            began=event.began,
            waited=event.waited,
            reserved=event.reserved,
            used=event.used,
            in_full=event.in_full,
            stated=event.stated or None,
        )

    def _refused(self, event: Refused) -> Entry:
        self._so_far.pop(event.id, None)
        reason, limit = _why(event)
        return Entry(
            self._now(),
            event.id,
            "refused",
            *event.identity,
            requested=event.model,
            reason=reason,
            limit=limit,
            waited=event.waited,
            reserved=event.estimated,
            stated=event.stated or None,
        )

    def _adjusted(self, event: Adjusted) -> Entry:
        changes = tuple(zip(event.limits, event.given, event.left, strict=True))
        return Entry(
            self._now(), event.id, "adjusted", *event.identity, by=event.by, changes=changes
        )


def _why(event: Refused) -> tuple[str | None, str | None]:
    error = event.error
    if isinstance(error, QuotaExceeded):
        return error.code, error.limit
    return (error.code, None) if isinstance(error, ModelNotAllowed) else (None, None)
