"""Providers' limits as limits of ours: shared by workers, corrected once."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from quotaguard import BackendError, ConfigurationError, Guard, load_guard
from quotaguard.core.drive import drive
from quotaguard.core.lease import Demand, Lease
from quotaguard.core.ops import Candidate, Charge, Peek, Release, Reservation, Reserve
from quotaguard.identity import Identity
from quotaguard.limits import Limit
from quotaguard.models import undated
from quotaguard.providers.told import DAY, Quota, Told
from quotaguard.testing import FakeClock
from quotaguard.upstream import LONGEST_PAUSE, PAUSE, Correction, Upstream

ACCOUNT, MODEL = "account", "gpt-4o"
OWNER = ("provider", ACCOUNT, MODEL)
DEMAND = Demand(100, 50, hard=True)
BUSY = Lease("call", Identity("alice", None, "default"), MODEL, MODEL, DEMAND, (), (), ())
"""A call that was admitted before anything was known."""


def guard(clock: FakeClock, backend: str = "memory://") -> Guard:
    """One that learns."""
    return Guard(clock=clock, backend=backend, learn_provider_limits=True)


def known(guard: Guard) -> Upstream:
    """What it knows."""
    assert guard.upstream is not None
    return guard.upstream


def limits(guard: Guard) -> dict[str, float]:
    """The provider's limits that a call would charge, and how much."""
    charges = known(guard).charges(ACCOUNT, MODEL, DEMAND)
    return {charge.limit.text: charge.amount for charge in charges if charge.limit is not PAUSE}


def hear(guard: Guard, *quotas: Quota, again: float | None = None) -> Correction | None:
    """An answer that says so: a refusal if it says when to come back."""
    refused = again is not None
    return known(guard).hear(ACCOUNT, BUSY, Told(quotas, again), refused=refused, last=True)


def left(guard: Guard, limit: Limit, owner: tuple[str, ...] = OWNER) -> float:
    """What a bucket holds."""
    (state,) = guard.backend.execute(Peek(((owner, limit),)))  # type: ignore[misc, union-attr]
    return float(state.left)  # type: ignore[union-attr]


def test_a_new_worker_begins_with_what_others_learnt(tmp_path: Path) -> None:
    """It is held back before it has heard a single answer."""
    clock = FakeClock()
    url = f"sqlite:///{tmp_path}/quota.db"
    old, new = guard(clock, url), guard(clock, url)
    hear(old, Quota("requests", 500, None, DAY), Quota("tokens", 30_000, None))
    old._sharing.run_errands()
    assert limits(new) == {}
    new._sharing.run_errands()
    assert limits(new) == {
        "500 requests/rolling day (the provider's)": 1,
        "30k tokens/minute (the provider's)": 150,
    }
    hear(new, Quota("tokens", 30_001, None))
    assert limits(new) == {"30001 tokens/minute (the provider's)": 150}
    old.close()
    new.close()


@pytest.mark.parametrize("limit", [1, 3, 37, 500, 28_570, 90_000, 450_000, 2_000_000, 150_000_000])
def test_what_is_passed_on_is_near(limit: int, tmp_path: Path) -> None:
    """To a thousandth, and to the very number if it is a round one."""
    clock = FakeClock()
    url = f"sqlite:///{tmp_path}/quota.db"
    old, new = guard(clock, url), guard(clock, url)
    hear(old, Quota("tokens", limit, None))
    old._sharing.run_errands()
    limits(new)
    new._sharing.run_errands()
    (charge,) = known(new).charges(ACCOUNT, MODEL, DEMAND)[1:]
    assert charge.limit.amount == pytest.approx(limit, rel=2e-3)
    if float(f"{limit:.2g}") == limit:
        assert charge.limit.amount == limit
    old.close()
    new.close()


def test_a_correction_is_made_once() -> None:
    """Two workers that hear the same must not take it away twice."""
    clock = FakeClock()
    both = guard(clock)
    corrections = [hear(both, Quota("tokens", 600, 200)), hear(both, Quota("tokens", 600, 200))]
    limit = known(both).charges(ACCOUNT, MODEL, DEMAND)[1].limit
    assert corrections[1] is None  # so soon after the first
    for _ in range(2):
        assert corrections[0] is not None
        assert drive(known(both).correcting(corrections[0]), both.backend) is False
        assert left(both, limit) == pytest.approx(200)


def test_who_finds_another_at_it_comes_back_if_it_must() -> None:
    """After a refusal, that is; else the next answer will tell."""
    clock = FakeClock()
    one = guard(clock)
    seldom, must = hear(one, Quota("tokens", 600, 200)), hear(one, again=30.0)
    assert seldom is not None
    assert must is not None
    assert (seldom.insist, must.insist) == (False, True)
    lock = Limit(1.0, "concurrent")
    for correction in (seldom, must):
        charge = Charge(OWNER, lock, 1.0, 1.0, 0.0)
        another = Reserve(f"another {correction.insist}", (Candidate(None, (charge,)),), 5.0)
        assert isinstance(one.backend.execute(another), Reservation)
        assert drive(known(one).correcting(correction), one.backend) is correction.insist
        one.backend.execute(Release(another.id))
    one.after(lambda: known(one).correcting(must), at_once=False)
    one.run_errands()
    assert left(one, PAUSE, ("pause", ACCOUNT, MODEL)) == pytest.approx(-30, abs=1e-6)


def test_a_pause_ends_after_an_hour_at_the_latest() -> None:
    """Whatever the header says: somebody has to try."""
    one = guard(FakeClock())
    correction = hear(one, again=1e9)
    assert correction is not None
    assert correction.aims[-1].left == -LONGEST_PAUSE


def test_a_ledger_that_is_away_is_left_alone() -> None:
    """A correction is given up; the next answer makes another."""
    one = guard(FakeClock())
    correction = hear(one, again=30.0)
    assert correction is not None
    plan = known(one).correcting(correction)
    next(plan)
    with pytest.raises(StopIteration) as over:
        plan.throw(BackendError("no route"))
    assert over.value.value is False


def test_more_than_a_bucket_holds_needs_it_full_and_no_more() -> None:
    """An estimate may be far too high, or the provider may count less: it has to decide."""
    one = guard(FakeClock())
    hear(one, Quota("tokens", 120, None), Quota("input_tokens", 1000, None, cached=0.0))
    _, tokens, inputs = known(one).charges(ACCOUNT, MODEL, DEMAND)
    assert (tokens.amount, tokens.least) == (150, 120)
    assert (inputs.amount, inputs.least) == (100, 100)


def test_tokens_are_counted_where_the_provider_limits_them() -> None:
    """And only there, if no limit of ours does."""
    one = guard(FakeClock())
    hear(one, Quota("requests", 10, None))
    assert known(one).most_input(ACCOUNT, MODEL) is None
    hear(one, Quota("tokens", 10, None))
    most = known(one).most_input(ACCOUNT, MODEL)
    assert most is not None
    assert 10 < most < math.inf


@pytest.mark.parametrize(
    ("model", "plain"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06-mine", "gpt-4o-2024-08-06-mine"),
        ("", ""),
    ],
)
def test_a_snapshot_shares_the_limits_of_its_model(model: str, plain: str) -> None:
    """As at the providers."""
    assert undated(model) == plain


def test_a_file_may_ask_for_it() -> None:
    """As for every other argument of a guard."""
    assert load_guard({"learn_provider_limits": True}).upstream is not None
    assert load_guard({}).upstream is None
    with pytest.raises(ConfigurationError, match="learn_provider_limits is true or false"):
        load_guard({"learn_provider_limits": "yes"})
