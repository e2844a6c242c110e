"""A clock for tests: time passes when the test says so."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..clock import stoppable

START = 1_767_225_600.0
"""2026-01-01 00:00:00 UTC, a Thursday."""


class FakeClock:
    """A `quotaguard.clock.Clock` that a test moves.

    Args:
        start: seconds since the epoch.
        auto_advance: whoever waits moves the clock to the end of the wait at once, so a test of one
            thread or task never blocks. False: waits last until `advance` has passed their end.
    """

    def __init__(self, start: float = START, *, auto_advance: bool = True) -> None:
        self._now = float(start)
        self._auto = auto_advance
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._alarms: dict[int, tuple[float, Callable[[], object]]] = {}

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass (back, if negative), ending the waits whose time has come, in order."""
        with self._lock:
            self._now += seconds
            ended = sorted(
                (end, number) for number, (end, _) in self._alarms.items() if end <= self._now
            )
            rings = [self._alarms.pop(number)[1] for _, number in ended]
        for ring in rings:
            ring()

    @property
    def waiting(self) -> int:
        """How many threads and tasks wait now; always 0 with ``auto_advance``."""
        with self._lock:
            return len(self._alarms)

    def wait(self, bell: threading.Event, seconds: float) -> None:
        """Block until ``bell`` is set or the clock has passed ``seconds``."""
        with stoppable(bell):
            if bell.is_set():
                return
            if self._auto:
                self.advance(seconds)
                return
            with self._alarm(seconds, bell.set):
                bell.wait()

    async def wait_async(self, bell: asyncio.Event, seconds: float) -> None:
        """The same for a task."""
        await asyncio.sleep(0)
        if bell.is_set():
            return
        if self._auto:
            self.advance(seconds)
            return
        loop = asyncio.get_running_loop()

        def ring() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
                loop.call_soon_threadsafe(bell.set)

        with self._alarm(seconds, ring):
            await bell.wait()

    @contextmanager
    def _alarm(self, seconds: float, ring: Callable[[], object]) -> Iterator[None]:
        number = next(self._numbers)
        with self._lock:
            self._alarms[number] = self._now + seconds, ring
        try:
            yield
        finally:
            with self._lock:
                self._alarms.pop(number, None)

    def __repr__(self) -> str:
        return f"FakeClock({self._now})"
