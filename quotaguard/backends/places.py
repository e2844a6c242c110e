"""Places in line, in this process."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable
from operator import attrgetter

from ..core.ledger import Key, key_of
from ..core.ops import Charge
from .line import GRACE, Waiter

_place = attrgetter("place")


class MemoryPlaces:
    """Who stands where, in dictionaries (`quotaguard.backends.line.Places`)."""

    def __init__(self) -> None:
        self._waiters: dict[str, Waiter] = {}
        self._lines: dict[Key, list[Waiter]] = {}
        self._wanted: dict[Key, float] = {}
        """What all in a bucket's line will take of it, at least."""
        self._last = 0
        self._looked_at = -math.inf
        self.waiter = self._waiters.get

    def __bool__(self) -> bool:
        return bool(self._waiters)

    def last(self) -> int:
        return self._last

    def keep(self, waiter: Waiter) -> None:
        self._waiters[waiter.id] = waiter
        self._last = max(self._last, waiter.place)

    def forget(self, waiter: Waiter) -> None:
        del self._waiters[waiter.id]

    def stand(self, waiter: Waiter, charge: Charge) -> None:
        key = key_of(charge)
        insort(self._lines.setdefault(key, []), waiter, key=_place)
        self._wanted[key] = self._wanted.get(key, 0.0) + charge.least

    def step_out(self, waiter: Waiter, charge: Charge) -> None:
        key = key_of(charge)
        line = self._lines[key]
        del line[bisect_left(line, waiter.place, key=_place)]
        self._wanted[key] -= charge.least
        if not line:
            del self._lines[key], self._wanted[key]

    def line(self, key: Key) -> Iterable[Waiter]:
        at = 0
        line = self._lines.get(key, [])
        while at < len(line):
            waiter = line[at]
            yield waiter
            if at < len(line) and line[at] is waiter:  # else it has stepped out
                at += 1

    def wanted(self, key: Key, before: float) -> float:
        line = self._lines.get(key)
        if line is None:
            return 0.0
        if line[-1].place < before:
            return self._wanted[key]
        ahead = line[: bisect_left(line, before, key=_place)]
        return sum(each.charges[each.charge(key)].least for each in ahead)

    def overdue(self, until: float) -> Iterable[Waiter]:
        if until < self._looked_at + GRACE:
            return ()
        self._looked_at = until
        return [waiter for waiter in self._waiters.values() if waiter.deadline < until]
