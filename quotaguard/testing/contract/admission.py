"""What is admitted, and what a refusal says."""

from __future__ import annotations

import math

from ...core.ops import Charge, Owner, Peek
from ...core.plan import Plan
from ...limits import Limit
from .base import (
    ACME,
    ALICE,
    BOB,
    DAY,
    EVERYBODY,
    HAIR,
    PATIENT,
    REQUESTS,
    TOKENS,
    Contract,
    both,
    charge,
    choose,
    expect,
    fail,
    left,
    near,
    reserve,
    same,
    settle,
    take,
)


class Admission(Contract):
    """All or nothing, the first candidate that fits, exact waits."""

    @both
    def test_an_admitted_call_is_debited(self) -> Plan[None]:
        """A reservation says what it holds and what it left, and later calls see it."""
        made = yield from take(reserve("a", charge(25), charge(1, REQUESTS)))
        same((made.id, made.choice, made.passed_over), ("a", 0, ()))
        same(made.granted, (25, 1))
        near(made.left[0], 35)
        near(made.left[1], 2)
        near((yield from left()), 35)

    @both
    def test_all_limits_or_none(self) -> Plan[None]:
        """One short bucket among several owners leaves all the others untouched."""
        others = [charge(5, DAY), charge(5, TOKENS, ACME), charge(1, REQUESTS, EVERYBODY)]
        for place in range(4):
            charges = others.copy()
            charges.insert(place, charge(61, TOKENS, BOB))
            refusal = yield from fail(reserve(f"a{place}", *charges))
            same([[s.charge.owner for s in short] for short in refusal.shortfalls], [[BOB]])
        states = yield Peek(tuple((c.owner, c.limit) for c in others))
        for state in states:
            near(state.left, state.limit.ceiling)
            near(state.held, 0)
        yield from take(reserve("b", *others, charge(60, TOKENS, BOB)))

    @both
    def test_every_short_bucket_is_named(self) -> Plan[None]:
        """A refusal lists all that is in the way, and the one that takes longest binds."""
        yield from take(reserve("a", charge(60), charge(3, REQUESTS), charge(60, DAY)))
        refusal = yield from fail(
            reserve("b", charge(10), charge(1, REQUESTS), charge(40, DAY), charge(1, TOKENS, BOB))
        )
        (short,) = refusal.shortfalls
        same([s.charge.limit for s in short], [TOKENS, REQUESTS])
        near(short[0].left, 0)
        near(short[0].wait, 10)
        near(short[1].wait, 20)
        same(refusal.binding().charge.limit, REQUESTS)
        near(refusal.wait(), 20)

    @both
    def test_the_first_candidate_that_fits(self) -> Plan[None]:
        """Candidates are tried in order; the answer says why those before did not fit."""
        yield from take(reserve("a", charge(50)))
        made = yield from take(
            choose(
                "b",
                [charge(20), charge(1, REQUESTS)],
                [charge(15), charge(2, REQUESTS)],
                [charge(10), charge(3, REQUESTS)],
                [charge(5)],
            )
        )
        same((made.choice, made.granted), (2, (10, 3)))
        same([[s.charge.amount for s in short] for short in made.passed_over], [[20], [15]])
        near(made.passed_over[1][0].wait, 5)
        near((yield from left()), 0)
        near((yield from left(REQUESTS)), 0)

    @both
    def test_the_soonest_candidate_sets_the_wait(self) -> Plan[None]:
        """If none fits, the wait is that of the candidate that would fit first."""
        yield from take(reserve("a", charge(60), charge(3, REQUESTS)))
        op = choose("b", [charge(30)], [charge(10), charge(1, REQUESTS)], [charge(25)])
        refusal = yield from fail(op)
        near(refusal.wait(), 20)
        same(refusal.binding().charge.limit, REQUESTS)
        self.advance(refusal.wait())
        same((yield from take(op)).choice, 1)

    @both
    def test_the_soft_part(self) -> Plan[None]:
        """Between least and amount as much is reserved as the bucket holds; less is refused."""
        made = yield from take(reserve("a", charge(50, least=10)))
        same(made.granted, (50,))
        made = yield from take(reserve("b", charge(50, least=10)))
        near(made.granted[0], 10)
        refusal = yield from fail(reserve("c", charge(50, least=4)))
        near(refusal.wait(), 4)
        self.advance(7)
        made = yield from take(reserve("d", charge(50, least=4)))
        near(made.granted[0], 7)
        near((yield from left()), 0)

    @both
    def test_what_can_never_fit_is_refused_at_once(self) -> Plan[None]:
        """Its wait is infinite, however patient the caller; the soft part does not count."""
        for limit in (TOKENS, DAY):
            for patience in (0.0, PATIENT, math.inf):
                op = reserve("a", charge(limit.ceiling + 1, limit), patience=patience)
                refusal = yield from fail(op)
                same(refusal.wait(), math.inf)
            yield from take(reserve(limit.id, charge(limit.ceiling + 1, limit, least=1)))

    @both
    def test_coming_back_after_the_wait(self) -> Plan[None]:
        """Exactly then there is room, and a hair before there is not."""
        limits = ("60 tokens/minute", "90k requests/minute", "7 tokens/hour", "1M tokens/second")
        for number, limit in enumerate(map(Limit.parse, limits)):
            yield from take(reserve(f"full{number}", charge(limit.amount, limit)))
            for again in range(4):
                self.advance(float(limit.period) / (30 + 7 * again))
                op = reserve(f"{number}-{again}", charge(limit.amount / 3.7, limit))
                refusal = yield from fail(op)
                self.advance(refusal.wait() - HAIR)
                yield from fail(op)
                self.advance(HAIR)
                yield from take(op)

    @both
    def test_refusals_do_not_delay_the_refill(self) -> Plan[None]:
        """However often somebody asks in vain, every fraction of a unit comes back in time."""
        slow = Limit.parse("1 request/hour")
        yield from take(reserve("a", charge(1, slow)))
        for second in range(0, 3600, 9):
            near((yield from fail(reserve("b", charge(1, slow)))).wait(), 3600 - second)
            self.advance(9)
        yield from take(reserve("b", charge(1, slow)))

    @both
    def test_fractions_and_large_numbers(self) -> Plan[None]:
        """Nothing is rounded on the way: a third is a third, and 10 billion and a half too."""
        large = Limit(1e10, "tokens", "month")
        yield from take(reserve("a", charge(10_000_000.5, large), charge(1 / 3)))
        near((yield from left(large)), 9_989_999_999.5, within=1e-3)
        near((yield from left()), 60 - 1 / 3, within=1e-9)
        yield settle("a", 9_000_000.25, 1 / 7)
        near((yield from left(large)), 9_990_999_999.75, within=1e-3)
        near((yield from left()), 60 - 1 / 7, within=1e-9)

    @both
    def test_a_limit_of_0_blocks(self) -> Plan[None]:
        """Nothing but nothing passes it, for ever."""
        for number, limit in enumerate((Limit(0, "tokens", 60), Limit(0, "tokens", "day"))):
            same((yield from fail(reserve("a", charge(1, limit)))).wait(), math.inf)
            yield from take(reserve(f"{number}", charge(0, limit)))
            near((yield from left(limit)), 0)

    @both
    def test_nothing_always_fits(self) -> Plan[None]:
        """A charge of 0 fits an empty bucket, one in debt, and a candidate may charge nothing."""
        yield from take(reserve("a", charge(60)))
        yield from take(reserve("b", charge(0)))
        yield settle("a", 100.0)
        made = yield from take(reserve("c", charge(0)))
        same(made.granted, (0,))
        made = yield from take(reserve("d"))
        same((made.granted, made.left), ((), ()))
        yield settle("d")

    @both
    def test_changed_amounts_carry_over(self) -> Plan[None]:
        """Who gets a larger or smaller limit on the same thing keeps what was used."""
        day, large, small = (Limit(n, "tokens", "day") for n in (100, 1000, 50))
        yield from take(reserve("a", charge(80, day)))
        near((yield from left(large)), 920)
        near((yield from left(small)), -30)
        yield from take(reserve("b", charge(900, large)))
        yield from fail(reserve("c", charge(1, day)))
        bucket, faster = Limit(60, "requests", 60), Limit(600, "requests", 60)
        yield from take(reserve("d", charge(60, bucket)))
        near((yield from left(faster)), 540)
        self.advance(6)
        near((yield from left(faster)), 600)

    @both
    def test_a_burst(self) -> Plan[None]:
        """A bucket holds its burst, and refills at its rate up to it."""
        for number, text in enumerate(("10 tokens/second burst 500", "10 requests/second burst 5")):
            limit = Limit.parse(text)
            yield from take(reserve(f"{number}", charge(limit.ceiling, limit)))
            self.advance(0.25)
            near((yield from left(limit)), 2.5)
            self.advance(1000)
            near((yield from left(limit)), limit.ceiling)

    @both
    def test_owners_do_not_share(self) -> Plan[None]:
        """No name, whatever is in it, can forge another owner's bucket."""
        names = [
            "x", "X", "x ", " x", "x:y", "x}y", "{x}", "{", "}", "x{y}z", "x\ny", "x\x00y", "\x00",
            "x|y", 'x"y', "x\\y", "x/y", "x'y", "%78", "é", "e\u0301", "👩‍💻", "x" * 10_000,
            "x" * 9_999 + "y", "\ud800", "\udfff", "null", "0", "y\r\nSET x 1", "user", "global",
        ]  # fmt: skip
        owners: list[Owner] = [("user", "", name) for name in names]
        owners += [("org", name) for name in names]
        owners += [("user", name, "x") for name in names]
        owners += [("user", "a", "b:c"), ("user", "a:b", "c"), ("user", "a:b:c", ""), EVERYBODY]
        charges: list[Charge] = []
        for number, owner in enumerate(owners):
            near((yield from left(owner=owner)), 60)
            charges.append(charge(1 + number / 4, TOKENS, owner))
            yield from take(reserve(f"{number}", charges[-1]))
        states = yield Peek(tuple((owner, TOKENS) for owner in owners))
        for state, charged in zip(states, charges, strict=True):
            expect(abs(state.left - 60 + charged.amount) < 1e-6, f"{charged.owner!r:.80}")

    @both
    def test_limits_do_not_share(self) -> Plan[None]:
        """One owner's limits on other metrics, periods, models or time zones are other buckets."""
        texts = (
            "60 tokens/minute", "60 requests/minute", "60 tokens/hour", "60 tokens/day",
            "60 tokens/rolling day", "60 tokens/week", "60 tokens/day in Asia/Tokyo",
            "60 tokens/minute for gpt-4o", "60 tokens/minute for gpt-4o*", "60 input tokens/minute",
        )  # fmt: skip
        for number, limit in enumerate(map(Limit.parse, texts)):
            near((yield from left(limit)), 60)
            yield from take(reserve(f"{number}", charge(60, limit)))

    @both
    def test_peek_spends_nothing(self) -> Plan[None]:
        """It reads levels, holds and the time to full, in the order asked, and changes nothing."""
        yield from take(reserve("a", charge(20), charge(30, DAY)))
        yield from take(reserve("b", charge(15)))
        yield settle("b", 10.0)
        for _ in range(2):
            tokens, bob, day = yield Peek(((ALICE, TOKENS), (BOB, TOKENS), (ALICE, DAY)))
            same((tokens.owner, tokens.limit, bob.owner), (ALICE, TOKENS, BOB))
            near(tokens.left, 30)
            near(tokens.held, 20)
            near(tokens.full_in, 30)
            same((bob.left, bob.held, bob.full_in), (60, 0, 0))
            near(day.left, 70)
            near(day.full_in, 50_400 - 0.25)
        self.advance(12)
        near((yield from left()), 42)
