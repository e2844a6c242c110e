"""Calls inside calls, and blocks that end in odd ways."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextvars import copy_context
from typing import Any

import pytest

from quotaguard import Guard, QuotaExceeded, Usage, acting_as
from quotaguard.backends.memory import MemoryBackend
from quotaguard.core.lease import Outcome
from quotaguard.identity import NOBODY, current
from quotaguard.testing import FakeClock


@pytest.fixture
def guard() -> Guard:
    """A hundred tokens and ten requests a day."""
    return Guard(limits=["100 tokens/day", "10 requests/day"], clock=FakeClock(), output_guess=20)


def left(guard: Guard, user: str = "u") -> tuple[float, float]:
    """Tokens and requests that a user has, once no errand is left."""
    guard.run_errands()
    tokens, requests = guard.peek(user=user)
    return tokens.left, requests.left


def hold(guard: Guard, tokens: int, user: str = "u", **more: Any) -> Any:
    """A hold of so many tokens of input and no output."""
    return guard.hold(user=user, input_tokens=tokens, output_tokens=0, **more)


def nothing_is_open(guard: Guard) -> bool:
    """Whether every reservation was settled, within the second that errands are given: the helper
    thread may be carrying one out.
    """
    assert isinstance(guard.backend, MemoryBackend)
    deadline = time.monotonic() + 1
    while guard.backend.open_reservations and time.monotonic() < deadline:
        guard.run_errands()
        time.sleep(0.001)
    return guard.backend.open_reservations == 0


# -- calls inside ----------------------------------------------------------------------------------


def test_a_call_inside_is_charged_once(guard: Guard) -> None:
    """It draws from what the block holds, so even all of the bucket is enough for both."""
    with hold(guard, 100):
        assert left(guard) == (0, 9)
        with hold(guard, 80) as inner:
            assert left(guard) == (20, 9)
            inner.record(input_tokens=30)
        assert left(guard) == (70, 9)
    assert left(guard) == (70, 9)


def test_what_else_the_block_says_is_added(guard: Guard) -> None:
    """A block that calls through a guarded client and records more is charged both."""
    with hold(guard, 60) as outer:
        with hold(guard, 50):
            pass
        outer.record(input_tokens=10)
    assert left(guard) == (40, 8)


def test_several_calls_inside(guard: Guard) -> None:
    """The first takes over what the block holds; the others need room of their own."""
    with hold(guard, 60):
        with hold(guard, 50):
            with hold(guard, 50):
                assert left(guard) == (50, 9)
            assert left(guard) == (50, 9)
        with hold(guard, 45):
            pass
        with pytest.raises(QuotaExceeded), hold(guard, 10):
            pass
    assert left(guard) == (5, 8)


def test_a_refused_call_inside(guard: Guard) -> None:
    """The block keeps what it holds, and is charged as if it had called nobody."""
    with hold(guard, 60):
        with pytest.raises(QuotaExceeded), hold(guard, 101):
            pass
        assert left(guard) == (40, 9)
    assert left(guard) == (40, 9)


def test_a_call_inside_for_somebody_else(guard: Guard) -> None:
    """Who acts as another pays from the other's buckets, whatever the block around it holds."""
    with hold(guard, 60, "alice"), acting_as("bob"), hold(guard, 50) as inner:
        assert inner.identity.user == "bob"
        assert left(guard, "bob") == (50, 9)
    assert left(guard, "bob") == (50, 9)


def test_a_call_inside_by_another_guard(guard: Guard) -> None:
    """Guards do not know of one another: each charges its own."""
    other = Guard(limits=["100 tokens/day"], clock=FakeClock())
    with hold(guard, 60), hold(other, 50), hold(guard, 40):
        assert guard.peek(user="u")[0].left == 60
    assert guard.peek(user="u")[0].left == 60
    assert other.peek(user="u")[0].left == 50


def test_calls_inside_tasks_and_threads(guard: Guard) -> None:
    """What copies the context is inside; a plain thread is not."""

    async def main() -> None:
        async with guard.ahold(user="u", input_tokens=60, output_tokens=0):

            async def call(tokens: int) -> str | None:
                async with guard.ahold(input_tokens=tokens, output_tokens=0) as lease:
                    return lease.identity.user

            assert await asyncio.gather(call(30), call(30)) == ["u", "u"]
            assert await asyncio.to_thread(lambda: enter_and_leave(guard, 10)) == "u"

    asyncio.run(main())
    assert left(guard) == (30, 7)
    seen: list[Any] = []
    with hold(guard, 20):
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
    assert seen == [NOBODY]


def enter_and_leave(guard: Guard, tokens: int) -> str | None:
    """A call by whoever acts."""
    with guard.hold(input_tokens=tokens, output_tokens=0) as lease:
        return lease.identity.user


def test_a_call_after_the_block_is_outside(guard: Guard) -> None:
    """A task made inside that goes on afterwards pays for itself."""

    async def main() -> None:
        go = asyncio.Event()

        async def late() -> None:
            await go.wait()
            async with guard.ahold(input_tokens=30, output_tokens=0):
                pass

        async with guard.ahold(user="u", input_tokens=60, output_tokens=0):
            task = asyncio.ensure_future(late())
            await asyncio.sleep(0)
        go.set()
        await task

    asyncio.run(main())
    assert left(guard) == (10, 8)


# -- blocks that end in odd ways -------------------------------------------------------------------


def test_left_in_another_context(guard: Guard) -> None:
    """A web framework may enter in one thread and leave in another: it is settled all the same."""
    held = hold(guard, 60)
    lease = copy_context().run(held.__enter__)
    lease.record(input_tokens=5)
    thread = threading.Thread(target=copy_context().run, args=(held.__exit__, None, None, None))
    thread.start()
    thread.join()
    assert left(guard) == (95, 9)
    assert current() == NOBODY


def test_an_async_block_left_in_another_task(guard: Guard) -> None:
    """The same for `Guard.ahold`."""

    async def main() -> None:
        held = guard.ahold(user="u", input_tokens=60, output_tokens=0)
        lease = await asyncio.ensure_future(held.__aenter__())
        lease.record(input_tokens=5)
        await asyncio.ensure_future(held.__aexit__(None, None, None))

    asyncio.run(main())
    assert left(guard) == (95, 9)


def generator(guard: Guard) -> Iterator[int]:
    """A block in a generator."""
    with hold(guard, 60) as lease:
        yield 1
        lease.record(input_tokens=5)
        yield 2


@pytest.mark.parametrize(("items", "expected"), [(1, (40, 9)), (2, (95, 9)), (3, (95, 9))])
def test_a_generator_that_is_dropped(
    guard: Guard, items: int, expected: tuple[float, float]
) -> None:
    """Its block is settled by an errand, since a finalizer may not wait for a lock."""
    running = generator(guard)
    for _ in range(items):
        next(running, None)
    assert isinstance(guard.backend, MemoryBackend)
    with guard.backend._lock:  # as when the collector runs in the middle of an operation
        del running
        gc.collect()
    assert nothing_is_open(guard)
    assert left(guard) == expected


def test_an_async_generator_that_is_dropped(guard: Guard) -> None:
    """It is settled at the latest when the loop ends."""

    async def items() -> AsyncIterator[int]:
        async with guard.ahold(user="u", input_tokens=60, output_tokens=0):
            yield 1

    async def main() -> None:
        async for _ in items():
            break

    asyncio.run(main())
    assert left(guard) == (40, 9)
    assert nothing_is_open(guard)


def test_a_hold_can_be_used_again(guard: Guard) -> None:
    """One after the other, each time a call of its own."""
    held = hold(guard, 20)
    ids = []
    for _ in range(3):
        with held as lease:
            ids.append(lease.id)
    assert len(set(ids)) == 3
    assert left(guard) == (40, 7)


def test_settled_once(guard: Guard) -> None:
    """Whoever closed the lease settles it; the end of the block does not again."""
    with hold(guard, 30) as lease:
        assert lease.close()
        guard.run(guard.settlement(lease, Outcome(Usage(1, 10, 0))))
        lease.record(input_tokens=90)
    assert left(guard) == (90, 9)
