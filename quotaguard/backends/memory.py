"""The ledger in this process: for notebooks, tests and single-process servers.

One lock, held for microseconds, makes every operation one atomic step for threads and tasks alike.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable
from itertools import count

from ..clock import Clock, SystemClock
from ..core import bucket
from ..core.ledger import Held, Key, State
from ..core.ops import Answer, Op, Park
from ..limits import Limit
from .bells import Bells
from .line import Line
from .places import MemoryPlaces

REMEMBERED = 16_384
"""How many settled reservations, and how many expired ones, are remembered, so that repeating an
operation changes nothing and a late settle still counts."""
SWEPT_AT_ONCE = 64
"""Buckets looked at per operation to see whether they are full and can be forgotten."""
SWEEP_GRAIN = 60.0
"""Seconds; how finely the times at which buckets will be full are told apart."""


class MemoryStore:
    """Dictionaries that forget: a full bucket leaves nothing, a closed reservation only its id."""

    def __init__(self, now: float) -> None:
        self._buckets: dict[Key, State] = {}
        self._limits: dict[Key, Limit] = {}
        self._held: dict[str, Held] = {}
        self._leases: dict[object, OrderedDict[str, Held]] = {}
        """Open reservations by the length of their lease: within one, the first ends first."""
        self._steps_back = count()
        self.soonest = math.inf
        """No lease ends before."""
        self._settled: OrderedDict[str, Held] = OrderedDict()
        self._expired: OrderedDict[str, Held] = OrderedDict()
        self._full_by: dict[int, list[Key]] = {}
        self._looked_until = int(now // SWEEP_GRAIN)
        self._to_look_at: list[Key] = []
        self.bucket = self._buckets.get
        self.held = self._held.get

    def __len__(self) -> int:
        return len(self._buckets)

    def put(self, key: Key, limit: Limit, state: State) -> None:
        if key in self._buckets:
            self._buckets[key] = state
            self._limits[key] = limit
        elif state[0] > 0.0:
            self._buckets[key] = state
            self._limits[key] = limit
            self._look_again(key, limit, state)

    def hold(self, held: Held, lease: float) -> None:
        id = held.answer.id
        if id in self._held:
            self._drop_lease(id)
        self._held[id] = held
        leases = self._leases.get(lease)
        if leases and leases[next(reversed(leases))].expires > held.expires:
            self._leases[lease, next(self._steps_back)] = leases
            leases = None
        if leases is None:
            leases = self._leases[lease] = OrderedDict()
        leases[id] = held
        if held.expires < self.soonest:
            self.soonest = held.expires

    def closed(self, held: Held) -> None:
        id = held.answer.id
        if held.status == "settled":
            if self._expired.pop(id, None) is None:
                self._drop_lease(id)
            held.charges = held.charged = held.marks = ()
            closed = self._settled
        else:
            self._drop_lease(id)
            closed = self._expired
        closed[id] = held
        if len(closed) > REMEMBERED:
            del self._held[closed.popitem(last=False)[0]]

    def _drop_lease(self, id: str) -> None:
        for length, leases in self._leases.items():
            if leases.pop(id, None) is not None:
                if not leases:
                    del self._leases[length]
                return

    def due(self, now: float) -> Iterable[Held]:
        if now < self.soonest:
            return ()
        due: list[Held] = []
        self.soonest = math.inf
        for leases in self._leases.values():
            for held in leases.values():
                if held.expires > now:
                    self.soonest = min(self.soonest, held.expires)
                    break
                due.append(held)
        return due

    def next_expiry(self) -> float:
        """When the next lease ends, infinite if none is open."""
        firsts = [next(iter(leases.values())).expires for leases in self._leases.values()]
        return min(firsts, default=math.inf)

    def open_on(self, key: Key) -> float:
        return sum(
            charged
            for leases in self._leases.values()
            for held in leases.values()
            for charge, charged in zip(held.charges, held.charged, strict=True)
            if (charge.owner, charge.limit.id) == key
        )

    def open_count(self) -> int:
        """How many reservations are open."""
        return sum(len(leases) for leases in self._leases.values())

    def sweep(self, now: float, most: int = SWEPT_AT_ONCE) -> None:
        """Forget buckets that were full when this slot of time began, looking at ``most`` of those
        that may have been: a clock that steps back within the slot cannot tell.
        """
        slot = int(now // SWEEP_GRAIN)
        if slot <= self._looked_until and not self._to_look_at:
            return
        if slot > self._looked_until:
            if slot - self._looked_until > len(self._full_by):
                passed = [s for s in self._full_by if s < slot]
            else:
                passed = list(range(self._looked_until, slot))
            for each in passed:
                self._to_look_at += self._full_by.pop(each, ())
            self._looked_until = slot
        began = min(now, slot * SWEEP_GRAIN)
        while self._to_look_at and most > 0:
            most -= 1
            key = self._to_look_at.pop()
            limit = self._limits[key]
            state = bucket.advance(limit, self._buckets[key], began)
            if state[0] <= 0.0:
                self._forget(key)
            else:
                self._look_again(key, limit, state)

    def _look_again(self, key: Key, limit: Limit, state: State) -> None:
        """Remember to look at a bucket when it should be full, at the earliest in the next slot."""
        seconds = bucket.full_in(limit, *state, state[1])
        if seconds == math.inf:  # a limit of 0: nothing fits, whatever the state
            self._forget(key)
            return
        slot = max(int((state[1] + seconds) // SWEEP_GRAIN), self._looked_until)
        self._full_by.setdefault(slot, []).append(key)

    def _forget(self, key: Key) -> None:
        del self._buckets[key], self._limits[key]


class MemoryBackend:
    """A `Backend` over a `MemoryStore`, with the line of those who wait.

    Args:
        clock: where "now" comes from.
        bells: how those who wait are woken.
    """

    def __init__(self, clock: Clock | None = None, bells: Bells | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._store = MemoryStore(self._clock.now())
        self._places = MemoryPlaces()
        self._bells = Bells(self._clock) if bells is None else bells
        self._rung: list[tuple[str, float]] = []
        self._line = Line(self._store, self._places, lambda *ring: self._rung.append(ring))

    def execute(self, op: Op) -> Answer:
        """Carry out one operation; only `Park` blocks."""
        if isinstance(op, Park):
            self._bells.park(op)
            return None
        return self._carry_out(op)

    async def aexecute(self, op: Op) -> Answer:
        """The same for a task; only `Park` suspends it."""
        if isinstance(op, Park):
            await self._bells.apark(op)
            return None
        return self._carry_out(op)

    def close(self) -> None:
        """Nothing to give back."""

    def __len__(self) -> int:
        """How many buckets take memory: those that are not full, or were not looked at yet."""
        with self._lock:
            return len(self._store)

    @property
    def open_reservations(self) -> int:
        """How many reservations are neither settled nor expired."""
        with self._lock:
            return self._store.open_count()

    def _carry_out(self, op: Op) -> Answer:
        with self._lock:
            now = self._clock.now()
            self._store.sweep(now)
            answer = self._line.carry_out(op, now)
            self._bells.note(op, answer)
            if self._rung:  # perhaps for the very call that is told to wait
                for ring in self._rung:
                    self._bells.ring(*ring)
                self._rung.clear()
            return answer
