"""Policies: what to do when there is no room."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import (
    wait_chain,
    wait_exponential,
    wait_fixed,
    wait_incrementing,
    wait_none,
    wait_random_exponential,
)

from quotaguard import ConfigurationError, Fallback, Guard, QuotaExceeded, Refuse, Tier, Wait
from quotaguard.policies import policies
from quotaguard.testing import FakeClock


@pytest.mark.parametrize("seconds", [0, -1, math.inf, -math.inf, math.nan])
def test_how_long_one_can_wait(seconds: float) -> None:
    """Some time, but not for ever."""
    with pytest.raises(ConfigurationError, match=f"max_seconds is > 0 and finite, not {seconds}"):
        Wait(seconds)


@pytest.mark.parametrize("seconds", ["30", None, True, [30]])
def test_waits_are_numbers(seconds: Any) -> None:
    """Of seconds."""
    with pytest.raises(ConfigurationError, match="max_seconds is a number of seconds, not"):
        Wait(seconds)


def test_jitter_is_a_curve() -> None:
    """Or None; a number is not one."""
    with pytest.raises(ConfigurationError, match=r"backoff is a tenacity wait .*, not 0\.5"):
        Wait(30, backoff=0.5)  # type: ignore[arg-type]
    assert Wait(30, backoff=None).pause(7, 1) == 7
    assert Wait(30, backoff=wait_fixed(2)).pause(7, 1) == 9
    assert 7 <= Wait(30).pause(7, 1) <= 7.05
    assert Wait(30) == Wait(30)


@pytest.mark.parametrize("models", [(), ("",), (None,), (["a", "b"],), (4,)])
def test_fallbacks_name_models(models: tuple[Any, ...]) -> None:
    """At least one, and names only."""
    with pytest.raises(ConfigurationError, match="Fallback takes the names of models, not"):
        Fallback(*models)


def test_a_list_of_policies() -> None:
    """One policy is a list of one, any iterable will do, and none is a list of none."""
    assert policies(Refuse()) == (Refuse(),)
    assert policies(()) == ()
    assert policies(p for p in [Fallback("a"), Refuse()]) == (Fallback("a"), Refuse())


@pytest.mark.parametrize("value", ["refuse", b"refuse", 5, None, [None], ["refuse"], [Wait]])
def test_what_is_no_policy(value: Any) -> None:
    """It is named."""
    with pytest.raises(ConfigurationError, match=r"when_exceeded (is a list|holds)"):
        policies(value)


@pytest.mark.parametrize("after", [Refuse(), Fallback("a")])
def test_nothing_stands_behind_refuse(after: Refuse | Fallback) -> None:
    """What would never be tried is named."""
    with pytest.raises(ConfigurationError, match=r"nothing is tried after Refuse\(\)") as refused:
        policies([Refuse(), after])
    assert repr(after) in str(refused.value)


@pytest.mark.parametrize(
    ("curve", "added"),
    [
        (wait_none(), [0, 0, 0, 0]),
        (wait_fixed(2), [2, 2, 2, 2]),
        (wait_incrementing(1, 3), [1, 4, 7, 10]),
        (wait_exponential(max=5), [1, 2, 4, 5]),
        (wait_fixed(1) + wait_exponential(), [2, 3, 5, 9]),
        (wait_chain(wait_fixed(1), wait_fixed(3)), [1, 3, 3, 3]),
        (lambda state: state.attempt_number / 2, [0.5, 1, 1.5, 2]),
        (lambda state: -5, [0, 0, 0, 0]),
    ],
)
def test_curves_go_by_the_attempt(curve: Any, added: list[float]) -> None:
    """The first attempt is 1, and no curve shortens the computed wait."""
    wait = Wait(60, backoff=curve)
    assert [wait.pause(10.0, attempt) for attempt in (1, 2, 3, 4)] == [10 + s for s in added]


@given(st.floats(0, 1e6), st.integers(1, 20))
def test_random_curves_stay_in_their_range(computed: float, attempt: int) -> None:
    """Full jitter adds at most the curve's value, the default a twentieth of a second."""
    full = Wait(60, backoff=wait_random_exponential(max=5)).pause(computed, attempt)
    assert computed <= full <= computed + min(2 ** (attempt - 1), 5) + 1e-6
    assert computed <= Wait(60).pause(computed, attempt) <= computed + 0.05 + 1e-6
    assert Wait(60, backoff=None).pause(computed, attempt) == computed


# -- together, on a guard --------------------------------------------------------------------------


def guard(*when_exceeded: Any) -> Guard:
    """A large model with 100 tokens and a small one with 30, each per minute."""
    return Guard(
        tiers=[
            Tier(
                "pro",
                ["100 tokens/minute for large", "30 tokens/minute for small"],
                models=["large", "small"],
                when_exceeded=when_exceeded,
            )
        ],
        clock=FakeClock(),
    )


def served(guard: Guard, model: str = "large", tokens: int = 20) -> tuple[str | None, float]:
    """Which model serves a call, and how long it waits."""
    with guard.hold(user="u", model=model, input_tokens=tokens, output_tokens=0) as lease:
        return lease.model, round(lease.waited, 1)


def test_refusing() -> None:
    """An empty bucket refuses; the list may also end without saying so."""
    for policy in ((), (Refuse(),)):
        held = guard(*policy)
        assert [served(held)[0] for _ in range(5)] == ["large"] * 5
        with pytest.raises(QuotaExceeded):
            served(held)


def test_falling_back_then_waiting() -> None:
    """The smaller model serves while it has room, then whichever has room first."""
    held = guard(Fallback("small"), Wait(60, backoff=None), Refuse())
    assert [served(held) for _ in range(6)] == [("large", 0.0)] * 5 + [("small", 0.0)]
    assert served(held) == ("large", 12.0)
    assert served(held, tokens=26) == ("large", 15.6)


def test_waiting_then_falling_back() -> None:
    """A short wait for the large model is better than the small one, a long one is not."""
    held = guard(Wait(15, backoff=None), Fallback("small"))
    for _ in range(5):
        served(held)
    assert served(held) == ("large", 12.0)
    assert served(held, tokens=30) == ("small", 0.0)
    with pytest.raises(QuotaExceeded):
        served(held, tokens=30)


def test_a_fallback_that_is_not_allowed_is_skipped() -> None:
    """Nor is the model that was asked for its own fallback."""
    held = guard(Fallback("huge", "large"))
    for _ in range(5):
        served(held)
    with pytest.raises(QuotaExceeded) as caught:
        served(held)
    assert caught.value.model == "large"


def test_the_guards_policies_are_for_tiers_without() -> None:
    """A tier that names its own, even none, goes by them."""
    clock = FakeClock()
    held = Guard(
        tiers=[
            Tier("a", ["10 tokens/minute"]),
            Tier("b", ["10 tokens/minute"], when_exceeded=[]),
        ],
        when_exceeded=Wait(60, backoff=None),
        clock=clock,
    )
    for user, tier, waits in (("x", "a", True), ("y", "b", False)):
        who = {"user": user, "tier": tier, "input_tokens": 10, "output_tokens": 0}
        with held.hold(**who):  # type: ignore[arg-type]
            pass
        if not waits:
            with pytest.raises(QuotaExceeded), held.hold(**who):  # type: ignore[arg-type]
                pass
            continue
        with held.hold(**who) as lease:  # type: ignore[arg-type]
            assert lease.waited == 60
