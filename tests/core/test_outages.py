"""Guards whose backend is away, loses replies, or is shared with forked children."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from quotaguard import BackendError, Fallback, Guard, Limit, Tier, Wait
from quotaguard.backends.memory import MemoryBackend
from quotaguard.core.ops import Answer, Op, Park, Reserve
from quotaguard.testing import FakeClock


def guard(**arguments: Any) -> Guard:
    """A guard at a time that stands still."""
    return Guard(**({"clock": FakeClock()} | arguments))


def spend(guard: Guard, tokens: int = 0, **call: Any) -> str | None:
    """A call of so many tokens; the model that served it."""
    with guard.hold(input_tokens=tokens, output_tokens=0, **call) as lease:
        return lease.model


def left(guard: Guard, **who: Any) -> list[float]:
    """What the buckets hold that such a call would draw from."""
    return [state.left for state in guard.peek(**who)]


def test_ids_are_never_used_twice() -> None:
    """Not by threads, nor guards, nor the children of a process."""
    ids: list[str] = []

    def work() -> None:
        held = guard()
        for _ in range(100):
            with held.hold(user="u") as lease:
                ids.append(lease.id)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 800


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_ids_of_its_own() -> None:
    """Otherwise one's calls would be taken for repetitions of the other's by a shared ledger."""
    held = guard()
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        with held.hold(user="u") as lease:
            os.write(write, lease.id.encode())
        os._exit(0)
    os.waitpid(child, 0)
    with held.hold(user="u") as lease:
        theirs = os.read(read, 1000).decode()
        assert theirs.rpartition("-")[0] != lease.id.rpartition("-")[0]
    os.close(read)
    os.close(write)


class Moody(MemoryBackend):
    """A backend that is away when told so; ``loses`` carries out and loses the reply."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.away = False
        self.loses = False
        self.asked = 0

    def execute(self, op: Op) -> Answer:
        """Answer or fail."""
        self.asked += 1
        if self.away and not self.loses:
            raise BackendError("the ledger is away")
        answer = super().execute(op)
        if self.away:
            raise BackendError("the reply was lost")
        return answer

    async def aexecute(self, op: Op) -> Answer:
        """The same."""
        return self.execute(op)


def test_calls_are_refused_while_the_backend_is_away() -> None:
    """By default; afterwards all is as before."""
    backend = Moody()
    held = guard(limits=["10 tokens/day"], backend=backend)
    backend.away = True
    with pytest.raises(BackendError, match="the ledger is away"):
        spend(held, 1, user="u")
    backend.away = False
    assert left(held, user="u") == [10]


def test_calls_are_allowed_while_the_backend_is_away() -> None:
    """If so chosen; uncounted, and their end needs no backend either."""
    backend = Moody()
    held = guard(limits=["10 tokens/day"], backend=backend, on_backend_error="allow")
    backend.away = True
    assert spend(held, 100, user="u", model="m") == "m"
    backend.away = False
    assert left(held, user="u") == [10]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_settle_that_fails_is_made_good(mode: str) -> None:
    """The caller has its answer and no error; the ledger learns of it with the next operation."""
    backend = Moody()
    held = guard(limits=["10 tokens/day"], backend=backend)

    async def run() -> None:
        async with held.ahold(user="u", input_tokens=8, output_tokens=0) as lease:
            backend.away = True
            lease.record(input_tokens=3)
        backend.away = False
        assert [state.left for state in await held.apeek(user="u")] == [7]

    if mode == "async":
        asyncio.run(run())
        return
    with held.hold(user="u", input_tokens=8, output_tokens=0) as lease:
        backend.away = True
        lease.record(input_tokens=3)
    backend.away = False
    assert left(held, user="u") == [7]
    assert backend.open_reservations == 0


@pytest.mark.parametrize("allow", [False, True])
def test_a_lost_reply_leaves_no_phantom(allow: bool) -> None:
    """The ledger admitted the call, nobody knew: it is given back as soon as it can be said."""
    backend = Moody()
    chosen = "allow" if allow else "refuse"
    held = guard(limits=["10 tokens/day"], backend=backend, on_backend_error=chosen)
    backend.away = backend.loses = True
    if allow:
        spend(held, 8, user="u")
    else:
        with pytest.raises(BackendError, match="the reply was lost"):
            spend(held, 8, user="u")
        assert backend.open_reservations == 1
    backend.away = False
    assert left(held, user="u") == [10]
    assert backend.open_reservations == 0


def test_a_long_outage_costs_each_call_little() -> None:
    """What could not be said does not make every later call try it all again."""
    backend = Moody()
    held = guard(limits=["1000 tokens/day"], backend=backend, on_backend_error="allow")
    holds = [held.hold(user="u", input_tokens=1, output_tokens=0) for _ in range(100)]
    for each in holds:
        each.__enter__().record(input_tokens=1)
    backend.away = True
    for each in reversed(holds):
        each.__exit__(None, None, None)
    backend.asked = 0
    for _ in range(100):
        spend(held, 1, user="u")
    assert backend.asked <= 300
    backend.away = False
    held.run_errands()
    assert left(held, user="u") == [900]
    assert backend.open_reservations == 0


def test_a_fallback_is_decided_in_one_operation() -> None:
    """There is no moment between looking and taking."""
    backend = Moody()
    tier = Tier("t", ["5 tokens/day for a", "5 tokens/day for b"], when_exceeded=[Fallback("b")])
    held = guard(tiers=[tier], backend=backend)
    ops: list[Op] = []
    execute = backend.execute
    backend.execute = lambda op: (ops.append(op), execute(op))[1]  # type: ignore[method-assign]
    assert spend(held, 5, user="u", model="a") == "a"
    assert spend(held, 5, user="u", model="a") == "b"
    assert [type(op).__name__ for op in ops] == ["Reserve", "Settle"] * 2
    assert isinstance(ops[2], Reserve)
    assert [candidate.model for candidate in ops[2].candidates] == ["a", "b"]


def test_closing() -> None:
    """What was left behind is settled before the backend is closed."""
    backend = Moody()
    held = guard(limits=[Limit(10, "tokens", "day")], backend=backend)
    closed: list[bool] = []
    backend.close = lambda: closed.append(backend.open_reservations == 0)  # type: ignore[method-assign]
    with held.hold(user="u", input_tokens=8, output_tokens=0):
        backend.away = True
    backend.away = False
    held.close()
    assert closed == [True]
    assert repr(held) == "<Guard tiers=['default'] backend=Moody>"


def test_who_gives_up_in_line_as_the_ledger_is_away_leaves_it_later() -> None:
    """What it asked last was never sent, but it stands in line since it asked before."""

    class Leaving(MemoryBackend):
        away = False

        def execute(self, op: Op) -> Answer:
            if self.away and not isinstance(op, Park):
                error = BackendError("away")
                error.sent = False
                raise error
            self.away = isinstance(op, Park)
            return super().execute(op)

    clock = FakeClock()
    backend = Leaving(clock)
    held = guard(backend=backend, clock=clock, limits=["60 tokens/minute"], when_exceeded=Wait(90))
    spend(held, 60, user="u")
    with pytest.raises(BackendError):
        spend(held, 30, user="u")
    assert backend._places
    backend.away = False
    assert left(held, user="u") == pytest.approx([30.0], abs=0.2)
    spend(held, 0, user="u")
    assert not backend._places
