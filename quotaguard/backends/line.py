"""The ledger with a line before it: first come, first served for each bucket.

Pure, as the ledger is: states come from a store, places in line from `Places`, the time is an
argument. The memory backend runs it over dictionaries, SQLite over tables, and the Lua of the Redis
backend is tested against it.

A waiter stands in the lines of the buckets that are short for it, so nobody waits for a bucket
because of somebody who waits for another one. It holds nothing. Others fit into what those before
them in line leave. Everybody in line knows when to ask again; whoever can come earlier is rung for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Protocol

from ..core import bucket
from ..core.ledger import NOBODY_AHEAD, Key, Ledger, Store, key_of
from ..core.ops import (
    Adjust,
    Answer,
    Charge,
    Decision,
    Op,
    Peek,
    Queued,
    Refusal,
    Release,
    Renew,
    Reserve,
    Settle,
    longest,
)
from ..limits import Limit

GRACE = 2.0
"""Seconds that a waiter may be late in asking again before it is taken for dead: then those behind
it pass. If it comes after all, it is in its old place."""
EARLIER = 0.001
"""Seconds; for less nobody is woken."""


class Waiter:
    """A call in line for the buckets that had no room for it."""

    __slots__ = ("back_by", "charges", "deadline", "dues", "id", "place")

    def __init__(self, id: str, place: int) -> None:
        self.id = id
        self.place = place
        self.charges: tuple[Charge, ...] = ()
        """What it stands in line for; ``least`` is what it will take."""
        self.dues: list[float] = []
        """When each of these buckets should have room for it."""
        self.back_by = math.inf
        """When it will ask again."""
        self.deadline = math.inf
        """When its patience ends."""

    def charge(self, key: Key) -> int:
        """Which of its charges is on that bucket."""
        return [key_of(charge) for charge in self.charges].index(key)


class LeaseStore(Store, Protocol):
    """A store that knows when to look at it again."""

    def next_expiry(self) -> float:
        """When the next lease ends, infinite if none is open."""
        ...


class Places(Protocol):
    """Who stands where."""

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        ...

    def waiter(self, id: str, /) -> Waiter | None:
        """The waiter of that id."""
        ...

    def last(self) -> int:
        """The place of who came last; 0 if nobody waits."""
        ...

    def keep(self, waiter: Waiter) -> None:
        """Note a new or a changed waiter."""
        ...

    def forget(self, waiter: Waiter) -> None:
        """It is gone; it stands in no line any more."""
        ...

    def stand(self, waiter: Waiter, charge: Charge) -> None:
        """Let it stand in the line of a bucket."""
        ...

    def step_out(self, waiter: Waiter, charge: Charge) -> None:
        """Take it out of the line of a bucket."""
        ...

    def line(self, key: Key) -> Iterable[Waiter]:
        """Those in line for a bucket, in order; it may be changed meanwhile."""
        ...

    def wanted(self, key: Key, before: float) -> float:
        """What those in line for a bucket with a lower place will take of it, at least."""
        ...

    def overdue(self, until: float) -> Iterable[Waiter]:
        """Those whose patience ended before that."""
        ...


class Line:
    """Carries out operations over a store, for those who wait and those who do not.

    Args:
        ring: called with a waiter's id and the time at which it is to ask again, when that is
            earlier than it was told.
        look: seconds after which who is first asks again in any case, if rings can be lost.
    """

    def __init__(
        self,
        store: LeaseStore,
        places: Places,
        ring: Callable[[str, float], None],
        look: float = math.inf,
    ) -> None:
        self._store = store
        self._ledger = Ledger(store)
        self._places = places
        self._ring = ring
        self._look = look

    def carry_out(self, op: Op, now: float) -> Answer:
        """Do what an operation says and tell those whom it lets in."""
        freed = self._ledger.expire(now)
        if not self._places:
            if type(op) is Reserve:
                return self._reserve(op, now, freed)
            return self._do(op, now, freed)
        for dead in self._places.overdue(now - GRACE):
            freed += self._leave(dead)
        answer = self._reserve(op, now, freed) if type(op) is Reserve else self._do(op, now, freed)
        for key, limit in {key_of(charge): charge.limit for charge in freed}.items():
            self._call_up(key, limit, now)
        return answer

    def _do(self, op: Op, now: float, freed: list[Charge]) -> Answer:
        if type(op) is Settle:
            settled = self._ledger.settle(op, now)
            if settled.first and self._places:
                held = self._store.held(op.id)
                freed += held.charges if held is not None else ()
            return settled
        if type(op) is Renew:
            return self._ledger.renew(op, now)
        if type(op) is Release:
            waiter = self._places.waiter(op.id) if self._places else None
            if waiter is not None:
                freed += self._leave(waiter)
            freed += self._ledger.release(op.id, now)
            return None
        if type(op) is Peek:
            return self._ledger.peek(op, now)
        if type(op) is Adjust:
            adjusted = self._ledger.adjust(op, now)
            freed += [Charge(owner, limit, 0.0, 0.0, 0.0) for owner, limit, _ in op.changes]
            return adjusted
        raise TypeError(f"the ledger does not know the operation {op!r}")

    def _reserve(self, op: Reserve, now: float, freed: list[Charge]) -> Decision:
        waiter, ahead = None, NOBODY_AHEAD
        if self._places:
            waiter = self._places.waiter(op.id)
            ahead = self._ahead(op, waiter, now, freed)
        answer = self._ledger.reserve(op, now, ahead)
        if isinstance(answer, Refusal):
            if 0.0 < op.patience >= answer.at_least() < math.inf:
                return self._join(op, waiter, answer, now, freed)
        elif op.instead_of is not None and self._places:
            outer = self._store.held(op.instead_of)
            freed += outer.charges if outer is not None else ()
        if waiter is not None:
            freed += self._leave(waiter)
        return answer

    def _ahead(
        self, op: Reserve, waiter: Waiter | None, now: float, freed: list[Charge]
    ) -> dict[Key, float]:
        """What those in line before a call will take of its buckets."""
        place = waiter.place if waiter is not None else math.inf
        ahead: dict[Key, float] = {}
        for candidate in op.candidates:
            for charge in candidate.charges:
                key = key_of(charge)
                if key not in ahead:
                    for first in self._places.line(key):
                        if first.id == op.id or first.back_by + GRACE >= now:
                            break
                        freed += self._step_aside(first)
                    ahead[key] = self._places.wanted(key, place)
        return ahead

    def _join(
        self,
        op: Reserve,
        waiter: Waiter | None,
        refusal: Refusal,
        now: float,
        freed: list[Charge],
    ) -> Queued:
        """Stand in line for what is short; who stood already keeps its place."""
        if waiter is None:
            waiter = Waiter(op.id, self._places.last() + 1)
        else:
            freed += self._step_aside(waiter)
        short = min(refusal.shortfalls, key=lambda short: longest(short).wait)
        waiter.charges = tuple([each.charge for each in short])
        waiter.dues = [now + each.wait for each in short]
        waiter.deadline = now + op.patience
        first = False
        for charge in waiter.charges:
            self._places.stand(waiter, charge)
            first = first or next(iter(self._places.line(key_of(charge)))).id == waiter.id
        waiter.back_by = self._ask_again(waiter, first, now)
        self._places.keep(waiter)
        return Queued(refusal, waiter.back_by - now)

    def _ask_again(self, waiter: Waiter, first: bool, now: float) -> float:
        """When a waiter is to ask again: when there should be room for it. The first in line is the
        one that sees to it that leases end.
        """
        due = max(waiter.dues)
        if first:
            due = min(due, self._store.next_expiry(), now + self._look)
        return max(due, now)

    def _call_up(self, key: Key, limit: Limit, now: float) -> None:
        """A bucket got something back, or lost somebody who waited: tell whom that lets in, and the
        next in line if it has to wait less than it was told.
        """
        drained, at = bucket.advance(limit, self._store.bucket(key), now)
        before, first = 0.0, True
        for waiter in self._places.line(key):
            if waiter.back_by + GRACE < now:
                self._step_aside(waiter)
                continue
            which = waiter.charge(key)
            least = waiter.charges[which].least
            seconds = bucket.wait(limit, drained, at, least, now, before)
            waiter.dues[which] = now + seconds
            if seconds <= 0.0 and max(waiter.dues) > now:
                self._pass_on(waiter, which)
                continue
            again = self._ask_again(waiter, first, now)
            if again < waiter.back_by - EARLIER:
                waiter.back_by = again
                self._ring(waiter.id, again)
            self._places.keep(waiter)
            if seconds > 0.0:
                return
            before += least
            first = False

    def _pass_on(self, waiter: Waiter, which: int) -> None:
        """There is room for a waiter here, but not elsewhere: it holds nothing while it waits."""
        self._places.step_out(waiter, waiter.charges[which])
        waiter.charges = waiter.charges[:which] + waiter.charges[which + 1 :]
        del waiter.dues[which]
        self._places.keep(waiter)

    def _leave(self, waiter: Waiter) -> tuple[Charge, ...]:
        """Let it go; answers with what it waited for."""
        charges = self._step_aside(waiter)
        self._places.forget(waiter)
        return charges

    def _step_aside(self, waiter: Waiter) -> tuple[Charge, ...]:
        """Take it out of all lines, its place kept."""
        charges, waiter.charges, waiter.dues = waiter.charges, (), []
        for charge in charges:
            self._places.step_out(waiter, charge)
        self._places.keep(waiter)
        return charges
