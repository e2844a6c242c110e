"""Calls that the provider would refuse are held back, at all workers and by every policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from quotaguard import (
    Fallback,
    Guard,
    GuardedOpenAI,
    QuotaExceeded,
    RequestTooLarge,
    Wait,
    receipt,
)
from quotaguard.testing import FakeClock, FakeProvider, Reply
from tests.clients.calls import CHAT, create, each_sdk
from tests.clients.clients import Kind
from tests.clients.kit import got, run
from tests.clients.learning import REFUSED, ask, learning, made

pytestmark = pytest.mark.usefixtures("no_helper")


@pytest.fixture
def clock() -> FakeClock:
    """That of the guard and of the provider."""
    return FakeClock()


@each_sdk
def test_a_pause_that_the_provider_asks_for_is_kept(
    way: str,
    kind: Kind,
    holder: str,
    arguments: dict[str, Any],
    learner: Guard,
    provider: FakeProvider,
) -> None:
    """The refusal reaches the caller as the SDK's own error; the next call is not sent before the
    time is over, and its error says whose limit it is.
    """
    provider.enqueue(REFUSED)
    clock = learner.clock

    async def scenario() -> None:
        client = kind.make(way, provider, learner)
        try:
            with pytest.raises(Exception, match="429") as theirs:
                await got(create(client, holder)(**arguments))
            assert not isinstance(theirs.value, QuotaExceeded)
            learner.run_errands()
            clock.advance(5.5)  # type: ignore[attr-defined]
            with pytest.raises(
                QuotaExceeded, match=r"at the provider .* try again in 15 s"
            ) as ours:
                await got(create(client, holder)(**arguments))
            assert ours.value.retry_after == pytest.approx(14.5)
            assert ours.value.metric == "pause"
            assert len(provider.requests) == 1
            clock.advance(14.6)  # type: ignore[attr-defined]
            await got(create(client, holder)(**arguments))
        finally:
            await got(client.close())

    run(scenario())


def test_all_workers_keep_it_for_that_key_and_model(provider: FakeProvider, tmp_path: Path) -> None:
    """What one is told another need not try; other keys and models are other limits."""
    url = f"sqlite:///{tmp_path}/quota.db"
    clock = FakeClock()
    one, other = (learning(backend=url, clock=clock) for _ in range(2))
    with made(one, provider) as mine, made(other, provider) as theirs:
        provider.enqueue(REFUSED)
        with pytest.raises(openai.RateLimitError):
            ask(mine)
        one.run_errands()
        with pytest.raises(QuotaExceeded):
            ask(theirs)
        with pytest.raises(QuotaExceeded):
            ask(theirs, "gpt-4o-mini-2024-07-18")
        ask(theirs, "gpt-4o")
        with made(other, provider, key="sk-two") as elsewhere:
            ask(elsewhere)
    one.close()
    other.close()
    assert b"sk-one" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_who_waits_waits_for_the_provider_too(provider: FakeProvider) -> None:
    """As for any other limit, and no longer than the policy says."""
    guard = learning(when_exceeded=Wait(30, backoff=None))
    provider.enqueue(REFUSED, Reply(), Reply(status=429, headers={"retry-after": "31"}))
    with made(guard, provider) as client:
        with pytest.raises(openai.RateLimitError):
            ask(client)
        assert receipt(ask(client)).waited == pytest.approx(20)
        with pytest.raises(openai.RateLimitError):
            ask(client)
        with pytest.raises(QuotaExceeded):
            ask(client)


def test_a_fallback_goes_round_it(provider: FakeProvider) -> None:
    """Another model has limits of its own."""
    guard = learning(when_exceeded=Fallback("gpt-4o-mini"))
    provider.enqueue(REFUSED)
    with made(guard, provider) as client:
        with pytest.raises(openai.RateLimitError):
            ask(client, "gpt-4o")
        answer = ask(client, "gpt-4o")
    assert receipt(answer).served_model == "gpt-4o-mini"
    assert receipt(answer).because == "pause asked for by the provider"


def test_a_limit_that_is_used_up_is_not_tried(clock: FakeClock) -> None:
    """The error names the limit as the provider's, and says when there is room again."""
    guard = learning(clock=clock)
    with FakeProvider(rpm=2, clock=clock.now) as provider, made(guard, provider) as client:
        ask(client)
        ask(client)
        with pytest.raises(QuotaExceeded, match="the provider's") as refusal:
            ask(client)
        assert refusal.value.who == "the account at the provider (gpt-4o-mini)"
        assert refusal.value.retry_after == pytest.approx(30)
        assert len(provider.requests) == 2
        clock.advance(30)
        ask(client)


def test_others_who_use_the_key_are_noticed(clock: FakeClock) -> None:
    """Somebody else's calls take from what we thought was ours."""
    guard = learning(clock=clock)
    with FakeProvider(tpm=60_000, rpm=10, clock=clock.now) as provider:
        other = openai.OpenAI(base_url=provider.openai_url, api_key="sk-one", max_retries=0)
        with other, made(guard, provider) as client:
            ask(client)
            for _ in range(6):
                ask(other)
            clock.advance(0.25)
            ask(client)
            left = receipt(ask(client)).left["10 requests/minute (the provider's)"]
    assert 1.0 <= left <= 2.1


def test_limits_that_change_are_taken_over(client: GuardedOpenAI, provider: FakeProvider) -> None:
    """From the next answer on, up and down; what was used stays used."""
    left = []
    for limit in ("10", "100", "5"):
        provider.enqueue(Reply(headers={"x-ratelimit-limit-requests": limit}))
        left.append(receipt(ask(client)).left)
    left.append(receipt(ask(client)).left)
    assert [dict(each) for each in left] == [
        {},
        {"10 requests/minute (the provider's)": 9.0},
        {"100 requests/minute (the provider's)": 98.0},
        {"5 requests/minute (the provider's)": 2.0},
    ]


def test_a_request_that_is_larger_than_the_limit_is_the_providers_to_refuse(
    client: GuardedOpenAI, provider: FakeProvider
) -> None:
    """It knows better what it counts: so it is tried, once there is all the room there can be."""
    provider.enqueue(Reply(headers={"x-ratelimit-limit-tokens": "10"}, output_tokens=1))
    ask(client)
    try:
        answer = client.chat.completions.create(**CHAT, max_tokens=5000)
    except RequestTooLarge:
        pytest.fail("the guard refused for good")
    assert receipt(answer).served_model == "gpt-4o-mini"


def test_a_refusal_that_explains_nothing_makes_pauses_that_grow(
    client: GuardedOpenAI, learner: Guard, provider: FakeProvider
) -> None:
    """A gateway that only says 429: about a second, then about two, until something is served."""
    pauses = []
    for status in (429, 429, 429, 200, 429):
        provider.enqueue(Reply(status=status))
        if status == 200:
            ask(client)
            continue
        with pytest.raises(openai.RateLimitError):
            ask(client)
        with pytest.raises(QuotaExceeded) as refusal:
            ask(client)
        pauses.append(refusal.value.retry_after)
        learner.clock.advance(refusal.value.retry_after)  # type: ignore[attr-defined]
    for pause, least in zip(pauses, (1, 2, 4, 1), strict=True):
        assert least <= pause <= least + 1.01


def test_money_that_ran_out_is_no_matter_of_waiting(
    client: GuardedOpenAI, provider: FakeProvider
) -> None:
    """Who asks again gets the provider's own error again, not ours."""
    error = b'{"error": {"code": "insufficient_quota", "message": "pay", "type": "x", "param": ""}}'
    for _ in range(2):
        provider.enqueue(Reply(status=429, body=error, content_type="application/json"))
        with pytest.raises(openai.RateLimitError, match="pay") as refusal:
            ask(client)
        assert not isinstance(refusal.value, QuotaExceeded)
