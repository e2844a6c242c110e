"""What befalls the line in Redis: connections die or fall silent, scripts and keys are flushed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("redis")

from quotaguard.backends.redis import RedisBackend, listener
from quotaguard.core.ops import Park, Queued, Release, Reservation, Settle
from quotaguard.limits import Limit
from quotaguard.testing import FakeClock

from .ops import SLOW, left, reserve, state
from .redis_server import RedisCluster, RedisServer
from .switch import until

Opener = Callable[..., RedisBackend]
SLOTS = Limit.parse("1500 concurrent")
SOON = 2.0
"""Seconds; who waits looks by itself only after more."""


class Waiting:
    """A thread that stands in line until it is let in."""

    def __init__(self, backend: RedisBackend, id: str, amount: float = 10.0) -> None:
        self._backend = backend
        self._op = reserve(id, amount, patience=1e9)
        self.parked = threading.Event()
        self.admitted_at = 0.0
        threading.Thread(target=self._wait, daemon=True).start()
        assert self.parked.wait(20.0)
        until(lambda: backend._listener.hears)

    def _wait(self) -> None:
        while isinstance(answer := self._backend.execute(self._op), Queued):
            self.parked.set()
            self._backend.execute(Park(self._op.id, answer.wait))
        assert isinstance(answer, Reservation)
        self.admitted_at = time.monotonic()


@pytest.fixture
def parked(server: RedisServer, open_redis: Opener) -> Waiting:
    """Somebody who is behind somebody else in line for a bucket that "full" has emptied."""
    backend = open_redis(server.url)
    backend.execute(reserve("full", 1000.0))
    backend.execute(reserve("before", 1.0, patience=1e9))
    return Waiting(backend, "parked")


def refunded(server: RedisServer, open_redis: Opener) -> float:
    """Another process gives everything back; when."""
    other = open_redis(server.url)
    other.execute(Release("before"))
    other._sent.reserving(reserve("full"), b"quotaguard:leases")  # as if it had asked for it
    began = time.monotonic()
    other.execute(Settle("full", (0.0,)))
    return began


@pytest.mark.parametrize("command", ["CLIENT KILL TYPE pubsub", "SCRIPT FLUSH", "CLIENT PAUSE 300"])
def test_a_refund_is_heard_all_the_same(
    server: RedisServer, open_redis: Opener, parked: Waiting, command: str
) -> None:
    """Who waits is woken though the connection it listens on was cut, or the script forgotten."""
    with server.client() as client:
        client.execute_command(*command.split())
    began = refunded(server, open_redis)
    until(lambda: parked.admitted_at > 0.0)
    assert parked.admitted_at - began < SOON


class Deaf:
    """A way to a server that passes everything on, until it says nothing more: as a router does
    that has forgotten a connection.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._entry = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._entry.getsockname()[1]
        self.forgotten: set[socket.socket] = set()
        self._known: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def forget(self) -> None:
        """Nothing comes through on the connections that there are."""
        self.forgotten |= self._known

    def close(self) -> None:
        """End all."""
        for each in (self._entry, *self._known):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._entry.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._known |= {client, server}
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, to: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if source not in self.forgotten:
                    to.sendall(data)


@pytest.fixture
def deaf(server: RedisServer) -> Iterator[Deaf]:
    """A way to the server that falls silent when it is told to."""
    found = Deaf(int(server.url.rpartition(":")[2].partition("/")[0]))
    yield found
    found.close()


def test_a_connection_that_fell_silent_is_made_anew(
    server: RedisServer, open_redis: Opener, deaf: Deaf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who only listens would never notice, and nobody behind it would be woken again."""
    monkeypatch.setattr(listener, "SILENCE", 0.2)
    backend = open_redis(f"redis://127.0.0.1:{deaf.port}/0")
    backend.execute(reserve("full", 1000.0))
    backend.execute(reserve("before", 1.0, patience=1e9))
    waiting = Waiting(backend, "parked")
    deaf.forget()
    refunded(server, open_redis)
    until(lambda: waiting.admitted_at > 0.0)


def test_a_listener_that_hears_nothing_new_stays(
    cluster: RedisCluster, open_redis: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that answers is not taken for silent, on a cluster neither."""
    monkeypatch.setattr(listener, "SILENCE", 0.2)
    backend = open_redis(cluster.url)
    backend.execute(reserve("full", 1000.0))
    backend.execute(reserve("a", patience=1e9))
    until(lambda: backend._listener.hears)
    for _ in range(40):
        time.sleep(0.05)
        assert backend._listener.hears
    backend.execute(Release("a"))


def test_slots_of_many_who_died_come_back_once(server: RedisServer, open_redis: Opener) -> None:
    """More leases end at once than one call of the script looks at: no slot is given out twice."""
    clock = FakeClock()
    backend = open_redis(server.url, clock=clock, backend_timeout=20.0)
    for number in range(1500):
        backend.execute(reserve(f"dead {number}", 1.0, SLOTS, lease=30.0))
    clock.advance(31.0)
    admitted = [
        isinstance(backend.execute(reserve(f"{number}", 1.0, SLOTS)), Reservation)
        for number in range(1510)
    ]
    assert sum(admitted) <= 1500
    assert isinstance(backend.execute(reserve("full", 1.0, SLOTS)), Reservation) is (
        sum(admitted) < 1500
    )
    assert state(backend, SLOTS).held == sum(admitted) + (sum(admitted) < 1500)


def test_an_interrupted_call_leaves_no_reply_behind(
    server: RedisServer, open_redis: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between sending and reading: the next call must not be given this one's answer."""
    backend = open_redis(server.url)
    backend.execute(reserve("warm"))
    connection: Any = backend._combiner._client.connection
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(connection, "read_response", _interrupted)
        backend.execute(reserve("interrupted", 20.0))
    answer = backend.execute(reserve("next", 30.0))
    assert isinstance(answer, Reservation)
    assert answer.granted == (30.0,)
    assert left(backend, SLOW) in (940.0, 960.0)


def _interrupted(**_: Any) -> None:
    raise KeyboardInterrupt


def test_ids_may_be_long(server: RedisServer, open_redis: Opener) -> None:
    """Whoever makes ids of their own is rung for, however long they are."""
    backend = open_redis(server.url)
    backend.execute(reserve("full", 1000.0))
    waiting = Waiting(backend, "ü" * 40_000, 990.0)
    backend.execute(Settle("full", (0.0,)))
    until(lambda: waiting.admitted_at > 0.0, SOON)


def test_who_rings_otherwise_is_heard(server: RedisServer, parked: Waiting) -> None:
    """A message of another version, or of a stranger, makes everybody look, and stops nobody."""
    for message in (b"x", b"\0" * 8 + b"\4\0\0\0\xff\xff\xff\xff", b"\0" * 8 + b"\x10\0\0\0ab"):
        with server.client() as client:
            client.config_resetstat()
            channel = parked._backend._listener._channel
            assert client.publish(channel, message) == 1
            until(lambda client=client: client.info("commandstats").get("cmdstat_evalsha"))
    assert parked._backend._listener.hears
