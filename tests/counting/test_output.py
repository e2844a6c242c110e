"""How many tokens a request allows for its answer."""

from __future__ import annotations

from typing import Any

import pytest

from quotaguard.counting import Estimate, estimate, output_allowance
from quotaguard.counting.output import answers


class NotGiven:
    """Named like the SDK's own sentinel."""


@pytest.mark.parametrize(
    ("endpoint", "request_", "allowed"),
    [
        ("chat", {}, None),
        ("chat", {"max_tokens": None}, None),
        ("chat", {"max_tokens": NotGiven()}, None),
        ("chat", {"max_tokens": 100}, 100),
        ("chat", {"max_tokens": 0}, 0),
        ("chat", {"max_tokens": 100, "max_completion_tokens": 300}, 300),
        ("chat", {"max_tokens": 100, "n": 3}, 300),
        ("chat", {"max_tokens": 100, "n": None}, 100),
        ("responses", {"max_output_tokens": 50}, 50),
        ("messages", {"max_tokens": 1000}, 1000),
        (
            "messages",
            {"max_tokens": 1000, "thinking": {"type": "enabled", "budget_tokens": 800}},
            1000,
        ),
        ("messages", {"max_tokens": 1000, "thinking": {"budget_tokens": 4000}}, 4000),
        ("completions", {"max_tokens": 10, "n": 2, "best_of": 5}, 50),
        ("completions", {"max_tokens": 10, "prompt": ["a", "b", "c"]}, 30),
        ("completions", {"max_tokens": 10, "prompt": [1, 2, 3]}, 10),
        ("embeddings", {"max_tokens": 5}, 0),
    ],
)
def test_the_larger_stated_maximum_counts_for_each_answer(
    endpoint: str, request_: dict[str, Any], allowed: int | None
) -> None:
    """And none is no maximum."""
    assert output_allowance(endpoint, request_) == allowed


@pytest.mark.parametrize("wrong", ["100", True, float("nan"), float("inf"), -5, [], {}])
def test_what_is_no_number_of_tokens_is_no_maximum(wrong: object) -> None:
    """The provider will say so; metering goes on."""
    assert output_allowance("chat", {"max_tokens": wrong}) is None


def test_a_stated_maximum_is_hard_and_a_guess_is_soft(without_tables: None) -> None:
    """The guess is the prior, once for each answer."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    counted = estimate("chat", body).input_tokens

    assert estimate("chat", {**body, "max_tokens": 7}) == Estimate(counted, 7, output_hard=True)
    assert estimate("chat", {**body, "n": 2}, prior=9) == Estimate(counted, 18, output_hard=False)
    assert estimate("embeddings", {"input": "hi"}).output_tokens == 0


@pytest.mark.parametrize("n", [0, -1, "3", None, True])
def test_there_is_at_least_one_answer(n: object) -> None:
    """Whatever ``n`` says."""
    assert answers("chat", {"n": n}) == 1
