"""Waits that are cut short: by a timeout, a cancellation, or a stop for threads."""

from __future__ import annotations

import asyncio
import sys
import threading
from contextvars import copy_context

import pytest

from quotaguard.clock import Clock, Stop, Stopped, SystemClock
from quotaguard.testing import FakeClock
from tests.core.world import LONG, World, auntil, until

CLOCKS = [SystemClock, lambda: FakeClock(auto_advance=False)]
each_clock = pytest.mark.parametrize("clock", [make() for make in CLOCKS], ids=["system", "fake"])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is new in Python 3.11")
def test_a_timeout_says_what_was_waited_for() -> None:
    """The call leaves the line at once, and the chained cancellation tells how long it was."""

    async def main() -> None:
        world = World()
        world.spend(60)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.01):
                async with world.ahold(42):
                    pass
        cause = caught.value.__cause__
        assert isinstance(cause, asyncio.CancelledError)
        assert cause.__notes__ == ["quotaguard: it waited for 60 tokens/minute, about 42.0 s"]
        assert world.clock.waiting == 0
        world.clock.advance(60)
        assert world.left() == pytest.approx(60)

    asyncio.run(main())


@each_clock
def test_a_cancellation_is_never_swallowed(clock: Clock) -> None:
    """Nor where the bell rings in the same turn of the loop, as with asyncio.wait_for before
    Python 3.12.
    """

    async def main() -> None:
        for ring_first in (True, False):
            bell = asyncio.Event()
            task = asyncio.create_task(clock.wait_async(bell, LONG))
            for _ in range(3):
                await asyncio.sleep(0)
            if ring_first:
                bell.set()
            task.cancel()
            bell.set()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())


def test_a_wait_ends_in_time_and_leaves_the_bell_alone() -> None:
    """Who waits in parts must not find the bell rung by the end of the part before."""

    async def main() -> None:
        bell = asyncio.Event()
        await asyncio.wait_for(SystemClock().wait_async(bell, 0.001), LONG)
        assert not bell.is_set()
        bell.set()
        await asyncio.wait_for(SystemClock().wait_async(bell, LONG), LONG)

    asyncio.run(main())


@each_clock
def test_a_stop_ends_the_waits_it_covers(clock: Clock) -> None:
    """Those under way and those that come later; others wait on."""
    stop, ended = Stop(), []

    def wait() -> None:
        bell = threading.Event()
        with stop.covers():
            for _ in range(2):
                try:
                    clock.wait(bell, LONG)
                except Stopped:
                    ended.append(bell)

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: len(stop._bells) == 1)
    stop.set()
    thread.join(LONG)
    assert len(ended) == 2
    rung = threading.Event()
    rung.set()
    clock.wait(rung, LONG)


def test_a_stopped_call_leaves_the_line() -> None:
    """What it would have held goes to who stands behind it."""
    world, stop = World(), Stop()
    world.spend(60)

    def first() -> None:
        with stop.covers(), pytest.raises(Stopped), world.hold(60):
            pass

    thread = threading.Thread(target=lambda: copy_context().run(first))
    thread.start()
    until(lambda: world.clock.waiting == 1)
    world.thread("second", 10)
    stop.set()
    thread.join(LONG)
    world.clock.advance(10)
    world.join()
    assert world.order == ["second"]
    assert world.left() == pytest.approx(0)


def test_tasks_that_are_cancelled_in_line_hold_nothing() -> None:
    """And those behind them move up at once."""

    async def main() -> None:
        world = World()
        world.spend(60)
        first = await world.task("first", 60)
        second = await world.task("second", 5)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        world.clock.advance(5)
        await auntil(lambda: world.order == ["second"])
        await second

    asyncio.run(main())
