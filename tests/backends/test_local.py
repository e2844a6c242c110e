"""A fair share while the ledger is away, and what of it is charged when it is back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from quotaguard import BackendError, Guard, QuotaExceeded, Wait
from quotaguard.backends import Backend, local
from quotaguard.backends.local import PROBE, Local
from quotaguard.backends.memory import MemoryBackend
from quotaguard.backends.sqlite import SQLiteBackend
from quotaguard.core.ops import (
    Alone,
    Candidate,
    Op,
    Park,
    Queued,
    Refusal,
    Release,
    Renew,
    Reservation,
    Settle,
    Settled,
)
from quotaguard.events import BackendFailed, Event
from quotaguard.limits import Limit
from quotaguard.testing import BackendContract, FakeClock

from .ops import SLOW, left, reserve, state
from .switch import Switch, until

MINUTE = Limit.parse("60 tokens/minute burst 120")
Opened = Callable[[Backend], Local]


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


@pytest.fixture
def opened(clock: FakeClock) -> Iterator[Opened]:
    """Opens a `Local`; its thread has announced it when it is given back."""
    found: list[Local] = []

    def open_one(backend: Backend) -> Local:
        made = Local(backend, clock)
        found.append(made)
        made._pulse.start()
        until(lambda: made._announced is not None)
        return made

    yield open_one
    for each in found:
        each.close()


def decided(answer: Any) -> Any:
    """What this process decided by itself."""
    assert isinstance(answer, Alone)
    return answer.decision


class TestLocal(BackendContract):
    """As long as the ledger is there, nobody notices."""

    def make_backend(self, clock: FakeClock) -> Backend:
        """Over memory; it does not announce itself, as that is a lease whose end would be seen."""
        found = Local(MemoryBackend(clock), clock)
        found._pulse.stop()
        return found


def test_workers_count_each_other(clock: FakeClock, opened: Opened) -> None:
    """Each announces itself in the ledger; who closes is counted no more, who died soon not."""
    shared = Switch(clock)
    workers = [opened(shared) for _ in range(4)]
    for worker in workers:
        worker._pulse.beat()
    assert {worker.workers for worker in workers} == {4}
    workers.pop().close()
    workers[0]._pulse.beat()
    assert workers[0].workers == 3
    clock.advance(local.ALIVE + 1)  # nobody renewed; who beats announces itself anew
    workers[0]._pulse.beat()
    assert workers[0].workers == 1


def test_each_worker_admits_its_share(clock: FakeClock, opened: Opened) -> None:
    """Away, four workers admit a quarter each: together the limit, not four times that."""
    shared = Switch(clock)
    workers = [opened(shared) for _ in range(4)]
    for worker in workers:
        worker._pulse.beat()
    shared.away = True
    admitted = 0
    for number, worker in enumerate(workers):
        for attempt in range(40):
            op = reserve(f"{number} {attempt}", 10.0, MINUTE)
            admitted += isinstance(decided(worker.execute(op)), Reservation)
    assert admitted == 12  # 120 tokens
    clock.advance(60)
    again = [decided(w.execute(reserve(f"again {i}", 15.0, MINUTE))) for i, w in enumerate(workers)]
    assert all(isinstance(answer, Reservation) for answer in again)  # 60 came back, 15 for each


def test_a_refusal_tells_of_the_whole_limit(clock: FakeClock, opened: Opened) -> None:
    """Its text and capacity are the limit's; what no share can ever hold is worth another try."""
    shared = Switch(clock)
    first, _ = opened(shared), opened(shared)
    first._pulse.beat()
    assert first.workers == 2
    shared.away = True
    answer = decided(first.execute(reserve("a", 90.0, MINUTE)))
    assert isinstance(answer, Refusal)
    ((short,),) = answer.shortfalls
    assert (short.charge.limit, short.left, short.wait) == (MINUTE, 60.0, PROBE)
    ((short,),) = decided(first.execute(reserve("b", 121.0, MINUTE))).shortfalls
    assert short.wait == float("inf")
    first.execute(reserve("c", 60.0, MINUTE))
    ((short,),) = decided(first.execute(reserve("d", 15.0, MINUTE))).shortfalls
    assert short.wait == pytest.approx(30.0)


def test_what_was_used_is_charged_when_it_is_back(clock: FakeClock, opened: Opened) -> None:
    """All that local calls used is taken from the shared buckets, once; the rest is free."""
    shared = Switch(clock)
    worker = opened(shared)
    worker.execute(reserve("before", 100.0))
    shared.away = True
    for number in range(10):
        assert isinstance(decided(worker.execute(reserve(f"{number}", 50.0))), Reservation)
    for number in range(8):
        answer = worker.execute(Settle(f"{number}", (float(number),)))
        assert answer == Settled(True, False, answer.left)  # type: ignore[union-attr]
    worker.execute(Settle("8", None))
    worker.execute(Release("9"))
    with pytest.raises(BackendError):
        worker.execute(Settle("before", (10.0,)))
    shared.away = False
    assert worker.execute(Settle("before", (10.0,))).first is True  # type: ignore[union-attr]
    until(lambda: left(worker) == 1000 - 10 - sum(range(8)) - 50)
    assert state(worker).held == 0.0
    assert worker.execute(Settle("3", (3.0,))).first is False  # type: ignore[union-attr]
    worker._pulse.beat()
    assert left(worker) == 1000 - 10 - sum(range(8)) - 50


def test_a_call_may_outlive_the_outage(clock: FakeClock, opened: Opened) -> None:
    """Admitted here, renewed and settled when the ledger is back: charged there."""
    shared = Switch(clock)
    worker = opened(shared)
    shared.away = True
    worker.execute(reserve("a", 50.0, lease=60.0))
    shared.away = False
    clock.advance(40)
    assert worker.execute(Renew("a", 60.0)) is True
    clock.advance(40)
    assert worker.execute(Settle("a", (70.0,))).late is False  # type: ignore[union-attr]
    until(lambda: left(worker) == 930)


def test_debt_is_charged_in_full(clock: FakeClock, opened: Opened) -> None:
    """More than the shared bucket holds is owed, as always."""
    shared = Switch(clock)
    worker = opened(shared)
    shared.away = True
    worker.execute(reserve("a", 1000.0))
    worker.execute(Settle("a", (1500.0,)))
    shared.away = False
    worker._pulse.beat()
    assert left(worker) == -500


def test_a_lost_reply_is_not_charged_beside(
    clock: FakeClock, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger had reserved, but nobody heard: that reservation is given back."""
    monkeypatch.setattr(local, "STRAY", -1.0)
    shared = Switch(clock)
    worker = opened(shared)
    shared.loses_replies = True
    assert isinstance(decided(worker.execute(reserve("a", 50.0))), Reservation)
    shared.loses_replies = False
    worker.execute(Settle("a", (20.0,)))
    worker._pulse.beat()
    assert (left(worker), state(worker).held) == (980, 0.0)


def test_a_replay_that_fails_is_repeated(clock: FakeClock, opened: Opened) -> None:
    """The ledger goes away in the middle; in the end all is charged once."""
    shared = Switch(clock)
    worker = opened(shared)
    shared.away = True
    for number, name in enumerate(("ann", "bob", "cy")):
        owner = ("user", "", name)
        worker.execute(reserve(name, 100.0, owner=owner))
        worker.execute(Settle(name, (100.0 + number,)))
    carry_out, budget = shared.inner.execute, iter(range(5))

    def fail_after_five(op: Op) -> Any:
        if next(budget, None) is None:
            raise BackendError("away again")
        return carry_out(op)

    shared.inner.execute = fail_after_five  # type: ignore[method-assign]
    shared.away = False
    worker._pulse.beat()
    shared.inner.execute = carry_out  # type: ignore[method-assign]
    worker._pulse.beat()
    worker._pulse.beat()
    lefts = [left(worker, owner=("user", "", name)) for name in ("ann", "bob", "cy")]
    assert lefts == [900, 899, 898]


def test_peek_tells_of_the_share(clock: FakeClock, opened: Opened) -> None:
    """While the ledger is away, what is left is what this worker may still admit."""
    shared = Switch(clock)
    first, _ = opened(shared), opened(shared)
    first._pulse.beat()
    shared.away = True
    first.execute(reserve("a", 10.0, MINUTE))
    found = state(first, MINUTE)
    assert (found.limit, found.left, found.held) == (MINUTE, 50.0, 10.0)


def test_waiting_here_and_there(clock: FakeClock, opened: Opened) -> None:
    """Who waits for its share asks the shared ledger first, as soon as that is back."""
    shared = Switch(clock)
    worker = opened(shared)
    shared.away = True
    worker.execute(reserve("a", 120.0, MINUTE))
    op = reserve("b", 30.0, MINUTE, patience=100.0)
    queued = decided(worker.execute(op))
    assert isinstance(queued, Queued)
    assert queued.refusal.binding().charge.limit == MINUTE
    assert worker.execute(Park("b", queued.wait)) is None  # moves the clock
    shared.away = False
    assert isinstance(worker.execute(op), Reservation)
    assert worker._alone.execute(Renew("b", 1.0)) is False  # it holds nothing here
    assert worker.execute(Settle("b", (30.0,))).first is True  # type: ignore[union-attr]


def test_giving_up_in_line(clock: FakeClock, opened: Opened) -> None:
    """A waiter that is cancelled leaves the line here, and perhaps there."""
    shared = Switch(clock)
    worker = opened(shared)
    shared.away = True
    worker.execute(reserve("a", 120.0, MINUTE))
    assert isinstance(decided(worker.execute(reserve("b", 30.0, MINUTE, patience=99.0))), Queued)
    worker.execute(Release("b"))
    assert not worker._alone._places
    assert "b" in worker._strays


def test_fallbacks_too(clock: FakeClock, opened: Opened) -> None:
    """The first candidate whose shares have room is admitted, the others are told."""
    shared = Switch(clock)
    worker = opened(shared)
    shared.away = True
    big, small = reserve("a", 500.0, MINUTE), reserve("a", 5.0, MINUTE)
    both = big._replace(
        candidates=(big.candidates[0], Candidate("small", small.candidates[0].charges))
    )
    answer = decided(worker.execute(both))
    assert (answer.choice, answer.granted) == (1, (5.0,))
    assert answer.passed_over[0][0].charge.limit == MINUTE


def test_among_tasks(clock: FakeClock, opened: Opened) -> None:
    """The same awaiting."""
    shared = Switch(clock)
    worker = opened(shared)
    shared.away = True

    async def main() -> None:
        answers = await asyncio.gather(
            *(worker.aexecute(reserve(f"{number}", 50.0, SLOW)) for number in range(30))
        )
        assert [isinstance(decided(each), Reservation) for each in answers].count(True) == 20
        for number in range(20):
            await worker.aexecute(Settle(f"{number}", (1.0,)))
        shared.away = False
        await worker.aclose()

    asyncio.run(main())
    assert shared.closed
    assert left(shared) == 980
    assert shared.inner.open_reservations == 0


def test_sqlite_stands_in_too(tmp_path: Any, clock: FakeClock) -> None:
    """Workers of one host count each other in the file."""
    backends = [SQLiteBackend(tmp_path / "quota.db", clock=clock) for _ in range(2)]
    workers = [Local(backend, clock) for backend in backends]
    for worker in (*workers, *workers):
        worker._pulse.beat()
    assert [worker.workers for worker in workers] == [2, 2]
    for worker in workers:
        worker.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_owes_nothing_of_its_parents(clock: FakeClock, opened: Opened) -> None:
    """The child counts as a worker of its own, and what the parent owes is the parent's."""
    shared = Switch(clock)
    worker = opened(shared)
    shared.away = True
    worker.execute(reserve("a", 50.0))
    worker.execute(Settle("a", (50.0,)))
    child = os.fork()
    if child == 0:
        mine = not worker._owed and not worker._mine and worker._announced is None
        os._exit(0 if mine else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert worker._owed


def guarded(clock: FakeClock, shared: Switch, events: list[Event], **options: Any) -> Guard:
    """A guard over a ledger that can be taken away."""
    return Guard(
        limits=["100 tokens/minute"],
        backend=shared,
        clock=clock,
        on_backend_error="local",
        hooks=[events.append],
        **options,
    )


def test_a_guard_goes_on_alone(clock: FakeClock) -> None:
    """Calls are admitted, refused and settled; the events say how they were decided."""
    shared, events = Switch(clock), list[Event]()
    guard = guarded(clock, shared, events)
    shared.away = True
    with guard.hold(user="alice", input_tokens=70, output_tokens=0):
        pass
    with pytest.raises(QuotaExceeded, match="100 tokens/minute") as caught:
        guard.hold(user="alice", input_tokens=60, output_tokens=0).__enter__()
    assert caught.value.retry_after == pytest.approx(18.0)
    failed = [event for event in events if isinstance(event, BackendFailed)]
    assert [event.outcome for event in failed] == ["local", "local"]
    assert failed[0].error == "the ledger is switched off"
    assert failed[0].identity.user == "alice"
    shared.away = False
    until(lambda: round(guard.peek(user="alice")[0].left) == 30)
    guard.close()


def test_a_guard_waits_for_its_share(clock: FakeClock) -> None:
    """The wait policy holds while the ledger is away."""
    shared, events = Switch(clock), list[Event]()
    guard = guarded(clock, shared, events, when_exceeded=Wait(60, backoff=None))
    shared.away = True
    with guard.hold(user="alice", input_tokens=100, output_tokens=0):
        pass
    with guard.hold(user="alice", input_tokens=50, output_tokens=0) as lease:
        assert lease.waited == pytest.approx(30.0)
    guard.close()
