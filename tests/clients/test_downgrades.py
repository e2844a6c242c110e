"""Calls that another model serves: what is sent, what is charged, what is told."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest

from quotaguard import (
    Fallback,
    Guard,
    GuardedAnthropic,
    GuardedAzureOpenAI,
    GuardedOpenAI,
    ModelNotAllowed,
    Price,
    QuotaExceeded,
    Tier,
    receipt,
)
from quotaguard.testing import FakeProvider, Reply

QUESTION: Any = [{"role": "user", "content": "What is a token bucket?"}]
PRICES = {
    "o3": Price(Decimal(2), Decimal(8)),
    "gpt-4o-mini": Price(Decimal("0.15"), Decimal("0.6")),
}


def downgrading(large: str, *policies: Fallback, **options: Any) -> Guard:
    """A guard with no room for the large model."""
    return Guard(limits=[f"0 requests/day for {large}"], when_exceeded=policies, **options)


def openai_client(provider: FakeProvider, guard: Guard, **more: Any) -> GuardedOpenAI:
    """A client of that provider."""
    return GuardedOpenAI(
        guard=guard, user="u", base_url=provider.openai_url, api_key="test", **more
    )


def test_a_chat_request_is_adapted(provider: FakeProvider) -> None:
    """What the small model does not know is dropped; the maximum is its own."""
    guard = downgrading("o3", Fallback("gpt-4o-mini"), prices=PRICES)
    with openai_client(provider, guard) as client:
        answer = client.chat.completions.create(
            model="o3", messages=QUESTION, reasoning_effort="high", max_completion_tokens=50_000
        )
    (seen,) = provider.requests
    assert seen.body == {
        "model": "gpt-4o-mini",
        "messages": QUESTION,
        "max_completion_tokens": 16_384,
    }
    told = receipt(answer)
    assert (told.requested_model, told.served_model) == ("o3", "gpt-4o-mini")
    assert told.because == "0 requests/day for o3"
    assert told.reserved.output_tokens == 16_384
    used = told.used
    assert used is not None
    assert (
        told.cost
        == (Decimal("0.15") * used.input_tokens + Decimal("0.6") * used.output_tokens) / 10**6
    )
    assert told.in_full == Decimal(2 * used.input_tokens + 8 * used.output_tokens) / 10**6


def test_extra_body_and_a_policy_of_ones_own(provider: FakeProvider) -> None:
    """What the caller adds to the body goes along; the policy has the last word."""
    fallback = Fallback("gpt-4o-mini", adapt={"gpt-4o-mini": {"seed": None, "top_k": 5}})
    with openai_client(provider, downgrading("gpt-4o", fallback)) as client:
        client.chat.completions.create(
            model="gpt-4o", messages=QUESTION, seed=1, extra_body={"top_k": 9, "custom": True}
        )
    assert provider.requests[0].body == {
        "model": "gpt-4o-mini",
        "messages": QUESTION,
        "top_k": 5,
        "custom": True,
    }


def test_a_stream_is_adapted_too(provider: FakeProvider) -> None:
    """And says its usage all the same."""
    guard = downgrading("gpt-4o", Fallback("o4-mini"))
    with openai_client(provider, guard) as client:
        stream = client.chat.completions.create(
            model="gpt-4o", messages=QUESTION, temperature=0.5, max_tokens=100, stream=True
        )
        assert len(list(stream)) > 1
    body = provider.requests[0].body
    assert body.keys() == {"model", "messages", "max_completion_tokens", "stream", "stream_options"}
    told = receipt(stream)
    assert told.served_model == "o4-mini"
    assert told.used is not None
    assert told.used.output_tokens == provider.served.by_model["o4-mini"].output_tokens


def test_a_deployment_of_azure(provider: FakeProvider) -> None:
    """The model is in the path, and the body is adapted."""
    guard = downgrading("o3", Fallback("gpt-4o-mini"))
    with GuardedAzureOpenAI(
        guard=guard,
        user="u",
        azure_endpoint=provider.url,
        api_key="test",
        api_version="2024-10-21",
    ) as client:
        client.chat.completions.create(model="o3", messages=QUESTION, reasoning_effort="low")
    (seen,) = provider.requests
    assert "/deployments/gpt-4o-mini/" in seen.path
    assert "reasoning_effort" not in seen.body


def test_claude_without_thinking(provider: FakeProvider) -> None:
    """Haiku 3 neither thinks nor writes more than 4,096 tokens."""
    guard = downgrading("claude-sonnet-5", Fallback("claude-3-haiku-20240307"))
    with GuardedAnthropic(
        guard=guard, user="u", base_url=provider.anthropic_url, api_key="test"
    ) as client:
        client.messages.create(
            model="claude-sonnet-5",
            max_tokens=20_000,
            thinking={"type": "enabled", "budget_tokens": 10_000},
            messages=QUESTION,
            timeout=600,
        )
    assert provider.requests[0].body == {
        "model": "claude-3-haiku-20240307",
        "max_tokens": 4096,
        "messages": QUESTION,
    }


def test_a_context_that_is_too_small_is_passed_over(provider: FakeProvider) -> None:
    """gpt-4 takes 8,192 tokens: a longer prompt goes to the next candidate."""
    guard = downgrading("gpt-4o", Fallback("gpt-4", "gpt-4o-mini"))
    with openai_client(provider, guard) as client:
        for words, served in ((10, "gpt-4"), (9000, "gpt-4o-mini")):
            answer = client.chat.completions.create(
                model="gpt-4o",
                max_tokens=100,
                messages=[{"role": "user", "content": "word " * words}],
            )
            assert receipt(answer).served_model == served


def test_no_downgrade_for_who_wants_none(provider: FakeProvider) -> None:
    """``fallback=False`` on a client or for one call; the others are served."""
    guard = downgrading("gpt-4o", Fallback("gpt-4o-mini"))
    with openai_client(provider, guard) as client:
        with pytest.raises(openai.RateLimitError):
            client.with_options(fallback=False).chat.completions.create(
                model="gpt-4o", messages=QUESTION
            )
        answer = client.chat.completions.create(model="gpt-4o", messages=QUESTION)
        assert receipt(answer).served_model == "gpt-4o-mini"
        proud = openai_client(provider, guard, fallback=False)
        with proud, pytest.raises(QuotaExceeded):
            proud.with_options(timeout=5).chat.completions.create(model="gpt-4o", messages=QUESTION)


def test_a_model_that_the_tier_leaves_out(provider: FakeProvider) -> None:
    """Refused as the SDK refuses (403), or served by another, by policy."""
    limits = ["10k tokens/day"]
    strict = Guard(tiers=[Tier("free", limits, ["gpt-4o-mini"])])
    kind = Guard(
        tiers=[Tier("free", limits, ["gpt-4o-mini"], when_not_allowed=Fallback("gpt-4o-mini"))]
    )
    with openai_client(provider, strict) as client:
        with pytest.raises(openai.PermissionDeniedError) as caught:
            client.chat.completions.create(model="gpt-4o", messages=QUESTION)
        assert isinstance(caught.value, ModelNotAllowed)
    with openai_client(provider, kind) as client:
        answer = client.chat.completions.create(model="gpt-4o", messages=QUESTION)
        assert receipt(answer).because == str(caught.value)
        with pytest.raises(openai.PermissionDeniedError):
            client.with_options(fallback=False).chat.completions.create(
                model="gpt-4o", messages=QUESTION
            )
    assert provider.served.by_model.keys() == {"gpt-4o-mini"}


def test_one_client_acts_for_many(provider: FakeProvider) -> None:
    """``client.acting_as`` gives the same client, for somebody else."""
    with openai_client(provider, Guard(limits=["1 requests/day"])) as client:
        bob = client.acting_as("bob", org="acme")
        answer = bob.chat.completions.create(model="gpt-4o", messages=QUESTION)
        assert receipt(answer).identity[:2] == ("bob", "acme")
        answer = client.chat.completions.create(model="gpt-4o", messages=QUESTION)
        assert receipt(answer).identity[:2] == ("u", None)
        assert isinstance(bob, GuardedOpenAI)
    with GuardedAnthropic(
        guard=Guard(limits=["1 requests/day"]), base_url=provider.anthropic_url, api_key="test"
    ) as claude:
        message = claude.acting_as("eve").messages.create(
            model="claude-sonnet-5", max_tokens=5, messages=QUESTION
        )
        assert receipt(message).identity.user == "eve"
        assert isinstance(message, anthropic.types.Message)


def test_money_of_a_client() -> None:
    """Settled with the price of what the provider says was used, cached input cheaper."""
    reply = Reply(input_tokens=1000, output_tokens=100, cached_tokens=600)
    guard = Guard(
        limits=["$0.01/day"],
        prices={"gpt-4o": Price(Decimal("2.5"), Decimal(10), cached=Decimal("1.25"))},
    )
    with FakeProvider(reply) as provider, openai_client(provider, guard) as client:
        answer = client.chat.completions.create(model="gpt-4o", messages=QUESTION, max_tokens=100)
        told = receipt(answer)
        assert told.cost == Decimal("0.00275")
        assert told.left == {"$0.01/day": pytest.approx(0.00725)}
        with pytest.raises(openai.RateLimitError, match=r"0\.00725 of 0\.01 are left"):
            client.chat.completions.create(model="gpt-4o", messages=QUESTION, max_tokens=900)
