"""Requests that another model is to serve."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotaguard import Fallback
from quotaguard.providers.adapting import adapted


@pytest.mark.parametrize(
    ("endpoint", "model", "body", "becomes"),
    [
        (
            "chat",
            "gpt-5-mini",
            {"max_tokens": 100, "temperature": 0.2, "top_p": 1, "logit_bias": {"1": 2}, "n": 2},
            {"max_completion_tokens": 100, "n": 2},
        ),
        ("chat", "o4-mini", {"max_tokens": 9, "max_completion_tokens": 5}, None),
        ("chat", "gpt-5-chat-latest", {"temperature": 0.2}, {"temperature": 0.2}),
        (
            "chat",
            "gpt-4o-mini",
            {"reasoning_effort": "low", "verbosity": "high", "temperature": 1},
            {"temperature": 1},
        ),
        ("chat", "gpt-4o-mini", {"max_tokens": 50_000}, {"max_tokens": 16_384}),
        (
            "chat",
            "gpt-4.1-mini",
            {"max_completion_tokens": 50_000},
            {"max_completion_tokens": 32_768},
        ),
        ("chat", "o3-mini", {"reasoning_effort": "minimal"}, {"reasoning_effort": "low"}),
        ("chat", "o3-mini", {"reasoning_effort": "xhigh"}, {"reasoning_effort": "high"}),
        ("chat", "gpt-5-nano", {"reasoning_effort": "none"}, {"reasoning_effort": "minimal"}),
        ("chat", "gpt-5.2", {"reasoning_effort": "minimal"}, {"reasoning_effort": "low"}),
        ("chat", "gpt-5.2", {"reasoning_effort": "new one"}, {"reasoning_effort": "new one"}),
        (
            "responses",
            "gpt-4o-mini",
            {
                "reasoning": {"effort": "high"},
                "text": {"verbosity": "low", "format": {"type": "text"}},
                "include": ["reasoning.encrypted_content", "file_search_call.results"],
                "input": [{"type": "reasoning", "id": "r"}, {"role": "user", "content": "hi"}],
                "max_output_tokens": 20_000,
            },
            {
                "text": {"format": {"type": "text"}},
                "include": ["file_search_call.results"],
                "input": [{"role": "user", "content": "hi"}],
                "max_output_tokens": 16_384,
            },
        ),
        (
            "responses",
            "o4-mini",
            {"temperature": 1, "reasoning": {"effort": "minimal", "summary": "auto"}},
            {"reasoning": {"effort": "low", "summary": "auto"}},
        ),
        (
            "messages",
            "claude-3-haiku-20240307",
            {
                "max_tokens": 64_000,
                "thinking": {"type": "enabled", "budget_tokens": 32_000},
                "output_config": {"effort": "low"},
                "messages": [
                    {"role": "user", "content": "hi"},
                    {
                        "role": "assistant",
                        "content": [
                            {"type": "thinking", "thinking": "..."},
                            {"type": "text", "text": "yes"},
                        ],
                    },
                ],
            },
            {
                "max_tokens": 4096,
                "messages": [
                    {"role": "user", "content": "hi"},
                    {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
                ],
            },
        ),
        (
            "messages",
            "us.anthropic.claude-opus-4-1-20250805-v1:0",
            {"thinking": {"type": "adaptive"}, "temperature": 1, "top_p": 0.9},
            {"temperature": 1},
        ),
        (
            "messages",
            "claude-opus-4-0",
            {"max_tokens": 40_000, "thinking": {"type": "enabled", "budget_tokens": 35_000}},
            {"max_tokens": 32_000, "thinking": {"type": "enabled", "budget_tokens": 16_000}},
        ),
        (
            "messages",
            "claude-sonnet-5",
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
        ),
        ("embeddings", "text-embedding-3-small", {"input": "x"}, {"input": "x"}),
        ("chat", "somebody-elses", {"temperature": 3, "verbosity": 1}, {"temperature": 3}),
    ],
)
def test_what_becomes_of_a_request(
    endpoint: str, model: str, body: dict[str, Any], becomes: dict[str, Any] | None
) -> None:
    """Dropped, renamed or lowered, as the table says; the caller's own is not touched."""
    before = copy.deepcopy(body)
    result = adapted(endpoint, {"model": "asked for", **body}, model)
    expected = {"max_completion_tokens": 5} if becomes is None else becomes
    assert result == {"model": model, **expected}
    assert body == before


def test_a_policy_has_the_last_word() -> None:
    """A table by model, None takes a field out; or a callable."""
    table = Fallback("a", "b", adapt={"a": {"temperature": None, "seed": 7}})
    body = {"model": "a", "temperature": 1, "n": 2}
    assert table.adapted(body, "a") == {"model": "a", "n": 2, "seed": 7}
    assert table.adapted(body, "b") == body
    called = Fallback("a", adapt=lambda body, model: {"only": model})
    assert called.adapted(body, "a") == {"only": "a"}


json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
NAMES = (
    "max_tokens max_output_tokens thinking messages input reasoning text include output_config "
    "temperature top_p reasoning_effort budget_tokens"
)
fields = st.sampled_from(NAMES.split())


@given(
    st.sampled_from(["chat", "responses", "messages", "completions", "embeddings"]),
    st.dictionaries(fields, json),
    st.sampled_from(["gpt-4o-mini", "o4-mini", "gpt-5.2", "claude-3-haiku-20240307", "x"]),
)
def test_no_body_is_too_strange(endpoint: str, body: dict[str, Any], model: str) -> None:
    """What cannot be understood is left alone: the provider will say what is wrong with it."""
    before = copy.deepcopy(body)
    once = adapted(endpoint, body, model)
    assert body == before
    assert adapted(endpoint, once, model) == once
