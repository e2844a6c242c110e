"""The line of those who wait for buckets of one process: first come, first served per bucket."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Iterable, Mapping
from itertools import count, takewhile

from ..core.ledger import NOBODY_AHEAD, Key
from ..core.ops import Refusal, Reserve, longest

GRACE = 1.0
"""Seconds that a waiter may be late in stepping out of line before it is taken for dead, and how
often the dead are looked for."""


class Waiter:
    """A call in line for the buckets that had no room for it."""

    __slots__ = ("bell", "deadline", "due", "needs", "op", "order", "rung")

    def __init__(self, op: Reserve, order: int) -> None:
        self.op = op
        self.order = order
        self.needs: dict[Key, float] = {}
        """The buckets it stands in line for, with the least that it will take of each."""
        self.due = math.inf
        """When there should be room for it, as far as it was told."""
        self.deadline = math.inf
        self.bell: Callable[[], None] | None = None
        self.rung = False

    def __lt__(self, other: Waiter) -> bool:
        return self.order < other.order

    def ring(self) -> None:
        """Tell it that it is worth trying again."""
        self.rung = True
        if self.bell is not None:
            self.bell()


class Line:
    """Who waits for what, in order of arrival.

    A waiter stands only in the lines of the buckets that are short for it, so nobody waits for a
    bucket because of somebody who waits for another one.
    """

    def __init__(self) -> None:
        self._waiters: dict[str, Waiter] = {}
        self._lines: dict[Key, list[Waiter]] = {}
        self._wanted: dict[Key, float] = {}
        """What all in a bucket's line will take of it, at least."""
        self._arrivals = count()
        self._looked_at = -math.inf

    def __len__(self) -> int:
        return len(self._waiters)

    def get(self, id: str) -> Waiter | None:
        """The waiter of that id."""
        return self._waiters.get(id)

    def ahead(self, op: Reserve) -> Mapping[Key, float]:
        """For the buckets of ``op`` that have a line: what those before it will take of them."""
        if not self._lines:
            return NOBODY_AHEAD
        me = self._waiters.get(op.id)
        taken: dict[Key, float] = {}
        for candidate in op.candidates:
            for charge in candidate.charges:
                key = (charge.owner, charge.limit.id)
                line = self._lines.get(key)
                if line is None or key in taken:
                    continue
                if me is None:
                    taken[key] = self._wanted[key]
                else:
                    before = takewhile(lambda waiter: waiter.order < me.order, line)
                    taken[key] = sum(waiter.needs[key] for waiter in before)
        return taken

    def join(self, op: Reserve, refusal: Refusal, now: float) -> None:
        """Stand in line for what is short; who stood already keeps its place."""
        waiter = self._waiters.get(op.id)
        if waiter is None:
            waiter = self._waiters[op.id] = Waiter(op, next(self._arrivals))
        waiter.op = op
        waiter.due = now + refusal.wait()
        waiter.deadline = now + op.patience
        waiter.rung = False
        self.stand(waiter, refusal)

    def stand(self, waiter: Waiter, refusal: Refusal) -> None:
        """Line up for the buckets that are short now, for the candidate that should fit first."""
        self._step_out(waiter)
        for shortfall in min(refusal.shortfalls, key=lambda short: longest(short).wait):
            charge = shortfall.charge
            key = (charge.owner, charge.limit.id)
            waiter.needs[key] = charge.least
            insort(self._lines.setdefault(key, []), waiter)
            self._wanted[key] = self._wanted.get(key, 0.0) + charge.least

    def leave(self, id: str) -> list[Key]:
        """Step out of line; answers with the buckets whose line moved up."""
        waiter = self._waiters.pop(id, None)
        return self._step_out(waiter) if waiter is not None else []

    def overdue(self, now: float) -> list[str]:
        """Those whose patience ended a while ago: they died without stepping out."""
        if now < self._looked_at + GRACE or not self._waiters:
            return []
        self._looked_at = now
        return [id for id, w in self._waiters.items() if w.deadline + GRACE < now]

    def first(self, keys: Iterable[Key]) -> Waiter | None:
        """Of those who stand first in the line of one of these buckets, the one that came first."""
        return min((self._lines[key][0] for key in keys if key in self._lines), default=None)

    def _step_out(self, waiter: Waiter) -> list[Key]:
        needs, waiter.needs = waiter.needs, {}
        for key, need in needs.items():
            line = self._lines[key]
            line.remove(waiter)
            self._wanted[key] -= need
            if not line:
                del self._lines[key], self._wanted[key]
        return list(needs)
