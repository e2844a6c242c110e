"""What the tests of jobs share: a scenario is written once and run by threads and by tasks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing, closing
from typing import Any

import pytest

from quotaguard import Guard, Wait
from quotaguard.backends.memory import MemoryBackend
from quotaguard.testing import FakeClock
from tests.clients.kit import entered

PATIENT = Wait(31 * 86_400.0, backoff=None)
Function = Callable[[Any], Coroutine[Any, Any, Any]]


def new_guard(*limits: str, **more: Any) -> Guard:
    """A guard for one user, over a clock that whoever waits moves."""
    return Guard(**{"limits": limits, "clock": FakeClock(), "anonymous": "u"} | more)


class Way:
    """By threads or by tasks."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def run(
        self, guard: Guard, function: Function, items: Any, most: int = 10**9, **terms: Any
    ) -> list[Any]:
        """Run a job, to its end or until so many results are there."""
        results: list[Any] = []
        self.each(
            guard, function, items, lambda it: results.append(it) or len(results) < most, **terms
        )
        return results

    def each(
        self,
        guard: Guard,
        function: Function,
        items: Any,
        consume: Callable[[Any], bool],
        **terms: Any,
    ) -> None:
        """Run a job for a consumer, who says whether to go on."""
        terms = {"patience": PATIENT, **terms}
        if self.name == "threads":
            with closing(guard.map(lambda item: finished(function(item)), items, **terms)) as job:
                for result in job:
                    if not consume(result):
                        break
            return

        async def main() -> None:
            async with aclosing(guard.amap(function, items, **terms)) as job:
                async for result in job:
                    if not consume(result):
                        break

        asyncio.run(main())

    def hold(self, guard: Guard, tokens: int = 1, model: str | None = None) -> Any:
        """``async with way.hold(...)`` holds so many tokens."""
        hold = guard.hold if self.name == "threads" else guard.ahold
        return entered(hold(model=model, input_tokens=tokens, output_tokens=0))


def finished(coroutine: Awaitable[Any]) -> Any:
    """What a coroutine returns that blocks where it would await."""
    try:
        coroutine.send(None)  # type: ignore[attr-defined]
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it awaits")


def until(condition: Callable[[], object]) -> None:
    """Give other threads the time that they need."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def nothing_left(guard: Guard) -> None:
    """No thread of a job is left, nobody stands in line, and nothing is held."""
    assert [t.name for t in threading.enumerate() if t.name == "quotaguard-job"] == []
    assert isinstance(guard.backend, MemoryBackend)
    assert guard.backend.open_reservations == 0
    assert not guard.backend._places


each_way = pytest.mark.parametrize("way", [Way("threads"), Way("tasks")], ids=str)
