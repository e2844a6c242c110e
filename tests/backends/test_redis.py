"""What the Redis backend promises beside the contract: trips, keys, clients, one truth for all."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("redis")

import redis
import redis.asyncio

from quotaguard import ConfigurationError, Guard
from quotaguard.backends import open_backend
from quotaguard.backends.redis import RedisBackend, calls, wire
from quotaguard.backends.redis.connect import place
from quotaguard.clock import SystemClock
from quotaguard.core.ops import Park, Peek, Queued, Release, Reservation, Settle, Settled
from quotaguard.limits import Limit

from .ops import ALICE, SLOW, left, reserve, state
from .redis_server import RedisCluster, RedisServer
from .switch import until

Opener = Callable[..., RedisBackend]
SIX = [
    Limit.parse(text)
    for text in (
        "1M tokens/minute",
        "1M requests/minute",
        "1M tokens/day",
        "1M requests/day",
        "1M tokens/hour",
        "1M tokens/month",
    )
]


def commands(server: RedisServer) -> dict[str, int]:
    """How often clients called which command since the statistics were reset."""
    with server.client() as client:
        return {
            name.removeprefix("cmdstat_"): stat["calls"]
            for name, stat in client.info("commandstats").items()
        }


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_one_round_trip(server: RedisServer, open_redis: Opener, count: int) -> None:
    """A reserve and a settle are one script call each, however many limits there are."""
    backend = open_redis(server.url)
    backend.execute(reserve("warm", 1.0, *SIX[:count]))
    with server.client() as client:
        client.config_resetstat()
    for number in range(10):
        backend.execute(reserve(f"{number}", 1.0, *SIX[:count]))
        backend.execute(Settle(f"{number}", (2.0,) * count))
    found = commands(server)
    assert found["evalsha"] == 20
    assert found["time"] == 20
    assert "eval" not in found


def test_operations_of_one_turn_travel_together(server: RedisServer) -> None:
    """What 100 tasks ask for in one turn of the event loop is one script call."""

    async def main() -> None:
        backend = RedisBackend(server.url)
        await backend.aexecute(reserve("warm"))
        with server.client() as client:
            client.config_resetstat()
        answers = await asyncio.gather(
            *(backend.aexecute(reserve(f"{number}")) for number in range(100))
        )
        assert sum(isinstance(answer, Reservation) for answer in answers) == 99
        await backend.aclose()

    asyncio.run(main())
    assert commands(server)["evalsha"] == 1


def test_a_server_that_forgot_the_script(server: RedisServer, open_redis: Opener) -> None:
    """SCRIPT FLUSH is not noticed."""
    backend = open_redis(server.url)
    backend.execute(reserve("a"))
    with server.client() as client:
        client.script_flush()
    assert isinstance(backend.execute(Settle("a", (4.0,))), Settled)
    assert left(backend) == 996


def test_a_settle_after_flushall_charges_once(server: RedisServer, open_redis: Opener) -> None:
    """What was used is charged to the empty ledger; repeating it changes nothing."""
    backend = open_redis(server.url)
    backend.execute(reserve("a", 10.0, SLOW, SIX[2]))
    server.flush()
    answer = backend.execute(Settle("a", (70.0, 70.0)))
    assert isinstance(answer, Settled)
    assert (answer.first, answer.late) == (True, True)
    assert left(backend) == 930
    again = backend.execute(Settle("a", (70.0, 70.0)))
    assert isinstance(again, Settled)
    assert again.first is False
    assert left(backend) == 930
    assert left(backend, SIX[2]) == 1_000_000 - 70


def test_a_stranger_settles_nothing(server: RedisServer, open_redis: Opener) -> None:
    """Another process may settle what it knows the id of; of an unknown id nothing is charged."""
    backend, other = open_redis(server.url), open_redis(server.url)
    backend.execute(reserve("a"))
    assert other.execute(Settle("a", (3.0,))).first is True  # type: ignore[union-attr]
    assert other.execute(Settle("b", (3.0,))).first is False  # type: ignore[union-attr]
    assert left(backend) == 997


def test_every_key_expires_and_a_full_bucket_has_none(
    server: RedisServer, open_redis: Opener
) -> None:
    """Whatever happened, nothing is kept for good, and what is full is not kept at all."""
    backend = open_redis(server.url)
    with server.client() as client:
        backend.execute(reserve("late", 1.0, *SIX, lease=0.0001))
        for number in range(20):
            backend.execute(reserve(f"{number}", 10.0, *SIX, owner=("user", "", f"u{number}")))
        for number in range(10):
            backend.execute(Settle(f"{number}", (0.0,) * 6))
        keys = client.keys()
        assert len(keys) == 10 + 21 + 1  # owners, reservations, leases
        assert all(client.pttl(key) > 0 for key in keys)
        for number in range(10, 20):
            backend.execute(Release(f"{number}"))
        backend.execute(Settle("late", (0.0,) * 6))
        assert {key[:11] for key in client.scan_iter()} == {b"quotaguard/"}


@pytest.mark.timeout(3600)
def test_many_users_once(own_server: RedisServer, soak: bool, monkeypatch: Any) -> None:
    """Less than 600 bytes for each user of three limits, the remembered id of a call included; and
    when the buckets are full again and the ids forgotten nothing is left.
    """
    users, seconds = (1_000_000, 600) if soak else (2_000, 6)
    monkeypatch.setattr(calls, "REMEMBERED", float(seconds))
    limits = [
        Limit.parse(f"{seconds} {metric}/{seconds} seconds")
        for metric in ("tokens", "requests", "input tokens")
    ]

    async def main(users: int) -> None:
        backend = RedisBackend(own_server.url, backend_timeout=10.0)

        async def call(number: int) -> None:
            owner = ("user", "", f"user-{number:07d}")
            op = reserve(f"0123456789ab-{number}", float(seconds), *limits, owner=owner)
            assert isinstance(await backend.aexecute(op), Reservation)
            await backend.aexecute(Settle(op.id, None))

        for first in range(0, users, 500):
            await asyncio.gather(*map(call, range(first, min(first + 500, users))))
        await backend.aclose()

    with own_server.client() as client:
        client.config_set("appendonly", "no")
        asyncio.run(main(1))  # what the server needs once
        client.flushall()
        before = client.info("memory")["used_memory"]
        asyncio.run(main(users))
        assert client.dbsize() == 2 * users
        bytes_each = (client.info("memory")["used_memory"] - before) / users
        assert 300 < bytes_each < 600, bytes_each
        until(lambda: client.dbsize() == 0, 3 * seconds + 20.0)


@given(st.lists(st.tuples(st.text(), st.text()), min_size=2, max_size=2, unique=True))
def test_owners_have_names_of_their_own(pairs: list[tuple[str, str]]) -> None:
    """No choice of user and org makes two owners one, nor leaves the alphabet of names."""
    owners = [("user", *pair) for pair in pairs] + [("org", pair[0] + pair[1]) for pair in pairs]
    names = {wire.owner_name(owner) for owner in owners}
    assert len(names) == len(set(owners))
    assert all(re.fullmatch(rb"[\w-]{20}", name) for name in names)


def test_ten_kilobytes_of_user_id(cluster: RedisCluster, open_redis: Opener) -> None:
    """A user's name, whatever is in it, is neither a tag nor anybody else's key."""
    backend = open_redis(cluster.url)
    names = ["a}:{b", "{a}", "\n\r\x00*", "é\ud800", "x" * 10_000, "x" * 10_001, "a", "*"]
    for number, name in enumerate(names):
        owner = ("user", "", name)
        backend.execute(reserve(f"{number}", float(number + 1), owner=owner))
    assert [left(backend, owner=("user", "", name)) for name in names] == [
        1000 - number - 1 for number in range(len(names))
    ]


def test_a_cluster_wants_to_know_the_broadest_scope(
    cluster: RedisCluster, open_redis: Opener
) -> None:
    """Buckets of one call in several slots are refused with the remedy, which works."""
    everybody, mine = Limit.parse("1k tokens/minute per global"), SLOW
    both = reserve("a", 1.0, mine)
    extra = reserve("a", 1.0, everybody, owner=("global",)).candidates[0].charges
    op = both._replace(
        candidates=(both.candidates[0]._replace(charges=both.candidates[0].charges + extra),)
    )
    with pytest.raises(ConfigurationError, match="scope='global'"):
        open_redis(cluster.url).execute(op)
    backend = open_redis(cluster.url, scope="global")
    assert isinstance(backend.execute(op), Reservation)
    answer = backend.execute(Peek(((ALICE, mine), (("global",), everybody))))
    assert [round(bucket.left) for bucket in answer] == [999, 999]  # type: ignore[union-attr]
    spread = open_redis(cluster.url)
    assert len(spread.execute(Peek(((ALICE, mine), (("org", "x"), mine))))) == 2  # type: ignore[arg-type]


def test_a_machine_whose_clock_is_wrong(
    server: RedisServer, open_redis: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's time decides which day it is; a machine that is weeks off learns it."""
    backend, right = open_redis(server.url), open_redis(server.url)
    real = time.time
    monkeypatch.setattr(calls.time, "time", lambda: real() + 40 * 86_400)
    assert isinstance(backend.execute(reserve("a", 10.0, SIX[2])), Reservation)
    monkeypatch.undo()
    assert left(right, SIX[2]) == 1_000_000 - 10


def test_a_refund_wakes_another_host(server: RedisServer, open_redis: Opener) -> None:
    """Who waits for weeks in one process is woken at once by a refund in another."""
    here, there = open_redis(server.url), open_redis(server.url)
    there.execute(reserve("big", 1000.0))
    op = reserve("small", 100.0, patience=1e9)
    assert isinstance(here.execute(op), Queued)
    woken = threading.Event()

    def park() -> None:
        while isinstance(here.execute(op), Queued):
            here.execute(Park(op.id, 1e9))
        woken.set()

    sleeper = threading.Thread(target=park, daemon=True)
    sleeper.start()
    there.execute(Settle("big", (0.0,)))
    assert woken.wait(4.0)  # well before the safety net of 5 s
    sleeper.join()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_has_connections_of_its_own(server: RedisServer, open_redis: Opener) -> None:
    """Parent and child go on without mixing up their answers."""
    backend = open_redis(server.url)
    backend.execute(reserve("before"))
    child = os.fork()
    if child == 0:
        right = all(
            isinstance(backend.execute(reserve(f"child {i}", 1.0)), Reservation) for i in range(50)
        )
        os._exit(0 if right else 1)
    for number in range(50):
        assert backend.execute(reserve(f"parent {number}", 1.0)).id == f"parent {number}"  # type: ignore[union-attr]
    assert os.waitpid(child, 0)[1] == 0
    assert left(backend) == 890


def _clients(server: RedisServer) -> dict[str, Callable[[], Any]]:
    return {
        "url": lambda: server.url,
        "unix": lambda: f"unix://{server.socket}?db=0",
        "blocking": lambda: redis.Redis(port=server.port, decode_responses=True),
        "asyncio": lambda: redis.asyncio.Redis(port=server.port, decode_responses=True),
        "socket": lambda: redis.Redis(unix_socket_path=str(server.socket)),
    }


def _check_both_ways(backend: Any) -> None:
    """One ledger, from threads and from tasks."""

    async def main() -> None:
        assert isinstance(await backend.aexecute(reserve("b")), Reservation)
        await backend.aexecute(Settle("a", (1.0,)))
        await backend.aclose()

    assert isinstance(backend.execute(reserve("a")), Reservation)
    asyncio.run(main())
    backend.execute(Settle("b", (1.0,)))
    assert left(backend) == 998
    assert state(backend).held == 0.0
    backend.close()


@pytest.mark.parametrize("kind", ["url", "unix", "blocking", "asyncio", "socket"])
def test_any_client_serves_threads_and_tasks(server: RedisServer, kind: str) -> None:
    """URLs and ready clients, blocking and asyncio, whatever they decode."""
    client = _clients(server)[kind]()
    _check_both_ways(open_backend(client, SystemClock()))


@pytest.mark.parametrize("kind", ["url", "blocking", "asyncio"])
def test_any_client_of_a_cluster_too(cluster: RedisCluster, kind: str) -> None:
    """The same for three nodes."""
    port = cluster.nodes[1].port
    if kind == "url":
        _check_both_ways(open_backend(cluster.url, SystemClock()))
    elif kind == "blocking":
        with redis.RedisCluster(port=port, host="127.0.0.1") as client:
            _check_both_ways(open_backend(client, SystemClock()))
    else:
        _check_both_ways(
            open_backend(redis.asyncio.RedisCluster(host="127.0.0.1", port=port), SystemClock())
        )


@pytest.mark.parametrize(
    ("url", "nodes", "kept"),
    [
        ("redis://h", [("h", 6379)], {}),
        ("redis://u:p%40@h:7/3", [("h", 7)], {"username": "u", "password": "p@", "db": 3}),
        ("rediss://h:7", [("h", 7)], {"ssl": True}),
        ("rediss://h:7?ssl_ca_certs=x", [("h", 7)], {"ssl": True, "ssl_ca_certs": "x"}),
        ("unix:///run/r.sock?db=2", [("/run/r.sock", 0)], {"db": 2}),
        ("redis+cluster://a:1,b", [("a", 1), ("b", 6379)], {"db": 0}),
        ("rediss+cluster://:p@a:1", [("a", 1)], {"db": 0, "password": "p", "ssl": True}),
        ("redis+sentinel://a,b:2/main/1", [("a", 26379), ("b", 2)], {"db": 1}),
    ],
)
def test_urls(url: str, nodes: list[tuple[str, int]], kept: dict[str, Any]) -> None:
    """Each form names its nodes and settings."""
    found = place(url)
    assert list(found.nodes) == nodes
    assert found.options == kept
    assert found.cluster == ("cluster" in url)
    assert found.service == ("main" if "sentinel" in url else None)
    assert "p@" not in str(found)


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("redis+ring://h", {}, "redis\\+cluster"),
        ("redis://h/x?socket_timeout=soon", {}, "redis://h"),
        ("redis+cluster://", {}, "no host"),
        ("redis+sentinel://h", {}, "redis\\+sentinel"),
        (object(), {}, "client of redis-py"),
        ("redis://h", {"prefix": "a{b}"}, "prefix"),
        ("redis://h", {"scope": "planet"}, "planet"),
        ("redis://h", {"backend_timeout": 0}, "backend_timeout"),
    ],
)
def test_wrong_arguments(target: Any, options: dict[str, Any], said: str) -> None:
    """The message says what would be right."""
    with pytest.raises(ConfigurationError, match=said):
        RedisBackend(target, **options)


def test_a_guard_of_a_cluster_knows_its_scope(cluster: RedisCluster) -> None:
    """Limits per global need no ``?scope=``: the guard tells the backend of them."""
    for limits in (["1k tokens/day"], ["1k tokens/day", "9k tokens/day per global"]):
        guard = Guard(limits=limits, backend=cluster.url)
        with guard.hold(user="alice", input_tokens=10, output_tokens=0):
            pass
        assert [round(bucket.left) % 1000 for bucket in guard.peek(user="alice")] == [
            990 for _ in limits
        ]
        guard.close()
    assert "scope" not in cluster.url
