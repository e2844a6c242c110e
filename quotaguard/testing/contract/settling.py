"""What a call is charged in the end."""

from __future__ import annotations

from ...core.ops import Release, Renew, Reservation, Settled
from ...core.plan import Plan
from ...limits import Limit
from ...windows import window
from .base import (
    DAY,
    HAIR,
    REQUESTS,
    Contract,
    both,
    charge,
    fail,
    left,
    near,
    pay,
    reserve,
    same,
    settle,
    take,
)


class Settling(Contract):
    """Surplus returns, deficit is owed, once."""

    @both
    def test_surplus_returns(self) -> Plan[None]:
        """What was reserved and not used is free again; the answer says what is left."""
        yield from take(reserve("a", charge(50), charge(2, REQUESTS)))
        settled = yield from pay("a", 20.0, 1.0)
        same(settled.late, False)
        near(settled.left[0], 40)
        near(settled.left[1], 2)
        near((yield from left()), 40)

    @both
    def test_as_reserved(self) -> Plan[None]:
        """Without amounts the soft part that was granted is charged, no more."""
        yield from take(reserve("a", charge(50)))
        yield from take(reserve("b", charge(50, least=1)))
        near((yield from pay("b")).left[0], 0)
        near((yield from left()), 0)

    @both
    def test_deficit_is_owed(self) -> Plan[None]:
        """Use above the estimate takes the bucket below zero, and later callers wait it off."""
        yield from take(reserve("a", charge(10)))
        near((yield from pay("a", 100.0)).left[0], -40)
        near((yield from left()), -40)
        op = reserve("b", charge(5))
        refusal = yield from fail(op)
        near(refusal.wait(), 45)
        near(refusal.binding().left, -40)
        self.advance(45 - HAIR)
        yield from fail(op)
        self.advance(HAIR)
        yield from take(op)

    @both
    def test_a_refund_never_lifts_above_the_ceiling(self) -> Plan[None]:
        """A bucket that refilled meanwhile is full after the refund, not fuller."""
        for number, limit in enumerate((DAY, Limit.parse("60 requests/minute burst 80"))):
            id = f"{number}"
            yield from take(reserve(id, charge(50, limit), charge(60)))
            self.advance(86_400)
            near((yield from pay(id, 0.0, 0.0)).left[0], limit.ceiling)
            near((yield from left(limit)), limit.ceiling)
            yield from fail(reserve("x", charge(limit.ceiling + 1, limit)))

    @both
    def test_a_window_resets_at_its_boundary(self) -> Plan[None]:
        """The wait ends exactly at the calendar boundary of the limit's time zone."""
        for text in ("9 tokens/day", "9 tokens/week in Asia/Tokyo", "9 tokens/month in US/Eastern"):
            limit = Limit.parse(text)
            yield from take(reserve(text, charge(9, limit)))
            op = reserve(f"{text} again", charge(9, limit))
            refusal = yield from fail(op)
            end = window(str(limit.period), limit.tz, self.now())[1]
            near(refusal.wait(), end - self.now())
            self.advance(refusal.wait() - HAIR)
            yield from fail(op)
            self.advance(HAIR)
            yield from take(op)

    @both
    def test_a_settle_after_the_window(self) -> Plan[None]:
        """What a past window was charged is not given back to the present one; a deficit is owed
        whenever it shows.
        """
        for id in ("less", "more", "same"):
            yield from take(reserve(id, charge(20, DAY), lease=200_000))
        self.advance(86_400)
        yield from take(reserve("today", charge(30, DAY)))
        near((yield from pay("less", 5.0)).left[0], 70)
        near((yield from pay("same")).left[0], 70)
        near((yield from pay("more", 25.0)).left[0], 65)
        near((yield from pay("today", 10.0)).left[0], 85)
        near((yield from left(DAY)), 85)

    @both
    def test_debt_of_a_window_ends_with_it(self) -> Plan[None]:
        """A window begins full, whatever the one before was charged."""
        yield from take(reserve("a", charge(100, DAY)))
        yield from pay("a", 500.0)
        near((yield from left(DAY)), -400)
        self.advance(86_400)
        near((yield from left(DAY)), 100)

    @both
    def test_a_repeated_reserve(self) -> Plan[None]:
        """The same id gets the same answer, at any time, and is charged once."""
        yield from take(reserve("full", charge(55)))
        op = reserve("a", charge(50, least=2), charge(1, REQUESTS))
        made = yield op
        same((yield op), made)
        yield reserve("b", charge(1, DAY))
        self.advance(3)
        same((yield op), made)
        near((yield from left(REQUESTS)), 2.15)
        yield from pay("a", 1.0, 1.0)
        again: Reservation = yield op
        same((again.id, again.granted), ("a", made.granted))
        near((yield from left(REQUESTS)), 2.15)

    @both
    def test_a_repeated_settle(self) -> Plan[None]:
        """Only the first counts, whatever the others say."""
        yield from take(reserve("a", charge(50)))
        yield from pay("a", 20.0)
        for amount in (0.0, 60.0):
            answer = yield settle("a", amount)
            same(answer, Settled(first=False, late=answer.late, left=()))
        yield Release("a")
        same((yield Renew("a", 10.0)), False)
        near((yield from left()), 40)

    @both
    def test_a_release(self) -> Plan[None]:
        """A reservation whose answer nobody got is given back, once, and cannot be settled."""
        yield from take(reserve("a", charge(50), charge(10, DAY)))
        yield from take(reserve("b", charge(5)))
        for _ in range(2):
            same((yield Release("a")), None)
            near((yield from left()), 55)
            near((yield from left(DAY)), 100)
        answer = yield settle("a", 50.0, 10.0)
        same(answer.first, False)
        near((yield from left()), 55)

    @both
    def test_unknown_ids(self) -> Plan[None]:
        """They change nothing and are no error."""
        answer = yield settle("nobody", 50.0)
        same((answer.first, answer.left), (False, ()))
        same((yield Renew("nobody", 10.0)), False)
        same((yield Release("nobody")), None)
        near((yield from left()), 60)
        yield from take(reserve("nobody", charge(60)))
