"""Batch jobs: order, errors, and how far ahead of the results a job goes."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from quotaguard import (
    ConfigurationError,
    Fallback,
    Guard,
    QuotaExceeded,
    Refuse,
    RequestTooLarge,
    Tier,
    Wait,
    acting_as,
)
from quotaguard.events import Admitted
from quotaguard.jobs import Done
from quotaguard.jobs.job import AHEAD
from quotaguard.testing import FakeClock
from quotaguard.testing.clock import START
from tests.jobs.kit import Way, each_way, new_guard, nothing_left


class Broken(Exception):
    """What goes wrong with an item."""


@each_way
@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_results_come_in_the_order_of_the_items(way: Way, concurrency: int) -> None:
    """Whoever finishes first."""
    guard = new_guard("1M tokens/day")

    async def square(item: int) -> int:
        async with way.hold(guard):
            return item * item

    assert way.run(guard, square, range(40), concurrency=concurrency) == [
        item * item for item in range(40)
    ]
    nothing_left(guard)


@each_way
def test_a_job_is_as_fast_as_the_limits_allow(way: Way) -> None:
    """90 calls of 10 a minute take eight minutes, since the first ten find the bucket full; though
    the tier would refuse, in a job they wait.
    """
    guard = new_guard("10 requests/minute", when_exceeded=[Refuse()])

    async def call(item: int) -> int:
        async with way.hold(guard):
            return item

    assert way.run(guard, call, range(90), concurrency=4) == list(range(90))
    assert guard.clock.now() - START == pytest.approx(8 * 60)


@each_way
def test_a_fallback_of_the_tier_stays(way: Way) -> None:
    """Whether a smaller model may serve is no matter of patience."""
    served: list[str | None] = []
    guard = new_guard(
        "2 requests/day for large",
        when_exceeded=[Fallback("small"), Refuse()],
        hooks=[lambda e: served.append(e.served) if isinstance(e, Admitted) else None],
    )

    async def call(item: int) -> None:
        async with way.hold(guard, model="large"):
            pass

    way.run(guard, call, range(5), concurrency=1)
    assert served == ["large"] * 2 + ["small"] * 3


def test_results_may_come_as_they_are_done() -> None:
    """A slow first item holds nobody up."""
    guard, slow = new_guard(), threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert slow.wait(20)
        return item

    came = []
    for result in guard.map(work, range(5), concurrency=2, ordered=False):
        came.append(result)
        if len(came) == 4:
            slow.set()
    assert sorted(came[:4]) == [1, 2, 3, 4]
    assert came[4] == 0


@pytest.mark.anyio
async def test_results_of_tasks_may_come_as_they_are_done() -> None:
    """The same for tasks."""
    guard, slow = new_guard(), asyncio.Event()

    async def work(item: int) -> int:
        if item == 0:
            await slow.wait()
        return item

    came = []
    async for result in guard.amap(work, range(5), concurrency=2, ordered=False):
        came.append(result)
        if len(came) == 4:
            slow.set()
    assert came == [1, 2, 3, 4, 0]


async def picky(item: int) -> int:
    """A function that does not like every third item."""
    if item % 3 == 2:
        raise Broken(item)
    return item


@each_way
def test_the_first_error_ends_the_job_at_its_place(way: Way) -> None:
    """What comes before it is handed out; what comes after it is not."""
    guard, came = new_guard(), []
    with pytest.raises(Broken) as broken:
        way.each(guard, picky, range(30), lambda it: came.append(it) or True, concurrency=8)
    assert came == [0, 1]
    assert broken.value.args == (2,)
    nothing_left(guard)


@each_way
def test_errors_may_be_collected(way: Way) -> None:
    """Each result tells its item, so the job need not end for the bad ones."""
    done: list[Done[int, int]] = way.run(new_guard(), picky, range(9), errors="collect")
    assert [each.item for each in done] == [each.index for each in done] == list(range(9))
    assert [each.result for each in done if each.error is None] == [0, 1, 3, 4, 6, 7]
    assert [each.error.args for each in done if each.error is not None] == [(2,), (5,), (8,)]


@each_way
def test_a_call_that_can_never_fit_is_an_error_at_once(way: Way) -> None:
    """It is not tried again, and nobody waits a month for it."""
    guard = new_guard("10 tokens/minute")

    async def call(item: int) -> int:
        async with way.hold(guard, item):
            return item

    small, large = way.run(guard, call, [5, 11], errors="collect", concurrency=1)
    assert (small.result, small.error) == (5, None)
    assert isinstance(large.error, RequestTooLarge)
    assert guard.clock.now() == START


@each_way
def test_patience_may_end(way: Way) -> None:
    """Then the error says how long it would have taken."""
    guard = new_guard("1 requests/hour", when_exceeded=Wait(10_000, backoff=None))

    async def call(item: int) -> int:
        async with way.hold(guard):
            return item

    patience = Wait(60, backoff=None)
    done = way.run(guard, call, range(2), errors="collect", concurrency=1, patience=patience)
    assert isinstance(done[1].error, QuotaExceeded)
    assert done[1].error.retry_after == pytest.approx(3600)


@each_way
def test_items_may_be_endless(way: Way) -> None:
    """Few more are drawn than results were taken, however few the consumer takes."""
    drawn, ahead = itertools.count(), []
    items = (next(drawn) for _ in itertools.count())

    async def work(item: int) -> int:
        return item

    def consume(result: int) -> bool:
        ahead.append(int(repr(drawn)[6:-1]) - result)
        return result < 500

    way.each(new_guard(), work, items, consume, concurrency=5)
    assert len(ahead) == 501
    assert max(ahead) <= 5 + AHEAD + 1


@each_way
def test_a_slow_first_item_lets_few_others_be_drawn(way: Way) -> None:
    """Results that have to wait for it are held in memory, so they are bounded too."""
    drawn: list[int] = []
    held = threading.Event()

    def items() -> Iterator[int]:
        for item in itertools.count():
            drawn.append(item)
            if len(drawn) == 3 + AHEAD:
                held.set()
            yield item

    async def work(item: int) -> int:
        if item == 0:
            if way.name == "threads":
                assert held.wait(20)
            else:
                assert await asyncio.to_thread(held.wait, 20)
        return item

    assert way.run(new_guard(), work, items(), most=1, concurrency=3) == [0]
    assert len(drawn) <= 3 + AHEAD + 1


@pytest.mark.anyio
async def test_items_may_be_awaited() -> None:
    """A source that is slow to give the next item holds back no result."""
    results = asyncio.Queue[int]()

    async def items() -> AsyncIterator[int]:
        yield 1
        for _ in range(3):
            yield 2 * await results.get()

    async def work(item: int) -> int:
        return item

    came = []
    async for result in new_guard().amap(work, items()):
        came.append(result)
        results.put_nowait(result)
    assert came == [1, 2, 4, 8]


@each_way
def test_an_error_of_the_items_reaches_the_consumer(way: Way) -> None:
    """It is no item's error."""

    def items() -> Iterator[int]:
        yield 1
        raise Broken("source")

    async def work(item: int) -> int:
        return item

    guard = new_guard()
    with pytest.raises(Broken, match="source"):
        way.run(guard, work, items(), errors="collect")
    nothing_left(guard)


@each_way
def test_a_job_acts_for_whom_it_was_started(way: Way) -> None:
    """Whoever takes its results."""
    guard = Guard(tiers=[Tier("pro", limits=["1k tokens/day"])], clock=FakeClock())

    async def call(item: int) -> None:
        async with way.hold(guard, 10):
            pass

    with acting_as("alice", tier="pro"):
        way.run(guard, call, range(7))
    assert guard.peek(user="alice")[0].left == 930


@each_way
def test_a_job_of_nothing_is_over_at_once(way: Way) -> None:
    """No item, no result."""

    async def work(item: int) -> int:
        return item

    assert way.run(new_guard(), work, []) == []


@each_way
def test_jobs_nest(way: Way) -> None:
    """An item may be a job itself, and one that is left ends with the one around it."""
    guard = new_guard("10 requests/minute")

    async def inner(item: int) -> int:
        async with way.hold(guard):
            return item

    async def outer(item: int) -> int:
        if way.name == "threads":
            return sum(way.run(guard, inner, range(item)))
        return sum([it async for it in guard.amap(inner, range(item))])

    assert way.run(guard, outer, range(6), concurrency=2) == [0, 0, 1, 3, 6, 10]
    nothing_left(guard)


def test_each_kind_of_function_has_its_method() -> None:
    """A coroutine that nobody awaits would look like a result."""
    guard = new_guard()

    async def coroutine(item: int) -> int:
        return item

    with pytest.raises(ConfigurationError, match="amap runs these"):
        guard.map(coroutine, [1])
    with pytest.raises(ConfigurationError, match="amap"):
        list(guard.map(lambda item: coroutine(item), [1]))
    with pytest.raises(ConfigurationError, match="coroutine function"):
        Way("tasks").each(guard, lambda item: item, [1], bool)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    "terms",
    [
        {"concurrency": 0},
        {"concurrency": 2.0},
        {"errors": "ignore"},
        {"retries": -1},
        {"retries": "often"},
        {"patience": 30},
        {"key": str},
        {"keep_results": True},
        {"resume": "job.jsonl", "key": "id"},
    ],
    ids=str,
)
def test_a_wrong_term_is_told_before_anything_is_drawn(terms: dict[str, Any]) -> None:
    """Not when the first result is taken."""
    with pytest.raises(ConfigurationError):
        new_guard().map(str, [1], **terms)
    with pytest.raises(ConfigurationError):
        new_guard().amap(asyncio.sleep, [1], **terms)
