"""A backend that a test can take away."""

from __future__ import annotations

import time
from collections.abc import Callable

from quotaguard import BackendError
from quotaguard.backends.memory import MemoryBackend
from quotaguard.clock import Clock
from quotaguard.core.ops import Answer, Op, Reserve


class Switch:
    """A memory backend that fails while ``away``; what it was asked for is in ``asked``."""

    def __init__(self, clock: Clock) -> None:
        self.inner = MemoryBackend(clock)
        self.away = False
        self.loses_replies = False
        self.asked: list[Op] = []
        self.closed = False

    def execute(self, op: Op) -> Answer:
        """Carry it out, unless switched off; a lost reply is one that was."""
        if self.away:
            raise BackendError("the ledger is switched off")
        self.asked.append(op)
        answer = self.inner.execute(op)
        if self.loses_replies and isinstance(op, Reserve):
            raise BackendError("the reply was lost")
        return answer

    async def aexecute(self, op: Op) -> Answer:
        """The same."""
        return self.execute(op)

    def close(self) -> None:
        """Say that it was called."""
        self.closed = True


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Give other threads and processes the time that they need."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
