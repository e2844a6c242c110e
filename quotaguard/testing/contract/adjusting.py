"""What an operator gives to buckets, or takes from them."""

from __future__ import annotations

import threading

from ...core.ops import (
    FILL,
    Adjust,
    Adjusted,
    Change,
    Owner,
    Park,
    Peek,
    Queued,
    Release,
    Renew,
    Reservation,
)
from ...core.plan import Plan
from ...limits import Limit
from .base import (
    ACME,
    ALICE,
    BOB,
    DAY,
    HAIR,
    PATIENT,
    REQUESTS,
    TOKENS,
    Contract,
    both,
    charge,
    expect,
    fail,
    left,
    near,
    pay,
    reserve,
    same,
    settle,
    take,
)
from .lines import LONG, line_up


def change(amount: float, limit: Limit = TOKENS, owner: Owner = ALICE) -> Change:
    """What one bucket is given."""
    return Change(owner, limit, amount)


class Adjusting(Contract):
    """Grants and resets: in one step, once, never above what a bucket holds."""

    @both
    def test_a_grant(self) -> Plan[None]:
        """It gives back what was used, at most that."""
        yield from take(reserve("a", charge(50)))
        yield from pay("a", 50.0)
        answer: Adjusted = yield Adjust("g", (change(20),))
        near(answer.given[0], 20)
        near(answer.left[0], 30)
        near((yield from left()), 30)
        answer = yield Adjust("h", (change(500),))
        near(answer.given[0], 30)
        near(answer.left[0], 60)
        yield from fail(reserve("b", charge(61)))
        same((yield Adjust("nothing", (change(5),))), Adjusted((0.0,), (60.0,)))
        same((yield Adjust("nobody's", ())), Adjusted((), ()))

    @both
    def test_a_fine(self) -> Plan[None]:
        """What is taken away is owed if there is not as much, and waited off."""
        answer: Adjusted = yield Adjust("f", (change(-70),))
        same(answer.given, (-70.0,))
        near(answer.left[0], -10)
        near((yield from fail(reserve("a", charge(5)))).wait(), 15)
        self.advance(15)
        yield from take(reserve("a", charge(5)))

    @both
    def test_a_reset(self) -> Plan[None]:
        """It forgives debts and fills each bucket, however empty."""
        yield from take(reserve("a", charge(10), charge(90, DAY), charge(1, REQUESTS, BOB)))
        yield from pay("a", 100.0, 150.0, 1.0)
        changes = change(FILL), change(FILL, DAY), change(FILL, REQUESTS, ACME)
        answer: Adjusted = yield Adjust("r", changes)
        for given, expected in zip(answer.given, (100, 150, 0), strict=True):
            near(given, expected)
        same(answer.left, (60.0, 100.0, 3.0))
        near((yield from left()), 60)
        near((yield from left(DAY)), 100)
        near((yield from left(REQUESTS, BOB)), 2)

    @both
    def test_a_repeated_adjustment(self) -> Plan[None]:
        """The same id gives once, and answers the same at any time."""
        yield from take(reserve("a", charge(50), charge(50, DAY)))
        op = Adjust("g", (change(10), change(-10, DAY)))
        first = yield op
        self.advance(5)
        same((yield op), first)
        near((yield from left()), 25)
        near((yield from left(DAY)), 40)
        same((yield Renew("g", 10.0)), False)
        same((yield Release("g")), None)
        same((yield settle("g", 5.0)).first, False)
        near((yield from left(DAY)), 40)

    @both
    def test_open_reservations_go_on(self) -> Plan[None]:
        """They hold what they held, and what they give back never makes a bucket more than full."""
        yield from take(reserve("a", charge(50, DAY)))
        yield from take(reserve("b", charge(30, DAY)))
        yield Adjust("r", (change(FILL, DAY),))
        (state,) = yield Peek(((ALICE, DAY),))
        near(state.left, 100)
        near(state.held, 80)
        near((yield from pay("a", 10.0)).left[0], 100)
        near((yield from pay("b", 50.0)).left[0], 80)

    @both
    def test_a_grant_is_of_its_window(self) -> Plan[None]:
        """What was given or taken yesterday means nothing today."""
        yield from take(reserve("a", charge(80, DAY)))
        yield from pay("a", 80.0)
        yield Adjust("g", (change(-60, DAY),))
        near((yield from left(DAY)), -40)
        self.advance(86_400)
        answer: Adjusted = yield Adjust("h", (change(10, DAY),))
        same(answer, Adjusted((0.0,), (100.0,)))

    @both
    def test_a_grant_ends_the_wait(self) -> Plan[None]:
        """Whoever has room now is let in; who has not goes on waiting, and is told for how long."""
        yield from take(reserve("a", charge(60)))
        op = reserve("b", charge(30), patience=PATIENT)
        near((yield from line_up(op)).wait, 30)
        yield Adjust("g", (change(10),))
        near((yield from line_up(op)).wait, 20)
        yield Adjust("h", (change(20),))
        yield from take(op)
        near((yield from left()), 0)
        self.advance(1 - HAIR)
        yield from fail(reserve("c", charge(1)))

    def test_a_grant_wakes_the_parked(self) -> None:
        """They need not wait for what they were told."""
        backend = self.make_backend(self.clock)
        backend.execute(reserve("a", charge(60)))
        op = reserve("b", charge(60), patience=PATIENT)
        expect(isinstance(backend.execute(op), Queued), "there was to be a line")
        park = Park(op.id, 3600.0)
        sleeper = threading.Thread(target=backend.execute, args=(park,), daemon=True)
        sleeper.start()
        backend.execute(Adjust("r", (change(FILL),)))
        sleeper.join(LONG)
        expect(not sleeper.is_alive(), "the grant did not wake the parked thread")
        expect(isinstance(backend.execute(op), Reservation), "there was to be room")
        backend.close()
