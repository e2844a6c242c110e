"""Calls that stand in line before one backend, played by one thread on a clock of its own."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

from quotaguard.backends import Backend
from quotaguard.core.ops import Candidate, Charge, Queued, Release, Reservation, Reserve, Settle
from quotaguard.testing import FakeClock

PATIENT = 1e6


class Crowd:
    """Who waits asks again when it was told to, and not before."""

    def __init__(self, backend: Backend, clock: FakeClock) -> None:
        self.backend = backend
        self.clock = clock
        self.numbers = itertools.count()
        self.waiting: dict[str, tuple[float, Reserve]] = {}
        """When each is to ask again, and what."""
        self.order: list[str] = []
        """Names of those who were admitted."""
        self.taken: Counter[str] = Counter()
        """What each flow was granted of its first bucket."""
        self.admitted: Callable[[Reserve], None] = lambda _: None
        """Called with each."""

    def come(
        self,
        *charges: Charge,
        name: str = "",
        flow: str = "",
        priority: float = 0.0,
        weight: float = 1.0,
        lease: float = 1e7,
    ) -> str:
        """A call comes; its id."""
        id = name or f"{flow!a}{next(self.numbers)}"
        candidate = Candidate(None, charges)
        self.ask(Reserve(id, (candidate,), lease, PATIENT, None, priority, flow, weight))
        return id

    def ask(self, op: Reserve) -> None:
        """It asks, and is admitted or told to wait."""
        answer = self.backend.execute(op)
        self.waiting.pop(op.id, None)
        if isinstance(answer, Queued):
            self.waiting[op.id] = self.clock.now() + answer.wait, op
            return
        assert isinstance(answer, Reservation)
        self.order.append(op.id)
        self.taken[op.flow] += answer.granted[0]  # type: ignore[assignment]
        self.admitted(op)

    def leave(self, id: str) -> None:
        """Somebody gives up."""
        del self.waiting[id]
        self.backend.execute(Release(id))

    def settle(self, id: str, *amounts: float) -> None:
        """A call ends; whoever that lets in asks at once."""
        self.backend.execute(Settle(id, amounts))
        for _, op in sorted(self.waiting.values(), key=lambda each: each[0]):
            self.ask(op)

    def wait(self, seconds: float) -> None:
        """Time passes."""
        until = self.clock.now() + seconds
        while self.waiting:
            at, op = min(self.waiting.values(), key=lambda each: each[0])
            if at > until:
                break
            self.clock.advance(max(0.0, at - self.clock.now()))
            self.ask(op)
        self.clock.advance(until - self.clock.now())
