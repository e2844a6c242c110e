"""Those who wait, and those who race."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ...backends import Backend
from ...core.ops import Op, Park, Queued, Release, Reservation, Reserve
from ...core.plan import Plan
from .base import (
    DAY,
    HAIR,
    PATIENT,
    TOKENS,
    Contract,
    both,
    charge,
    choose,
    expect,
    fail,
    left,
    near,
    pay,
    reserve,
    same,
    settle,
    take,
)

RACERS = 16
LONG = 30.0
"""Seconds of real time after which something that should have happened never will."""


def line_up(op: Reserve) -> Plan[Queued]:
    """A reserve that must be told to wait."""
    answer = yield op
    expect(isinstance(answer, Queued), f"{op} was to stand in line, not {answer}")
    return answer  # type: ignore[no-any-return]


class Lines(Contract):
    """Waiting is computed, bounded and ends early when something comes back."""

    keeps_line = True
    """Whether who came first is served first. Set it to False for a backend whose waiters only come
    back after their computed wait and race then."""

    @both
    def test_a_patient_call_stands_in_line(self) -> Plan[None]:
        """It is told how long, holds nothing meanwhile, and is admitted when it comes back."""
        yield from take(reserve("a", charge(50)))
        op = reserve("b", charge(30), patience=PATIENT)
        queued = yield from line_up(op)
        near(queued.wait, 20)
        near(queued.refusal.wait(), 20)
        near((yield from left()), 10)
        self.advance(20 - HAIR)
        yield from line_up(op)
        self.advance(HAIR)
        yield from take(op)
        near((yield from left()), 0)

    @both
    def test_too_long_a_wait_is_refused_at_once(self) -> Plan[None]:
        """Who would wait longer than it wants to does not stand in line at all."""
        yield from take(reserve("a", charge(60)))
        refusal = yield from fail(reserve("b", charge(30), patience=30 - HAIR))
        near(refusal.wait(), 30)
        yield from line_up(reserve("b", charge(30), patience=30 + HAIR))
        yield Release("b")
        self.advance(10)
        yield from take(reserve("c", charge(10)))

    @both
    def test_a_refund_ends_the_wait(self) -> Plan[None]:
        """What comes back early lets the next in line in before its computed time."""
        refunds: tuple[Op, ...] = settle("a0", 0.0), Release("a1")
        for number, refund in enumerate(refunds):
            yield from take(reserve(f"a{number}", charge(60, DAY)))
            yield from take(reserve(f"b{number}", charge(40, DAY)))
            op = reserve(f"c{number}", charge(50, DAY), patience=100_000)
            yield from line_up(op)
            yield refund
            yield from take(op)
            yield from pay(f"b{number}", 0.0)
            yield from pay(f"c{number}", 0.0)

    @both
    def test_an_expiry_ends_the_wait(self) -> Plan[None]:
        """A waiter is told to look again when a lease ends that may make room for it."""
        yield from take(reserve("a", charge(90, DAY), lease=10))
        op = reserve("b", charge(50, DAY), patience=100_000)
        queued = yield from line_up(op)
        expect(queued.wait <= 10 + HAIR, f"the wait is {queued.wait!r}")
        self.advance(10)
        yield from take(op)

    @both
    def test_a_fallback_ends_the_wait(self) -> Plan[None]:
        """Whichever candidate fits first serves the waiter."""
        yield from take(reserve("a", charge(60)))
        yield from take(reserve("b", charge(100, DAY)))
        op = choose("c", [charge(30, DAY)], [charge(20)])._replace(patience=PATIENT)
        near((yield from line_up(op)).wait, 20)
        self.advance(20)
        same((yield from take(op)).choice, 1)

    @both
    def test_first_come_first_served(self) -> Plan[None]:
        """Nobody overtakes: not a smaller call, not an impatient one, not after a refund."""
        if not self.keeps_line:
            return
        yield from take(reserve("a", charge(60)))
        large = reserve("large", charge(50), patience=PATIENT)
        near((yield from line_up(large)).wait, 50)
        small = reserve("small", charge(5), patience=PATIENT)
        near((yield from line_up(small)).wait, 55)
        self.advance(20)
        yield from line_up(small)
        refusal = yield from fail(reserve("impatient", charge(1)))
        near(refusal.wait(), 36)
        yield from pay("a", 50.0)
        yield from fail(reserve("impatient", charge(1)))
        near((yield from line_up(large)).wait, 20)
        self.advance(20)
        yield from take(large)
        yield from line_up(small)
        self.advance(5)
        yield from take(small)
        near((yield from left()), 0)

    @both
    def test_what_the_line_leaves_is_free(self) -> Plan[None]:
        """Who waits for one bucket keeps nobody from another, nor from what it will not need."""
        yield from take(reserve("a", charge(100, DAY), charge(10)))
        yield from line_up(reserve("b", charge(20), charge(10, DAY), patience=100_000))
        yield from take(reserve("c", charge(50)))

    @both
    def test_leaving_the_line(self) -> Plan[None]:
        """Who gives up makes way for those behind, and repeating it changes nothing."""
        if not self.keeps_line:
            return
        yield from take(reserve("a", charge(60)))
        yield from line_up(reserve("b", charge(50), patience=PATIENT))
        op = reserve("c", charge(5), patience=PATIENT)
        near((yield from line_up(op)).wait, 55)
        self.advance(5)
        yield Release("b")
        yield Release("b")
        yield from take(op)

    @both
    def test_parking_without_a_place(self) -> Plan[None]:
        """Who is not in line, or was let in already, does not sleep."""
        same((yield Park("nobody", 3600.0)), None)
        yield from take(reserve("a", charge(60)))
        op = reserve("b", charge(10), patience=PATIENT)
        yield from line_up(op)
        yield from pay("a", 0.0)
        same((yield Park("b", 3600.0)), None)
        yield from take(op)

    def test_a_parked_thread_is_woken(self) -> None:
        """A refund wakes it, whether it comes before, while or after it lies down."""
        backend = self.make_backend(self.clock)
        for number in range(5):
            backend.execute(reserve(f"a{number}", charge(60)))
            op = reserve(f"b{number}", charge(60), patience=PATIENT)
            expect(isinstance(backend.execute(op), Queued), "there was to be a line")
            park = Park(op.id, 3600.0)
            sleeper = threading.Thread(target=backend.execute, args=(park,), daemon=True)
            sleeper.start()
            backend.execute(settle(f"a{number}", 0.0))
            sleeper.join(LONG)
            expect(not sleeper.is_alive(), "the refund did not wake the parked thread")
            expect(isinstance(backend.execute(op), Reservation), "there was to be room")
            backend.execute(settle(op.id, 0.0))
        backend.close()

    def test_a_parked_task_is_woken(self) -> None:
        """The same for a task; one that is cancelled meanwhile can be released."""

        async def main(backend: Backend) -> None:
            for number in range(5):
                await backend.aexecute(reserve(f"a{number}", charge(60)))
                ops = [reserve(f"{x}{number}", charge(60), patience=PATIENT) for x in "bc"]
                parked = []
                for op in ops:
                    expect(isinstance(await backend.aexecute(op), Queued), "no line")
                    parked.append(asyncio.ensure_future(backend.aexecute(Park(op.id, 3600.0))))
                for _ in range(number):
                    await asyncio.sleep(0)
                parked[0].cancel()
                await asyncio.wait(parked[:1], timeout=LONG)
                await backend.aexecute(Release(ops[0].id))
                await backend.aexecute(settle(f"a{number}", 0.0))
                await asyncio.wait_for(parked[1], LONG)
                answer = await backend.aexecute(ops[1])
                expect(isinstance(answer, Reservation), "there was to be room")
                await backend.aexecute(settle(ops[1].id, 0.0))

        backend = self.make_backend(self.clock)
        asyncio.run(main(backend))
        backend.close()

    def test_threads_race(self) -> None:
        """Never above capacity, exactly full use, and every settle counts once."""
        backend = self.make_backend(self.clock)
        with ThreadPoolExecutor(RACERS) as pool:
            won = list(pool.map(_racer(backend), range(RACERS * 3)))
        same(sum(won), TOKENS.ceiling // 5)
        backend.close()

    def test_tasks_race(self) -> None:
        """The same for tasks."""

        async def racer(number: int) -> bool:
            op = reserve(f"{number}", charge(5), charge(1, DAY))
            return isinstance(await backend.aexecute(op), Reservation)

        async def main() -> list[bool]:
            return list(await asyncio.gather(*map(racer, range(RACERS * 3))))

        backend = self.make_backend(self.clock)
        same(sum(asyncio.run(main())), TOKENS.ceiling // 5)
        backend.close()


def _racer(backend: Backend) -> Callable[[int], bool]:
    """Reserve, give all back, reserve again under another id: what stays is the second."""
    start = threading.Barrier(RACERS)

    def race(number: int) -> bool:
        if number < RACERS:
            start.wait(LONG)
        charges = charge(5), charge(1, DAY)
        if isinstance(backend.execute(reserve(f"first {number}", *charges)), Reservation):
            for _ in range(2):
                backend.execute(settle(f"first {number}", 0.0, 0.0))
        return isinstance(backend.execute(reserve(f"then {number}", *charges)), Reservation)

    return race
