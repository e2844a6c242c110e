"""Redis stopped under load: documented errors only, nobody stuck, everything charged in the end."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("redis")

from quotaguard import BackendError, Guard
from quotaguard.backends import local
from quotaguard.events import BackendFailed, Event
from quotaguard.limits import Limit

from .redis_server import RedisServer
from .switch import until

PLENTY = Limit.parse("1B tokens/month")
"""A window: nothing comes back while a test lasts, so sums are exact."""
TIMEOUT = 0.3
pytestmark = pytest.mark.timeout(300)


class Load:
    """Threads and tasks that spend through one guard until they are told to stop."""

    def __init__(self, guard: Guard, seed: int) -> None:
        self.guard = guard
        self.seed = seed
        self.ended = False
        self.charged = 0.0
        self.refused = 0
        self.slowest = 0.0
        self.unexpected: list[BaseException] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._spend, args=(n,)) for n in range(4)]
        self._threads.append(threading.Thread(target=lambda: asyncio.run(self._tasks())))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended = True
        for thread in self._threads:
            thread.join(30.0)
        assert not any(thread.is_alive() for thread in self._threads)

    def _note(self, began: float, used: int, error: BaseException | None) -> None:
        with self._lock:
            self.slowest = max(self.slowest, time.monotonic() - began)
            if error is None:
                self.charged += used
            elif isinstance(error, BackendError):
                self.refused += 1
            else:
                self.unexpected.append(error)

    def _hold(self, chance: random.Random) -> Any:
        return {"user": f"u{chance.randint(0, 3)}", "input_tokens": 20, "output_tokens": 20}

    def _spend(self, number: int) -> None:
        chance = random.Random(f"{self.seed} {number}")
        while not self.ended:
            used, began, error = chance.randint(0, 80), time.monotonic(), None
            try:
                with self.guard.hold(**self._hold(chance)) as lease:
                    lease.record(input_tokens=used)
            except BaseException as found:  # noqa: BLE001  # to be looked at
                error = found
            self._note(began, used if lease_counts(lease, error) else 0, error)
            time.sleep(0.001)

    async def _tasks(self) -> None:
        async def spend(number: int) -> None:
            chance = random.Random(f"{self.seed} task {number}")
            while not self.ended:
                used, began, error = chance.randint(0, 80), time.monotonic(), None
                try:
                    async with self.guard.ahold(**self._hold(chance)) as lease:
                        lease.record(input_tokens=used)
                except BaseException as found:  # noqa: BLE001  # to be looked at
                    error = found
                self._note(began, used if lease_counts(lease, error) else 0, error)
                await asyncio.sleep(0.002)

        await asyncio.gather(*map(spend, range(8)))
        await self.guard.aclose()


def lease_counts(lease: Any, error: BaseException | None) -> bool:
    """Whether a call is charged: those that were let pass uncounted have no charges."""
    return error is None and bool(lease.charges)


@pytest.fixture
def empty_server() -> Iterator[RedisServer]:
    """One that keeps nothing when it crashes."""
    found = RedisServer()
    yield found
    found.stop()


def spent(guard: Guard) -> float:
    """What all users have been charged."""
    states = [guard.peek(user=f"u{number}")[0] for number in range(4)]
    assert all(state.held == 0.0 for state in states)
    return sum(PLENTY.ceiling - state.left for state in states)


@pytest.mark.parametrize("choice", ["refuse", "allow", "local"])
@pytest.mark.parametrize("how", ["pause", "restart"])
def test_stopped_under_load(
    own_server: RedisServer, choice: str, how: str, soak: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs, or crashes and comes back with its data, while threads and tasks spend; when all
    is settled the buckets show what was used, to the token.
    """
    monkeypatch.setattr(local, "STRAY", 1.0)
    seconds, events = (10.0 if soak else 0.8), list[Event]()
    guard = Guard(
        limits=[PLENTY],
        backend=f"{own_server.url}?backend_timeout={TIMEOUT}",
        on_backend_error=choice,
        hooks=[events.append],
    )
    load = Load(guard, seed=1)
    with load:
        time.sleep(0.3)
        if how == "pause":
            own_server.pause()
            time.sleep(seconds)
            own_server.resume()
        else:
            own_server.kill()
            time.sleep(seconds)
            own_server.start()
        time.sleep(2.5 if soak else 1.0)  # until the breaker's next probe, and some
    after = Guard(limits=[PLENTY], backend=own_server.url)
    with suppress(AssertionError):
        until(lambda: missing(guard, after, load.charged) == 0.0, 30.0)
    assert missing(guard, after, load.charged) == 0.0
    assert load.unexpected == []
    assert load.slowest < 4 * TIMEOUT + 1.0
    outcomes = {event.outcome for event in events if isinstance(event, BackendFailed)}
    done = {"refuse": "refused", "allow": "allowed", "local": "local"}[choice]
    assert done in outcomes <= {done, "queued"}
    assert (load.refused > 0) == (choice == "refuse")
    guard.close()
    after.close()


def missing(guard: Guard, after: Guard, charged: float) -> float | str:
    """What has not been charged yet: errands, debts and strays arrive when anything runs them."""
    try:
        guard.run_errands()
        if isinstance(guard.backend, local.Local):
            guard.backend._pulse.ring()
        found = spent(after)
    except (BackendError, AssertionError) as error:
        return str(error)
    time.sleep(0.05)
    return charged - found


@pytest.mark.parametrize("choice", ["refuse", "allow", "local"])
def test_restarted_empty_under_load(empty_server: RedisServer, choice: str, soak: bool) -> None:
    """It crashes and comes back with nothing: the books begin anew, calls go on, and nobody is
    charged more than was used.
    """
    guard = Guard(
        limits=[PLENTY],
        backend=f"{empty_server.url}?backend_timeout={TIMEOUT}",
        on_backend_error=choice,
    )
    load = Load(guard, seed=2)
    with load:
        time.sleep(0.3)
        empty_server.kill()
        time.sleep(10.0 if soak else 0.5)
        empty_server.start()
        time.sleep(2.5 if soak else 1.0)
    assert load.unexpected == []
    after = Guard(limits=[PLENTY], backend=empty_server.url)
    guard.run_errands()
    guard.close()
    assert 0.0 < spent(after) <= load.charged
    after.close()
