"""Asking a stream for its usage, without the caller noticing."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from quotaguard import Guard, receipt
from quotaguard.testing import FakeProvider, Reply
from tests.clients.calls import CHAT, chunks_of, create, sse
from tests.clients.clients import PLAIN_OPENAI
from tests.clients.kit import each, entered, got, new_guard, reported, run, spent


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
