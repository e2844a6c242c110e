"""Threads and tasks race for one bucket: never above capacity, and exactly full use."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from quotaguard import Limit
from quotaguard.backends.memory import MemoryBackend
from quotaguard.core.ops import Candidate, Charge, Peek, Reservation, Reserve, Settle
from quotaguard.testing import FakeClock

THREADS, TASKS = 64, 1_000
CAPACITY = 3_000
TOKENS = Limit(CAPACITY, "tokens", "day")
REQUESTS = Limit(10 * CAPACITY, "requests", 60)
OWNER = ("global",)


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    """Let threads interrupt one another wherever they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def backend() -> MemoryBackend:
    """Books under a clock that stands still."""
    return MemoryBackend(FakeClock())


def reserve(id: str, amount: float) -> Reserve:
    """So many tokens and one request."""
    charges = Charge(OWNER, TOKENS, amount, amount, 0.0), Charge(OWNER, REQUESTS, 1.0, 1.0, 1.0)
    return Reserve(id, (Candidate("model", charges),), 60.0)


def left(backend: MemoryBackend) -> tuple[float, float]:
    """What the two buckets hold."""
    states = backend.execute(Peek(((OWNER, TOKENS), (OWNER, REQUESTS))))
    assert isinstance(states, tuple)
    return states[0].left, states[1].left


class Crowd:
    """Threads, tasks on an event loop of their own, or both, that start at once."""

    def __init__(self, threads: int, tasks: int) -> None:
        self.threads, self.tasks = threads, tasks
        self.start = threading.Barrier(threads + (1 if tasks else 0))
        self.failed: list[BaseException] = []

    def run(self, work: Callable[[int], None], awork: Callable[[int], object]) -> None:
        """Let each of them work once, and raise what any of them raised."""

        def thread(number: int) -> None:
            self.start.wait()
            self.guarded(work, number)

        async def tasks() -> None:
            self.start.wait()
            await asyncio.gather(*(awork(number) for number in range(self.tasks)))  # type: ignore[misc]

        crowd = [threading.Thread(target=thread, args=(n,)) for n in range(self.threads)]
        if self.tasks:
            crowd.append(threading.Thread(target=self.guarded, args=(asyncio.run, tasks())))
        for each in crowd:
            each.start()
        for each in crowd:
            each.join()
        if self.failed:
            raise self.failed[0]

    def guarded(self, work: Callable[..., object], argument: object) -> None:
        """Keep what it raises."""
        try:
            work(argument)
        except BaseException as error:  # noqa: BLE001  # raised again by `run`
            self.failed.append(error)


@pytest.mark.parametrize(("threads", "tasks"), [(THREADS, 0), (0, TASKS), (THREADS, TASKS)])
def test_never_above_capacity_and_exactly_full(
    backend: MemoryBackend, threads: int, tasks: int
) -> None:
    """Whoever races, 3,000 tokens are given out to the last one, and no more."""
    won: list[int] = []

    def work(number: int) -> None:
        for attempt in range(100):
            if isinstance(backend.execute(reserve(f"thread {number} {attempt}", 1)), Reservation):
                won.append(1)  # noqa: PERF401  # each as it is won

    async def awork(number: int) -> None:
        for attempt in range(4):
            answer = await backend.aexecute(reserve(f"task {number} {attempt}", 1))
            if isinstance(answer, Reservation):
                won.append(1)
            await asyncio.sleep(0)

    Crowd(threads, tasks).run(work, awork)
    assert len(won) == CAPACITY
    assert left(backend)[0] == 0


@pytest.mark.parametrize(("threads", "tasks"), [(THREADS, 0), (0, TASKS), (THREADS, TASKS)])
def test_surplus_returns_meanwhile(  # noqa: C901  # workers of two kinds, and who watches them
    backend: MemoryBackend, threads: int, tasks: int
) -> None:
    """What is admitted and not returned never exceeds capacity at any moment, and in the end all is
    accounted for.
    """
    watch = threading.Lock()
    used = [0.0]
    outstanding = [0.0]
    highest = [0.0]

    def admitted(amount: float) -> None:
        with watch:  # after the ledger gave it, so the ledger has at least this much out
            outstanding[0] += amount
            highest[0] = max(highest[0], outstanding[0])
            assert outstanding[0] <= CAPACITY

    def returns(amount: float, spent: float) -> None:
        with watch:  # before the ledger takes it back
            outstanding[0] -= amount - spent
            used[0] += spent

    def settles(id: str, spent: float) -> list[Settle]:
        return [Settle(id, (spent, 1.0))] * 2  # a repetition must not count

    def plans(number: str) -> Iterator[tuple[str, float, float]]:
        chance = random.Random(number)
        for attempt in range(8):
            amount = float(chance.randint(1, 400))
            yield f"{number} {attempt}", amount, chance.choice([0.0, 0.0, 0.0, 1.0])

    def work(number: int) -> None:
        for id, amount, spent in plans(f"thread {number}"):
            if isinstance(backend.execute(reserve(id, amount)), Reservation):
                admitted(amount)
                returns(amount, spent)
                for op in settles(id, spent):
                    backend.execute(op)

    async def awork(number: int) -> None:
        for id, amount, spent in plans(f"task {number}"):
            if isinstance(await backend.aexecute(reserve(id, amount)), Reservation):
                admitted(amount)
                await asyncio.sleep(0)
                returns(amount, spent)
                for op in settles(id, spent):
                    await backend.aexecute(op)

    Crowd(threads, tasks).run(work, awork)
    assert highest[0] > CAPACITY / 10
    assert left(backend)[0] == CAPACITY - used[0]
    assert backend.open_reservations == 0


def test_one_id_raced_by_many(backend: MemoryBackend) -> None:
    """Reserves and settles of the same ids from everywhere are charged once each."""

    def work(number: int) -> None:
        for id in range(100):
            backend.execute(reserve(f"{id}", 10))
            backend.execute(Settle(f"{id}", (7.0, 1.0)))

    Crowd(THREADS, 0).run(work, lambda number: None)
    assert left(backend) == (CAPACITY - 700, 10 * CAPACITY - 100)
