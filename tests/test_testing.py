"""What we hand to others for their tests: a clock that they move, and a switch."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from quotaguard import Guard, QuotaExceeded, RequestTooLarge, engine
from quotaguard.testing import FakeClock, disabled
from quotaguard.testing.clock import START


def until_waiting(clock: FakeClock, count: int) -> None:
    """Let other threads run until that many wait."""
    deadline = time.monotonic() + 20
    while clock.waiting != count:
        assert time.monotonic() < deadline, f"{clock.waiting} wait, not {count}"
        threading.Event().wait(0.0005)


async def until_tasks_wait(clock: FakeClock, count: int) -> None:
    """Let other tasks run until that many wait."""
    deadline = time.monotonic() + 20
    while clock.waiting != count:
        assert time.monotonic() < deadline, f"{clock.waiting} wait, not {count}"
        await asyncio.sleep(0)


def test_time_stands_still_until_it_is_moved() -> None:
    """Forwards and, as clocks of machines do, backwards."""
    clock = FakeClock()
    assert clock.now() == clock.now() == START
    clock.advance(90)
    clock.advance(-30.5)
    assert clock.now() == START + 59.5
    assert repr(FakeClock(5)) == "FakeClock(5.0)"


def test_waiting_moves_the_clock() -> None:
    """By default whoever waits has waited."""
    clock = FakeClock(100)
    bell = threading.Event()
    clock.wait(bell, 7)
    assert (clock.now(), clock.waiting, bell.is_set()) == (107, 0, False)
    bell.set()
    clock.wait(bell, 7)
    assert clock.now() == 107


@pytest.mark.anyio
async def test_waiting_moves_the_clock_for_tasks() -> None:
    """The same, awaiting."""
    clock = FakeClock(100)
    bell = asyncio.Event()
    await clock.wait_async(bell, 7)
    assert (clock.now(), clock.waiting, bell.is_set()) == (107, 0, False)
    bell.set()
    await clock.wait_async(bell, 7)
    assert clock.now() == 107


def test_advance_wakes_threads_whose_time_has_come() -> None:
    """Each waits until the clock has passed its own end, and not a moment less."""
    clock = FakeClock(0, auto_advance=False)
    with ThreadPoolExecutor(3) as pool:
        waits = [pool.submit(clock.wait, threading.Event(), s) for s in (10, 20, 30)]
        until_waiting(clock, 3)
        clock.advance(9.999)
        assert clock.waiting == 3
        clock.advance(10.001)
        assert [wait.result(20) for wait in waits[:2]] == [None, None]
        assert not waits[2].done()
        clock.advance(1000)
        assert waits[2].result(20) is None
    assert clock.waiting == 0


def test_a_bell_ends_a_wait_early() -> None:
    """A refund wakes whoever stands in line; time has not moved."""
    clock = FakeClock(0, auto_advance=False)
    bell = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        wait = pool.submit(clock.wait, bell, 10)
        until_waiting(clock, 1)
        bell.set()
        wait.result(20)
    assert (clock.now(), clock.waiting) == (0, 0)


def test_going_backwards_wakes_nobody() -> None:
    """And what was waited for stays where it was."""
    clock = FakeClock(100, auto_advance=False)
    with ThreadPoolExecutor(1) as pool:
        wait = pool.submit(clock.wait, threading.Event(), 10)
        until_waiting(clock, 1)
        clock.advance(-50)
        clock.advance(59)
        assert (clock.now(), clock.waiting) == (109, 1)
        clock.advance(1)
        wait.result(20)
    assert clock.now() == 110


@pytest.mark.anyio
async def test_advance_wakes_tasks_whose_time_has_come() -> None:
    """In the order of their ends, whatever order they began in."""
    clock = FakeClock(0, auto_advance=False)
    woken: list[int] = []

    async def wait(seconds: int) -> None:
        await clock.wait_async(asyncio.Event(), seconds)
        woken.append(seconds)

    tasks = [asyncio.create_task(wait(seconds)) for seconds in (30, 10, 20, 99)]
    await until_tasks_wait(clock, 4)
    clock.advance(30)
    await asyncio.gather(*tasks[:3])
    assert woken == [10, 20, 30]
    assert clock.waiting == 1
    tasks[3].cancel()
    await asyncio.wait(tasks)
    assert clock.waiting == 0


@pytest.mark.anyio
async def test_another_thread_may_advance_a_task() -> None:
    """The clock rings in the task's own loop."""
    clock = FakeClock(0, auto_advance=False)
    task = asyncio.create_task(clock.wait_async(asyncio.Event(), 10))
    await until_tasks_wait(clock, 1)
    await asyncio.to_thread(clock.advance, 10)
    await asyncio.wait_for(task, 20)
    assert clock.waiting == 0


def test_a_guard_goes_by_the_clock() -> None:
    """Buckets refill and windows reset as the test moves time."""
    clock = FakeClock()
    quota = Guard(limits=["6 requests/minute", "8 requests/day"], clock=clock)
    for _ in range(6):
        with quota.hold(user="alice"):
            pass
    assert [state.left for state in quota.peek(user="alice")] == [0, 2]
    clock.advance(10)
    assert [state.left for state in quota.peek(user="alice")] == pytest.approx([1, 2])
    clock.advance(86_400 - 10)
    assert [state.left for state in quota.peek(user="alice")] == [6, 8]


def test_disabled_lets_every_call_pass_uncounted() -> None:
    """Also what no limit could ever admit; afterwards all is as it was."""
    quota = Guard(limits=["10 tokens/day"], clock=FakeClock())
    with disabled(), quota.hold(user="alice", input_tokens=10**6) as lease:
        assert lease.is_open
    assert quota.peek(user="alice")[0].left == 10
    with pytest.raises(RequestTooLarge):
        quota.hold(user="alice", input_tokens=11).__enter__()


def test_disabled_needs_no_user_and_no_tier() -> None:
    """Code under test need not say who it acts for."""
    quota = Guard(limits=["0 requests/day"])
    with disabled(), quota.hold() as lease:
        assert lease.identity.user is None
    with pytest.raises(QuotaExceeded):
        quota.hold(user="alice").__enter__()


def test_disabled_ends_with_an_error() -> None:
    """Guards are back on whatever ends the block, and blocks nest."""
    with suppress(KeyError), disabled():
        assert not engine.switched_on
        raise KeyError
    assert engine.switched_on
    with disabled():
        with disabled():
            pass
        assert not engine.switched_on
    assert engine.switched_on


@pytest.mark.anyio
async def test_disabled_reaches_tasks_and_threads() -> None:
    """It is a switch of the process."""
    quota = Guard(limits=["0 requests/day"], anonymous="anyone")

    async def call() -> bool:
        async with quota.ahold() as lease:
            return lease.is_open

    def block() -> bool:
        with quota.hold() as lease:
            return lease.is_open

    with disabled():
        assert await asyncio.create_task(call())
        assert await asyncio.to_thread(block)
    with pytest.raises(QuotaExceeded):
        await call()
