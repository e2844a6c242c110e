"""How long answers are expected to be: of this user, else of the model, else the prior."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotaguard.counting import LearnedOutput
from quotaguard.errors import ConfigurationError


def test_the_prior_stands_until_there_is_enough() -> None:
    """A few answers say little."""
    learned = LearnedOutput(enough=5)
    for _ in range(4):
        learned.observe("alice", "gpt-4o", 10)

    assert learned.predict("alice", "gpt-4o", 512) == 512
    learned.observe("alice", "gpt-4o", 10)
    assert learned.predict("alice", "gpt-4o", 512) < 12


def test_the_model_speaks_for_a_user_who_is_new() -> None:
    """And each user for themselves."""
    learned = LearnedOutput(enough=5)
    for _ in range(20):
        learned.observe("alice", "gpt-4o", 100)

    assert 100 <= learned.predict("bob", "gpt-4o", 512) <= 105
    for _ in range(5):
        learned.observe("bob", "gpt-4o", 1000)
    assert 1000 <= learned.predict("bob", "gpt-4o-2024-08-06", 512) <= 1050
    assert 100 <= learned.predict("alice", "gpt-4o", 512) <= 105
    assert learned.predict("alice", "gpt-5", 512) == 512


@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_the_quantile_of_answers_fits(quantile: float) -> None:
    """That share of answers is no longer than predicted, and the prediction no longer than need
    be.
    """
    chance = random.Random(1)
    lengths = [chance.lognormvariate(5, 1) for _ in range(400)]
    learned = LearnedOutput(quantile=quantile)
    for length in lengths:
        learned.observe("alice", "gpt-4o", length)
    predicted = learned.predict("alice", "gpt-4o", 1)

    assert quantile <= sum(n <= predicted for n in lengths) / len(lengths) <= quantile + 0.03


def test_habits_that_change_are_followed() -> None:
    """Old answers fade."""
    learned = LearnedOutput()
    for length, number in ((4000, 200), (50, 2500)):
        for _ in range(number):
            learned.observe("alice", "gpt-4o", length)

    assert learned.predict("alice", "gpt-4o", 512) <= 53


@given(st.one_of(st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=2)))
def test_what_is_no_number_of_tokens_is_ignored(tokens: object) -> None:
    """A prediction is a whole number of tokens, whatever came in."""
    learned = LearnedOutput(enough=1)
    learned.observe("alice", "gpt-4o", tokens)  # type: ignore[arg-type]

    assert 1 <= learned.predict("alice", "gpt-4o", 512) <= 2_200_000


def test_an_answer_of_nothing_is_an_answer() -> None:
    """Zero tokens are real usage."""
    learned = LearnedOutput(enough=1)
    learned.observe("alice", "gpt-4o", 0)

    assert learned.predict("alice", "gpt-4o", 512) == 1


def test_keys_are_bounded_and_the_least_used_go_first() -> None:
    """A million users take the memory of a few."""
    learned = LearnedOutput(enough=1, max_keys=10)
    learned.observe("alice", "gpt-4o", 7)
    for n in range(100):
        learned.observe(f"user {n}", "gpt-4o", 1000)

    assert len(learned) == 10
    assert learned.predict("alice", "gpt-4o", 512) > 900  # the model's, hers is forgotten


@pytest.mark.parametrize("wrong", [{"quantile": 0.0}, {"enough": 0}, {"max_keys": 0}])
def test_wrong_settings_are_named(wrong: dict[str, float]) -> None:
    """With what would be right."""
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        LearnedOutput(**wrong)  # type: ignore[arg-type]
