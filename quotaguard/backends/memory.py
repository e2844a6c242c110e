"""The ledger in this process: for notebooks, tests and single-process servers.

One lock, held for microseconds, makes every operation one atomic step for threads and tasks alike.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

from ..clock import Clock, SystemClock
from ..core import bucket
from ..core.ledger import Held, Key, Ledger, State, keys_of
from ..core.ops import (
    Adjust,
    Answer,
    Decision,
    Op,
    Park,
    Peek,
    Queued,
    Refusal,
    Release,
    Renew,
    Reserve,
    Settle,
)
from ..limits import Limit
from .line import Line

if TYPE_CHECKING:
    import asyncio

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
    """A `Backend` over a `MemoryStore`, with the line of those who wait."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._store = MemoryStore(self._clock.now())
        self._ledger = Ledger(self._store)
        self._line = Line()

    def execute(self, op: Op) -> Answer:
        """Carry out one operation; only `Park` blocks."""
        if isinstance(op, Park):
            bell = threading.Event()
            if self._listen(op, bell.set):
                self._clock.wait(bell, op.seconds)
            return None
        return self._carry_out(op)

    async def aexecute(self, op: Op) -> Answer:
        """The same for a task; only `Park` suspends it."""
        if isinstance(op, Park):
            import asyncio  # whoever awaits has loaded it

            bell = asyncio.Event()
            loop = asyncio.get_running_loop()
            if self._listen(op, lambda: _call_soon(loop, bell)):
                await self._clock.wait_async(bell, op.seconds)
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
            if now >= self._store.soonest or len(self._line):
                freed = self._ledger.expire(now)
                for dead in self._line.overdue(now):
                    freed += self._line.leave(dead)
                self._move_up(freed, now)
            if type(op) is Reserve:
                return self._reserve(op, now)
            if type(op) is Settle:
                settled = self._ledger.settle(op, now)
                if settled.first and len(self._line):
                    self._move_up(self._keys(op.id), now)
                return settled
            if type(op) is Renew:
                return self._ledger.renew(op, now)
            if type(op) is Release:
                self._move_up([*self._line.leave(op.id), *self._ledger.release(op.id, now)], now)
                return None
            if type(op) is Peek:
                return self._ledger.peek(op, now)
            if type(op) is Adjust:
                adjusted = self._ledger.adjust(op, now)
                self._move_up([(owner, limit.id) for owner, limit, _ in op.changes], now)
                return adjusted
        raise TypeError(f"the memory backend does not know the operation {op!r}")

    def _reserve(self, op: Reserve, now: float) -> Decision:
        answer = self._ledger.reserve(op, now, self._line.ahead(op))
        if isinstance(answer, Refusal):
            seconds = answer.wait()
            if 0.0 < op.patience >= seconds < math.inf:
                self._line.join(op, answer, now)
                return Queued(answer, min(seconds, max(0.0, self._store.next_expiry() - now)))
        if len(self._line):
            self._move_up(self._gone(op), now)
        return answer

    def _gone(self, op: Reserve) -> list[Key]:
        """Whoever has its answer steps out of line; answers with the buckets that may have room
        now: those whose line moved up, and those of the outer call that it replaced.
        """
        outer = self._keys(op.instead_of) if op.instead_of is not None else []
        return self._line.leave(op.id) + outer

    def _keys(self, id: str) -> list[Key]:
        held = self._store.held(id)
        return keys_of(held) if held is not None else []

    def _move_up(self, keys: Iterable[Key], now: float) -> None:
        """Buckets got something back, or lost somebody who waited: admit whom that lets in.

        Whoever is first and still has no room is woken if it has to wait less than it was told.
        """
        keys = set(keys)
        while (waiter := self._line.first(keys)) is not None:
            answer = self._ledger.reserve(waiter.op, now, self._line.ahead(waiter.op))
            if isinstance(answer, Refusal):
                self._line.stand(waiter, answer)
                keys.difference_update(waiter.needs)
                if now + answer.wait() < waiter.due:
                    waiter.ring()
            else:
                keys.update(self._gone(waiter.op))
                waiter.ring()

    def _listen(self, op: Park, ring: Callable[[], None]) -> bool:
        """Whether there is something to wait for; if so ``ring`` is called when it comes."""
        with self._lock:
            waiter = self._line.get(op.id)
            if waiter is None or waiter.rung:
                return False
            waiter.bell = ring
            return True


def _call_soon(loop: asyncio.AbstractEventLoop, bell: asyncio.Event) -> None:
    with suppress(RuntimeError):  # its loop is closed: nobody listens any more
        loop.call_soon_threadsafe(bell.set)
