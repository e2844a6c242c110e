"""Streams that nobody ended: the garbage collector or the interpreter's exit does."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import quotaguard
from quotaguard import Guard
from quotaguard.counting import count_delivered
from quotaguard.testing import FakeClock, FakeProvider, Reply
from tests.clients.clients import PLAIN_OPENAI
from tests.clients.kit import http_library, new_guard, reach, run, spent
from tests.clients.talk import INPUT, READ, SOURCES, TEXT, Source, Talk, ended

pytestmark = pytest.mark.usefixtures("quick_collections")


class Meddling(FakeClock):
    """A clock that collects garbage when it is asked next, if it was told to."""

    armed = False

    def now(self) -> float:
        """Seconds, and whatever finalizers do."""
        if self.armed:
            self.armed = False
            gc.collect()
        return super().now()


class Witness:
    """Sees what is so when it is collected."""

    def __init__(self, see: Callable[[], bool], seen: list[bool]) -> None:
        self.see = see
        self.seen = seen

    def __del__(self) -> None:
        self.seen.append(self.see())


def test_a_finalizer_inside_the_backends_lock(
    provider: FakeProvider, release: threading.Event
) -> None:
    """Garbage is collected whenever it pleases, also while this thread holds the ledger's lock."""
    provider.enqueue(Reply(text=TEXT, input_tokens=INPUT, hold_after=(3, release)))
    clock = Meddling()
    locked: list[bool] = []
    gc.disable()
    try:
        talk = Talk("sync", SOURCES[0], provider)
        talk.guard = new_guard(clock=clock, hooks=[talk.told])
        talk.client = talk.source.kind.make("sync", provider, talk.guard)

        async def scenario() -> None:
            await talk.begin()
            await talk.read()
            cycle = [talk.stream, Witness(talk.guard.backend._lock.locked, locked)]
            cycle.append(cycle)
            talk.stream = None

        run(scenario())
        assert not talk.told.settled
        clock.armed = True
        talk.guard.peek()  # asks the clock within the lock, and the stream is collected there
        assert locked == [True]
        run(ended(talk))
        assert spent(talk.guard) == talk.delivered(READ, provider)
    finally:
        gc.enable()


@types.coroutine
def _never() -> Any:
    """Suspends, and is not resumed."""
    yield


@pytest.mark.parametrize("name", ["AsyncGuardedOpenAI", "AsyncGuardedAnthropic"])
def test_a_coroutine_thrown_away_inside_the_backends_lock(name: str) -> None:
    """A task that nobody awaits any more is closed by the garbage collector, wherever that runs."""
    guard = new_guard()
    client = getattr(quotaguard, name)(guard=guard, api_key="test", base_url="http://localhost")
    library = http_library(client)

    class Silent(library.AsyncBaseTransport):  # type: ignore[misc,name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            await _never()

    source = next(source for source in SOURCES if source.kind.name in name)
    silent = client.copy(http_client=library.AsyncClient(transport=Silent()))
    silent._platform = "Linux"  # else it is found out in a thread first

    async def scenario() -> None:
        coroutine = reach(silent, source.path)(**source.arguments)
        coroutine.send(None)
        assert guard.backend.open_reservations == 1
        with guard.backend._lock:
            coroutine.close()
        await silent.close()
        await client.close()

    run(scenario())
    used = spent(guard)
    assert used.requests == 1
    assert used.tokens == used.input_tokens > 0
    assert guard.backend.open_reservations == 0


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
            stream = client.chat.completions.create(**SOURCES[0].arguments, stream=True)
            next(iter(stream))

    threads = [threading.Thread(target=forget) for _ in range(8)]
    gc.disable()  # one that is collected inside the lock of httpcore's pool would wait for it
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.enable()
    gc.collect()
    deadline = time.monotonic() + 1.0
    while guard.backend.open_reservations and time.monotonic() < deadline:
        time.sleep(0.002)
    assert guard.backend.open_reservations == 0
    assert spent(guard).requests == 80
    client.close()
