"""Servers that change places under load: a cluster's slot moves, a replica takes over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("redis")

from redis.crc import key_slot

from quotaguard import BackendError
from quotaguard.backends.redis import RedisBackend
from quotaguard.core.ops import Op, Reservation, Settle
from quotaguard.limits import Limit

from .ops import ALICE, left, reserve, state
from .redis_server import RedisCluster, RedisServer
from .switch import until

Opener = Callable[..., RedisBackend]
MONTH = Limit.parse("1B tokens/month")


def insist(backend: RedisBackend, op: Op) -> Any:
    """Carry out an operation that must not be lost, as a guard does with its errands."""
    deadline = time.monotonic() + 30.0
    while True:
        try:
            return backend.execute(op)
        except BackendError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


class Spenders:
    """Threads that spend for one user while something happens."""

    def __init__(self, backend: RedisBackend) -> None:
        self.backend = backend
        self.charged = self.calls = self.errors = 0
        self._ended = False
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._spend, args=(n,)) for n in range(4)]

    def __enter__(self) -> Spenders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = True
        for thread in self._threads:
            thread.join(40.0)
        assert not any(thread.is_alive() for thread in self._threads)

    def _spend(self, name: int) -> None:
        number = 0
        while not self._ended:
            number += 1
            op = reserve(f"{name} {number}", 100.0, MONTH)
            while True:
                try:
                    answer = self.backend.execute(op)
                    break
                except BackendError:
                    with self._lock:
                        self.errors += 1
                    time.sleep(0.005)
            assert isinstance(answer, Reservation)
            insist(self.backend, Settle(op.id, (float(number % 100),)))
            with self._lock:
                self.calls += 1
                self.charged += number % 100
            time.sleep(0.001)


def test_a_slot_moves_while_it_is_used(cluster: RedisCluster, open_redis: Opener) -> None:
    """MOVED and ASK are followed; between two keys of a call the slot is of no use to anybody, and
    that is waited out. In the end all is charged once.
    """
    backend = open_redis(cluster.url)
    slot = key_slot(backend._shard(ALICE))
    home = cluster.owner(slot)
    away = next(node for node in cluster.nodes if node is not home)
    with Spenders(backend) as spenders:
        for target in (away, home, away):
            before = spenders.calls
            until(lambda before=before: spenders.calls > before + 20)  # type: ignore[misc]
            cluster.migrate(slot, target, pause=0.0005)
            assert cluster.owner(slot) is target
        until(lambda before=spenders.calls: spenders.calls > before + 20)  # type: ignore[misc]
    fresh = open_redis(cluster.url)
    assert left(fresh, MONTH) == MONTH.ceiling - spenders.charged
    assert state(fresh, MONTH).held == 0.0


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer, RedisServer]]:
    """A primary, its replica, and a sentinel that watches them."""
    opened = [RedisServer("--repl-diskless-sync-delay", "0")]
    try:
        primary = opened[0]
        opened.append(RedisServer("--replicaof", "127.0.0.1", str(primary.port)))
        config = tmp_path / "sentinel.conf"
        config.write_text(
            f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
        )
        opened.append(RedisServer(config=config))
        yield primary, opened[1], opened[2]
    finally:
        for server in opened:
            server.stop()


@pytest.mark.timeout(120)
def test_a_replica_takes_over(
    service: tuple[RedisServer, RedisServer, RedisServer], open_redis: Opener
) -> None:
    """The primary hangs, the sentinel promotes its replica: calls fail for as long as that takes,
    then go on there, with what was replicated.
    """
    primary, replica, sentinel = service
    backend = open_redis(f"redis+sentinel://127.0.0.1:{sentinel.port}/main", backend_timeout=0.3)
    with replica.client() as client:
        until(lambda: client.info("replication")["master_link_status"] == "up")
    with sentinel.client() as client:
        until(lambda: len(client.execute_command("SENTINEL REPLICAS main")) == 1)
    backend.execute(reserve("a", 100.0, MONTH))
    backend.execute(Settle("a", (70.0,)))
    backend.execute(reserve("b", 100.0, MONTH))
    with primary.client() as client:
        assert client.wait(1, 5000) == 1
    primary.pause()
    with pytest.raises(BackendError):
        backend.execute(reserve("c", 100.0, MONTH))
    assert insist(backend, Settle("b", (30.0,))).first is True
    assert insist(backend, Settle("a", (70.0,))).first is False
    assert isinstance(insist(backend, reserve("c", 100.0, MONTH)), Reservation)
    with replica.client() as client:
        assert client.info("replication")["role"] == "master"
    assert left(backend, MONTH) == MONTH.ceiling - 200
    primary.resume()
