"""However a stream ends, it is settled once, and right: what was said, else what was delivered."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import openai
import pytest

from quotaguard.testing import FakeProvider, Reply
from tests.clients.kit import each, entered, got, reported, run, spent
from tests.clients.talk import HTTP_ERRORS, INPUT, READ, SOURCES, TEXT, Talk, ended

pytestmark = pytest.mark.usefixtures("quick_collections")


async def exhausted(talk: Talk) -> None:
    """Read to its end."""
    async for _ in each(await talk.begin()):
        pass


async def exhausted_in_with(talk: Talk) -> None:
    """Read to its end, in a with block."""
    async with entered(await talk.begin()) as stream:
        async for _ in each(stream):
            pass


async def exhausted_twice(talk: Talk) -> None:
    """Read to its end, closed, closed again and dropped."""
    async for _ in each(await talk.begin()):
        pass
    await got(talk.stream.close())
    await got(talk.stream.close())
    await talk.drop()


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("ending", [exhausted, exhausted_in_with, exhausted_twice])
def test_complete(
    talk: Talk, ending: Callable[[Talk], Awaitable[None]], gzip: bool, provider: FakeProvider
) -> None:
    """A stream that was read to its end costs what the provider said."""
    provider.enqueue(Reply(text=TEXT, input_tokens=INPUT, output_tokens=31, gzip=gzip))

    async def scenario() -> None:
        await ending(talk)
        await ended(talk)

    run(scenario())
    assert spent(talk.guard) == reported(provider) == (INPUT + 31, INPUT, 31, 1)


async def closed(talk: Talk) -> None:
    """Closed after a few words."""
    await talk.begin()
    await talk.read()
    await got(talk.stream.close())


async def with_left_early(talk: Talk) -> None:
    """The with block is left by a break."""
    async with entered(await talk.begin()):
        await talk.read()


async def dropped(talk: Talk) -> None:
    """Broken off and forgotten: the garbage collector finds it."""
    await talk.begin()
    await talk.read()
    await talk.drop()


async def dropped_in_a_cycle(talk: Talk) -> None:
    """Forgotten within a cycle of references, as frameworks do."""
    await talk.begin()
    await talk.read()
    cycle: list[Any] = [talk.stream]
    cycle.append(cycle)
    del cycle
    await talk.drop()


class Oops(Exception):
    """The consumer's own error."""


def _raise(error: BaseException) -> None:
    raise error


async def consumer_failed(talk: Talk) -> None:
    """The consumer raises in its with block."""
    with pytest.raises(Oops):
        async with entered(await talk.begin()):
            await talk.read(lambda: _raise(Oops()))


async def consumer_failed_outside(talk: Talk) -> None:
    """The consumer raises, and nothing closes the stream but the garbage collector."""
    with contextlib.suppress(Oops):
        await talk.begin()
        await talk.read(lambda: _raise(Oops()))
    await talk.drop()


async def interrupted(talk: Talk) -> None:
    """Ctrl-C in the consumer's with block."""
    with pytest.raises(KeyboardInterrupt):
        async with entered(await talk.begin()):
            await talk.read(lambda: _raise(KeyboardInterrupt()))


async def client_closed(talk: Talk) -> None:
    """The client is closed under its stream, which is then forgotten."""
    await talk.begin()
    await talk.read()
    await got(talk.client.close())
    await talk.drop()


EARLY = [
    closed,
    with_left_early,
    dropped,
    dropped_in_a_cycle,
    consumer_failed,
    consumer_failed_outside,
    interrupted,
    client_closed,
]


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("ending", EARLY)
def test_broken_off(
    talk: Talk,
    ending: Callable[[Talk], Awaitable[None]],
    gzip: bool,
    provider: FakeProvider,
    release: threading.Event,
) -> None:
    """A stream that its consumer left costs its input and what had arrived."""
    provider.enqueue(
        Reply(text=TEXT, input_tokens=INPUT, output_tokens=31, hold_after=(3, release), gzip=gzip)
    )

    async def scenario() -> None:
        await ending(talk)
        await ended(talk)

    run(scenario())
    assert spent(talk.guard) == talk.delivered(READ, provider)


def test_never_iterated(talk: Talk, provider: FakeProvider, release: threading.Event) -> None:
    """A stream that nobody read costs its input, as estimated."""
    provider.enqueue(Reply(text=TEXT, input_tokens=INPUT, hold_after=(0, release)))

    async def scenario() -> None:
        await talk.begin()
        await talk.drop()
        await ended(talk)

    run(scenario())
    assert spent(talk.guard) == talk.delivered("", provider)


@pytest.mark.parametrize(
    ("reply", "text", "raises"),
    [
        (Reply(text=TEXT, input_tokens=INPUT, error_after=3), READ, True),
        (Reply(text=TEXT, input_tokens=INPUT, disconnect_after=3), READ, True),
        (Reply(text=TEXT, input_tokens=INPUT, truncate=True), TEXT, False),
    ],
    ids=["error event", "connection cut", "polite truncation"],
)
def test_provider_ends_it(
    talk: Talk, reply: Reply, text: str, raises: bool, provider: FakeProvider
) -> None:
    """A stream that its provider cut costs its input and what had arrived."""
    provider.enqueue(reply)

    async def scenario() -> None:
        try:
            async for _ in each(await talk.begin()):
                pass
        except (openai.OpenAIError, anthropic.AnthropicError, *HTTP_ERRORS):
            assert raises or talk.source.name == "responses"
        await ended(talk)

    run(scenario())
    assert spent(talk.guard) == talk.delivered(text, provider)


@pytest.mark.parametrize("model", ["o3-mini", "gpt-5"])
def test_reasoning_that_was_cut_costs_what_was_reserved(
    way: str, model: str, provider: FakeProvider, release: threading.Event
) -> None:
    """Thoughts are billed and not delivered, so what arrived says little: all that was reserved."""
    provider.enqueue(Reply(text=TEXT, input_tokens=INPUT, hold_after=(3, release)))
    talk = Talk(way, SOURCES[0], provider)

    async def scenario() -> None:
        await talk.begin(model=model, max_completion_tokens=5_000)
        await talk.read()
        await got(talk.stream.close())
        await ended(talk)

    run(scenario())
    assert spent(talk.guard).output_tokens == 5_000
