"""Calls that wait, as threads and as tasks: in order, woken early, cancellable, bounded."""

from __future__ import annotations

import asyncio
import random
import threading
from contextvars import copy_context
from typing import Any

import pytest
from tenacity import wait_chain, wait_fixed, wait_incrementing, wait_random

from quotaguard import Guard, Limit, QuotaExceeded, RequestTooLarge, Wait
from quotaguard.backends.memory import MemoryBackend
from quotaguard.backends.places import GRACE
from quotaguard.core.lease import Demand
from quotaguard.core.ops import Answer, Op, Park, Reserve
from quotaguard.core.plan import BEHIND_ALL, LATE
from quotaguard.events import Waited, Waiting
from quotaguard.identity import Identity
from quotaguard.testing import FakeClock
from tests.core.world import LONG, World, auntil, until


def test_first_come_first_served_among_threads_and_tasks() -> None:
    """They are let in as they came, the small ones not before the large ones."""

    async def main() -> None:
        world = World()
        world.spend(60)
        tasks = []
        for number, tokens in enumerate([50, 1, 30, 2, 40, 1]):
            if number % 2:
                tasks.append(await world.task(f"{number}", tokens))
            else:
                await asyncio.to_thread(world.thread, f"{number}", tokens)
        for expected, seconds in enumerate([50, 1, 30, 2, 40, 1]):
            world.clock.advance(seconds - 0.5)
            assert len(world.order) == expected
            world.clock.advance(0.5)
            await auntil(lambda expected=expected: len(world.order) > expected)
        await asyncio.wait_for(asyncio.gather(*tasks), LONG)
        await asyncio.to_thread(world.join)
        assert world.order == ["0", "1", "2", "3", "4", "5"]
        assert world.left() == pytest.approx(0)

    asyncio.run(main())


@pytest.mark.parametrize("used", [0, 20])
def test_a_refund_wakes_the_next(used: int) -> None:
    """No time needs to pass: what comes back goes to the first in line, and the rest waits on."""
    world = World()
    with world.hold(60) as lease:
        world.thread("first", 40 - used)
        world.thread("second", 30)
        lease.record(input_tokens=used)
    until(lambda: world.order == ["first"])
    world.clock.advance(60)
    world.join()
    assert world.order == ["first", "second"]
    waited = [event.seconds for event in world.events if isinstance(event, Waited)]
    assert waited == [0, 60]


def test_the_end_of_a_dead_holders_lease_wakes_the_next() -> None:
    """A call that died gives back what it held, and who waits gets it then, not later."""
    world = World()
    world.guard = Guard(
        limits=[Limit(60, "tokens", 3600, on_expire="return_all")],
        when_exceeded=Wait(4000, backoff=None),
        clock=world.clock,
        lease_seconds=20.0,
    )
    copy_context().run(world.hold(60).__enter__)
    world.guard._lease_seconds = 10_000.0
    world.thread("next", 60)
    world.clock.advance(19.5)
    assert world.clock.waiting == 1
    world.clock.advance(0.5)
    world.join()
    assert world.order == ["next"]


def test_who_gives_up_lets_the_next_in() -> None:
    """A large call that is cancelled in line no longer holds back a small one."""

    async def main() -> None:
        world = World()
        world.spend(55)
        large = await world.task("large", 50)
        small = await world.task("small", 5)
        large.cancel()
        with pytest.raises(asyncio.CancelledError):
            await large
        await asyncio.wait_for(small, LONG)
        assert world.order == ["small"]
        assert world.left() == 0
        assert not world.backend._places
        assert [event.admitted for event in world.events if isinstance(event, Waited)] == [
            False,
            True,
        ]

    asyncio.run(main())


@pytest.mark.parametrize("yields", range(4))
def test_cancelled_between_the_bell_and_the_retry(yields: int) -> None:
    """Who was let in and cancelled before it knew gives all back, and the next one gets it."""

    async def main() -> None:
        world = World()
        async with world.ahold(60) as lease:
            first = await world.task("first", 60)
            second = await world.task("second", 60)
            lease.record(input_tokens=0)
        for _ in range(yields):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        if "first" in world.order:  # it was quicker, and has spent all
            world.clock.advance(60)
        await asyncio.wait_for(second, LONG)
        assert world.order[-1] == "second"
        assert world.left() == 0
        assert world.backend.open_reservations == 0

    asyncio.run(main())


def test_a_thread_interrupted_in_line() -> None:
    """A KeyboardInterrupt in the middle of the wait leaves neither a waiter nor a hold."""

    class Interrupted(MemoryBackend):
        def execute(self, op: Op) -> Any:
            if isinstance(op, Park):
                raise KeyboardInterrupt
            return super().execute(op)

    backend = Interrupted(FakeClock())
    guard = Guard(limits=["60 tokens/minute"], when_exceeded=Wait(100), backend=backend)
    with guard.hold(user="u", input_tokens=60, output_tokens=0):
        pass
    with (
        pytest.raises(KeyboardInterrupt),
        guard.hold(user="u", input_tokens=60, output_tokens=0),
    ):
        raise AssertionError("it was to wait")
    assert not backend._places
    assert backend.open_reservations == 0


def test_a_task_whose_loop_is_gone() -> None:
    """A loop that was closed under its waiters breaks nobody's settle, and holds up nobody."""
    world = World()
    with world.hold(60) as lease:
        loop = asyncio.new_event_loop()
        task = loop.create_task(world.task("lost", 60))
        lost = loop.run_until_complete(task)
        loop.close()
        world.thread("next", 30)
        lease.record(input_tokens=0)
    assert world.order == []  # the lost one was let in
    world.clock.advance(30)
    world.join()
    assert world.order == ["next"]
    assert not lost.done()


def test_the_wait_is_bounded() -> None:
    """One that would be longer than wanted is refused at once, and costs no time."""
    world = World(29.9, auto=True)
    world.spend(60)
    began = world.clock.now()
    with pytest.raises(QuotaExceeded) as caught, world.hold(30):
        pass
    assert caught.value.retry_after == 30
    with pytest.raises(RequestTooLarge), world.hold(61):
        pass
    assert world.clock.now() == began
    with world.hold(29) as lease:
        assert lease.waited == pytest.approx(29)


def test_a_wait_that_grows_longer_ends_with_patience() -> None:
    """Who was told 20 seconds and finds the bucket in debt then is refused, not kept."""
    world = World(30.0)
    held = world.hold(60)
    inside = copy_context()
    lease = inside.run(held.__enter__)
    errors: list[QuotaExceeded] = []

    def run() -> None:
        try:
            with world.hold(20):
                raise AssertionError("there was no room")
        except QuotaExceeded as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: world.clock.waiting == 1)
    lease.record(input_tokens=100)
    inside.run(held.__exit__, None, None, None)
    world.clock.advance(20)
    thread.join(LONG)
    assert [error.retry_after for error in errors] == [40]
    assert not world.backend._places


def test_a_dead_waiter_leaves_the_line() -> None:
    """Whoever never came back is struck out once its patience is over."""
    world = World(100.0, auto=True)
    world.spend(60)
    plan = world.hold(50).admission()
    world.backend.execute(plan.send(None))  # it stands in line, and is never heard of again
    with pytest.raises(QuotaExceeded), world.hold(55):
        pass
    world.clock.advance(102.5)
    with world.hold(60):
        pass
    assert not world.backend._places


def test_jitter_has_tenacitys_shape() -> None:
    """What the curve says for each attempt is added to the computed wait, but no more than leaves
    the place in line: who came late again and again would never be let in.
    """
    for curve, expected in [
        (wait_fixed(0.05), 20.05),
        (wait_incrementing(start=0.01, increment=5), 20.01),
        (wait_chain(wait_fixed(0.02), wait_fixed(9)), 20.02),
        (wait_fixed(2), 20 + LATE),
        (None, 20),
    ]:
        clock = FakeClock()
        guard = Guard(
            limits=["60 tokens/minute"], when_exceeded=Wait(100, backoff=curve), clock=clock
        )
        with guard.hold(user="u", input_tokens=60, output_tokens=0):
            pass
        with guard.hold(user="u", input_tokens=20, output_tokens=0) as lease:
            assert lease.waited == pytest.approx(expected)
    assert LATE < GRACE / 2


def test_jitter_grows_with_the_attempts() -> None:
    """The curve is told the attempt's number, and never makes a wait shorter than computed."""
    wait = Wait(100, backoff=wait_incrementing(start=-5, increment=5))
    assert [wait.pause(10, attempt) for attempt in (1, 2, 3, 4)] == [10, 10, 15, 20]
    random.seed(1)
    pauses = [Wait(100, backoff=wait_random(0, 1)).pause(10, 1) for _ in range(200)]
    assert 10 <= min(pauses) < 10.1 < 10.9 < max(pauses) <= 11


@pytest.mark.parametrize("fair", [True, False])
def test_a_bound_is_tried_in_its_turn(fair: bool) -> None:
    """A call that lets everybody pass does not go before those that did so earlier, only because
    an upper bound of it is tried before it is counted.
    """
    asked: list[Op] = []

    class Listening(MemoryBackend):
        def execute(self, op: Op) -> Answer:
            asked.append(op)
            return super().execute(op)

    clock = FakeClock()
    guard = Guard(
        limits=["60 tokens/minute"],
        when_exceeded=Wait(100, fair=fair),
        backend=Listening(clock),
        clock=clock,
        count="when_close",
    )
    for tokens, bound in ((40, 50), (10, 20)):
        guard.run(
            guard.admission(
                Identity("u"),
                None,
                lambda *_, tokens=tokens: Demand(tokens, 0, hard=True),
                lambda *_, bound=bound: Demand(bound, 0, hard=True),
            )
        )
    found = [(op.patience, op.priority) for op in asked if isinstance(op, Reserve)]
    assert found == [(each, 0.0 if fair else BEHIND_ALL) for each in (0.0, 0.0, 100.0)]


def test_no_starvation() -> None:
    """A call of 900 out of 1,000 gets its turn in the middle of a stream of 10s that would drink
    all that comes back: after at most 1.2 times what it would wait alone.
    """

    async def main() -> None:
        clock = FakeClock(auto_advance=False)
        guard = Guard(
            limits=[Limit(1000, "tokens", 1000)],
            when_exceeded=Wait(5000, backoff=None),
            clock=clock,
        )
        waits: dict[int, list[float]] = {10: [], 900: []}

        async def call(tokens: int) -> None:
            async with guard.ahold(user="u", input_tokens=tokens, output_tokens=0) as lease:
                waits[tokens].append(lease.waited)

        await call(900)
        tasks = [asyncio.ensure_future(call(10)) for _ in range(20)]
        for second in range(1500):
            if second == 50:
                tasks.append(asyncio.ensure_future(call(900)))
            tasks += [asyncio.ensure_future(call(10)) for _ in range(second % 10 == 0)]
            for _ in range(6):
                await asyncio.sleep(0)
            clock.advance(1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        alone = 900 + 100 + 50 - 50  # what is missing, the 10s before it, and what came back
        assert waits[900][1] <= 1.2 * alone
        assert len(waits[10]) > 20

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(5))
def test_no_wake_up_is_lost(seed: int) -> None:
    """Threads and tasks that pass few tokens around, refunds only, no time: none is left asleep."""
    chance = random.Random(seed)
    world = World(10_000, limit="60 tokens/day")
    world.guard = Guard(
        limits=[Limit(60, "tokens", "day")],
        when_exceeded=Wait(1e9, backoff=None),
        clock=world.clock,
    )
    sizes = [chance.randint(1, 60) for _ in range(300)]

    def worker(mine: list[int]) -> None:
        for size in mine:
            with world.hold(size) as lease:
                lease.record(input_tokens=0)

    async def aworker(size: int) -> None:
        async with world.ahold(size) as lease:
            await asyncio.sleep(0)
            lease.record(input_tokens=0)

    async def crowd() -> None:
        await asyncio.wait_for(asyncio.gather(*map(aworker, sizes[150:])), LONG)

    threads = [threading.Thread(target=worker, args=(sizes[n:150:10],)) for n in range(10)]
    threads.append(threading.Thread(target=asyncio.run, args=(crowd(),)))
    for thread in threads:
        thread.daemon = True
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    assert world.left() == 60


def test_waiting_is_told() -> None:
    """Hooks learn that a call waits, for which limit and how long, and how it went."""
    world = World(auto=True)
    world.spend(60)
    world.events.clear()
    world.spend(20)
    waiting, waited = world.events[:2]
    assert isinstance(waiting, Waiting)
    assert (waiting.limit, waiting.seconds) == ("60 tokens/minute", 20)
    assert isinstance(waited, Waited)
    assert (waited.seconds, waited.admitted) == (20, True)


def test_the_machines_own_clock() -> None:
    """Without a fake clock, threads and tasks wait for real: here a few milliseconds."""
    guard = Guard(limits=["1000 tokens/second"], when_exceeded=Wait(5, backoff=None))

    async def main() -> float:
        async with guard.ahold(user="u", input_tokens=10, output_tokens=0) as lease:
            return lease.waited

    with guard.hold(user="u", input_tokens=1000, output_tokens=0):
        pass
    with guard.hold(user="u", input_tokens=10, output_tokens=0) as lease:
        assert 0 < lease.waited < LONG
    assert 0 <= asyncio.run(main()) < LONG
