"""Reservations that expire, and reservations inside others."""

from __future__ import annotations

from ...core.ops import Peek, Renew
from ...core.plan import Plan
from ...limits import Limit
from .base import (
    ALICE,
    DAY,
    HAIR,
    LEASE,
    REQUESTS,
    TOKENS,
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

KEEP_ALL = Limit(60, "input_tokens", 60, on_expire="keep_all")
RETURN_ALL = Limit(60, "output_tokens", 60, on_expire="return_all")


class Leases(Contract):
    """Nobody's death is forever."""

    @both
    def test_expiry_keeps_what_the_limit_says(self) -> Plan[None]:
        """A dead holder leaves its input charged, or everything, or nothing."""
        charges = [charge(50, limit, keep=20) for limit in (TOKENS, KEEP_ALL, RETURN_ALL, DAY)]
        yield from take(reserve("a", *charges, lease=10))
        self.advance(10 - HAIR)
        near((yield from left()), 20 - HAIR)
        near((yield from left(RETURN_ALL)), 20 - HAIR)
        self.advance(HAIR)
        near((yield from left()), 50)
        near((yield from left(KEEP_ALL)), 20)
        near((yield from left(RETURN_ALL)), 60)
        near((yield from left(DAY)), 80)
        (state,) = yield Peek(((ALICE, TOKENS),))
        near(state.held, 0)

    @both
    def test_expiry_makes_room(self) -> Plan[None]:
        """The first call after a lease's end finds what the dead held, soft grants included."""
        yield from take(reserve("a", charge(90, least=10, keep=10), lease=10))
        near((yield from fail(reserve("b", charge(30)))).wait(), 30)
        self.advance(10)
        yield from take(reserve("b", charge(60)))

    @both
    def test_renewal(self) -> Plan[None]:
        """A renewed lease ends as long after the renewal as it says, and not before."""
        for id in ("a", "b"):
            yield from take(reserve(id, charge(30, DAY), lease=10))
        self.advance(9)
        same((yield Renew("a", 20.0)), True)
        self.advance(19)
        near((yield from left(DAY)), 70)
        same((yield Renew("b", 20.0)), False)
        same((yield Renew("a", 5.0)), True)
        self.advance(5)
        near((yield from left(DAY)), 100)
        same((yield Renew("a", 5.0)), False)

    @both
    def test_a_settle_after_expiry(self) -> Plan[None]:
        """It charges what was used, exactly once, and says that it was late."""
        for id, used in (("less", 5.0), ("more", 30.0)):
            yield from take(reserve(id, charge(20, DAY, keep=10), lease=10))
            before = yield from left(DAY)
            self.advance(10)
            near((yield from left(DAY)), before + 10)
            settled = yield from pay(id, used)
            same(settled.late, True)
            near(settled.left[0], before + 20 - used)
            same((yield settle(id, used)).first, False)
            near((yield from left(DAY)), before + 20 - used)
        near((yield from left(DAY)), 65)

    @both
    def test_leases_of_many_lengths(self) -> Plan[None]:
        """Each ends at its own time, in whatever order they were made."""
        for number, seconds in enumerate((30, 10, 40, 20, 10)):
            yield from take(reserve(f"over {number}", charge(10, DAY), lease=seconds))
            yield from pay(f"over {number}", 0.0)
            yield from take(reserve(f"open {number}", charge(10, DAY), lease=seconds))
        for expected in (50, 70, 80, 90, 100):
            near((yield from left(DAY)), expected)
            self.advance(10)

    @both
    def test_a_call_inside_another(self) -> Plan[None]:
        """It draws from the outer hold, which is left holding nothing; the outer settle charges
        what it says.
        """
        yield from take(reserve("outer", charge(50), charge(2, REQUESTS)))
        made = yield from take(
            reserve("inner", charge(40), charge(1, REQUESTS), instead_of="outer")
        )
        same(made.granted, (40, 1))
        near(made.left[0], 20)
        near((yield from left()), 20)
        near((yield from left(REQUESTS)), 2)
        (state,) = yield Peek(((ALICE, TOKENS),))
        near(state.held, 40)
        yield from take(reserve("second", charge(20), instead_of="outer"))
        yield from fail(reserve("third", charge(1), instead_of="outer"))
        yield from pay("inner", 30.0, 1.0)
        yield from pay("second", 15.0)
        near((yield from pay("outer", 5.0, 0.0)).left[0], 10)
        near((yield from left()), 10)
        near((yield from left(REQUESTS)), 2)

    @both
    def test_a_refused_inner_call(self) -> Plan[None]:
        """It leaves the outer hold untouched, and its wait counts that hold as free."""
        yield from take(reserve("outer", charge(30)))
        yield from take(reserve("other", charge(30)))
        refusal = yield from fail(reserve("inner", charge(40), instead_of="outer"))
        near(refusal.wait(), 10)
        near(refusal.binding().left, 30)
        near((yield from left()), 0)
        near((yield from pay("outer", 10.0)).left[0], 20)

    @both
    def test_an_outer_call_that_is_over(self) -> Plan[None]:
        """What is settled, expired or unknown lends nothing, and is not charged again."""
        yield from take(reserve("settled", charge(20)))
        yield from pay("settled", 20.0)
        yield from take(reserve("expired", charge(20, keep=20), lease=5))
        self.advance(5)
        for outer in ("settled", "expired", "unknown"):
            yield from fail(reserve(f"in {outer}", charge(26), instead_of=outer))
        yield from take(reserve("inner", charge(25), instead_of="settled"))
        near((yield from left()), 0)

    @both
    def test_an_outer_call_that_dies_inside(self) -> Plan[None]:
        """Having lent its hold it leaves nothing charged, and its inner call keeps its own."""
        yield from take(reserve("outer", charge(50, DAY, keep=40), lease=10))
        yield from take(reserve("inner", charge(30, DAY, keep=30), lease=LEASE, instead_of="outer"))
        self.advance(10)
        near((yield from left(DAY)), 70)
        yield from pay("inner", 25.0)
        yield from pay("outer", 0.0)
        near((yield from left(DAY)), 75)
