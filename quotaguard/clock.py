"""Time as an argument: everything that needs "now" or waits is given a `Clock`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio


class Clock(Protocol):
    """What the library asks of time. `quotaguard.testing.FakeClock` is the one for tests."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def wait(self, bell: threading.Event, seconds: float) -> None:
        """Block until ``bell`` is set, at most ``seconds``."""
        ...

    async def wait_async(self, bell: asyncio.Event, seconds: float) -> None:
        """The same for a task."""
        ...


class Stopped(BaseException):
    """A thread's wait was ended by `Stop`: what ``asyncio.CancelledError`` is for tasks."""


class Stop:
    """Ends the waits of threads, those that are under way and those that would begin later."""

    def __init__(self) -> None:
        self.is_set = False
        self._bells: set[threading.Event] = set()

    def set(self) -> None:
        """End them: each raises `Stopped`."""
        self.is_set = True  # first: who adds its bell from now on sees it
        for bell in list(self._bells):
            bell.set()

    @contextmanager
    def covers(self) -> Iterator[None]:
        """The waits of this thread (context) inside the block are those that it ends."""
        token = _stop.set(self)
        try:
            yield
        finally:
            _stop.reset(token)

    @contextmanager
    def ends(self, bell: threading.Event) -> Iterator[None]:
        """A wait for the bell; raises `Stopped` once it is set."""
        self._bells.add(bell)
        try:
            self.check()
            yield
        finally:
            self._bells.discard(bell)
        self.check()

    def check(self) -> None:
        """Raise `Stopped` once it is set."""
        if self.is_set:
            raise Stopped


_stop: ContextVar[Stop | None] = ContextVar("quotaguard_stop", default=None)


@contextmanager
def stoppable(bell: threading.Event) -> Iterator[None]:
    """A wait that a `Stop` may end, for every clock's ``wait``.

    Raises:
        Stopped: one did.
    """
    stop = _stop.get()
    if stop is None:
        yield
    else:
        with stop.ends(bell):
            yield


class SystemClock:
    """The machine's clock."""

    now = staticmethod(time.time)

    def wait(self, bell: threading.Event, seconds: float) -> None:
        """Block until ``bell`` is set, at most ``seconds``."""
        with stoppable(bell):
            bell.wait(seconds)

    async def wait_async(self, bell: asyncio.Event, seconds: float) -> None:
        """The same for a task."""
        import asyncio  # a fifth of the time that importing this package would take

        # Not asyncio.wait_for: before Python 3.12 it swallows a cancellation that comes just as
        # the bell rings.
        rung = asyncio.ensure_future(bell.wait())
        try:
            await asyncio.wait((rung,), timeout=seconds)
        finally:
            rung.cancel()
