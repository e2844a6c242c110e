"""The traps that others fell into, but for those of endings, copies and surfaces."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest

import quotaguard
from quotaguard import Fallback, Guard, QuotaExceeded, Tier, receipt
from quotaguard.events import Admitted, Event, UsageUnreadable
from quotaguard.testing import FakeProvider, Reply
from tests.clients import clients
from tests.clients.clients import PLAIN_ANTHROPIC, PLAIN_OPENAI, Kind
from tests.clients.kit import as_reserved, each, entered, got, new_guard, reported, run, spent

WORDS = [{"role": "user", "content": "three small words"}]
CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": WORDS}
MESSAGE: dict[str, Any] = {"model": "claude-test", "max_tokens": 100, "messages": WORDS}
BOTH = [(PLAIN_OPENAI, "chat.completions", CHAT), (PLAIN_ANTHROPIC, "messages", MESSAGE)]
each_sdk = pytest.mark.parametrize(
    ("kind", "holder", "arguments"), BOTH, ids=["openai", "anthropic"]
)


def create(client: Any, holder: str) -> Callable[..., Any]:
    """The ``create`` of a resource, by its dotted path."""
    for name in holder.split("."):
        client = getattr(client, name)
    found: Callable[..., Any] = client.create
    return found


class Heard:
    """A hook that keeps all events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event, /) -> None:
        """Take note."""
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        """The events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]


# -- what the provider sees ----------------------------------------------------------------------


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


# -- asking for usage ----------------------------------------------------------------------------


async def chunks_of(stream: Any) -> list[Any]:
    """All chunks of a stream."""
    return [chunk async for chunk in each(stream)]


@pytest.mark.parametrize("gzip", [False, True])
@pytest.mark.parametrize("asked", [None, {"include_usage": False}, {"include_usage": True}])
def test_the_usage_chunk_is_the_callers_only_if_asked_for(
    way: str, asked: Any, gzip: bool, provider: FakeProvider, guard: Guard
) -> None:
    """Code that reads ``chunk.choices[0]`` must not meet a chunk that it did not ask for."""
    provider.enqueue(Reply(gzip=gzip))
    more = {} if asked is None else {"stream_options": asked}

    async def scenario() -> list[Any]:
        client = PLAIN_OPENAI.make(way, provider, guard)
        call = create(client, "chat.completions")
        chunks = await chunks_of(await got(call(**CHAT, stream=True, **more)))
        await got(client.close())
        return chunks

    chunks = run(scenario())
    wanted = bool(asked and asked["include_usage"])
    assert [chunk for chunk in chunks if not chunk.choices] == chunks[len(chunks) - wanted :]
    assert provider.requests[0].body["stream_options"] == {"include_usage": True}
    assert spent(guard) == reported(provider)


def test_other_stream_options_are_kept(way: str, provider: FakeProvider, guard: Guard) -> None:
    """Ours is put beside theirs, wherever they put them."""

    async def scenario() -> None:
        client = PLAIN_OPENAI.make(way, provider, guard)
        body = {"stream_options": {"include_obfuscation": False}}
        stream = await got(create(client, "chat.completions")(**CHAT, stream=True, extra_body=body))
        assert all(chunk.choices for chunk in await chunks_of(stream))
        await got(client.close())

    run(scenario())
    sent = provider.requests[0].body["stream_options"]
    assert sent == {"include_obfuscation": False, "include_usage": True}
    assert spent(guard) == reported(provider)


def test_usage_asked_for_in_extra_body_is_shown(
    way: str, provider: FakeProvider, guard: Guard
) -> None:
    """Asking there is asking too."""

    async def scenario() -> None:
        client = PLAIN_OPENAI.make(way, provider, guard)
        body = {"stream_options": {"include_usage": True}}
        stream = await got(create(client, "chat.completions")(**CHAT, stream=True, extra_body=body))
        assert (await chunks_of(stream))[-1].usage is not None
        await got(client.close())

    run(scenario())


def test_raw_lines_do_not_show_it(way: str, provider: FakeProvider, guard: Guard) -> None:
    """A caller who reads lines sees as many as the plain client's does."""
    plain = getattr(openai, "OpenAI" if way == "sync" else "AsyncOpenAI")

    async def lines(client: Any) -> list[str]:
        call = client.chat.completions.with_streaming_response.create
        async with entered(call(**CHAT, stream=True)) as response:
            found = [line async for line in each(response.iter_lines())]
        await got(client.close())
        return [line for line in found if line]

    ours = run(lines(PLAIN_OPENAI.make(way, provider, guard)))
    theirs = run(lines(plain(base_url=provider.openai_url, api_key="test")))
    assert len(ours) == len(theirs)
    assert ours[-1] == theirs[-1] == "data: [DONE]"


def test_a_guard_may_ask_for_nothing(way: str, provider: FakeProvider) -> None:
    """Some servers refuse ``stream_options``: then what was delivered is charged."""
    guard = new_guard(ask_for_usage=False)

    async def scenario() -> None:
        client = PLAIN_OPENAI.make(way, provider, guard)
        stream = await got(create(client, "chat.completions")(**CHAT, stream=True))
        await chunks_of(stream)
        assert receipt(stream).used is not None
        await got(client.close())

    run(scenario())
    assert "stream_options" not in provider.requests[0].body
    assert spent(guard).output_tokens > 0


def test_a_chunk_that_says_more_than_usage_is_kept(
    way: str, provider: FakeProvider, guard: Guard
) -> None:
    """Only what we asked for is hidden, nothing that a server has to say besides."""
    usage = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
    events = [
        {"choices": [{"index": 0, "delta": {"content": "hi"}}]},
        {"choices": [], "moderation": None, "usage": usage},
    ]
    provider.enqueue(sse(*(json.dumps(event) for event in events), "[DONE]"))

    async def scenario() -> None:
        client = PLAIN_OPENAI.make(way, provider, guard)
        stream = await got(create(client, "chat.completions")(**CHAT, stream=True))
        assert len(await chunks_of(stream)) == 2
        await got(client.close())

    run(scenario())
    assert spent(guard) == (11, 5, 6, 1)


def sse(*events: str, end: str = "\n\n") -> Reply:
    """A stream of events as they are."""
    body = end.join(f"data: {event}" for event in events) + end
    return Reply(body=body.encode(), content_type="text/event-stream")


# -- the body ------------------------------------------------------------------------------------


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


@pytest.mark.skipif(
    "content" not in (openai.OpenAI.post.__kwdefaults__ or {}), reason="this SDK sends JSON only"
)
@each_sdk
def test_content_that_cannot_be_read_passes(
    way: str, kind: Kind, holder: str, arguments: Any, provider: FakeProvider, guard: Guard
) -> None:
    """Bytes that are no JSON are the provider's to judge; they are charged as a request."""
    provider.enqueue(Reply(status=400))
    path = "/chat/completions" if kind is PLAIN_OPENAI else "/v1/messages"

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)):
            await got(client.post(path, cast_to=object, content=b"\xff\x00 no JSON"))
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


# -- fallbacks reach the model where that client puts it ------------------------------------------


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


# -- answers that come later ---------------------------------------------------------------------

responses = pytest.mark.skipif(
    not hasattr(openai.OpenAI, "responses"), reason="this openai has no Responses API"
)


@responses
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_background_response_is_settled_by_the_look_that_finds_it_done(
    way: str, stream: bool, provider: FakeProvider, guard: Guard
) -> None:
    """It is charged once, however often it is looked at."""
    provider.enqueue(Reply(output_tokens=300, polls=1))

    async def scenario() -> None:
        client = PLAIN_OPENAI.make(way, provider, guard)
        begun = await got(
            client.responses.create(model="gpt-4o", input="three words here", background=True)
        )
        assert begun.status == "queued"
        assert guard.backend.open_reservations == 1
        assert (await got(client.responses.retrieve(begun.id))).status == "in_progress"
        assert guard.backend.open_reservations == 1
        for _ in range(2):
            found = await got(client.responses.retrieve(begun.id, stream=stream))
            if stream:
                await chunks_of(found)
            assert receipt(found).settled if _ == 0 else True
            assert spent(guard) == reported(provider)
        assert guard.backend.open_reservations == 0
        await got(client.close())

    run(scenario())


@responses
def test_a_look_that_is_broken_off_settles_nothing(
    way: str, provider: FakeProvider, guard: Guard
) -> None:
    """The response goes on without its reader; a later look says what it used."""
    provider.enqueue(Reply(output_tokens=300, polls=1))

    async def scenario() -> None:
        client = PLAIN_OPENAI.make(way, provider, guard)
        begun = await got(
            client.responses.create(model="gpt-4o", input="three words here", background=True)
        )
        stream = await got(client.responses.retrieve(begun.id, stream=True))
        await got(stream.close())
        spent(guard)
        assert guard.backend.open_reservations == 1
        while (await got(client.responses.retrieve(begun.id))).status != "completed":
            assert guard.backend.open_reservations == 1
        assert spent(guard) == reported(provider)
        assert guard.backend.open_reservations == 0
        await got(client.close())

    run(scenario())


@responses
def test_a_background_stream_that_is_broken_off_is_settled_by_a_later_look(
    way: str, provider: FakeProvider, guard: Guard
) -> None:
    """A reader who lost the connection comes back for the rest; only the end says the usage."""
    provider.enqueue(Reply(output_tokens=300))

    async def scenario() -> None:
        client = PLAIN_OPENAI.make(way, provider, guard)
        stream = await got(
            client.responses.create(model="gpt-4o", input="words", background=True, stream=True)
        )
        created = await got(_next(stream))
        await got(stream.close())
        spent(guard)
        assert guard.backend.open_reservations == 1
        look = client.responses.with_streaming_response.retrieve(created.response.id)
        async with entered(look) as response:
            await got(response.read())
        assert spent(guard) == reported(provider)
        assert guard.backend.open_reservations == 0
        await got(client.close())

    run(scenario())


def _next(stream: Any) -> Any:
    return stream.__anext__() if hasattr(stream, "__anext__") else next(stream)


@responses
def test_a_background_response_read_as_bytes(
    way: str, provider: FakeProvider, guard: Guard
) -> None:
    """Whoever reads raw bodies is told the same story, and charged the same."""
    provider.enqueue(Reply(output_tokens=300, polls=1))

    async def scenario() -> None:
        client = PLAIN_OPENAI.make(way, provider, guard)
        raw = client.responses.with_streaming_response
        begun = {"model": "gpt-4o", "input": "three words here", "background": True}
        async with entered(raw.create(**begun)) as response:
            id = json.loads(await got(response.read()))["id"]
        for open_then in (1, 0):
            async with entered(raw.retrieve(id)) as response:
                await got(response.read())
            assert guard.backend.open_reservations == open_then
        assert spent(guard) == reported(provider)
        await got(client.close())

    run(scenario())


@responses
def test_a_background_response_that_is_cancelled(
    way: str, provider: FakeProvider, guard: Guard
) -> None:
    """It says no usage, so its input stays charged."""
    provider.enqueue(Reply(polls=9))

    async def scenario() -> None:
        client = PLAIN_OPENAI.make(way, provider, guard)
        begun = await got(
            client.responses.create(model="gpt-4o", input="three words here", background=True)
        )
        asked = receipt(begun).reserved.input_tokens
        assert (await got(client.responses.cancel(begun.id))).status == "cancelled"
        assert spent(guard) == (asked, asked, 0, 1)
        assert guard.backend.open_reservations == 0
        await got(client.close())

    run(scenario())


@responses
def test_a_response_made_elsewhere_is_not_ours(
    way: str, provider: FakeProvider, guard: Guard
) -> None:
    """Retrieving an answer that somebody else paid for costs nothing."""
    plain = openai.OpenAI(base_url=provider.openai_url, api_key="test")
    made = plain.responses.create(model="gpt-4o", input="three words here")
    plain.close()

    async def scenario() -> None:
        client = PLAIN_OPENAI.make(way, provider, guard)
        assert (await got(client.responses.retrieve(made.id))).id == made.id
        await got(client.close())

    run(scenario())
    assert spent(guard) == (0, 0, 0, 0)


# -- retries and errors --------------------------------------------------------------------------


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


# -- usage that can't be read --------------------------------------------------------------------

MALFORMED = [
    Reply.OMIT,
    None,
    "many",
    [],
    {},
    {"prompt_tokens": "12", "completion_tokens": 3},
    {"prompt_tokens": 12},
    {"prompt_tokens": 1.5, "completion_tokens": 3},
    {"prompt_tokens": -1, "completion_tokens": 3},
    {"prompt_tokens": True, "completion_tokens": 3},
    {"input_tokens": "12", "output_tokens": None},
]


@pytest.mark.parametrize("raw", [False, True], ids=["plain", "raw"])
@pytest.mark.parametrize("usage", MALFORMED, ids=str)
@each_sdk
def test_malformed_usage_changes_no_answer(
    way: str,
    kind: Kind,
    holder: str,
    arguments: Any,
    usage: Any,
    raw: bool,
    provider: FakeProvider,
) -> None:
    """The answer comes as it came; it is charged as reserved, and a hook is told."""
    heard = Heard()
    guard = new_guard(hooks=[heard])
    provider.enqueue(Reply(usage=usage), Reply(usage=usage))
    sdk = openai if kind is PLAIN_OPENAI else anthropic
    names = {"sync": kind.name.removeprefix("Guarded")}
    plain = getattr(sdk, names.get(way, "Async" + names["sync"]))

    async def call(client: Any) -> Any:
        target = create(client, holder)
        if raw:
            target = create(client, f"{holder}.with_raw_response")
        answer = await got(target(**arguments))
        await got(client.close())
        return answer

    async def scenario() -> None:
        ours = await call(kind.make(way, provider, guard))
        url = provider.openai_url if kind is PLAIN_OPENAI else provider.anthropic_url
        theirs = await call(plain(base_url=url, api_key="test"))
        assert spent(guard) == as_reserved(ours)
        if raw:
            ours, theirs = await got(ours.parse()), await got(theirs.parse())
        assert ours.model_dump(exclude={"id", "created"}, warnings=False) == theirs.model_dump(
            exclude={"id", "created"}, warnings=False
        )

    run(scenario())
    assert len(heard.of(UsageUnreadable)) == 1
    assert guard.backend.open_reservations == 0


@pytest.mark.parametrize(
    "event",
    [
        "no JSON",
        "[]",
        '{"choices": 5}',
        '{"choices": ["x"]}',
        '{"choices": [{"delta": 3}]}',
        '{"choices": [{"delta": {"tool_calls": 3}}]}',
        '{"usage": 3, "choices": []}',
    ],
)
def test_odd_events_reach_the_caller(event: str, provider: FakeProvider, guard: Guard) -> None:
    """What metering can't read it lets pass: raw lines come as they were sent."""
    provider.enqueue(sse(event, "[DONE]"))

    async def scenario() -> None:
        client = PLAIN_OPENAI.make("sync", provider, guard)
        call = client.chat.completions.with_streaming_response.create
        with call(**CHAT, stream=True) as response:
            found = [line for line in response.iter_lines() if line]
        assert found == [f"data: {event}", "data: [DONE]"] or json.loads(event)["choices"] == []
        client.close()

    run(scenario())
    assert spent(guard).requests == 1
    assert guard.backend.open_reservations == 0


@pytest.mark.parametrize("streamed", [False, True], ids=["parsed", "unread"])
def test_a_server_that_does_not_stream(
    way: str, streamed: bool, provider: FakeProvider, guard: Guard
) -> None:
    """Some answer a request to stream with one JSON document: its usage counts."""
    usage = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
    provider.enqueue(Reply(body=json.dumps({"choices": [], "usage": usage}).encode()))

    async def scenario() -> None:
        client = PLAIN_OPENAI.make(way, provider, guard)
        if streamed:
            call = client.chat.completions.with_streaming_response.create
            async with entered(call(**CHAT, stream=True)) as response:
                await got(response.read())
        else:
            await chunks_of(await got(create(client, "chat.completions")(**CHAT, stream=True)))
        await got(client.close())

    run(scenario())
    assert spent(guard) == (11, 5, 6, 1)


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r", "\n\r\n"])
def test_every_line_ending(end: str, provider: FakeProvider, guard: Guard) -> None:
    """The specification of event streams knows three."""
    usage = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
    events = [
        {"choices": [{"index": 0, "delta": {"content": "hi"}}]},
        {"choices": [], "usage": usage},
    ]
    provider.enqueue(sse(*map(json.dumps, events), "[DONE]", end=end))

    async def scenario() -> None:
        client = PLAIN_OPENAI.make("sync", provider, guard)
        stream = client.chat.completions.create(**CHAT, stream=True)
        assert len(await chunks_of(stream)) == 1
        client.close()

    run(scenario())
    assert spent(guard) == (11, 5, 6, 1)


def test_a_last_event_without_its_blank_line_is_heard(provider: FakeProvider, guard: Guard) -> None:
    """Servers end politely in the middle of an event; what it says counts."""
    usage = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
    body = b'data: {"choices": []}\n\ndata: ' + json.dumps({"usage": usage}).encode()
    provider.enqueue(Reply(body=body, content_type="text/event-stream"))

    async def scenario() -> None:
        client = PLAIN_OPENAI.make("sync", provider, guard)
        await chunks_of(client.chat.completions.create(**CHAT, stream=True))
        client.close()

    run(scenario())
    assert spent(guard) == (11, 5, 6, 1)


# -- mock transports -----------------------------------------------------------------------------


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
def test_bodies_that_arrive_already_read(provider: FakeProvider, guard: Guard, gzip: bool) -> None:
    """The HTTP libraries' mock transports read bodies at once: users' own tests must work too."""
    import gzip as gz

    usage = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
    text = "".join(
        f"data: {json.dumps(event)}\n\n"
        for event in (
            {"choices": [{"index": 0, "delta": {"content": "hi"}}]},
            {"choices": [], "usage": usage},
        )
    ).encode()
    headers = {"content-type": "text/event-stream"}
    client = PLAIN_OPENAI.make("sync", provider, guard)
    http = __import__(type(client._client).__mro__[1].__module__.partition(".")[0])
    if http.__name__ == "openai":
        http = __import__("httpx2" if openai.__version__ >= "3" else "httpx")
    if gzip:
        text, headers["content-encoding"] = gz.compress(text), "gzip"
    transport = http.MockTransport(lambda _: http.Response(200, headers=headers, content=text))
    mocked = client.with_options(http_client=http.Client(transport=transport))
    assert len(list(mocked.chat.completions.create(**CHAT, stream=True))) == 1
    assert spent(guard) == (11, 5, 6, 1)
    client.close()
    mocked.close()


def test_hooks_that_fail_change_nothing(
    way: str, provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """They observe; what they raise is logged."""

    def fail(event: Event) -> None:
        raise RuntimeError("the hook's own trouble")

    guard = new_guard(hooks=[fail])

    async def scenario() -> None:
        client = PLAIN_OPENAI.make(way, provider, guard)
        stream = await got(create(client, "chat.completions")(**CHAT, stream=True))
        await chunks_of(stream)
        await got(client.close())

    run(scenario())
    assert spent(guard) == reported(provider)
    assert "the hook's own trouble" in caplog.text
