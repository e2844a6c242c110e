"""What the provider says of its own limits is heard in every answer."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import openai
import pytest

from quotaguard import Guard, GuardedOpenAI, patch, receipt
from quotaguard.clients.listening import account_of
from quotaguard.testing import FakeClock, FakeProvider, Reply
from quotaguard.upstream import Upstream
from tests.clients.calls import create, each_sdk
from tests.clients.clients import Kind
from tests.clients.kit import each, entered, got, run
from tests.clients.learning import REFUSED, ask, made

LIMITED = {"x-ratelimit-limit-requests": "77", "anthropic-ratelimit-requests-limit": "77"}
OURS = "77 requests/minute (the provider's)"


pytestmark = pytest.mark.usefixtures("no_helper")


async def plainly(create: Any, arguments: dict[str, Any]) -> Any:
    """A whole answer."""
    return await got(create(**arguments))


async def streamed(create: Any, arguments: dict[str, Any]) -> Any:
    """A stream, to its end."""
    stream = await got(create(**arguments, stream=True))
    _ = [chunk async for chunk in each(stream)]
    return stream


async def raw(create: Any, arguments: dict[str, Any]) -> Any:
    """The raw response."""
    return await got(create.__self__.with_raw_response.create(**arguments))


async def raw_stream(create: Any, arguments: dict[str, Any]) -> Any:
    """The raw response, read in lines."""
    async with entered(create.__self__.with_streaming_response.create(**arguments)) as response:
        _ = [line async for line in each(response.iter_lines())]
        return response


@each_sdk
@pytest.mark.parametrize("form", [plainly, streamed, raw, raw_stream])
def test_every_answer_is_heard(
    way: str,
    kind: Kind,
    holder: str,
    arguments: dict[str, Any],
    form: Callable[..., Any],
    learner: Guard,
    provider: FakeProvider,
) -> None:
    """Whole, streamed or raw, blocking or awaited: the second call comes under what the first
    learnt.
    """
    provider.enqueue(Reply(headers=LIMITED))

    async def scenario() -> tuple[Any, Any]:
        client = kind.make(way, provider, learner)
        try:
            first = await form(create(client, holder), arguments)
            return receipt(first).left, receipt(await form(create(client, holder), arguments)).left
        finally:
            await got(client.close())

    before, after = run(scenario())
    assert OURS not in before
    assert after[OURS] == 76.0


@each_sdk
def test_refusals_that_the_sdk_retries_are_heard(
    way: str,
    kind: Kind,
    holder: str,
    arguments: dict[str, Any],
    learner: Guard,
    provider: FakeProvider,
) -> None:
    """The answer in the end says nothing of limits, the refusal before it did."""
    provider.enqueue(Reply(status=429, headers={**LIMITED, "retry-after-ms": "1"}))

    async def scenario() -> Any:
        client = kind.make(way, provider, learner, max_retries=1)
        try:
            await got(create(client, holder)(**arguments))
            learner.run_errands()
            learner.clock.advance(0.01)  # type: ignore[attr-defined]
            return receipt(await got(create(client, holder)(**arguments))).left
        finally:
            await got(client.close())

    assert OURS in run(scenario())
    assert len(provider.requests) == 3


def test_headers_that_make_no_sense_change_nothing(
    client: GuardedOpenAI, provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer reaches the caller as it came."""
    odd = {"x-ratelimit-limit-requests": "lots", "x-ratelimit-limit-tokens": "0"}
    odd |= {"retry-after": "later", "x-ratelimit-remaining-tokens": "\xff"}
    with caplog.at_level(logging.WARNING):
        for status in (200, 400, 500):
            provider.enqueue(Reply(status=status, headers=odd))
            if status == 200:
                assert ask(client).choices
            else:
                with pytest.raises(openai.APIStatusError):
                    ask(client)
        assert receipt(ask(client)).left == {}
    assert not caplog.records


def test_a_fault_of_ours_stays_ours(
    client: GuardedOpenAI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the answer is what the plain client would have given."""
    monkeypatch.setattr(Upstream, "hear", lambda *_, **__: 1 / 0)
    assert ask(client).choices
    assert "limits could not be read" in caplog.text


def test_it_is_off_unless_asked_for(provider: FakeProvider) -> None:
    """Then a refusal by the provider holds nobody back."""
    guard = Guard(clock=FakeClock())
    assert guard.upstream is None
    provider.enqueue(REFUSED)
    with made(guard, provider) as client:
        with pytest.raises(openai.RateLimitError):
            ask(client)
        assert receipt(ask(client)).left == {}


def test_patched_clients_listen_too(learner: Guard, provider: FakeProvider) -> None:
    """They are nobody's twins but take the same way."""
    provider.enqueue(Reply(headers=LIMITED))
    plain = openai.OpenAI(base_url=provider.openai_url, api_key="sk-one")
    with plain, patch(guard=learner):
        ask(plain)
        assert OURS in receipt(ask(plain)).left


def test_an_account_is_a_key_at_an_address() -> None:
    """The same for every worker, another for another key, organisation or address; and the key
    cannot be told from it.
    """

    class Options:
        headers: Any = None

    plain = {"api_key": "sk-one", "base_url": "http://one"}
    differing = [
        {},
        {"api_key": "sk-two"},
        {"organization": "acme"},
        {"project": "p"},
        {"base_url": "http://two"},
        {"default_headers": {"Authorization": "Bearer sk-three"}},
    ]
    names = []
    for more in differing:
        twice = [account_of(openai.OpenAI(**{**plain, **more}), Options()) for _ in range(2)]
        assert twice[0] == twice[1]
        names.append(twice[0])
    with_header = Options()
    with_header.headers = {"api-key": "sk-four"}
    names.append(account_of(openai.OpenAI(**plain), with_header))
    assert len(set(names)) == len(differing) + 1
    assert not any("sk-" in name for name in names)


@pytest.mark.skipif(
    "Callable" not in str(inspect.signature(openai.OpenAI.__init__).parameters["api_key"]),
    reason="this version of the SDK takes no function for a key",
)
def test_a_key_that_changes_by_the_hour_is_one_account(
    learner: Guard, provider: FakeProvider
) -> None:
    """What was learnt with one token holds for the next."""
    keys = iter(["token-1", "token-2", "token-3"])
    provider.enqueue(Reply(headers=LIMITED))
    with made(learner, provider, key=lambda: next(keys)) as client:  # type: ignore[arg-type]
        ask(client)
        assert OURS in receipt(ask(client)).left
