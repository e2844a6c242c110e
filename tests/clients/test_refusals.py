"""Retries, errors, and refusals: what they cost, and how they look to code for the SDK."""

from __future__ import annotations

import pickle
from typing import Any

import anthropic
import openai
import pytest

import quotaguard
from quotaguard import Guard, QuotaExceeded, receipt
from quotaguard.testing import FakeProvider, Reply
from tests.clients.calls import CHAT, create, each_sdk
from tests.clients.clients import PLAIN_OPENAI, Kind
from tests.clients.kit import got, new_guard, reported, run, spent


@each_sdk
def test_retries_are_requests(
    way: str, kind: Kind, holder: str, arguments: Any, provider: FakeProvider, guard: Guard
) -> None:
    """Two 429s and then success are one call, and three requests to a limit on requests."""
    soon = {"retry-after-ms": "1"}
    provider.enqueue(Reply(status=429, headers=soon), Reply(status=429, headers=soon))

    async def scenario() -> None:
        client = kind.make(way, provider, guard, max_retries=2)
        answer = await got(create(client, holder)(**arguments))
        assert receipt(answer).used.requests == 3  # type: ignore[union-attr]
        await got(client.close())

    run(scenario())
    assert spent(guard) == reported(provider, requests=3)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
@each_sdk
def test_a_refused_request_used_no_tokens(
    way: str,
    kind: Kind,
    holder: str,
    arguments: Any,
    status: int,
    provider: FakeProvider,
    guard: Guard,
) -> None:
    """An error status says that no work was done; the request was made all the same."""
    provider.enqueue(Reply(status=status))

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as caught:
            await got(create(client, holder)(**arguments))
        assert caught.value.status_code == status
        await got(client.close())

    run(scenario())
    assert spent(guard) == (0, 0, 0, 1)
    assert guard.backend.open_reservations == 0


@each_sdk
def test_no_connection_used_nothing(
    way: str, kind: Kind, holder: str, arguments: Any, provider: FakeProvider, guard: Guard
) -> None:
    """Where nobody listened nobody worked."""

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        provider.close()
        with pytest.raises((openai.APIConnectionError, anthropic.APIConnectionError)):
            await got(create(client, holder)(**arguments))
        await got(client.close())

    run(scenario())
    assert spent(guard).tokens == 0
    assert guard.backend.open_reservations == 0


@each_sdk
def test_a_refusal_is_the_sdks_error_and_leaves_no_trace(
    way: str, kind: Kind, holder: str, arguments: Any, provider: FakeProvider
) -> None:
    """It is caught by code written for the SDK, not retried, not sent, and not charged anywhere."""
    guard = new_guard(limits=["1M tokens/day", "5 tokens/minute", "9 requests/hour"])
    sdk = openai if kind is PLAIN_OPENAI else anthropic

    async def scenario() -> Any:
        client = kind.make(way, provider, guard, max_retries=5)
        with pytest.raises(sdk.RateLimitError) as caught:
            await got(create(client, holder)(**arguments))
        await got(client.close())
        return caught.value

    error = run(scenario())
    assert isinstance(error, QuotaExceeded)
    assert (error.status_code, error.response.status_code) == (429, 429)
    assert error.response.json()["error"]["message"] == str(error)
    assert error.code == ("request_too_large" if error.retry_after > 60 else "quota_exceeded")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, QuotaExceeded)
    assert (str(again), again.as_dict()) == (str(error), error.as_dict())
    assert str(error.response.request.url).startswith(provider.url)
    assert provider.requests == []
    assert all(state.left == state.limit.ceiling for state in guard.peek())


@each_sdk
def test_retry_after_is_in_the_headers(
    way: str, kind: Kind, holder: str, arguments: Any, provider: FakeProvider
) -> None:
    """As a provider's own 429 says when to come back, ours does."""
    guard = new_guard(limits=["1 request/minute"])

    async def scenario() -> Any:
        client = kind.make(way, provider, guard)
        await got(create(client, holder)(**arguments))
        with pytest.raises(QuotaExceeded) as caught:
            await got(create(client, holder)(**arguments))
        await got(client.close())
        return caught.value

    error = run(scenario())
    assert error.retry_after == pytest.approx(60)
    assert error.response.headers["retry-after"] == "60"


def test_a_limit_of_zero_blocks(way: str, provider: FakeProvider) -> None:
    """Zero is a limit, not the lack of one."""
    guard = new_guard(limits=["0 tokens/day"])

    async def scenario() -> None:
        client = PLAIN_OPENAI.make(way, provider, guard)
        with pytest.raises(quotaguard.RequestTooLarge):
            await got(create(client, "chat.completions")(**CHAT))
        await got(client.close())

    run(scenario())
    assert provider.requests == []
