"""The ledger in this process: for notebooks, tests and single-process servers.

One lock, held for microseconds, makes every operation one atomic step for threads and tasks alike.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable

from ..clock import Clock, SystemClock
from ..core import bucket
from ..core.ledger import FULL, Held, Key, Ledger, State, keys_of
from ..core.ops import (
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
    Settled,
)
from ..limits import Limit
from .line import Line

REMEMBERED = 65_536
"""Closed reservations whose ids are remembered, so that repeating an operation changes nothing."""
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
        self._leases: dict[float, OrderedDict[str, Held]] = {}
        """Open reservations by the length of their lease: within one, the first ends first."""
        self._closed: OrderedDict[str, Held] = OrderedDict()
        self._full_by: dict[int, list[Key]] = {}
        self._looked_until = int(now // SWEEP_GRAIN)
        self._to_look_at: list[Key] = []

    def __len__(self) -> int:
        return len(self._buckets)

    def bucket(self, key: Key) -> State | None:
        return self._buckets.get(key)

    def put(self, key: Key, limit: Limit, state: State) -> None:
        if key not in self._buckets:
            if state[0] <= 0.0:
                return
            self._look_again(key, limit, state)
        self._buckets[key] = state
        self._limits[key] = limit

    def held(self, id: str) -> Held | None:
        return self._held.get(id)

    def hold(self, held: Held, lease: float) -> None:
        id = held.answer.id
        if id in self._held:
            self._drop_lease(id)
        self._held[id] = held
        leases = self._leases.get(lease)
        if leases is None:
            leases = self._leases[lease] = OrderedDict()
        leases[id] = held

    def closed(self, held: Held) -> None:
        id = held.answer.id
        self._drop_lease(id)
        self._closed[id] = held
        self._closed.move_to_end(id)
        if len(self._closed) > REMEMBERED:
            del self._held[self._closed.popitem(last=False)[0]]

    def _drop_lease(self, id: str) -> None:
        for length, leases in self._leases.items():
            if leases.pop(id, None) is not None:
                if not leases:
                    del self._leases[length]
                return

    def due(self, now: float) -> Iterable[Held]:
        return [held for leases in self._leases.values() for held in _while_due(leases, now)]

    def next_expiry(self) -> float:
        """When the next lease ends, infinite if none is open."""
        firsts = [next(iter(leases.values())).expires for leases in self._leases.values()]
        return min(firsts, default=float("inf"))

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
        """Forget buckets that have become full, looking at ``most`` of those that may have."""
        slot = int(now // SWEEP_GRAIN)
        if slot > self._looked_until:
            if slot - self._looked_until > len(self._full_by):
                passed = [s for s in self._full_by if s < slot]
            else:
                passed = list(range(self._looked_until, slot))
            for each in passed:
                self._to_look_at += self._full_by.pop(each, ())
            self._looked_until = slot
        while self._to_look_at and most > 0:
            most -= 1
            key = self._to_look_at.pop()
            limit = self._limits[key]
            state = bucket.advance(limit, *self._buckets[key], now)
            if state[0] <= 0.0:
                del self._buckets[key], self._limits[key]
            else:
                self._look_again(key, limit, state)

    def _look_again(self, key: Key, limit: Limit, state: State) -> None:
        """Remember to look at a bucket when it should be full, at the earliest in the next slot."""
        seconds = bucket.full_in(limit, *state, state[1])
        if seconds == float("inf"):
            return
        slot = max(int((state[1] + seconds) // SWEEP_GRAIN), self._looked_until)
        self._full_by.setdefault(slot, []).append(key)


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
            expired = self._ledger.expire(now)
            self._store.sweep(now)
            for dead in self._line.overdue(now) if len(self._line) else ():
                expired += self._line.leave(dead)
            if expired:
                self._move_up(expired, now)
            if type(op) is Reserve:
                return self._reserve(op, now)
            if type(op) is Settle:
                settled = self._ledger.settle(op, now)
                if settled.first and len(self._line):
                    held = self._store.held(op.id)
                    self._move_up(keys_of(held) if held else (), now)
                return settled
            if type(op) is Renew:
                return self._ledger.renew(op, now)
            if type(op) is Release:
                self._move_up([*self._line.leave(op.id), *self._ledger.release(op.id, now)], now)
                return None
            if type(op) is Peek:
                return self._ledger.peek(op, now)
        raise TypeError(f"the memory backend does not know the operation {op!r}")

    def _reserve(self, op: Reserve, now: float) -> Decision:
        if not len(self._line):
            answer = self._ledger.reserve(op, now)
        else:
            answer = self._ledger.reserve(op, now, self._line.ahead(op))
        if not isinstance(answer, Refusal):
            self._move_up(self._line.leave(op.id), now)
            return answer
        seconds = answer.wait()
        if seconds > op.patience or op.patience <= 0.0:
            self._move_up(self._line.leave(op.id), now)
            return answer
        self._line.join(op, answer, now)
        return Queued(answer, min(seconds, max(0.0, self._store.next_expiry() - now)))

    def _move_up(self, keys: Iterable[Key], now: float) -> None:
        """Buckets got something back, or lost somebody who waited: admit whom that lets in.

        Whoever is first and still has no room is woken to work out anew how long it will take.
        """
        keys = set(keys)
        told: set[int] = set()
        while keys and len(self._line):
            waiter = self._line.first(keys)
            if waiter is None:
                return
            answer = self._ledger.reserve(waiter.op, now, self._line.ahead(waiter.op))
            if isinstance(answer, Refusal):
                keys -= set(waiter.needs)
            else:
                keys |= set(self._line.leave(waiter.op.id))
            if waiter.order not in told:
                told.add(waiter.order)
                waiter.ring()

    def _listen(self, op: Park, ring: Callable[[], None]) -> bool:
        """Whether there is something to wait for; if so ``ring`` is called when it comes."""
        with self._lock:
            waiter = self._line.get(op.id)
            if waiter is None or waiter.rung:
                return False
            waiter.bell = ring
            return True


def _while_due(leases: OrderedDict[str, Held], now: float) -> Iterable[Held]:
    for held in leases.values():
        if held.expires > now:
            return
        yield held


def _call_soon(loop: asyncio.AbstractEventLoop, bell: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(bell.set)
