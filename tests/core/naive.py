"""The ledger once more, naively: it keeps what happened and works everything out from scratch.

Nothing here is shared with `quotaguard.core`: fractions instead of floats, levels instead of
drained amounts, a history for each bucket instead of its state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fractions import Fraction
from typing import Any, NamedTuple

from quotaguard import Limit
from quotaguard.core.ops import Candidate, Change, Owner

Name = tuple[Owner, str]


class Entry(NamedTuple):
    """Something that happened to a bucket."""

    time: Fraction
    limit: Limit
    id: str
    """The reservation."""
    change: Fraction
    """Of the level: negative when something is taken."""
    begins: bool
    """Whether the reservation (or adjustment) was made by it, and not corrected."""


@dataclass
class Booking:
    """A reservation."""

    id: str
    candidate: Candidate
    choice: int
    charged: list[Fraction]
    expires: Fraction
    granted: tuple[Fraction, ...] = ()
    status: str = "open"


@dataclass
class NaiveLedger:
    """All that happened, and what follows from it."""

    time: Fraction
    history: dict[Name, list[Entry]] = field(default_factory=dict)
    bookings: dict[str, Booking] = field(default_factory=dict)
    adjusted: dict[str, list[Fraction]] = field(default_factory=dict)

    # -- levels ----------------------------------------------------------------------------------

    def level(self, owner: Owner, limit: Limit, time: Fraction | None = None) -> Fraction:
        """What a bucket holds, or would hold at another time if nothing else happened."""
        return self._replay(owner, limit, self.time if time is None else time)[0]

    def _replay(self, owner: Owner, limit: Limit, time: Fraction) -> tuple[Fraction, Any]:
        below, since = Fraction(0), time  # how far below full, and since when
        made_in: dict[str, Any] = {}  # the window in which each reservation was made
        for entry in self.history.get((owner, limit.id), []):
            then = _pass_time(entry.limit, below, since, entry.time)
            window = _window(entry.limit, then[1])
            if entry.begins:
                made_in[entry.id] = window
            if entry.begins and entry.change == 0:
                continue  # who takes nothing leaves no trace
            below, since = then
            if entry.change < 0 or made_in[entry.id] == window:
                below = max(Fraction(0), below - entry.change)
        below, since = _pass_time(limit, below, since, time)
        return Fraction(limit.ceiling) - below, since

    def held(self, owner: Owner, limit: Limit) -> Fraction:
        """What open bookings are charged of a bucket."""
        return sum(
            (
                charged
                for booking in self.bookings.values()
                if booking.status == "open"
                for charge, charged in zip(booking.candidate.charges, booking.charged, strict=True)
                if (charge.owner, charge.limit.id) == (owner, limit.id)
            ),
            Fraction(0),
        )

    # -- operations ------------------------------------------------------------------------------

    def fitting(
        self, candidates: tuple[Candidate, ...], outer: str | None, time: Fraction
    ) -> tuple[int, tuple[Fraction, ...]] | None:
        """Which candidate would fit at that time, and what it would be granted."""
        for choice, candidate in enumerate(candidates):
            granted = [
                _grant(self._level_without(outer, c.owner, c.limit, time), c.amount, c.least)
                for c in candidate.charges
            ]
            if None not in granted:
                return choice, tuple(g for g in granted if g is not None)
        return None

    def _level_without(
        self, outer: str | None, owner: Owner, limit: Limit, time: Fraction
    ) -> Fraction:
        """What a bucket would hold if a booking gave back what it holds of it."""
        lender = self._lender(outer)
        entries = self.history.setdefault((owner, limit.id), [])
        before = len(entries)
        for charge, charged in (
            zip(lender.candidate.charges, lender.charged, strict=True) if lender else ()
        ):
            if (charge.owner, charge.limit.id) == (owner, limit.id):
                entries.append(Entry(time, limit, outer or "", charged, begins=False))
        level = self.level(owner, limit, time)
        del entries[before:]
        return level

    def _lender(self, outer: str | None) -> Booking | None:
        booking = self.bookings.get(outer or "")
        return booking if booking is not None and booking.status == "open" else None

    def reserve(
        self, id: str, candidates: tuple[Candidate, ...], lease: float, outer: str | None
    ) -> Booking | None:
        """The booking that was or could be made."""
        if id in self.bookings:
            return self.bookings[id]
        found = self.fitting(candidates, outer, self.time)
        if found is None:
            return None
        choice, granted = found
        lender = self._lender(outer)
        if lender is not None:
            self._correct(lender, [Fraction(0)] * len(lender.charged))
            lender.charged = [Fraction(0)] * len(lender.charged)
        booking = Booking(
            id, candidates[choice], choice, list(granted), self.time + Fraction(lease)
        )
        booking.granted = granted
        for charge, amount in zip(booking.candidate.charges, granted, strict=True):
            entries = self.history.setdefault((charge.owner, charge.limit.id), [])
            entries.append(Entry(self.time, charge.limit, id, -amount, begins=True))
        self.bookings[id] = booking
        return booking

    def settle(self, id: str, amounts: tuple[float, ...] | None) -> bool:
        """Whether this was the settle that counted."""
        booking = self.bookings.get(id)
        if booking is None or booking.status == "settled":
            return False
        used = booking.granted if amounts is None else tuple(map(Fraction, amounts))
        self._close(booking, list(used), "settled")
        return True

    def adjust(self, id: str, changes: tuple[Change, ...]) -> list[Fraction]:
        """What each bucket was given; an id that is known gives nothing more."""
        if id not in self.adjusted:
            self.adjusted[id] = []
            for owner, limit, amount in changes:
                missing = Fraction(limit.ceiling) - self.level(owner, limit)
                given = min(missing, Fraction(amount)) if math.isfinite(amount) else missing
                entries = self.history.setdefault((owner, limit.id), [])
                entries.append(Entry(self.time, limit, id, given, begins=True))
                self.adjusted[id].append(given)
        return self.adjusted[id]

    def release(self, id: str) -> None:
        """Give an open booking back."""
        booking = self.bookings.get(id)
        if booking is not None and booking.status == "open":
            self._close(booking, [Fraction(0)] * len(booking.charged), "settled")

    def renew(self, id: str, lease: float) -> bool:
        """Whether the booking is open, and so goes on."""
        booking = self.bookings.get(id)
        if booking is None or booking.status != "open":
            return False
        booking.expires = self.time + Fraction(lease)
        return True

    def expire(self) -> None:
        """End the leases whose time has come."""
        for booking in list(self.bookings.values()):
            if booking.status == "open" and booking.expires <= self.time:
                kept = []
                for charge, charged in zip(booking.candidate.charges, booking.charged, strict=True):
                    rule = charge.limit.on_expire
                    rest = {"keep_all": charged, "return_all": Fraction(0)}
                    kept.append(rest.get(rule, min(charged, Fraction(charge.keep))))
                self._close(booking, kept, "expired")

    def _close(self, booking: Booking, amounts: list[Fraction], status: str) -> None:
        self._correct(booking, amounts)
        booking.charged, booking.status = amounts, status

    def _correct(self, booking: Booking, amounts: list[Fraction]) -> None:
        for charge, amount, charged in zip(
            booking.candidate.charges, amounts, booking.charged, strict=True
        ):
            change = charged - amount
            entries = self.history.setdefault((charge.owner, charge.limit.id), [])
            entries.append(Entry(self.time, charge.limit, booking.id, change, begins=False))


def _pass_time(
    limit: Limit, below: Fraction, since: Fraction, time: Fraction
) -> tuple[Fraction, Fraction]:
    """A bucket that is below full refills as time goes forward; time that goes back does nothing
    until it has caught up. A full one has no memory of time.
    """
    if below == 0:
        return below, time
    if time <= since:
        return below, since
    if limit.is_window:
        return (
            (below, since) if _window(limit, time) == _window(limit, since) else (Fraction(0), time)
        )
    refilled = (time - since) * Fraction(limit.amount) / Fraction(limit.period)
    return max(Fraction(0), below - refilled), time


def _window(limit: Limit, time: Fraction) -> Any:
    """What tells one calendar window of a UTC limit from another."""
    if not limit.is_window:
        return None
    day = datetime.fromtimestamp(int(time // 1), timezone.utc)
    week = day.isocalendar()
    return {
        "day": (day.year, day.month, day.day),
        "week": (week.year, week.week),
        "month": (day.year, day.month),
    }[str(limit.period)]


def _grant(level: Fraction, amount: float, least: float) -> Fraction | None:
    """All of the amount, or what there is if that is at least the least; nothing always fits."""
    if amount == 0 or amount <= level:
        return Fraction(amount)
    return max(level, Fraction(least)) if least <= level else None
