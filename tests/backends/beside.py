"""A pure ledger with a line beside a `RedisBackend`, asked the same: for state machines."""

# ruff: noqa: D102 - the rules of a state machine and the methods of a protocol

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize

from quotaguard.backends.line import Line
from quotaguard.backends.places import MemoryPlaces, Waiter
from quotaguard.backends.redis import RedisBackend, wire
from quotaguard.core.ledger import Held, Key, State
from quotaguard.core.ops import (
    Answer,
    Candidate,
    Merge,
    Op,
    Reserve,
)
from quotaguard.limits import Limit
from quotaguard.testing import FakeClock
from quotaguard.testing.clock import START

from .redis_server import RedisServer


class Books:
    """The plainest `quotaguard.core.ledger.Store`."""

    def __init__(self) -> None:
        self.buckets: dict[Key, State] = {}
        self.reservations: dict[str, Held] = {}

    def bucket(self, key: Key) -> State | None:
        return self.buckets.get(key)

    def put(self, key: Key, limit: Limit, state: State) -> None:
        self.buckets[key] = state
        if state[0] <= 0.0:
            del self.buckets[key]

    def held(self, id: str) -> Held | None:
        return self.reservations.get(id)

    def hold(self, held: Held, lease: float) -> None:
        self.reservations[held.answer.id] = held

    def closed(self, held: Held) -> None:
        pass

    def next_expiry(self) -> float:
        return min((held.expires for held in self.open()), default=math.inf)

    def open(self) -> Iterator[Held]:
        return (held for held in self.reservations.values() if held.status == "open")

    def due(self, now: float) -> Iterable[Held]:
        due = [held for held in self.open() if held.expires <= now]
        return sorted(due, key=lambda held: (held.expires, held.answer.id))

    def open_on(self, key: Key) -> float:
        return sum(
            charged
            for held in self.open()
            for charge, charged in zip(held.charges, held.charged, strict=True)
            if (charge.owner, charge.limit.id) == key
        )


class Patient(MemoryPlaces):
    """It looks for the dead each time, and in the same order as the Lua does."""

    def overdue(self, until: float) -> Iterable[Waiter]:
        self._looked_at = -math.inf
        return sorted(super().overdue(until), key=lambda waiter: (waiter.deadline, waiter.id))


def close(ours: Any, theirs: Any) -> bool:
    """Whether two answers are the same but for a millionth."""
    if isinstance(ours, (tuple, list)) and isinstance(theirs, (tuple, list)):
        return len(ours) == len(theirs) and all(map(close, ours, theirs))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(close(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, float) and isinstance(theirs, (int, float)):
        return ours == theirs or math.isclose(ours, theirs, rel_tol=1e-12, abs_tol=1e-6)
    return bool(ours == theirs)


class Asking(RuleBasedStateMachine):
    """Asks both and compares."""

    server: RedisServer
    backend: RedisBackend
    clock: FakeClock
    channel: Any

    @initialize()
    def begin(self) -> None:
        self.server.flush()
        self.clock.advance(START - self.clock.now())
        self.books = Books()
        self.places = Patient()
        self.expected_rings: list[tuple[str, float]] = []
        self.line = Line(self.books, self.places, lambda *ring: self.expected_rings.append(ring))
        self.waiting: dict[str, Reserve] = {}
        self.reserved: dict[str, tuple[Candidate, ...]] = {}
        self.adjustments = 0
        self.summaries: dict[tuple[str, ...], dict[int, float]] = {}

    def ask(self, op: Op) -> Answer:
        now = self.clock.now()
        expected = self.merged(op) if isinstance(op, Merge) else self.line.carry_out(op, now)
        found = self.backend.execute(op)
        assert type(found) is type(expected), (found, expected)
        assert close(found, expected), f"\n{found}\nis not\n{expected}"
        rings = [(id, at - now) for id, at in self.expected_rings]
        assert close(self.heard(len(rings)), rings)
        self.expected_rings.clear()
        return found

    def heard(self, count: int) -> list[tuple[str, float]]:
        """What was published: as many rings as are expected, or more if there are."""
        rings: list[tuple[str, float]] = []
        while message := self.channel.get_message(timeout=1.0 if len(rings) < count else 0.0):
            rings += wire.read_rings(message["data"]) or ()
        return rings

    def known(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.reserved) or ["nobody"]))
