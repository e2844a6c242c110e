"""The ledger with a line before it: first come, first served for each bucket.

Pure, as the ledger is: states come from a store, places in line from `Places`, the time is an
argument. The memory backend runs it over dictionaries, SQLite over tables, and the Lua of the Redis
backend is tested against it.

A waiter stands in the lines of the buckets that are short for it, so nobody waits for a bucket
because of somebody who waits for another one. It holds nothing. Others fit into what those before
them in line leave. Everybody in line knows when to ask again; whoever can come earlier is rung for.

Whose turn is first: who came first, where a unit of priority counts as `HEAD_START` seconds, so
that nobody waits for ever for those who are more urgent. In the line of a bucket that is shared
fairly it is the flow that had least of it (`quotaguard.backends.places.Places`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
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
    Reservation,
    Reserve,
    Settle,
    longest,
)
from ..limits import Limit
from .places import GRACE, Places, Spot, Turn, Waiter

EARLIER = 0.001
"""Seconds; for less nobody is woken."""
HEAD_START = 30.0
"""Seconds by which a unit of priority lets a call come before others."""


class LeaseStore(Store, Protocol):
    """A store that knows when to look at it again."""

    def next_expiry(self) -> float:
        """When the next lease ends, infinite if none is open."""
        ...


class Line:
    """Carries out operations over a store, for those who wait and those who do not.

    Args:
        ring: called with a waiter's id and the time at which it is to ask again, when that is
            earlier than it was told.
    """

    def __init__(
        self,
        store: LeaseStore,
        places: Places,
        ring: Callable[[str, float], None],
    ) -> None:
        self._store = store
        self._ledger = Ledger(store)
        self._places = places
        self._ring = ring

    def carry_out(self, op: Op, now: float) -> Answer:
        """Do what an operation says and tell those whom it lets in."""
        freed = self._ledger.expire(now)
        if not self._places:  # nobody waits, as nearly always
            if type(op) is Reserve:
                return self._reserve_first(op, now, freed)
            return self._do(op, now, freed)
        for dead in self._places.overdue(now - GRACE):
            freed += self._leave(dead)
        answer = self._reserve(op, now, freed) if type(op) is Reserve else self._do(op, now, freed)
        called: set[Key] = set()
        for charge in freed:  # it grows: who is found dead on the way frees more
            key = key_of(charge)
            if key not in called:
                called.add(key)
                freed += self._call_up(key, charge.limit, now)
        return answer

    def _do(self, op: Op, now: float, freed: list[Charge]) -> Answer:
        if type(op) is Settle:
            if not self._places:
                return self._ledger.settle(op, now)
            held = self._store.held(op.id)
            charges = held.charges if held is not None else ()
            settled = self._ledger.settle(op, now)
            if settled.first:
                freed += charges
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

    def _reserve_first(self, op: Reserve, now: float, freed: list[Charge]) -> Decision:
        """Reserve where nobody waits."""
        answer = self._ledger.reserve(op, now, NOBODY_AHEAD)
        if type(answer) is Refusal and _would_wait(op, answer):
            return self._join(op, None, answer, now, freed)
        return answer

    def _reserve(self, op: Reserve, now: float, freed: list[Charge]) -> Decision:
        """Reserve where somebody waits."""
        found = self._store.held(op.id)
        if found is not None:  # repeated: it has had its turn
            return found.answer
        outer = self._store.held(op.instead_of) if op.instead_of is not None else None
        waiter = self._places.waiter(op.id)
        ahead = self._ahead(op, waiter, now, freed)
        answer = self._ledger.reserve(op, now, ahead)
        if isinstance(answer, Refusal):
            if _would_wait(op, answer):
                return self._join(op, waiter, answer, now, freed)
            served: Collection[Key] = ()
        else:
            served = self._serve(op, waiter, answer)
            if outer is not None and outer.status == "open":
                freed += outer.charges
        if waiter is not None:
            freed += self._leave(waiter, served)
        return answer

    def _ahead(
        self, op: Reserve, waiter: Waiter | None, now: float, freed: list[Charge]
    ) -> dict[Key, float]:
        """What those whose turn comes before a call's will take of its buckets."""
        place = waiter.place if waiter is not None else self._places.next_place(now)
        ahead: dict[Key, float] = {}
        for candidate in op.candidates:
            for charge in candidate.charges:
                key = key_of(charge)
                if key not in ahead:
                    for first in self._places.line(key):
                        if first.id == op.id or first.back_by + GRACE >= now:
                            break
                        freed += self._step_aside(first)
                    spot = waiter.spots.get(key) if waiter is not None else None
                    turn = spot.turn if spot is not None else self._turn(op, charge, place)[0]
                    ahead[key] = self._places.wanted(key, turn)
        return ahead

    def _turn(self, op: Reserve, charge: Charge, place: float) -> tuple[Turn, float]:
        """A call's turn in the line of a bucket, and where its flow starts there."""
        limit = charge.limit
        if not limit.fair:
            return (place - op.priority * HEAD_START, place), 0.0
        start = self._places.start(key_of(charge), op.flow)
        lead = op.priority * (limit.rate * HEAD_START or limit.ceiling)
        return (start - lead, place), start

    def _serve(self, op: Reserve, waiter: Waiter | None, made: Reservation) -> list[Key]:
        """A call is admitted, from the line or past it: fair lines keep count of it."""
        places, served = self._places, []
        for charge in op.candidates[made.choice].charges:
            if charge.limit.fair:
                key = key_of(charge)
                spot = waiter.spots.get(key) if waiter is not None else None
                if spot is not None:
                    places.serve(key, spot.start)
                else:
                    start = places.start(key, op.flow)
                    places.serve(key, start)
                    places.finish(key, op.flow, start + charge.least / op.weight)
                served.append(key)
        return served

    def _join(
        self,
        op: Reserve,
        waiter: Waiter | None,
        refusal: Refusal,
        now: float,
        freed: list[Charge],
    ) -> Queued:
        """Stand in line for what is short; who stood already keeps its place."""
        places = self._places
        if waiter is None:
            waiter = Waiter(op.id, places.next_place(now), op.flow, op.weight)
        else:
            freed += self._step_aside(waiter)
        waiter.deadline = now + op.patience
        first = False
        for short in min(refusal.shortfalls, key=lambda short: longest(short).wait):
            spot = self._stand(op, waiter, short.charge)
            spot.due = now + short.wait
            first = first or next(iter(places.line(spot.key))).id == waiter.id
        waiter.back_by = self._ask_again(waiter, first, now)
        places.keep(waiter)
        return Queued(refusal, waiter.back_by - now, first)

    def _stand(self, op: Reserve, waiter: Waiter, charge: Charge) -> Spot:
        """Let it stand in the line of a bucket, where it stood before if it did."""
        key = key_of(charge)
        spot = waiter.spots.get(key)
        if spot is not None:
            spot.charge = charge
            self._places.stand(waiter, spot)
            return spot
        turn, start = self._turn(op, charge, waiter.place)
        spot = waiter.spots[key] = Spot(charge, turn, start)
        self._places.stand(waiter, spot)
        if charge.limit.fair:
            self._places.finish(key, op.flow, start + charge.least / op.weight)
        return spot

    def _ask_again(self, waiter: Waiter, first: bool, now: float) -> float:
        """When a waiter is to ask again: when there should be room for it. The first in line is the
        one that sees to it that leases end.
        """
        due = waiter.due()
        if first:
            due = min(due, self._store.next_expiry())
        return max(due, now)

    def _call_up(self, key: Key, limit: Limit, now: float) -> list[Charge]:
        """A bucket got something back, or lost somebody who waited: tell whom that lets in, and the
        next in line if it has to wait less than it was told. Answers with what those waited for
        who were found dead.
        """
        freed: list[Charge] = []
        drained, at = bucket.advance(limit, self._store.bucket(key), now)
        before, first = 0.0, True
        for waiter in self._places.line(key):
            if waiter.back_by + GRACE < now:
                freed += self._step_aside(waiter)
                continue
            spot = waiter.spots[key]
            least = spot.charge.least
            seconds = bucket.wait(limit, drained, at, least, now, before)
            spot.due = now + seconds
            if seconds <= 0.0 and waiter.due() > now:
                # There is room for it here, but not elsewhere: it holds nothing while it waits.
                self._places.step_out(waiter, spot)
                self._places.keep(waiter)
                continue
            again = self._ask_again(waiter, first, now)
            if again < waiter.back_by - EARLIER:
                waiter.back_by = again
                self._ring(waiter.id, again)
            self._places.keep(waiter)
            if seconds > 0.0 and waiter.due() <= spot.due + EARLIER:
                break  # no other bucket keeps it: those behind are told when it is admitted
            before += least
            first = False
        return freed

    def _leave(self, waiter: Waiter, served: Collection[Key] = ()) -> list[Charge]:
        """Let it go; answers with what it waited for. Where its flow was not served, the next call
        of the flow may start so much earlier.
        """
        for key, spot in waiter.spots.items():
            if spot.standing and spot.charge.limit.fair and key not in served:
                start = self._places.start(key, waiter.flow)
                start -= spot.charge.least / waiter.weight
                self._places.finish(key, waiter.flow, start)
        charges = self._step_aside(waiter)
        self._places.forget(waiter)
        return charges

    def _step_aside(self, waiter: Waiter) -> list[Charge]:
        """Take it out of all lines, its place kept."""
        standing = waiter.standing()
        for spot in standing:
            self._places.step_out(waiter, spot)
        self._places.keep(waiter)
        return [spot.charge for spot in standing]


def _would_wait(op: Reserve, refusal: Refusal) -> bool:
    return 0.0 < op.patience >= refusal.at_least() < math.inf
