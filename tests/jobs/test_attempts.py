"""Which errors of an item are met with another attempt, and when."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import anthropic
import openai
import pytest
import tenacity

from quotaguard import BackendError, ConfigurationError, GuardedOpenAI, QuotaExceeded, Wait
from quotaguard.jobs.attempts import is_transient, retry_after
from quotaguard.testing import FakeProvider, Reply
from quotaguard.testing.clock import START
from tests.clients.calls import BOTH, create
from tests.clients.clients import Kind
from tests.clients.kit import got
from tests.jobs.kit import Way, each_way, new_guard, nothing_left

WAYS = {"threads": "sync", "tasks": "async"}
QUOTA = QuotaExceeded(
    who="u", limit="l", metric="tokens", asked=1, left=0, capacity=1, retry_after=1
)


class Failed(Exception):
    """An error of a provider, by its shape."""

    def __init__(
        self, status: object, headers: dict[str, str] | None = None, code: str = ""
    ) -> None:
        self.status_code = status
        self.response = SimpleNamespace(headers=headers or {})
        self.code = code


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        *((Failed(status), True) for status in (408, 409, 429, 500, 502, 503, 529)),
        *((Failed(status), False) for status in (400, 401, 403, 404, 413, 422)),
        (Failed(429, {"x-should-retry": "false"}), False),
        (Failed(400, {"x-should-retry": "true"}), True),
        (Failed(429, code="insufficient_quota"), False),
        (Failed("teapot"), False),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (asyncio.TimeoutError(), True),
        (openai.APIConnectionError(request=None), True),  # type: ignore[arg-type]
        (anthropic.APITimeoutError(request=None), True),  # type: ignore[arg-type]
        (BackendError("away"), True),
        (QUOTA, False),
        (ConfigurationError("wrong"), False),
        (ValueError(), False),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_tried_again(error: Exception, transient: bool) -> None:
    """What may go away by itself, as the SDKs see it; not what the guard refuses."""
    assert is_transient(error) is transient


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "7", "retry-after-ms": "6500"}, 6.5),
        ({"retry-after": formatdate(START + 30, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(START - 30, usegmt=True)}, 0.0),
        *(({"retry-after": bad}, None) for bad in ("soon", "-1", "nan", "inf", "", "99 bottles")),
    ],
    ids=str,
)
def test_when_the_provider_wants_to_be_asked_again(
    headers: dict[str, str], seconds: float | None
) -> None:
    """In each of the forms it may say so; nonsense says nothing."""
    assert retry_after(Failed(429, headers), START) == seconds


def failing(times: int, *, status: int = 503, **headers: str) -> Any:
    """A function that works once it has failed so many times."""
    left = [times]

    async def work(item: int) -> int:
        if left[0]:
            left[0] -= 1
            raise Failed(status, {name.replace("_", "-"): value for name, value in headers.items()})
        return item

    return work


@each_way
def test_a_transient_error_is_met_with_another_attempt(way: Way) -> None:
    """After a random pause that doubles; the item's result comes as if nothing had been."""
    guard = new_guard()
    assert way.run(guard, failing(5), [1], retries=5) == [1]
    assert 0 < guard.clock.now() - START <= 1 + 2 + 4 + 8 + 16
    nothing_left(guard)


@each_way
def test_the_pause_is_the_one_that_the_provider_names(way: Way) -> None:
    """And up to a second more, at random: others were told the same."""
    guard = new_guard()
    assert way.run(guard, failing(3, status=429, retry_after="20"), [1]) == [1]
    assert 60 <= guard.clock.now() - START <= 63


@each_way
@pytest.mark.parametrize("retries", [0, 2])
def test_attempts_come_to_an_end(way: Way, retries: int) -> None:
    """Then the item's error is the provider's own."""
    guard = new_guard()
    done = way.run(
        guard, failing(retries + 1), [1, 2], retries=retries, errors="collect", concurrency=1
    )
    assert isinstance(done[0].error, Failed)
    assert done[1].result == 2


@each_way
def test_nobody_waits_longer_for_the_provider_than_for_a_limit(way: Way) -> None:
    """A provider that asks for a day when the job has a minute gets no other attempt."""
    guard = new_guard()
    work = failing(1, retry_after="86400")
    done = way.run(guard, work, [1], patience=Wait(60), errors="collect")
    assert isinstance(done[0].error, Failed)
    assert guard.clock.now() == START


@each_way
def test_the_rules_may_be_your_own(way: Way) -> None:
    """Any of tenacity's; the job's clock still does the waiting."""
    guard = new_guard()
    rules = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda result: result < 3),
        wait=tenacity.wait_fixed(100),
        stop=tenacity.stop_after_attempt(10),
    )
    seen = []

    async def work(item: int) -> int:
        seen.append(item)
        return len(seen)

    assert way.run(guard, work, ["a"], retries=rules) == [3]
    assert guard.clock.now() - START == pytest.approx(200)


def test_asynchronous_rules_are_refused() -> None:
    """Their callbacks would have to be awaited, also by threads."""
    with pytest.raises(ConfigurationError, match=r"tenacity\.Retrying"):
        new_guard().map(str, [1], retries=tenacity.AsyncRetrying())  # type: ignore[arg-type]


@each_way
@pytest.mark.parametrize(("kind", "holder", "arguments"), BOTH, ids=["openai", "anthropic"])
def test_a_job_over_a_client_gets_through(
    way: Way, kind: Kind, holder: str, arguments: dict[str, Any]
) -> None:
    """Real SDKs, real HTTP: refusals, errors and lost connections are met with other attempts;
    every item is answered once, and charged once. Of the answer that was lost on the way the input
    stays charged: nobody can tell.
    """
    guard = new_guard("1M tokens/day", "1k requests/day")
    with FakeProvider(Reply(input_tokens=10, output_tokens=5)) as provider:
        provider.enqueue(
            Reply(),
            Reply(status=429, headers={"retry-after": "30"}),
            Reply(status=500),
            Reply(disconnect_after=0),
            Reply(status=529),
        )

        async def main() -> list[str]:
            client = kind.make(WAYS[way.name], provider, guard)

            async def ask(item: int) -> str:
                answer = await got(create(client, holder)(**arguments))
                return str(answer.id)

            if way.name == "threads":
                found = await asyncio.to_thread(way.run, guard, ask, range(20), concurrency=4)
            else:
                found = [it async for it in guard.amap(ask, range(20), concurrency=4)]
            await got(client.close())
            return found

        ids = asyncio.run(main())
        served = provider.served
        seen = len(provider.requests)
    assert len(ids) == 20
    assert seen == 24
    tokens, requests = guard.peek()
    spent = 1_000_000 - tokens.left
    assert 0 < spent - (served.input_tokens + served.output_tokens) <= 20
    assert tokens.held == requests.held == 0
    nothing_left(guard)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_refusal_of_the_provider_for_good_ends_the_job() -> None:
    """A wrong key is no better the second time."""
    guard = new_guard()
    with FakeProvider(Reply(status=401)) as provider:
        client = GuardedOpenAI(
            guard=guard, base_url=provider.openai_url, api_key="test", max_retries=0
        )

        def ask(item: int) -> object:
            return client.chat.completions.create(model="gpt-4o", messages=[])

        with pytest.raises(openai.AuthenticationError):
            list(guard.map(ask, range(100), concurrency=1))
        assert len(provider.requests) < 30
        client.close()
