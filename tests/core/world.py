"""A guard, a clock that only the test moves, and calls that wait: for the tests of waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from quotaguard import Guard, Wait
from quotaguard.backends.memory import MemoryBackend
from quotaguard.events import Event
from quotaguard.testing import FakeClock

LONG = 20.0
"""Seconds of real time after which something will never happen."""
Hold = Callable[..., Any]


class World:
    """A guard over a clock that the test moves, with 60 tokens that refill by one a second."""

    def __init__(
        self, max_seconds: float = 500.0, *, auto: bool = False, limit: str = "60 tokens/minute"
    ) -> None:
        self.clock = FakeClock(auto_advance=auto)
        self.events: list[Event] = []
        self.guard = Guard(
            limits=[limit],
            when_exceeded=Wait(max_seconds, backoff=None),
            clock=self.clock,
            hooks=[self.events.append],
            lease_seconds=10_000.0,
        )
        self.outside = copy_context()
        """Where no hold is running: a task made inside one would draw from it."""
        self.order: list[str] = []
        self.threads: list[threading.Thread] = []

    @property
    def backend(self) -> MemoryBackend:
        """Its backend, where one can look at the line."""
        assert isinstance(self.guard.backend, MemoryBackend)
        return self.guard.backend

    def hold(self, tokens: int) -> Any:
        """A hold of so many tokens by the one user there is."""
        return self.guard.hold(user="u", input_tokens=tokens, output_tokens=0)

    def ahold(self, tokens: int) -> Any:
        """The same, awaiting."""
        return self.guard.ahold(user="u", input_tokens=tokens, output_tokens=0)

    def left(self) -> float:
        """What the bucket holds."""
        return self.guard.peek(user="u")[0].left

    def spend(self, tokens: int) -> None:
        """Use as much as is reserved."""
        with self.hold(tokens):
            pass

    def thread(self, name: str, tokens: int) -> None:
        """A thread that waits, and says so when it is let in; back when it stands in line."""

        def run() -> None:
            with self.hold(tokens):
                self.order.append(name)

        before = self.clock.waiting
        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()
        until(lambda: self.clock.waiting == before + 1)

    async def task(self, name: str, tokens: int) -> asyncio.Task[None]:
        """The same for a task."""

        async def run() -> None:
            async with self.ahold(tokens):
                self.order.append(name)

        before = self.clock.waiting
        made = self.outside.run(asyncio.ensure_future, run())
        await auntil(lambda: self.clock.waiting == before + 1)
        return made

    def join(self) -> None:
        """All threads have come to their end."""
        for thread in self.threads:
            thread.join(LONG)
            assert not thread.is_alive()


def until(condition: Callable[[], bool]) -> None:
    """Give other threads the time that they need."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


async def auntil(condition: Callable[[], bool]) -> None:
    """Give other threads and tasks the time that they need."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.0005)
