"""The traps of requests: what is sent, and what of it is counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from quotaguard import Fallback, Guard, Tier, receipt
from quotaguard.events import Admitted
from quotaguard.testing import FakeProvider, Reply
from tests.clients import clients
from tests.clients.calls import CHAT, MESSAGE, WORDS, Heard, chunks_of, create, each_sdk
from tests.clients.clients import PLAIN_ANTHROPIC, PLAIN_OPENAI, Kind
from tests.clients.kit import got, new_guard, reported, run, spent


@pytest.mark.parametrize("kind", [PLAIN_OPENAI, PLAIN_ANTHROPIC, *clients.OPENAI], ids=str)
def test_the_user_agent_is_the_sdks(
    way: str, kind: Kind, provider: FakeProvider, guard: Guard
) -> None:
    """Gateways tell clients apart by it: a guarded one is the one that it stands for."""
    client = kind.make(way, provider, guard)
    name, _, version = client.user_agent.partition("/Python ")
    bare = {"GuardedMine": kind.classes[way].__name__, "Mine": kind.classes[way].__name__}
    expected = kind.name.partition("-")[0].removeprefix("Guarded")
    expected = bare.get(kind.name, expected if way == "sync" else "Async" + expected)
    assert name == expected
    assert version[0].isdigit()
    assert client.default_headers["User-Agent"] == client.user_agent
    run(got(client.close()))


def test_a_subclass_of_the_users_keeps_its_headers(
    way: str, provider: FakeProvider, guard: Guard
) -> None:
    """A wrapped client of the user's own class goes on doing what that class does."""
    kind = next(kind for kind in clients.OPENAI if kind.name == "Mine")

    async def scenario() -> None:
        client = kind.make(way, provider, guard, house="blue")
        await got(create(client.with_options(timeout=3), "chat.completions")(**CHAT))
        assert client.house == "blue"
        await got(client.close())

    run(scenario())
    assert provider.requests[0].headers["x-house"] in ("blue", "none")


@each_sdk
def test_nothing_is_added_to_the_request(
    way: str, kind: Kind, holder: str, arguments: Any, provider: FakeProvider, guard: Guard
) -> None:
    """The provider gets what the plain client would send it."""

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        await got(create(client, holder)(**arguments))
        await got(client.close())

    run(scenario())
    assert provider.requests[0].body == arguments


@each_sdk
def test_the_model_may_be_in_extra_body(
    way: str, kind: Kind, holder: str, arguments: Any, provider: FakeProvider
) -> None:
    """What is sent counts, for limits of a model and for tiers."""
    guard = new_guard(limits=["1M tokens/day for real-*"])

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        answer = await got(create(client, holder)(**arguments, extra_body={"model": "real-one"}))
        assert receipt(answer).requested_model == "real-one"
        await got(client.close())

    run(scenario())
    (state,) = guard.peek(model="real-one")
    assert state.left == 1_000_000 - reported(provider).tokens


@each_sdk
def test_one_shot_messages_are_sent_whole(
    way: str, kind: Kind, holder: str, arguments: Any, provider: FakeProvider, guard: Guard
) -> None:
    """Counting a generator must not use it up."""

    def once() -> Iterator[Any]:
        yield from WORDS

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        answer = await got(create(client, holder)(**{**arguments, "messages": once()}))
        assert receipt(answer).reserved.input_tokens > 3
        await got(client.close())

    run(scenario())
    assert provider.requests[0].body["messages"] == WORDS
    assert spent(guard) == reported(provider)


@each_sdk
def test_an_earlier_answer_goes_back_in(
    way: str, kind: Kind, holder: str, arguments: Any, provider: FakeProvider, guard: Guard
) -> None:
    """Messages may hold the SDK's objects; they are counted, sent, and left as they are."""
    provider.enqueue(Reply(text="seven words " * 50))

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        call = create(client, holder)
        first = await got(call(**arguments))
        message = (
            first.choices[0].message
            if kind is PLAIN_OPENAI
            else {"role": "assistant", "content": first.content}
        )
        messages = [*WORDS, message, *WORDS]
        before = [repr(each) for each in messages]
        second = await got(call(**{**arguments, "messages": messages}))
        grown = receipt(second).reserved.input_tokens - receipt(first).reserved.input_tokens
        assert grown > 100
        assert [repr(each) for each in messages] == before
        await got(client.close())

    run(scenario())
    assert spent(guard) == reported(provider, requests=2)


@each_sdk
def test_content_that_cannot_be_read_passes(
    way: str, kind: Kind, holder: str, arguments: Any, provider: FakeProvider, guard: Guard
) -> None:
    """Bytes that are no JSON are the provider's to judge; they are charged as a request."""
    provider.enqueue(Reply(status=400))
    path = "/chat/completions" if kind is PLAIN_OPENAI else "/v1/messages"
    content = {"content": b"\xff\x00 no JSON"}
    if "content" not in (kind.classes[way].post.__kwdefaults__ or {}):
        content = {"body": "no JSON object"}  # older SDKs send JSON only

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)):
            await got(client.post(path, cast_to=object, **content))
        await got(client.close())

    run(scenario())
    assert spent(guard) == (0, 0, 0, 1)


@pytest.mark.parametrize("absent", ["NOT_GIVEN", "omit"])
@each_sdk
def test_what_is_not_given_is_not_given(
    way: str,
    kind: Kind,
    holder: str,
    arguments: Any,
    absent: str,
    provider: FakeProvider,
    guard: Guard,
) -> None:
    """The SDK's sentinels leave a field out, None sends a null, as with the plain class."""
    sdk = openai if kind is PLAIN_OPENAI else anthropic
    sentinel = getattr(sdk, absent, sdk.NOT_GIVEN)
    stop = "stop" if kind is PLAIN_OPENAI else "stop_sequences"
    more = {stop: sentinel, "stream": sentinel, "metadata": None}

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        await got(create(client, holder)(**arguments, **more))
        await got(client.close())

    run(scenario())
    assert provider.requests[0].body == {**arguments, "metadata": None}
    assert spent(guard) == reported(provider)


def test_the_larger_of_two_maxima_and_n_are_reserved(way: str, provider: FakeProvider) -> None:
    """``max_tokens`` and ``max_completion_tokens`` may disagree; ``n`` multiplies either."""
    heard = Heard()
    guard = new_guard(hooks=[heard])

    async def scenario() -> None:
        client = PLAIN_OPENAI.make(way, provider, guard)
        call = create(client, "chat.completions")
        await got(call(**CHAT, max_tokens=100, max_completion_tokens=300, n=2))
        await got(client.close())

    run(scenario())
    assert heard.of(Admitted)[0].reserved.output_tokens == 600


FALLBACKS = [PLAIN_OPENAI, PLAIN_ANTHROPIC, *clients.OPENAI, *clients.ANTHROPIC]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", FALLBACKS, ids=str)
def test_a_fallback_is_what_is_called(
    way: str, kind: Kind, stream: bool, provider: FakeProvider
) -> None:
    """Azure has the model in its path or base URL, Bedrock and Vertex in the path."""
    is_openai = hasattr(kind.classes["sync"], "embeddings") or "OpenAI" in kind.name
    is_openai = is_openai or "Mine" in kind.name
    holder, arguments = ("chat.completions", CHAT) if is_openai else ("messages", MESSAGE)
    small = "small model@1" if is_openai else "claude-small@1"
    guard = new_guard(
        tiers=[Tier("free", limits=["0 tokens/day for gpt-4o-mini, claude-test"])],
        when_exceeded=Fallback(small),
    )

    async def scenario() -> Any:
        client = kind.make(way, provider, guard)
        answer = await got(create(client, holder)(**arguments, stream=stream))
        if stream:
            await chunks_of(answer)
        await got(client.close())
        return receipt(answer)

    note = run(scenario())
    assert (note.requested_model, note.served_model) == (arguments["model"], small)
    assert provider.requests[0].model == small
    assert spent(guard) == reported(provider)
