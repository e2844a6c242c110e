"""Answers that metering can't read reach the caller as they came."""

from __future__ import annotations

import gzip as gzip_module
import json
from typing import Any

import anthropic
import openai
import pytest

from quotaguard import Guard
from quotaguard.events import Event, UsageUnreadable
from quotaguard.testing import FakeProvider, Reply
from tests.clients.calls import CHAT, Heard, chunks_of, create, each_sdk, sse
from tests.clients.clients import PLAIN_OPENAI, Kind
from tests.clients.kit import (
    as_reserved,
    entered,
    got,
    http_library,
    new_guard,
    reported,
    run,
    spent,
)

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


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
def test_bodies_that_arrive_already_read(provider: FakeProvider, guard: Guard, gzip: bool) -> None:
    """The HTTP libraries' mock transports read bodies at once: users' own tests must work too."""
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
    http = http_library(client)
    if gzip:
        text, headers["content-encoding"] = gzip_module.compress(text), "gzip"
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
