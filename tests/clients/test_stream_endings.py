"""However a stream ends, it is settled once, and right: what was said, else what was delivered."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import openai
import pytest

from quotaguard import Guard, receipt
from quotaguard.counting import count_delivered
from quotaguard.events import Event, Settled
from quotaguard.testing import FakeClock, FakeProvider, Reply
from tests.clients.clients import PLAIN_ANTHROPIC, PLAIN_OPENAI, Kind
from tests.clients.kit import Spent, each, entered, got, new_guard, reach, reported, run, spent

HTTP_ERRORS = tuple(
    import_module(name).HTTPError for name in ("httpx", "httpx2") if find_spec(name) is not None
)
"""What a stream may raise past the SDK."""
INPUT = 77
TEXT = "This answer was made up by a provider that runs on this machine."
READ = "This answer was"
"""What has arrived when a stream ends that ends early."""


class Source(NamedTuple):
    """A streaming call, and where its events carry text."""

    name: str
    kind: Kind
    path: str
    arguments: dict[str, Any]
    text: Callable[[Any], str | None]
    input_is_said: bool = False
    """Whether the stream begins by saying its input."""

    def __str__(self) -> str:
        return self.name


def _chat_text(chunk: Any) -> str | None:
    text: str | None = chunk.choices[0].delta.content
    return text


def _response_text(event: Any) -> str | None:
    return event.delta if event.type == "response.output_text.delta" else None


def _message_text(event: Any) -> str | None:
    return event.delta.text if event.type == "content_block_delta" else None


_WORDS = [{"role": "user", "content": "three small words"}]
_CHAT = {"model": "gpt-4o-mini", "messages": _WORDS}
_MESSAGE = {"model": "claude-test", "max_tokens": 100, "messages": _WORDS}
_RESPONSE = {"model": "gpt-4o-mini", "input": "three small words"}
SOURCES = [
    Source("chat", PLAIN_OPENAI, "chat.completions.create", _CHAT, _chat_text),
    Source("messages", PLAIN_ANTHROPIC, "messages.create", _MESSAGE, _message_text, True),
]
if hasattr(openai.OpenAI, "responses"):
    SOURCES.append(Source("responses", PLAIN_OPENAI, "responses.create", _RESPONSE, _response_text))


class Told:
    """A hook that keeps the settlements."""

    def __init__(self) -> None:
        self.settled: list[Settled] = []

    def __call__(self, event: Event, /) -> None:
        """Take note."""
        if isinstance(event, Settled):
            self.settled.append(event)


class Talk:
    """One streaming call in the hands of a consumer."""

    def __init__(self, way: str, source: Source, provider: FakeProvider) -> None:
        self.source = source
        self.told = Told()
        self.guard = new_guard(hooks=[self.told])
        self.client = source.kind.make(way, provider, self.guard)
        self.stream: Any = None
        self.receipt: Any = None

    async def begin(self, **more: Any) -> Any:
        """Make the call."""
        call = reach(self.client, self.source.path)
        self.stream = await got(call(**{**self.source.arguments, "stream": True, **more}))
        self.receipt = receipt(self.stream)
        return self.stream

    async def read(self, stop: Callable[[], Any] | None = None) -> None:
        """Read as far as `READ`, as a consumer does that then breaks off, or calls ``stop``."""
        seen: list[str] = []
        if hasattr(self.stream, "__aiter__"):
            async for event in self.stream:
                if self._has_seen(event, seen):
                    break
        else:
            for event in self.stream:
                if self._has_seen(event, seen):
                    break
        assert "".join(seen).strip() == READ
        if stop is not None:
            stop()

    def _has_seen(self, event: Any, seen: list[str]) -> bool:
        seen.append(self.source.text(event) or "")
        return len("".join(seen).split()) == 3

    async def drop(self) -> None:
        """Let go of the stream, as a consumer that forgot it.

        A task that breaks off leaves a generator that the event loop closes first, and openai's
        ``AsyncStream`` is a cycle of references then.
        """
        self.stream = None
        for _ in range(3):
            await asyncio.sleep(0)
            gc.collect()

    async def settled(self) -> None:
        """Wait until all is settled: a finalizer's work is done within a second, by a thread."""
        deadline = time.monotonic() + 1.0
        while self.guard.backend.open_reservations:
            assert time.monotonic() < deadline, "a stream was not settled within a second"
            await asyncio.sleep(0.002)
        assert len(self.told.settled) == 1

    def delivered(self, text: str, provider: FakeProvider) -> Spent:
        """What is to be charged for a stream that brought so much and then no more."""
        said = INPUT if self.source.input_is_said and text else None
        asked: int = self.receipt.reserved.input_tokens if said is None else said
        output = count_delivered(text, self.source.arguments["model"]) if text else 0
        return Spent(asked + output, asked, output, 1)


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> Iterator[None]:
    """What was there before need not be looked at: a collection takes long with two SDKs loaded."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What a held stream waits for; given at the end of the test at the latest."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(params=SOURCES, ids=str)
def talk(request: pytest.FixtureRequest, way: str, provider: FakeProvider) -> Iterator[Talk]:
    """A consumer of each kind of stream, with each kind of client."""
    talk = Talk(way, request.param, provider)
    yield talk
    talk.stream = None
    gc.collect()


async def ended(talk: Talk) -> None:
    """Wait for the settlement, then give the connection back."""
    await talk.settled()
    await got(talk.client.close())


# -- endings that say what was used --------------------------------------------------------------


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


# -- endings before the end ----------------------------------------------------------------------


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


# -- endings by the provider ---------------------------------------------------------------------


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


# -- endings by cancellation, timeout and interruption -------------------------------------------


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


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_interrupted_while_reading(
    source: Source, provider: FakeProvider, release: threading.Event
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


# -- hidden output -------------------------------------------------------------------------------


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


# -- finalizers ----------------------------------------------------------------------------------


class Meddling(FakeClock):
    """A clock that collects garbage when it is asked, which is: inside the backend's lock."""

    collected = 0

    def now(self) -> float:
        """Seconds, and whatever finalizers do."""
        if gc.isenabled():
            self.collected += gc.collect()
        return super().now()


def test_a_finalizer_inside_the_backends_lock(
    provider: FakeProvider, release: threading.Event
) -> None:
    """Garbage is collected whenever it pleases, also while this thread holds the ledger's lock."""
    provider.enqueue(Reply(text=TEXT, input_tokens=INPUT, hold_after=(3, release)))
    clock = Meddling()
    gc.disable()
    try:
        talk = Talk("sync", SOURCES[0], provider)
        talk.guard = new_guard(clock=clock, hooks=[talk.told])
        talk.client = talk.source.kind.make("sync", provider, talk.guard)

        async def scenario() -> None:
            await talk.begin()
            await talk.read()
            cycle: list[Any] = [talk.stream]
            cycle.append(cycle)
            talk.stream = None

        run(scenario())
        assert not talk.told.settled
        gc.enable()
        talk.guard.peek()  # the clock is asked within the lock, and the stream collected there
        gc.disable()
        assert clock.collected > 0
        run(ended(talk))
        assert spent(talk.guard) == talk.delivered(READ, provider)
    finally:
        gc.enable()


SCRIPT = """
    import sys
    from quotaguard import Guard, Guarded{sdk}
    from quotaguard.testing import FakeClock

    def tell(event):
        if type(event).__name__ == "Settled":
            print(event.used.input_tokens, event.used.output_tokens, event.used.requests)

    guard = Guard(limits=["1M tokens/day"], clock=FakeClock(), anonymous="x", hooks=[tell])
    client = Guarded{sdk}(guard=guard, base_url="{url}", api_key="test")
    stream = client.{path}(**{arguments}, stream=True)
    for event in stream:
        if {found}:
            break
    {exit}
"""


@pytest.mark.parametrize("exit_by", ["pass", "sys.exit(3)", "raise SystemError"])
@pytest.mark.parametrize("source", SOURCES[:2], ids=str)
def test_interpreter_exit(
    source: Source, exit_by: str, provider: FakeProvider, release: threading.Event
) -> None:
    """A script that ends with a stream in its hands settles it on its way out."""
    provider.enqueue(Reply(text=READ, input_tokens=INPUT, hold_after=(3, release)))
    chat = source.name == "chat"
    script = textwrap.dedent(SCRIPT).format(
        sdk="OpenAI" if chat else "Anthropic",
        url=provider.openai_url if chat else provider.anthropic_url,
        path=source.path,
        arguments=source.arguments,
        found='event.choices[0].delta.content == " was"'
        if chat
        else 'event.type == "content_block_delta" and event.delta.text == " was"',
        exit=exit_by,
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=30,
    )
    (line,) = done.stdout.splitlines() or [done.stderr]
    asked, output, requests = map(int, line.split())
    assert output == count_delivered(READ, source.arguments["model"])
    assert requests == 1
    assert asked == INPUT if source.input_is_said else asked > 0


def test_many_dropped_streams_leave_nothing(provider: FakeProvider, guard: Guard) -> None:
    """Hundreds of forgotten streams, from many threads: none stays open."""
    client = PLAIN_OPENAI.make("sync", provider, guard)

    def forget() -> None:
        for _ in range(10):
            stream = client.chat.completions.create(**_CHAT, stream=True)
            next(iter(stream))

    threads = [threading.Thread(target=forget) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    deadline = time.monotonic() + 1.0
    while guard.backend.open_reservations and time.monotonic() < deadline:
        time.sleep(0.002)
    assert guard.backend.open_reservations == 0
    assert spent(guard).requests == 80
    client.close()
