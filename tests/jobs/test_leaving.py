"""Jobs that are left early, in every way there is: nothing of them stays behind."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from quotaguard.testing import FakeClock
from tests.jobs.kit import Way, each_way, new_guard, nothing_left, until


class Left(Exception):
    """What a consumer leaves with."""


@each_way
def test_who_leaves_a_job_ends_it(way: Way) -> None:
    """Those of its calls that wait, too: a day's limit is used up here, and the clock stands."""
    guard = new_guard("5 requests/day", clock=FakeClock(auto_advance=False))

    async def call(item: int) -> int:
        async with way.hold(guard):
            return item

    came = []

    def consume(result: int) -> bool:
        came.append(result)
        if len(came) == 5:
            raise Left
        return True

    with pytest.raises(Left):
        way.each(guard, call, itertools.count(), consume, concurrency=8, ordered=False)
    nothing_left(guard)
    assert guard.peek()[0].left == 0


def test_a_break_is_enough() -> None:
    """The loop holds the only reference to the generator."""
    guard = new_guard("5 requests/day", clock=FakeClock(auto_advance=False))

    def call(item: int) -> int:
        with guard.hold():
            return item

    came = []
    for result in guard.map(call, itertools.count(), ordered=False):
        came.append(result)
        if len(came) == 3:
            break
    nothing_left(guard)


@pytest.mark.anyio
async def test_so_it_is_for_tasks() -> None:
    """As soon as the loop gets round to it."""
    guard = new_guard("5 requests/day", clock=FakeClock(auto_advance=False))

    before = asyncio.all_tasks()

    async def call(item: int) -> int:
        async with guard.ahold():
            return item

    async for result in guard.amap(call, itertools.count()):
        if result == 2:
            break
    for _ in range(20):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    nothing_left(guard)


@pytest.mark.anyio
@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_a_cancelled_task_takes_its_job_with_it(turns: int) -> None:
    """Whatever the job is at."""
    before = asyncio.all_tasks()
    clock = FakeClock(auto_advance=False)
    guard = new_guard("5 requests/day", clock=clock)

    async def call(item: int) -> int:
        async with guard.ahold():
            await asyncio.sleep(0)
            return item

    async def consume() -> None:
        async for _ in guard.amap(call, itertools.count(), concurrency=3):
            pass

    task = asyncio.ensure_future(consume())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    for _ in range(20):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert clock.waiting == 0
    nothing_left(guard)


@each_way
def test_a_pause_before_another_attempt_is_cut_short(way: Way) -> None:
    """Nobody has to wait for the end of what a provider named."""
    clock = FakeClock(auto_advance=False)
    guard = new_guard(clock=clock)

    async def work(item: int) -> int:
        if item:
            raise ConnectionError
        return item

    def consume(result: int) -> bool:
        if way.name == "threads":
            until(lambda: clock.waiting == 3)
        return False

    way.each(guard, work, range(4), consume, concurrency=4)
    assert clock.waiting == 0
    nothing_left(guard)


def test_a_job_in_the_thread_of_another_ends_with_it() -> None:
    """Else leaving the outer one would wait for the inner one, for a day."""
    clock = FakeClock(auto_advance=False)
    guard = new_guard("1 requests/day", clock=clock)

    def call(item: int) -> int:
        with guard.hold():
            return item

    def work(item: int) -> int:
        return sum(guard.map(call, range(item))) if item else 0

    for _ in guard.map(work, [0, 3], concurrency=2):
        until(lambda: clock.waiting == 2)
        break
    nothing_left(guard)


@pytest.mark.anyio
async def test_a_cancellation_inside_an_item_ends_the_job() -> None:
    """It is none of the job's own, and must not be waited for forever."""

    async def work(item: int) -> int:
        if item == 2:
            raise asyncio.CancelledError
        return item

    guard = new_guard()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(anext_all(guard.amap(work, range(5), errors="collect")), 20)
    nothing_left(guard)


async def anext_all(results: Any) -> list[Any]:
    """All results."""
    return [result async for result in results]


def test_an_item_that_would_exit_ends_the_job() -> None:
    """SystemExit is no error to be collected."""

    def work(item: int) -> None:
        raise SystemExit(3)

    guard = new_guard()
    with pytest.raises(SystemExit):
        list(guard.map(work, range(5), errors="collect"))
    nothing_left(guard)


def test_a_job_that_nobody_began_leaves_nothing() -> None:
    """No thread is started before the first result is asked for."""
    guard = new_guard()
    job = guard.map(str, itertools.count())
    before = threading.active_count()
    job.close()
    assert threading.active_count() == before
    nothing_left(guard)


_WAITING = """
import asyncio, sys, threading
from quotaguard import Guard
from quotaguard.events import Waiting
waits = []
def hook(event):
    if isinstance(event, Waiting):
        waits.append(event)
        if len(waits) == 4:
            print("in line", flush=True)
            waits.append("said")
guard = Guard(limits=["2 requests/day"], hooks=[hook])
def call(item):
    with guard.hold(user="u"):
        return item
async def acall(item):
    async with guard.ahold(user="u"):
        return item
async def main():
    async for _ in guard.amap(acall, range(100), concurrency=4):
        pass
try:
    if sys.argv[1] == "threads":
        for _ in guard.map(call, range(100), concurrency=4):
            pass
    else:
        asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", threading.active_count(), guard.backend.open_reservations,
          bool(guard.backend._places))
"""


@each_way
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
def test_ctrl_c_ends_a_job_that_waits(way: Way) -> None:
    """At once, though its calls would wait for a day."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", _WAITING, way.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in line\n"
        process.send_signal(signal.SIGINT)
        shown, _ = process.communicate(timeout=20)
    assert shown == "interrupted 1 0 False\n"
    assert process.returncode == 0


def test_a_generator_that_is_kept_does_not_keep_the_interpreter() -> None:
    """A script that leaves a job half-way and ends is over, though calls wait in line."""
    code = _WAITING.partition("try:")[0] + "job = guard.map(call, range(100), ordered=False)\n"
    code += "next(job); next(job)\nwhile len(waits) < 5: pass\nprint('end')"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        env=env,
        text=True,
        timeout=20,
    )
    assert (run.stdout, run.stderr, run.returncode) == ("in line\nend\n", "", 0)
