"""Drawing ahead: fewer trips, the same totals, and never more than the bucket holds."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Callable, Iterator

import pytest

from quotaguard import BackendError, Guard
from quotaguard.backends import Backend
from quotaguard.backends.ahead import DrawAhead
from quotaguard.backends.memory import MemoryBackend
from quotaguard.core.ops import (
    Candidate,
    Charge,
    Owner,
    Queued,
    Refusal,
    Release,
    Renew,
    Reservation,
    Reserve,
    Settle,
    Settled,
)
from quotaguard.limits import Limit
from quotaguard.testing import BackendContract, FakeClock

from .ops import ALICE, left, reserve, state
from .switch import Switch, until

EVERYBODY: Owner = ("global",)
DAY = Limit.parse("100k tokens/day per global drawing 1k")
MINUTE = Limit.parse("60k tokens/minute per global drawing 5%")
MINE = Limit.parse("500 tokens/day")
Opened = Callable[..., DrawAhead]


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves, away from any boundary."""
    found = FakeClock()
    found.advance(43_200.0)
    return found


@pytest.fixture
def shared(clock: FakeClock) -> Switch:
    """The ledger of all workers."""
    return Switch(clock)


@pytest.fixture
def opened(clock: FakeClock) -> Iterator[Opened]:
    """Opens a worker's backend, whose thread does nothing: the test says `_tend`."""
    found: list[DrawAhead] = []

    def open_one(backend: Backend) -> DrawAhead:
        made = DrawAhead(backend, clock)
        made._pulse.stop()
        found.append(made)
        return made

    yield open_one
    for each in found:
        each.close()


def ask(id: str, amount: float = 10.0, *limits: Limit) -> Reserve:
    """A call that charges limits for everybody."""
    return reserve(id, amount, *(limits or (DAY,)), owner=EVERYBODY)


def warm(worker: Backend, *limits: Limit) -> None:
    """The second call within a second makes a bucket hot."""
    for number in range(2):
        op = ask(f"warm {number}", 1.0, *limits)
        assert isinstance(worker.execute(op), Reservation)
        worker.execute(Settle(op.id, (0.0,) * len(limits or (DAY,))))


class TestDrawAhead(BackendContract):
    """Where nothing is drawn ahead nobody notices."""

    def make_backend(self, clock: FakeClock) -> Backend:
        """Over memory."""
        return DrawAhead(MemoryBackend(clock), clock)


def test_many_calls_one_trip(shared: Switch, opened: Opened) -> None:
    """A hundred calls are served from one chunk, which peek shows as held."""
    worker = opened(shared)
    warm(worker)
    shared.asked.clear()
    for number in range(90):
        assert isinstance(worker.execute(ask(f"{number}")), Reservation)
        answer = worker.execute(Settle(f"{number}", (8.0,)))
        assert answer == Settled(True, False, answer.left)  # type: ignore[union-attr]
    assert shared.asked == []
    found = state(shared, DAY, EVERYBODY)
    assert (found.held, found.left) == (1000.0, 99_000.0)
    worker.close()
    found = state(shared, DAY, EVERYBODY)
    assert (found.held, found.left) == (0.0, 100_000.0 - 720)


def test_a_cold_bucket_is_not_drawn_from(clock: FakeClock, shared: Switch, opened: Opened) -> None:
    """One call every few seconds holds no more than it asks for."""
    worker = opened(shared)
    for number in range(5):
        worker.execute(ask(f"{number}"))
        assert state(shared, DAY, EVERYBODY).held == 10.0 * (number + 1)
        clock.advance(3)


def test_idle_chunks_go_back(clock: FakeClock, shared: Switch, opened: Opened) -> None:
    """After a second without calls what is left is returned, also where calls are still open."""
    worker = opened(shared)
    warm(worker)
    worker.execute(ask("a", 10.0))
    worker._tend()
    assert state(shared, DAY, EVERYBODY).held == 1000.0  # it is in use
    clock.advance(1.5)
    worker._tend()
    assert state(shared, DAY, EVERYBODY).held == 10.0
    worker.execute(Settle("a", (25.0,)))
    worker._tend()
    found = state(shared, DAY, EVERYBODY)
    assert (found.held, found.left) == (0.0, 100_000.0 - 25)


def test_the_last_tokens_are_found(shared: Switch, opened: Opened) -> None:
    """Of a bucket that runs dry all is admitted, and no more, whoever holds chunks of it."""
    first, second = opened(shared), opened(shared)
    taken = 0.0
    for number in range(40_000):
        worker = (first, second)[number % 2]
        answer = worker.execute(ask(f"{number}", 7.0))
        if isinstance(answer, Refusal):
            first._tend()  # as its thread does: what spent chunks have left goes back
            second._tend()
            other = (second, first)[number % 2]
            if isinstance(other.execute(ask(f"other {number}", 7.0)), Refusal):
                break
        taken += 7.0
    assert 100_000.0 - 14 < taken <= 100_000.0


def test_chunks_are_small_beside_what_is_left(shared: Switch, opened: Opened) -> None:
    """Never more than an eighth of it, so that others find something."""
    worker = opened(shared)
    shared.execute(ask("big", 96_000.0))
    warm(worker)
    worker.execute(ask("a", 10.0))
    assert state(shared, DAY, EVERYBODY).held == pytest.approx(96_000 + 4_000 / 8, abs=1)


def test_a_chunk_and_a_full_bucket_are_not_more_than_the_limit(
    clock: FakeClock, shared: Switch, opened: Opened
) -> None:
    """What refills while a chunk lies idle is taken off the chunk."""
    worker = opened(shared)
    warm(worker, MINUTE)
    assert state(shared, MINUTE, EVERYBODY).held == 3000.0
    clock.advance(2.0)  # 2,000 refilled
    asked = len(shared.asked)
    assert isinstance(worker.execute(ask("a", 1000.0, MINUTE)), Reservation)
    assert len(shared.asked) == asked
    free = state(shared, MINUTE, EVERYBODY).left
    assert free + 1000 <= 60_000
    assert worker._stock.serve(ask("b", 2000.5, MINUTE), clock.now()) is None
    clock.advance(2.0)
    assert worker._stock.serve(ask("c", 1.0, MINUTE), clock.now()) is None


def test_yesterdays_chunk_is_not_used_today(
    clock: FakeClock, shared: Switch, opened: Opened
) -> None:
    """Around midnight nothing is served from a chunk, and nothing is drawn."""
    worker = opened(shared)
    clock.advance(43_200.0 - 2.0)
    warm(worker)
    worker.execute(ask("a"))
    clock.advance(1.5)
    worker.execute(ask("b"))
    worker._tend()
    assert state(shared, DAY, EVERYBODY).held == 20.0
    clock.advance(0.6)
    for number in range(5):
        worker.execute(ask(f"{number}"))
    found = state(shared, DAY, EVERYBODY)
    assert (found.left, found.held) == (100_000.0 - 50, 70.0)


def test_mixed_with_a_users_own_limit(shared: Switch, opened: Opened) -> None:
    """What is drawn is left out of the trip; the user's own bucket is asked, all or nothing."""
    worker = opened(shared)
    warm(worker)

    def both(id: str, amount: float) -> Reserve:
        charges = (
            Charge(ALICE, MINE, amount, amount, 0.0),
            Charge(EVERYBODY, DAY, amount, amount, 0.0),
        )
        return Reserve(id, (Candidate("m", charges),), 60.0)

    shared.asked.clear()
    answer = worker.execute(both("a", 300.0))
    assert isinstance(answer, Reservation)
    assert answer.granted == (300.0, 300.0)
    assert answer.left[0] == 200.0
    assert worker.execute(both("a", 300.0)) == answer
    assert isinstance(worker.execute(both("b", 300.0)), Refusal)
    asked = [len(op.candidates[0].charges) for op in shared.asked if isinstance(op, Reserve)]
    assert asked == [1, 1]
    assert worker._stock.serve(ask("c", 600.0), worker._now()) is not None  # b took nothing
    worker.execute(Release("c"))
    answer = worker.execute(Settle("a", (100.0, 120.0)))
    assert isinstance(answer, Settled)
    assert answer.left[0] == 400.0
    worker.close()
    assert (left(shared, MINE), left(shared, DAY, EVERYBODY)) == (400.0, 100_000.0 - 120)


def test_fallbacks_share_what_was_taken(shared: Switch, opened: Opened) -> None:
    """A candidate that is not chosen gives back what was taken for it."""
    worker = opened(shared)
    warm(worker)
    big = (Charge(ALICE, MINE, 900.0, 900.0, 0.0), Charge(EVERYBODY, DAY, 900.0, 900.0, 0.0))
    small = (Charge(EVERYBODY, DAY, 30.0, 30.0, 0.0),)
    op = Reserve("a", (Candidate("big", big), Candidate("small", small)), 60.0)
    answer = worker.execute(op)
    assert isinstance(answer, Reservation)
    assert (answer.choice, answer.granted) == (1, (30.0,))
    assert answer.passed_over[0][0].charge.limit == MINE
    worker.execute(Settle("a", (30.0,)))
    worker.close()
    assert left(shared, DAY, EVERYBODY) == 100_000.0 - 30


def test_a_call_inside_a_hold(shared: Switch, opened: Opened) -> None:
    """The hold's part of a chunk counts as free for it, and is charged once."""
    worker = opened(shared)
    warm(worker)
    worker.execute(ask("outer", 700.0))
    inner = ask("inner", 800.0)._replace(instead_of="outer")
    shared.asked.clear()
    assert isinstance(worker.execute(inner), Reservation)
    assert shared.asked == []
    worker.execute(Settle("inner", (600.0,)))
    worker.execute(Settle("outer", (0.0,)))
    worker.close()
    assert left(shared, DAY, EVERYBODY) == 100_000.0 - 600


def test_renewing_releasing_repeating(clock: FakeClock, shared: Switch, opened: Opened) -> None:
    """As for any reservation."""
    worker = opened(shared)
    warm(worker)
    answer = worker.execute(ask("a"))
    assert worker.execute(ask("a")) == answer
    clock.advance(50)
    assert worker.execute(Renew("a", 60.0)) is True
    clock.advance(50)
    assert state(shared, DAY, EVERYBODY).held == 1000.0
    worker.execute(Release("a"))
    assert worker.execute(Settle("a", (10.0,))).first is False  # type: ignore[union-attr]
    worker.close()
    assert left(shared, DAY, EVERYBODY) == 100_000.0


def test_who_dies_leaves_a_chunk_charged(clock: FakeClock, shared: Switch, opened: Opened) -> None:
    """What a dead worker had drawn may have been used: no other admits it again that day."""
    worker = opened(shared)
    warm(worker)
    worker.execute(ask("a"))
    clock.advance(61)
    found = state(shared, DAY, EVERYBODY)
    assert (found.held, found.left) == (0.0, 99_000.0)
    worker.execute(Settle("a", (10.0,)))  # it was only slow
    worker._tend()
    worker._tend()
    assert left(shared, DAY, EVERYBODY) == 100_000.0 - 10


def test_the_ledger_fails_meanwhile(shared: Switch, opened: Opened) -> None:
    """A chunk goes on to serve; what cannot be asked raises, and nothing is lost."""
    worker = opened(shared)
    warm(worker)
    shared.away = True
    for number in range(100):
        worker.execute(ask(f"{number}"))
        worker.execute(Settle(f"{number}", (10.0,)))
    with pytest.raises(BackendError):
        worker.execute(ask("one too many"))
    worker._tend()
    shared.away = False
    worker.execute(ask("next"))
    worker.execute(Settle("next", (10.0,)))
    worker.close()
    assert (left(shared, DAY, EVERYBODY), shared.inner.open_reservations) == (98_990.0, 0)


def test_waiting_in_line(clock: FakeClock, shared: Switch, opened: Opened) -> None:
    """Who waits holds nothing of a chunk meanwhile."""
    worker = opened(shared)
    warm(worker)
    shared.execute(reserve("all", 500.0, MINE))
    charges = (Charge(ALICE, MINE, 10.0, 10.0, 0.0), Charge(EVERYBODY, DAY, 900.0, 900.0, 0.0))
    op = Reserve("a", (Candidate("m", charges),), 60.0, patience=90_000.0)
    assert isinstance(worker.execute(op), Queued)
    assert worker._stock.serve(ask("b", 900.0), clock.now()) is not None
    worker.execute(Release("b"))
    shared.execute(Settle("all", (0.0,)))
    assert isinstance(worker.execute(op), Reservation)


def test_workers_threads_and_tasks_never_take_more(clock: FakeClock, shared: Switch) -> None:
    """Whoever draws, uses less or more, idles and returns: in the end the books are exact, and what
    was out at any moment was in the bucket.
    """
    workers = [DrawAhead(shared, clock) for _ in range(3)]
    charged: list[float] = []

    def spend(worker: DrawAhead, seed: int) -> None:
        chance = random.Random(seed)
        for number in range(400):
            amount = float(chance.randint(1, 120))
            op = ask(f"{seed} {number}", amount)
            if isinstance(worker.execute(op), Reservation):
                used = float(chance.randint(0, int(amount)))
                worker.execute(Settle(op.id, (used,)))
                charged.append(used)
                assert left(shared, DAY, EVERYBODY) >= 0.0

    threads = [
        threading.Thread(target=spend, args=(worker, 10 * i + j))
        for i, worker in enumerate(workers)
        for j in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for worker in workers:
        worker.close()
    assert left(shared, DAY, EVERYBODY) == 100_000.0 - sum(charged)
    assert shared.inner.open_reservations == 0


def test_among_tasks(clock: FakeClock, shared: Switch) -> None:
    """The same awaiting; a cancelled task takes nothing."""

    async def main() -> None:
        worker = DrawAhead(shared, clock)

        async def call(number: int) -> None:
            await worker.aexecute(ask(f"{number}"))
            await asyncio.sleep(0)
            await worker.aexecute(Settle(f"{number}", (5.0,)))

        await asyncio.gather(*map(call, range(500)))
        await worker.aclose()

    asyncio.run(main())
    assert left(shared, DAY, EVERYBODY) == 100_000.0 - 2500
    assert len(shared.asked) < 200


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_has_no_share_in_its_parents_chunk(shared: Switch, opened: Opened) -> None:
    """The child asks for its own."""
    worker = opened(shared)
    warm(worker)
    child = os.fork()
    if child == 0:
        os._exit(0 if worker._stock.serve(ask("a"), worker._now()) is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert worker._stock.serve(ask("a"), worker._now()) is not None


def test_a_guard_draws_ahead(clock: FakeClock, shared: Switch) -> None:
    """A limit that says so is enough; the thread returns what is idle."""
    guard = Guard(limits=[str(DAY), "9k tokens/day"], backend=shared, clock=clock)
    for _ in range(5):
        with guard.hold(user="alice", input_tokens=10, output_tokens=0):
            pass
    (everybody, _) = guard.peek(user="alice")
    assert everybody.held == 1000.0
    clock.advance(5)
    until(lambda: guard.peek(user="alice")[0].held == 0.0)
    assert [bucket.left for bucket in guard.peek(user="alice")] == [99_950.0, 8_950.0]
    guard.close()
