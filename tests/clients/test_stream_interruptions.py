"""A stream that is cancelled, timed out or interrupted is settled at once."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import anthropic
import openai
import pytest

from quotaguard.testing import FakeProvider, Reply
from tests.clients.kit import each, run, spent
from tests.clients.talk import HTTP_ERRORS, INPUT, READ, SOURCES, TEXT, Source, Talk, ended

pytestmark = pytest.mark.usefixtures("quick_collections")


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_task_cancelled_while_reading(
    source: Source, provider: FakeProvider, release: threading.Event
) -> None:
    """A cancelled task leaves no reservation open, and pays for what it got."""
    provider.enqueue(Reply(text=TEXT, input_tokens=INPUT, hold_after=(3, release)))

    async def scenario() -> Talk:
        talk = Talk("async", source, provider)
        await talk.begin()
        await talk.read()

        async def go_on() -> None:
            async for _ in talk.stream:
                pass

        task = asyncio.create_task(go_on())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ended(talk)
        return talk

    talk = run(scenario())
    assert spent(talk.guard) == talk.delivered(READ, provider)


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_task_cancelled_before_the_head(
    source: Source, provider: FakeProvider, release: threading.Event
) -> None:
    """Sent and not answered: the provider may have read it, so the input stays charged."""
    provider.enqueue(Reply(hold=release))

    async def scenario() -> Talk:
        talk = Talk("async", source, provider)
        task = asyncio.create_task(talk.begin())
        await asyncio.to_thread(provider.wait_until, lambda seen: len(seen) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ended(talk)
        return talk

    talk = run(scenario())
    asked = talk.told.settled[0].reserved.input_tokens
    assert asked > 0
    assert spent(talk.guard) == (asked, asked, 0, 1)


def test_timeout_while_reading(
    talk: Talk, provider: FakeProvider, release: threading.Event
) -> None:
    """A stream that stands still until the SDK gives up costs what had arrived."""
    provider.enqueue(Reply(text=TEXT, input_tokens=INPUT, hold_after=(3, release)))

    async def scenario() -> None:
        with pytest.raises((openai.APITimeoutError, *HTTP_ERRORS), match=r"(?i)time|^$"):
            async for _ in each(await talk.begin(timeout=0.2)):
                pass
        await ended(talk)

    run(scenario())
    assert spent(talk.guard) == talk.delivered(READ, provider)


def test_timeout_before_the_head(
    talk: Talk, provider: FakeProvider, release: threading.Event
) -> None:
    """Nobody can tell what became of a request that timed out: its input stays charged."""
    provider.enqueue(Reply(hold=release))

    async def scenario() -> None:
        with pytest.raises((openai.APITimeoutError, anthropic.APITimeoutError)):
            await talk.begin(timeout=0.2)
        await ended(talk)

    run(scenario())
    asked = talk.told.settled[0].reserved.input_tokens
    assert spent(talk.guard) == (asked, asked, 0, 1)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts, also in a process that was started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_interrupted_while_reading(
    source: Source, provider: FakeProvider, release: threading.Event, interruptible: None
) -> None:
    """Ctrl-C while a read blocks: the reservation does not outlive it."""
    provider.enqueue(Reply(text=TEXT, input_tokens=INPUT, hold_after=(3, release)))
    talk = Talk("sync", source, provider)

    async def scenario() -> None:
        await talk.begin()
        await talk.read()
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            for _ in talk.stream:
                pass

    coroutine = scenario()  # by hand: an event loop would take the signal for itself
    with pytest.raises(StopIteration):
        coroutine.send(None)
    run(ended(talk))
    assert spent(talk.guard) == talk.delivered(READ, provider)
