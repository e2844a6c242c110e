"""Places in line: who stands where, and whose turn comes when."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Protocol, TypeAlias

from ..core.ledger import Key
from ..core.ops import Charge

GRACE = 0.25
"""Seconds that a waiter may be late in asking again before it is taken for dead: then those behind
it pass. If it comes after all, it is in its old place. It must cover what a busy process needs to
wake up, and a curve's jitter; and it is what a death costs those behind."""
Turn: TypeAlias = tuple[float, float]
"""What a line is sorted by; of two that are alike, who came first."""


class Spot:
    """A waiter's place in the line of one bucket."""

    __slots__ = ("charge", "due", "key", "standing", "start", "turn")

    def __init__(self, charge: Charge, turn: Turn, start: float) -> None:
        self.charge = charge
        """What it waits for there; ``least`` is what it will take."""
        self.key: Key = (charge.owner, charge.limit.id)
        self.turn = turn
        self.start = start
        """Of a bucket that is shared fairly: where its flow stood; see `Places.start`."""
        self.due = 0.0
        """When the bucket should have room for it."""
        self.standing = False
        """Whether it stands there; if not, its turn is kept."""


class Waiter:
    """A call in line for the buckets that had no room for it."""

    __slots__ = ("back_by", "deadline", "flow", "id", "place", "spots", "weight")

    def __init__(self, id: str, place: float, flow: str, weight: float) -> None:
        self.id = id
        self.place = place
        """When it came, in seconds; later than whoever came before."""
        self.flow = flow
        """For whom it waits, where a bucket is shared fairly among flows."""
        self.weight = weight
        """How large a share the flow has, in proportion to the others'."""
        self.spots: dict[Key, Spot] = {}
        self.back_by = math.inf
        """When it will ask again."""
        self.deadline = math.inf
        """When its patience ends."""

    def standing(self) -> list[Spot]:
        """Where it stands."""
        return [spot for spot in self.spots.values() if spot.standing]

    def due(self) -> float:
        """When all of these buckets should have room for it."""
        return max((spot.due for spot in self.spots.values() if spot.standing), default=0.0)


class Places(Protocol):
    """Who stands where, for `quotaguard.backends.line.Line`.

    A bucket that is shared fairly serves flows by start-time fair queueing (Goyal, Vin and Cheng,
    1996): a call starts where its flow's last one finished, at the earliest where the line is now;
    it finishes what it takes, over the flow's weight, later; who starts first is served first.
    """

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        ...

    def waiter(self, id: str, /) -> Waiter | None:
        """The waiter of that id."""
        ...

    def next_place(self, now: float) -> float:
        """The place of who comes now: the time, or just after the last one's."""
        ...

    def keep(self, waiter: Waiter) -> None:
        """Note a new or a changed waiter."""
        ...

    def forget(self, waiter: Waiter) -> None:
        """It is gone; it stands in no line any more."""
        ...

    def stand(self, waiter: Waiter, spot: Spot) -> None:
        """Let it stand in the line of a bucket."""
        ...

    def step_out(self, waiter: Waiter, spot: Spot) -> None:
        """Take it out of the line of a bucket."""
        ...

    def line(self, key: Key) -> Iterable[Waiter]:
        """Those in line for a bucket, in order; it may be changed meanwhile."""
        ...

    def wanted(self, key: Key, before: Turn) -> float:
        """What those in line for a bucket whose turn is earlier will take of it, at least."""
        ...

    def overdue(self, until: float) -> Iterable[Waiter]:
        """Those whose patience ended before that."""
        ...

    def start(self, key: Key, flow: str) -> float:
        """Where the next call of a flow starts in the line of a bucket; 0 if nobody waits there."""
        ...

    def finish(self, key: Key, flow: str, at: float) -> None:
        """The last call of a flow finishes there, if anybody waits for the bucket."""
        ...

    def serve(self, key: Key, start: float) -> None:
        """A call that starts there was admitted."""
        ...


NEXT = 1e-6
"""Seconds between two who come at the same time: doubles tell them apart."""


class _Queue:
    """The line of one bucket."""

    __slots__ = ("finishes", "served", "turns", "waiters", "wanted")

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.waiters: list[Waiter] = []
        self.wanted = 0.0
        """What all of them will take, at least."""
        self.served = 0.0
        """The latest start of those that were admitted."""
        self.finishes: dict[str, float] = {}


class MemoryPlaces:
    """`Places` in dictionaries."""

    def __init__(self) -> None:
        self._waiters: dict[str, Waiter] = {}
        self._lines: dict[Key, _Queue] = {}
        self._last = 0.0
        self._looked_at = -math.inf
        self.waiter = self._waiters.get

    def __bool__(self) -> bool:
        return bool(self._waiters)

    def next_place(self, now: float) -> float:
        return max(now, self._last + NEXT)

    def keep(self, waiter: Waiter) -> None:
        self._waiters[waiter.id] = waiter
        self._last = max(self._last, waiter.place)

    def forget(self, waiter: Waiter) -> None:
        self._waiters.pop(waiter.id, None)

    def stand(self, waiter: Waiter, spot: Spot) -> None:
        queue = self._lines.setdefault(spot.key, _Queue())
        insort(queue.turns, spot.turn)
        queue.waiters.insert(bisect_left(queue.turns, spot.turn), waiter)
        queue.wanted += spot.charge.least
        spot.standing = True

    def step_out(self, waiter: Waiter, spot: Spot) -> None:
        queue = self._lines[spot.key]
        at = bisect_left(queue.turns, spot.turn)
        del queue.turns[at], queue.waiters[at]
        queue.wanted -= spot.charge.least
        spot.standing = False
        if not queue.waiters:
            del self._lines[spot.key]

    def line(self, key: Key) -> Iterable[Waiter]:
        queue = self._lines.get(key)
        at = 0
        while queue is not None and at < len(queue.waiters):
            waiter = queue.waiters[at]
            yield waiter
            if at < len(queue.waiters) and queue.waiters[at] is waiter:  # else it has stepped out
                at += 1

    def wanted(self, key: Key, before: Turn) -> float:
        queue = self._lines.get(key)
        if queue is None:
            return 0.0
        if queue.turns[-1] < before:
            return queue.wanted
        ahead = queue.waiters[: bisect_left(queue.turns, before)]
        return sum(each.spots[key].charge.least for each in ahead)

    def overdue(self, until: float) -> Iterable[Waiter]:
        if until < self._looked_at + GRACE:
            return ()
        self._looked_at = until
        return [waiter for waiter in self._waiters.values() if waiter.deadline < until]

    def start(self, key: Key, flow: str) -> float:
        queue = self._lines.get(key)
        return 0.0 if queue is None else max(queue.served, queue.finishes.get(flow, 0.0))

    def finish(self, key: Key, flow: str, at: float) -> None:
        queue = self._lines.get(key)
        if queue is not None:
            queue.finishes[flow] = at
            if len(queue.finishes) > 2 * len(queue.waiters) + 64:  # those of long ago
                queue.finishes = {f: at for f, at in queue.finishes.items() if at > queue.served}

    def serve(self, key: Key, start: float) -> None:
        queue = self._lines.get(key)
        if queue is not None and start > queue.served:
            queue.served = start
