"""Time as an argument: everything that needs "now" or waits is given a `Clock`."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
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


class SystemClock:
    """The machine's clock."""

    now = staticmethod(time.time)

    def wait(self, bell: threading.Event, seconds: float) -> None:
        """Block until ``bell`` is set, at most ``seconds``."""
        bell.wait(seconds)

    async def wait_async(self, bell: asyncio.Event, seconds: float) -> None:
        """The same for a task."""
        import asyncio  # a fifth of the time that importing this package would take

        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(bell.wait(), seconds)
