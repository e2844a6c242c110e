"""What the provider says of its own limits is heard in every answer, and kept to by all workers."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
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
    errands,
    patch,
    receipt,
)
from quotaguard.clients.listening import account_of
from quotaguard.testing import FakeClock, FakeProvider, Reply
from quotaguard.upstream import Upstream
from tests.clients.calls import CHAT, create, each_sdk
from tests.clients.clients import Kind
from tests.clients.kit import each, entered, got, run

REFUSED = Reply(status=429, headers={"retry-after": "20"})
LIMITED = {
    "x-ratelimit-limit-requests": "77",
    "anthropic-ratelimit-requests-limit": "77",
}
OURS = "77 requests/minute (the provider's)"


@pytest.fixture(autouse=True)
def no_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrections are made before a guard's next call, and not by a thread meanwhile."""
    monkeypatch.setattr(errands, "soon", lambda _: None)


@pytest.fixture
def guard() -> Guard:
    """A guard without limits of its own."""
    return learning()


def learning(**more: Any) -> Guard:
    """A guard that learns."""
    return Guard(**{"clock": FakeClock(), "learn_provider_limits": True} | more)


@pytest.fixture
def client(guard: Guard, provider: FakeProvider) -> Iterator[GuardedOpenAI]:
    """A client that does not retry."""
    with made(guard, provider) as client:
        yield client


def made(guard: Guard, provider: FakeProvider, key: str = "sk-one", **more: Any) -> GuardedOpenAI:
    """A client with a key."""
    return GuardedOpenAI(
        guard=guard, base_url=provider.openai_url, api_key=key, **{"max_retries": 0} | more
    )


def ask(client: openai.OpenAI, model: str = "gpt-4o-mini") -> Any:
    """One call."""
    return client.chat.completions.create(**{**CHAT, "model": model})


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
    guard: Guard,
    provider: FakeProvider,
) -> None:
    """Whole, streamed or raw, blocking or awaited: the second call comes under what the first
    learnt.
    """
    provider.enqueue(Reply(headers=LIMITED))

    async def scenario() -> tuple[Any, Any]:
        client = kind.make(way, provider, guard)
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
    guard: Guard,
    provider: FakeProvider,
) -> None:
    """The answer in the end says nothing of limits, the refusal before it did."""
    provider.enqueue(Reply(status=429, headers={**LIMITED, "retry-after-ms": "1"}))

    async def scenario() -> Any:
        client = kind.make(way, provider, guard, max_retries=1)
        try:
            await got(create(client, holder)(**arguments))
            guard.run_errands()
            guard.clock.advance(0.01)  # type: ignore[attr-defined]
            return receipt(await got(create(client, holder)(**arguments))).left
        finally:
            await got(client.close())

    assert OURS in run(scenario())
    assert len(provider.requests) == 3


@each_sdk
def test_a_pause_that_the_provider_asks_for_is_kept(
    way: str,
    kind: Kind,
    holder: str,
    arguments: dict[str, Any],
    guard: Guard,
    provider: FakeProvider,
) -> None:
    """The refusal reaches the caller as the SDK's own error; the next call is not sent before the
    time is over, and its error says whose limit it is.
    """
    provider.enqueue(REFUSED)
    clock = guard.clock

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        try:
            with pytest.raises(Exception, match="429") as theirs:
                await got(create(client, holder)(**arguments))
            assert not isinstance(theirs.value, QuotaExceeded)
            guard.run_errands()
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
    guard = learning(when_exceeded=Wait(30, jitter=None))
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


@pytest.fixture
def clock() -> FakeClock:
    """That of the guard and of the provider."""
    return FakeClock()


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
    client: GuardedOpenAI, guard: Guard, provider: FakeProvider
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
        guard.clock.advance(refusal.value.retry_after)  # type: ignore[attr-defined]
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


def test_patched_clients_listen_too(guard: Guard, provider: FakeProvider) -> None:
    """They are nobody's twins but take the same way."""
    provider.enqueue(Reply(headers=LIMITED))
    plain = openai.OpenAI(base_url=provider.openai_url, api_key="sk-one")
    with plain, patch(guard=guard):
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
    guard: Guard, provider: FakeProvider
) -> None:
    """What was learnt with one token holds for the next."""
    keys = iter(["token-1", "token-2", "token-3"])
    provider.enqueue(Reply(headers=LIMITED))
    with made(guard, provider, key=lambda: next(keys)) as client:  # type: ignore[arg-type]
        ask(client)
        assert OURS in receipt(ask(client)).left
