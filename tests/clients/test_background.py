"""Answers that come later: charged once, by the look that finds them done."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from quotaguard import Guard, receipt
from quotaguard.testing import FakeProvider, Reply
from tests.clients.calls import chunks_of
from tests.clients.clients import PLAIN_OPENAI
from tests.clients.kit import entered, got, reported, run, spent


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
