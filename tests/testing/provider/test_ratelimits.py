from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone

import openai
import pytest

from quotaguard.testing.provider import FakeProvider, Reply
from tests.testing.provider.calls import RawClient, chat, message


class Clock:
    """Time that moves when told to."""

    now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The clock of the limits."""
    return Clock()


@pytest.fixture
def provider(clock: Clock) -> Iterator[FakeProvider]:
    """One that lets through 4 requests and 600 tokens a minute; each answer costs 100."""
    reply = Reply(input_tokens=60, output_tokens=40)
    with FakeProvider(reply, rpm=4, tpm=600, clock=clock) as provider:
        yield provider


def test_headers_say_how_the_limits_stand(raw: RawClient) -> None:
    """On each answer, in the words of the provider asked."""
    told = raw("/v1/chat/completions", chat()).headers
    assert told["x-ratelimit-limit-requests"] == "4"
    assert told["x-ratelimit-remaining-requests"] == "3"
    assert told["x-ratelimit-reset-requests"] == "15s"
    assert told["x-ratelimit-limit-tokens"] == "600"
    assert told["x-ratelimit-remaining-tokens"] == "500"
    assert told["x-ratelimit-reset-tokens"] == "10s"
    told = raw("/v1/messages", message()).headers
    assert told["anthropic-ratelimit-tokens-limit"] == "600"
    assert told["anthropic-ratelimit-tokens-remaining"] == "400"
    assert told["anthropic-ratelimit-requests-remaining"] == "2"
    full = datetime.fromisoformat(told["anthropic-ratelimit-tokens-reset"])
    assert 0 < (full - datetime.now(timezone.utc)).total_seconds() <= 20
    assert "retry-after" not in told


def test_too_many_requests(raw: RawClient, provider: FakeProvider, clock: Clock) -> None:
    """The fifth is refused, told when to come back, and let through then, not sooner."""
    for _ in range(4):
        assert raw("/v1/chat/completions", chat()).status == 200
    refused = raw("/v1/chat/completions", chat())
    assert refused.status == 429
    assert refused.json["error"]["code"] == "rate_limit_exceeded"
    assert refused.json["error"]["type"] == "requests"
    assert "try again in 15s" in refused.json["error"]["message"]
    assert (refused.headers["retry-after"], refused.headers["retry-after-ms"]) == ("15", "15000")
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    clock.now += 14.9
    assert raw("/v1/chat/completions", chat()).status == 429
    clock.now += 0.1
    assert raw("/v1/chat/completions", chat()).status == 200
    assert provider.served.requests == 5


def test_too_many_tokens(raw: RawClient, provider: FakeProvider, clock: Clock) -> None:
    """Input and output together; a refused request is charged to neither limit."""
    provider.enqueue(Reply(input_tokens=500, output_tokens=50))
    assert raw("/v1/messages", message()).status == 200
    refused = raw("/v1/messages", message())
    assert (refused.status, refused.json["error"]["type"]) == (429, "rate_limit_error")
    assert refused.headers["retry-after"] == "5"
    assert refused.headers["anthropic-ratelimit-requests-remaining"] == "3"
    clock.now += 5
    assert raw("/v1/messages", message()).status == 200


def test_a_request_that_never_fits(raw: RawClient, provider: FakeProvider) -> None:
    """No time is given, and the SDK is told not to retry."""
    too_large = Reply(input_tokens=700, output_tokens=0)
    provider.enqueue(too_large, too_large)
    refused = raw("/v1/chat/completions", chat())
    assert refused.status == 429
    assert "Request too large" in refused.json["error"]["message"]
    assert "retry-after" not in refused.headers
    with (
        openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=5) as client,
        pytest.raises(openai.RateLimitError),
    ):
        client.chat.completions.create(**chat())
    assert len(provider.requests) == 2


def test_embeddings_cost_their_input(raw: RawClient) -> None:
    """Nothing comes out of them that is counted in tokens."""
    told = raw("/v1/embeddings", {"model": "m", "input": "text"}).headers
    assert told["x-ratelimit-remaining-tokens"] == "540"


def test_what_generates_nothing_is_free(raw: RawClient) -> None:
    """Lists, counts, retrievals and refusals of the request itself."""
    response = raw("/v1/responses", {"model": "m", "input": "text"})
    for path, body in (
        ("/v1/models", None),
        ("/v1/messages/count_tokens", message()),
        (f"/v1/responses/{response.json['id']}", None),
        ("/v1/chat/completions", {}),
    ):
        assert "x-ratelimit-limit-requests" not in raw(path, body).headers
    told = raw("/v1/chat/completions", chat()).headers
    assert told["x-ratelimit-remaining-requests"] == "2"


@pytest.mark.parametrize(("elapsed", "told"), [(0, "15s"), (14.5, "500ms"), (14.9995, "1ms")])
def test_durations_are_written_as_openai_does(
    raw: RawClient, clock: Clock, elapsed: float, told: str
) -> None:
    """Milliseconds below a second."""
    for _ in range(4):
        raw("/v1/chat/completions", chat())
    clock.now += elapsed
    assert f"in {told}." in raw("/v1/chat/completions", chat()).json["error"]["message"]


def test_minutes_are_written_apart(clock: Clock) -> None:
    """An hour of debt is not 3600s."""
    with FakeProvider(
        Reply(input_tokens=1, output_tokens=0), tpm=1, rpm=9, clock=clock
    ) as provider:
        raw = RawClient(provider.url)
        assert raw("/v1/chat/completions", chat()).headers["x-ratelimit-reset-tokens"] == "1m0s"
        raw.connection.close()
