"""The line under what stands above a ledger: shares while it is away, and drawing ahead."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from quotaguard.backends.ahead import DrawAhead
from quotaguard.backends.local import PROBE, Local
from quotaguard.core.ops import Alone, Park, Queued, Refusal, Reservation, Reserve, Settle
from quotaguard.limits import Limit
from quotaguard.testing import FakeClock

from .ops import left, reserve, state
from .switch import Switch, until

MINUTE = Limit.parse("60 tokens/minute burst 120")
HOUR = Limit.parse("100k tokens/hour per global drawing 1k")


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


def decided(answer: Any) -> Any:
    """What this process decided by itself."""
    assert isinstance(answer, Alone)
    return answer.decision


def test_strays_are_given_back_in_the_end(clock: FakeClock) -> None:
    """Who closes will not repeat itself: no need to leave that to the end of a lease."""
    shared = Switch(clock)
    worker = Local(shared, clock)
    shared.loses_replies = True
    assert isinstance(decided(worker.execute(reserve("a", 50.0))), Reservation)
    shared.loses_replies = False
    worker.execute(Settle("a", (20.0,)))
    worker.close()
    assert (left(shared), state(shared).held) == (980, 0.0)


@pytest.mark.parametrize("by", ["a call", "the pulse"])
def test_who_waits_here_asks_there_when_it_is_back(by: str) -> None:
    """A share refills slowly; the ledger has room: nobody sleeps on beside it."""
    clock = FakeClock(auto_advance=False)
    shared = Switch(clock)
    worker = Local(shared, clock)
    shared.away = True
    worker.execute(reserve("a", 120.0, MINUTE))
    op = reserve("b", 30.0, MINUTE, patience=100.0)
    assert isinstance(decided(worker.execute(op)), Queued)
    sleeping = threading.Thread(target=worker.execute, args=(Park("b", 30.0),), daemon=True)
    sleeping.start()
    until(lambda: clock.waiting == 1)
    shared.away = False
    if by == "a call":
        worker.execute(reserve("c", 10.0, MINUTE))
    else:
        worker._pulse.beat()
    sleeping.join(20.0)
    assert not sleeping.is_alive()
    assert isinstance(worker.execute(op), Reservation)
    assert not worker._alone._places
    worker.close()


@pytest.mark.parametrize("limit", [MINUTE, Limit.parse("1 concurrent")])
def test_who_has_no_share_that_fits_waits_for_the_ledger(clock: FakeClock, limit: Limit) -> None:
    """It would wait half a minute, so it is not refused at once; it is when its patience ends."""
    shared = Switch(clock)
    worker, other = Local(shared, clock), Local(shared, clock)
    other._pulse.beat()
    worker._pulse.beat()
    assert worker.workers == 2
    shared.away = True
    op = reserve("a", limit.ceiling, limit, patience=30.0)
    for _ in range(3):
        queued = decided(worker.execute(op))
        assert isinstance(queued, Queued)
        assert queued.wait == PROBE
        began = clock.now()
        worker.execute(Park("a", queued.wait))
        assert clock.now() == began + PROBE
    hurried = reserve("b", limit.ceiling, limit, patience=1.0 if limit is MINUTE else 0.0)
    assert isinstance(decided(worker.execute(hurried)), Refusal)
    shared.away = False
    assert isinstance(worker.execute(op), Reservation)
    worker.execute(Settle("a", (0.0,)))
    shared.away = True
    assert isinstance(decided(worker.execute(op._replace(id="c"))), Queued)
    assert isinstance(decided(worker.execute(op._replace(id="c", patience=0.0))), Refusal)
    assert not worker._mine
    assert not len(worker._bells)
    worker.close()
    other.close()


@pytest.mark.parametrize(("priority", "drawn"), [(-5.0, -5.0), (5.0, 0.0)])
def test_who_can_wait_draws_nothing_past_others(
    clock: FakeClock, priority: float, drawn: float
) -> None:
    """A chunk is no more urgent than the call it is drawn for, nor than those it may serve."""
    shared = Switch(clock)
    worker = DrawAhead(shared, clock)
    for number in range(2):
        op = reserve(f"{number}", 10.0, HOUR, owner=("global",))
        worker.execute(op._replace(priority=priority))
    chunks = [op for op in shared.asked if isinstance(op, Reserve) and op.id.startswith("chunk")]
    assert [op.priority for op in chunks] == [drawn]
    worker.close()
