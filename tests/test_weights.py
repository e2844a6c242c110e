"""What counts toward a limit, and how much."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotaguard import ConfigurationError, Guard, Limit, Usage, Weights
from quotaguard.testing import FakeClock

USED = Usage(1, 1000, 100, cached_tokens=600, cache_write_tokens=200)


@pytest.mark.parametrize(
    ("metric", "weights", "counts"),
    [
        ("tokens", Weights(), 1100),
        ("tokens", Weights(cached=0), 500),
        ("tokens", Weights(cached=0.1), 560),
        ("tokens", Weights(cache_write=1.25), 1150),
        ("tokens", Weights(output=5), 1500),
        ("input_tokens", Weights(cached=0, output=5), 400),
        ("output_tokens", Weights(cached=0, output=5), 500),
        ("tokens", Weights(models=(("gpt-4o-mini", 0.1),)), 110),
        ("tokens", Weights(models=(("gpt-4o", 3.0), ("*", 0.5))), 550),
    ],
)
def test_what_a_call_counts(metric: str, weights: Weights, counts: float) -> None:
    """Each kind of token by its weight, all of them by the model's."""
    limit = Limit(1e6, metric, "day", weights=weights)
    assert limit.measure(USED, "gpt-4o-mini") == pytest.approx(counts)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(["tokens", "input_tokens"]))
def test_weights_of_one_change_nothing(read: int, written: int, metric: str) -> None:
    """A limit counts the same with them as without."""
    used = Usage(1, 2 * 10**6, 50, read, written)
    plain, weighed = Limit(1, metric, "day"), Limit(1, metric, "day", weights=Weights())
    assert weighed.measure(used, "m") == plain.measure(used, "m")


def test_a_quota_that_spans_a_fleet() -> None:
    """A small model costs a tenth, reserved and settled; cached input comes back at the end."""
    limit = Limit.parse(
        {
            "limit": "10k tokens/day",
            "weights": {"cached": 0, "models": {"small": 0.1}},
        }
    )
    guard = Guard(limits=[limit], clock=FakeClock())
    with guard.hold(user="u", model="small", input_tokens=5000, output_tokens=1000):
        assert guard.peek(user="u")[0].left == 10_000 - 600
    with guard.hold(user="u", model="large", input_tokens=5000, output_tokens=100) as lease:
        assert guard.peek(user="u")[0].left == 9400 - 5100
        lease.record(input_tokens=5000, output_tokens=100, cached_tokens=4000)
    assert guard.peek(user="u")[0].left == 9400 - 1100


def test_a_prompt_that_a_weight_makes_fit() -> None:
    """Counting stops where the limit is passed by what tokens count, not by their number."""
    limit = Limit(100, "tokens", "day", weights=Weights(models=(("small", 0.01), ("free", 0))))
    rules = Guard(limits=[limit]).rules
    tier = rules.tier(None)
    who = rules.who(rules_identity())
    assert rules.most_input(tier, who, "small") == 10_000
    assert rules.most_input(tier, who, "large") == 100
    assert (rules.most_input(tier, who, "free") or 0) > 1e15


def rules_identity() -> Any:
    """Somebody."""
    from quotaguard import Identity

    return Identity("u")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Weights(cached=-1), "weight of cached is a number >= 0 such as 0.1, not -1"),
        (lambda: Weights(output=float("inf")), "weight of output .* not inf"),
        (lambda: Weights(models={"m": "half"}), "weight of m .* not 'half'"),
        (lambda: Weights(models=["m"]), "weights of models are like"),
        (lambda: Weights.of({"input": 2}), "weights are any of cached, cache_write, output"),
        (lambda: Weights.of(0.5), "weights are any of .* not 0.5"),
        (lambda: Limit(1, "requests", "day", weights=Weights()), "limit on requests has none"),
        (lambda: Limit.parse({"weights": {}}), "a table with limit and any of"),
        (lambda: Limit.parse({"limit": "1 token/day", "weight": 1}), "a table with limit and"),
    ],
)
def test_wrong_weights_are_named(make: Any, complaint: str) -> None:
    """With what would be right."""
    with pytest.raises(ConfigurationError, match=complaint):
        make()
