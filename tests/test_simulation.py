"""Replaying recorded usage under a policy."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotaguard import (
    ConfigurationError,
    Entry,
    Fallback,
    Guard,
    Identity,
    Lease,
    Limit,
    ModelNotAllowed,
    QuotaExceeded,
    Refuse,
    Simulation,
    Tier,
    Wait,
    acting_as,
)
from quotaguard.testing import FakeClock
from quotaguard.testing.clock import START
from tests.books import PRICES, kept

POLICIES: dict[str, dict[str, Any]] = {
    "bucket": {"limits": ["300 tokens/minute", "5 requests/minute"]},
    "window": {"limits": ["900 tokens/day", "2k tokens/day per org"]},
    "money": {"limits": ["$0.02/hour", "$0.05/day per global"]},
    "slots": {"limits": ["2 concurrent", "3 concurrent per global"]},
    "fallback": {
        "limits": ["200 tokens/minute for large", "900 tokens/hour for small"],
        "when_exceeded": [Fallback("small")],
    },
    "early": {
        "limits": ["500 tokens/minute for large", "900 tokens/hour for small"],
        "when_exceeded": [Fallback("small", at=0.5)],
    },
    "models": {
        "tiers": [Tier("pro", ["400 tokens/minute"], ["small"], when_not_allowed=Fallback("small"))]
    },
}


def guard_of(**terms: Any) -> Guard:
    """A guard that keeps a journal in memory, on a clock of the test."""
    return Guard(clock=FakeClock(), journal="memory://", prices=PRICES, **terms)


def spend(lease: Lease, rng: random.Random) -> None:
    """What a call may say of its usage: more or less than was reserved, or nothing."""
    if rng.random() < 0.8:
        lease.record(input_tokens=rng.randrange(1, 150), output_tokens=rng.randrange(100))


def crowd(guard: Guard, seed: int) -> list[Entry]:
    """Overlapping calls of a few users: what the guard really did with them."""
    rng, open_calls = random.Random(seed), []
    for _ in range(120):
        guard.clock.advance(rng.randrange(1, 9))  # type: ignore[attr-defined]
        if open_calls and rng.random() < 0.5:
            hold, lease = open_calls.pop(rng.randrange(len(open_calls)))
            spend(lease, rng)
            if (plan := hold.ending(None)) is not None:
                guard.finish(plan)
            continue
        hold: Any = guard.hold(
            user=rng.choice("abc"),
            org=rng.choice([None, "acme"]),
            model=rng.choice(["large", "small"]),
            input_tokens=rng.randrange(1, 120),
            output_tokens=rng.choice([None, 40]),
        )
        with suppress(QuotaExceeded, ModelNotAllowed):
            open_calls.append((hold, hold.begin(guard.run(hold.admission()))))
    for hold, _ in open_calls:
        if (plan := hold.ending(None)) is not None:
            guard.finish(plan)
    return kept(guard)


def told(entry: Entry) -> tuple[object, ...]:
    """What the fate of a call is."""
    return entry.outcome, entry.limit, entry.served, entry.because, entry.time, entry.began


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(5))
def test_the_policy_that_was_in_force_changes_nothing(policy: str, seed: int) -> None:
    """A simulation that disagrees with what really happened would be worth nothing. Calls that were
    refused then are left out of the log: how they would have gone on nobody knows.
    """
    guard = guard_of(**POLICIES[policy], output_guess=50)
    log = crowd(guard, seed)
    found = guard.simulate(log)
    assert list(map(told, found.would)) == list(map(told, log))
    assert found.total.would == found.total.did
    assert found.total.did.calls > 20
    guard.close()


@pytest.mark.parametrize("seed", range(5))
def test_waits_are_those_that_were(seed: int) -> None:
    """One caller after another, each of whom waits as long as need be, and a few in vain."""
    waits = [Wait(40, backoff=None), Refuse()]
    guard = guard_of(limits=["300 tokens/minute", "2k tokens/hour"], when_exceeded=waits)
    rng = random.Random(seed)
    for _ in range(60):
        guard.clock.advance(rng.random() * 9)  # type: ignore[attr-defined]
        with (
            suppress(QuotaExceeded),
            guard.hold(user="ann", model="large", input_tokens=100, output_tokens=0) as lease,
        ):
            spend(lease, rng)
    log = kept(guard)
    found = guard.simulate(log)
    assert [entry.outcome for entry in found.would] == [entry.outcome for entry in log]
    assert [e.waited for e in found.would] == pytest.approx([e.waited for e in log], abs=1e-5)
    assert found.total.would.waited > 5
    guard.close()


def line(at: float, tokens: int, user: str = "ann", **more: Any) -> dict[str, Any]:
    """A call in plain words."""
    return {"time": START + at, "user": user, "model": "large", "input_tokens": tokens} | more


GUARD = Guard(prices=PRICES, clock=FakeClock())


def fates(found: Simulation) -> str:
    """One letter for each call: served, downgraded, waited or refused."""
    return "".join(
        "r" if e.outcome == "refused" else "d" if e.because else "w" if e.waited else "s"
        for e in found.would
    )


def test_who_would_be_refused_and_what_that_saves() -> None:
    """The sums are exact, by user and in total; and the limit is named."""
    log = [line(0, 600), line(1, 600), line(2, 300, "bob"), line(3, 400)]
    found = GUARD.simulate(log, [Tier("free", ["1000 tokens/day"])])
    assert fates(found) == "srss"
    ann, bob = (found.compare()[user,] for user in ("ann", "bob"))
    assert (ann.did.calls, ann.would.calls, ann.would.refused) == (3, 2, 1)
    assert (ann.did.cost, ann.would.cost) == (Decimal("0.016"), Decimal("0.01"))
    assert ann.difference == Decimal("-0.006") == -ann.would.saved
    assert (bob.would, bob.difference) == (bob.did, 0)
    assert found.limits == {"1k tokens/day": {"refused": 1, "downgraded": 0}}
    assert (found.turned_away, found.let_in) == (1, 0)
    assert list(found.compare()) == [("ann",), ("bob",)]


def test_a_downgrade_costs_what_the_small_model_does() -> None:
    """And recovers by itself when the bucket has refilled."""
    tier = Tier("pro", ["600 tokens/minute for large"], when_exceeded=Fallback("small"))
    found = GUARD.simulate([line(0, 600), line(1, 600), line(61, 600)], [tier])
    assert fates(found) == "sds"
    assert found.total.would.cost == Decimal("0.006") * 2 + Decimal("0.0006")
    assert found.total.would.saved == -found.total.difference
    assert found.limits == {"600 tokens/minute for large": {"refused": 0, "downgraded": 1}}


def test_waits_are_served_in_order_and_take_simulated_time() -> None:
    """Three at once for one bucket: each waits for those before it, and the last too long."""
    tier = Tier("batch", ["600 tokens/minute"], when_exceeded=[Wait(60), Refuse()])
    found = GUARD.simulate([line(0, 600), *(line(1, 300) for _ in range(3))], [tier])
    assert fates(found) == "swwr"
    assert [e.waited for e in found.would] == pytest.approx([0, 29, 59, 0])
    total = found.total.would
    assert (total.waited, total.longest_wait) == (2, pytest.approx(59))
    assert total.waited_seconds == pytest.approx(88)


def test_a_refund_ends_a_wait_early() -> None:
    """A long call that used little lets in who waited for what it had reserved."""
    limits = ["600 tokens/day"]
    tier = Tier("batch", limits, when_exceeded=[Wait(86_400), Refuse()])
    log = [line(0, 100, max_tokens=500, seconds=30.0), line(5, 400)]
    found = GUARD.simulate(log, [tier])
    assert fates(found) == "sw"
    assert found.would[1].waited == pytest.approx(25)


def test_a_slot_is_held_as_long_as_the_call_took() -> None:
    """Also beyond a lease, which who is at work renews."""
    tier = Tier("batch", ["1 concurrent"], when_exceeded=[Wait(4000), Refuse()])
    found = GUARD.simulate([line(0, 5, seconds=2000.0), line(1000, 5), line(2000, 5)], [tier])
    assert [e.waited for e in found.would] == pytest.approx([0, 1000, 0])


def test_a_guess_refuses_nothing_and_a_stated_maximum_does() -> None:
    """As for live calls: ``max_tokens`` must fit, what was merely written need not."""
    tier = [Tier("free", ["600 tokens/day"])]
    assert fates(GUARD.simulate([line(0, 100, output_tokens=900)], tier)) == "s"
    assert fates(GUARD.simulate([line(0, 100, output_tokens=9, max_tokens=900)], tier)) == "r"


def test_models_of_the_tier() -> None:
    """Who may not use a model would be refused."""
    found = GUARD.simulate([line(0, 10)], [Tier("free", models=["small"])])
    assert [e.reason for e in found.would] == ["model_not_allowed"]


def test_an_unknown_price_is_never_free() -> None:
    """Under a limit on money it refuses, elsewhere the calls are counted apart."""
    log = [line(0, 10, model="homemade")]
    dollars = GUARD.simulate(log, [Tier("free", ["$1/day"])])
    assert [e.reason for e in dollars.would] == ["price_unknown"]
    assert GUARD.simulate(log).total.would.unpriced == 1
    assert "no known price" in str(GUARD.simulate(log))


def test_what_was_refused_may_be_let_in() -> None:
    """A wider policy: it would have used what it was estimated to."""
    guard = guard_of(limits=["100 tokens/day"])
    for tokens in (90, 200):
        with suppress(QuotaExceeded), guard.hold(user="ann", model="large", input_tokens=tokens):
            pass
    found = guard.simulate(guard.journal, limits=["1k tokens/day"])  # type: ignore[arg-type]
    assert (found.let_in, found.turned_away, fates(found)) == (1, 0, "ss")
    assert found.total.difference == Decimal("0.002") + 512 * Decimal("0.00002")
    guard.close()


def test_the_tier_is_the_recorded_one_or_the_default() -> None:
    """Names that both have go on; a policy without them needs a default."""
    log = [line(0, 200, tier="pro"), line(0, 200, "bob", tier="gold"), line(0, 200, "eve")]
    tiers = [Tier("free", ["100 tokens/day"]), Tier("pro", ["1k tokens/day"])]
    assert fates(GUARD.simulate(log, tiers, default_tier="free")) == "srr"
    with pytest.raises(ConfigurationError, match=r"call 2 of the log .*'gold'.*: no tier: say"):
        GUARD.simulate(log, tiers)


def test_a_resolver_is_asked_with_the_names_of_the_log() -> None:
    """Overrides of users and organisations are part of the policy."""
    pro = Tier("pro", ["100 tokens/day"])

    def tier_of(who: Identity) -> Tier:
        return pro.overridden(["1k tokens/day"]) if who.org == "acme" else pro

    log = [line(0, 200, org="acme", tier="pro"), line(0, 200)]
    assert fates(GUARD.simulate(log, [pro], tier_of=tier_of)) == "sr"
    guard = Guard(tiers=[pro], tier_of=tier_of, prices=PRICES, identity_hash=b"secret")
    assert fates(guard.simulate(log)) == "sr"
    assert [e.user for e in guard.simulate(log).would] == ["ann", "ann"]


def test_an_async_resolver_is_refused_in_words() -> None:
    """Nobody awaits it here."""

    async def tier_of(who: Identity) -> str:
        return "free"

    with pytest.raises(ConfigurationError, match="pass a plain function"):
        GUARD.simulate([line(0, 1)], [Tier("free")], tier_of=tier_of)


def test_nothing_of_the_guard_is_touched(recwarn: pytest.WarningsRecorder) -> None:
    """No level, no event, no warning, no entry; nor does it matter who acts."""
    events: list[object] = []
    guard = guard_of(limits=["1000 tokens/day"], warn_at=0.5, hooks=[events.append])
    tier = Tier("free", ["500 tokens/day"], warn_at=[0.1])
    with acting_as("operator", org="staff"), guard.hold(input_tokens=1, output_tokens=0):
        before = len(events)
        found = guard.simulate([line(0, 400), line(1, 400)], [tier], limits=[])
    assert fates(found) == "sr"
    assert len(events) == before + 1  # the hold's own end
    assert len(kept(guard)) == 1
    assert found.would[0].user == "ann"
    assert not recwarn.list
    guard.close()


def test_it_comes_out_the_same_each_time() -> None:
    """Numbers that jitter can not be compared, so the jitter of waits is left out."""
    tier = Tier("batch", ["600 tokens/minute"], when_exceeded=[Wait(300), Refuse()])
    rng = random.Random(7)
    log = [line(rng.random() * 600, rng.randrange(1, 200), rng.choice("ab")) for _ in range(300)]
    one, two = GUARD.simulate(log, [tier]), GUARD.simulate(log, [tier])
    assert one == two
    assert one.total.would.waited > 50


def test_it_is_shown_as_a_table_and_as_json() -> None:
    """For people and for scripts."""
    tier = Tier("free", ["1000 tokens/day"])
    found = GUARD.simulate([line(0, 600), line(1, 600)], [tier])
    assert str(found).splitlines()[:3] == [
        "user   calls  refused  downgraded  delayed  did cost  would cost  difference",
        "ann        2        1           0        0    $0.012      $0.006     -$0.006",
        "total      2        1           0        0    $0.012      $0.006     -$0.006",
    ]
    said = json.loads(json.dumps(found.as_dict(("user", "model"))))
    assert said["rows"][0]["user"] == "ann"
    assert said["rows"][0]["would"]["refused"] == 1
    assert said["total"]["difference"] == "-0.006"
    assert said["limits"] == [{"limit": "1k tokens/day", "refused": 1, "downgraded": 0}]
    assert Limit.parse(said["limits"][0]["limit"])


@given(
    st.lists(st.tuples(st.integers(0, 120), st.integers(1, 90), st.integers(0, 20)), max_size=40),
    st.sampled_from([20, 200, 2000]),
)
def test_no_bucket_gives_more_than_it_refills(
    calls: list[tuple[int, int, int]], patience: int
) -> None:
    """Checked by hand, without the ledger: between any two admissions what was given is at most
    what the bucket holds and what came back meanwhile; who came first is served first; and nobody
    who waited was told to wait longer than allowed.
    """
    log = [line(at, used, seconds=float(took)) for at, used, took in calls]
    tier = Tier("batch", ["120 tokens/minute"], when_exceeded=[Wait(patience), Refuse()])
    found = GUARD.simulate(log, [tier])
    served = [e for e in found.would if e.outcome == "served"]
    admitted = sorted((e.began or 0.0, e.charged.tokens) for e in served)
    for first, (begun, _) in enumerate(admitted):
        given_out = 0
        for then, used in admitted[first:]:
            given_out += used
            assert given_out <= 120 + 2 * (then - begun) + 0.01
    queue = sorted((e for e in served if e.waited), key=lambda e: (e.began or 0.0) - e.waited)
    assert [e.began for e in queue] == sorted(e.began or 0.0 for e in queue)
    assert all(e.waited <= patience + 0.01 for e in found.would)
