"""A job uses what the limits allow, all of it, and no more: a day or an hour, simulated."""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Coroutine
from typing import Any, NamedTuple

from quotaguard import Guard
from quotaguard.clock import SystemClock
from quotaguard.testing.clock import START
from tests.jobs.kit import PATIENT

DAY = 86_400.0
MINUTE = 60.0


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while nobody has anything to do: then at once."""

    def __init__(self) -> None:
        self._passed = 0.0
        super().__init__(_Impatient(self))

    def time(self) -> float:
        """Seconds since it was made."""
        return self._passed

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self._passed += seconds


class _Impatient(selectors.DefaultSelector):  # type: ignore[misc,valid-type]  # it differs by system
    """A selector that lets simulated time pass instead of waiting."""

    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        """What is ready now."""
        assert timeout is not None, "everybody waits for something that nobody will do"
        if timeout > 0:
            self._loop.pass_time(timeout)
        return super().select(0)


class SimulatedClock(SystemClock):
    """The time of a loop, as a clock."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def now(self) -> float:  # type: ignore[override]
        """Seconds since the epoch."""
        return START + self._loop.time()


class Call(NamedTuple):
    """A call that was made."""

    began: float
    ended: float
    used: int


def simulated(
    limit: str, seconds: float, concurrency: int, *, surplus_returns: bool = True
) -> list[Call]:
    """The calls of a job without end, in so many seconds: each reserves 1,000 tokens, takes 1 to 3
    seconds, and uses 100 to 700 of them, 400 in the mean.
    """
    loop = SimulatedLoop()
    clock = SimulatedClock(loop)
    guard = Guard(limits=[limit], clock=clock)
    calls: list[Call] = []

    async def call(item: int) -> None:
        async with guard.ahold(user="u", input_tokens=300, output_tokens=700) as lease:
            began = clock.now() - START
            await asyncio.sleep(1 + item * 7 % 20 / 10)
            used = 100 + item * 37 % 13 * 50
            if surplus_returns:
                lease.record(input_tokens=100, output_tokens=used - 100)
            calls.append(Call(began, clock.now() - START, used))

    async def main() -> None:
        async for _ in guard.amap(
            call, itertools.count(), concurrency=concurrency, patience=PATIENT, ordered=False
        ):
            if loop.time() >= seconds:
                break

    _run(loop, main())
    return calls


def _run(loop: SimulatedLoop, main: Coroutine[Any, Any, None]) -> None:
    try:
        loop.run_until_complete(main)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def most_in(window: float, used: list[tuple[float, int]]) -> int:
    """The most tokens that were used in any span of so many seconds."""
    used = sorted(used)
    most = within = first = 0
    for at, tokens in used:
        within += tokens
        while used[first][0] <= at - window:
            within -= used[first][1]
            first += 1
        most = max(most, within)
    return most


def test_a_job_uses_what_flows_into_a_bucket() -> None:
    """Its calls use 40 % of what they reserve; at least 95 % of the limit is used. In no span of
    time is it more than the bucket can hold and what flows in then.
    """
    calls = simulated("90k tokens/minute", 12 * MINUTE, concurrency=40)
    began = [(call.began, call.used) for call in calls]
    ended = [(call.ended, call.used) for call in calls]
    after = [used for at, used in ended if 2 * MINUTE < at <= 12 * MINUTE]  # the bucket was full
    assert 0.95 <= sum(after) / (10 * 90_000) <= 1.01
    for window in (1.0, 10.0, MINUTE, 5 * MINUTE):
        assert most_in(window, began) <= 90_000 + 1_500 * window
        assert most_in(window, ended) <= 90_000 + 1_500 * window


def test_a_job_uses_each_day_whole() -> None:
    """And never more than the day has; a call belongs to the day in which it was admitted."""
    calls = simulated("400k tokens/day", 3 * DAY, concurrency=20)
    for day in range(3):
        used = sum(call.used for call in calls if day * DAY <= call.began < (day + 1) * DAY)
        assert 0.95 * 400_000 <= used <= 400_000


def test_without_the_surplus_it_would_be_less_than_half() -> None:
    """This is what is gained by settling with what was really used."""
    calls = simulated("90k tokens/minute", 5 * MINUTE, concurrency=40, surplus_returns=False)
    used = sum(call.used for call in calls if 2 * MINUTE < call.ended <= 5 * MINUTE)
    assert 0.35 <= used / (3 * 90_000) <= 0.45
