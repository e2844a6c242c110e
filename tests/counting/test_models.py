"""Names of models, and the rules they lead to."""

from __future__ import annotations

import logging

import pytest

from quotaguard.counting import models
from quotaguard.counting.models import (
    CLAUDE,
    OPENAI,
    base_name,
    claude_rules,
    family_name,
    is_claude,
    openai_rules,
)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gpt-4-0613", "gpt-4"),
        ("gpt-4-turbo-2024-04-09", "gpt-4-turbo"),
        ("gpt-35-turbo", "gpt-3.5"),
        ("openai/gpt-4.1-mini", "gpt-4.1-mini"),
        ("azure/gpt-4.1", "gpt-4.1"),
        ("ft:gpt-4o-mini-2024-07-18:acme::AbC1", "gpt-4o-mini"),
        ("GPT-5-Nano", "gpt-5-nano"),
        ("gpt-5.4-nano", "gpt-5.4"),
        ("o4-mini-2025-04-16", "o4-mini"),
        ("my-gpt-4o-mini-deployment", "gpt-4o-mini"),
        ("text-embedding-3-small", "text-embedding"),
    ],
)
def test_openai_names_lead_to_their_rules(name: str, key: str) -> None:
    """Dates, prefixes, fine-tunes and telling aliases change nothing."""
    assert openai_rules(name) is OPENAI[key]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("claude-sonnet-4-5", "claude-sonnet-4-5"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4"),
        ("claude-sonnet-4@20250514", "claude-sonnet-4"),
        ("claude-3-5-sonnet@20240620", "claude-3-5-sonnet-20240620"),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5"),
        ("anthropic/claude-opus-4.6", "claude-opus-4-6"),
        (
            "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.anthropic.claude-3-haiku-20240307-v1:0",
            "claude-3-haiku",
        ),
        ("publishers/anthropic/models/claude-opus-4-7", "claude-opus-4-7"),
    ],
)
def test_cloud_names_lead_to_claudes_rules(name: str, key: str) -> None:
    """Bedrock, Vertex and gateways name the same models in their own ways."""
    assert is_claude(name)
    assert claude_rules(name) is CLAUDE[key]


def test_an_unknown_model_gets_the_newest_rules_and_is_reported_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Counting goes on; the log says by what rules."""
    with caplog.at_level(logging.WARNING, "quotaguard"):
        for _ in range(3):
            assert openai_rules("prod-chat-unheard-of") is OPENAI["gpt-5.6"]
            assert claude_rules("claude-unheard-of") is CLAUDE["claude-opus-5"]

    assert [record.args[0] for record in caplog.records] == [  # type: ignore[index]
        "prod-chat-unheard-of",
        "claude-unheard-of",
    ]


def test_the_log_is_not_filled_with_unknown_models(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names come from requests, so anybody can make them up."""
    monkeypatch.setattr(models, "_warned", set())
    for n in range(1_000):
        assert openai_rules(f"unheard-of-{n}") is OPENAI["gpt-5.6"]

    assert len(caplog.records) == 100


def test_no_model_is_no_unknown_model(caplog: pytest.LogCaptureFixture) -> None:
    """Where the body names none, the newest rules apply without a word."""
    assert openai_rules(None) is OPENAI["gpt-5.6"]
    assert claude_rules(None) is CLAUDE["claude-opus-5"]
    assert not caplog.records


def test_a_name_of_any_length_is_read_in_part() -> None:
    """A hostile name fills no cache."""
    assert openai_rules("gpt-4o-" + "x" * 1_000_000) is OPENAI["gpt-4o"]


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("gpt-4o-2024-08-06", ("gpt-4o", "openai")),
        ("claude-haiku-4-5-20251001", ("claude-haiku-4-5", "claude")),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", ("claude-haiku-4-5", "claude")),
        ("claude-3-5-haiku-latest", ("claude-3-5-haiku", "claude")),
    ],
)
def test_dated_names_are_one_model(name: str, family: tuple[str, str]) -> None:
    """What is learnt of one is learnt of the other."""
    assert family_name(name) == family


def test_base_names_drop_what_is_around_them() -> None:
    """But keep the date."""
    assert base_name("us.anthropic.claude-sonnet-4-5-20250929-v1:0") == (
        "claude-sonnet-4-5-20250929-v1"
    )
