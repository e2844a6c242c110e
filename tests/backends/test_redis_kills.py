"""Workers killed at any moment: after the lease nothing is missing, and nobody waits for them."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("redis")

from quotaguard.backends import Backend
from quotaguard.backends.redis import RedisBackend
from quotaguard.backends.sqlite import SQLiteBackend
from quotaguard.core.ops import Owner, Reservation, Settle

from .ops import SLOW, reserve, state
from .redis_server import RedisServer

LEASE = 1.0
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # other tests left threads
]


def spend_for_ever(backend: Backend, name: str) -> None:
    """Reserve one token and give it back, for ever, as three users by turns."""
    number = 0
    while True:
        number += 1
        owner = ("user", "", f"{name} {number % 3}")
        backend.execute(reserve(f"{name} {number}", 1.0, owner=owner, lease=LEASE))
        backend.execute(Settle(f"{name} {number}", (0.0,)))


def kill_one(open_backend: Callable[[], Backend], name: str, after: float) -> None:
    """Fork a worker (its own connection comes with the first operation) and kill it."""
    child = os.fork()
    if child == 0:
        try:
            spend_for_ever(open_backend(), name)
        finally:
            os._exit(1)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])


def survive(open_backend: Callable[[], Backend], kills: int) -> int:
    """Kill workers at random moments; how many died holding something."""
    watcher = open_backend()
    chance = random.Random(kills)
    died_holding = 0
    for number in range(kills):
        kill_one(open_backend, f"{number}", 0.005 + chance.random() * 0.02)
        began = time.monotonic()
        answer = watcher.execute(reserve(f"watch {number}", 1.0))
        assert isinstance(answer, Reservation)
        assert time.monotonic() - began < 0.5
        watcher.execute(Settle(f"watch {number}", (0.0,)))
        died_holding += any(state(watcher, owner=owner).held for owner in users(number))
    time.sleep(LEASE)
    for number in range(kills):
        for owner in users(number):
            found = state(watcher, owner=owner)
            assert (found.held, found.left) == (0.0, SLOW.ceiling)
    watcher.close()
    return died_holding


def users(number: int) -> list[Owner]:
    """Those for whom a worker spent."""
    return [("user", "", f"{number} {user}") for user in range(3)]


def test_killed_with_redis(server: RedisServer, soak: bool) -> None:
    """Some die between reserve and settle, and after the lease every bucket is full."""
    assert survive(lambda: RedisBackend(server.url), 1_000 if soak else 60) > 3


def test_killed_with_sqlite(tmp_path: Path, soak: bool) -> None:
    """The same in a file: a transaction that was cut off is undone by the next one."""
    path = tmp_path / "quota.db"
    assert survive(lambda: SQLiteBackend(path), 1_000 if soak else 60) > 3
