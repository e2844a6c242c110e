"""Waking those who wait in this process: threads and tasks, for any backend."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import suppress

from ..clock import Clock
from ..core.ops import Answer, Op, Park, Queued, Release, Reserve

SOON = 1e-6
"""Seconds that are not worth lying down for: doubles do not tell times apart more finely."""


class _Sleeper:
    __slots__ = ("ring", "until")

    def __init__(self) -> None:
        self.until = math.inf
        self.ring: Callable[[], None] | None = None


class Bells:
    """Who waits in this process, and who was rung for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sleepers: dict[str, _Sleeper] = {}

    def __len__(self) -> int:
        return len(self._sleepers)

    def note(self, op: Op, answer: Answer) -> None:
        """What became of an operation: who is told to wait can be rung for from now on."""
        if type(answer) is Queued:
            self.expect(op.id)  # type: ignore[union-attr]
        elif self._sleepers and type(op) in (Reserve, Release):
            self.forget(op.id)  # type: ignore[union-attr]

    def expect(self, id: str) -> None:
        """It is told to wait, or may be: from now on it can be rung for."""
        self._sleepers[id] = _Sleeper()

    def forget(self, id: str) -> None:
        """It does not wait any more."""
        self._sleepers.pop(id, None)

    def ring(self, id: str, at: float) -> None:
        """Let it ask again at that time, if it would later; nobody of that id may wait here."""
        with self._lock:
            sleeper = self._sleepers.get(id)
            if sleeper is None or sleeper.until <= at:
                return
            sleeper.until = at
            ring = sleeper.ring
        if ring is not None:
            ring()

    def ring_all(self) -> None:
        """Let everybody ask again now."""
        for id in list(self._sleepers):
            self.ring(id, -math.inf)

    def park(self, op: Park, most: Callable[[], float] = lambda: math.inf) -> None:
        """Block until it is time to ask again.

        Args:
            most: gives the seconds after which to get up in any case.
        """
        bell = threading.Event()
        until = self._clock.now() + op.seconds
        while (left := self._lie_down(op.id, bell.set, until)) > SOON:
            self._clock.wait(bell, min(left, most()))
            if not bell.is_set():
                return
            bell.clear()

    async def apark(self, op: Park, most: Callable[[], float] = lambda: math.inf) -> None:
        """The same for a task."""
        import asyncio  # whoever awaits has loaded it

        bell = asyncio.Event()
        loop = asyncio.get_running_loop()
        until = self._clock.now() + op.seconds

        def ring() -> None:
            with suppress(RuntimeError):  # its loop is closed: nobody listens any more
                loop.call_soon_threadsafe(bell.set)

        while (left := self._lie_down(op.id, ring, until)) > SOON:
            await self._clock.wait_async(bell, min(left, most()))
            if not bell.is_set():
                return
            bell.clear()

    def _lie_down(self, id: str, ring: Callable[[], None], until: float) -> float:
        """Seconds to sleep; ``ring`` is called if that changes."""
        with self._lock:
            sleeper = self._sleepers.get(id)
            if sleeper is None:
                return 0.0
            sleeper.ring = ring
            return min(until, sleeper.until) - self._clock.now()
