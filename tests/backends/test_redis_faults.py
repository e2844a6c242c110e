"""When Redis, or the way to it, fails: nothing twice, nothing lost, nobody stuck."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("redis")

from quotaguard import BackendError, Guard, QuotaExceeded
from quotaguard.backends.redis import RedisBackend
from quotaguard.core.ops import Op, Release, Reservation, Settle
from quotaguard.limits import Limit

from .fault_proxy import FaultProxy
from .ops import ALICE, SLOW, left, reserve, state
from .redis_server import RedisCluster, RedisServer

Opener = Callable[..., RedisBackend]
PLENTY = Limit.parse("1B tokens/rolling month")
REQUESTS = Limit.parse("1B requests/rolling month")


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[FaultProxy]:
    """On the way to the shared server."""
    found = FaultProxy(server.port, seed=7)
    yield found
    found.close()


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


def spend(backend: RedisBackend, name: str, count: int) -> tuple[float, int]:
    """Reserve 100 and use 1, 2, 3 ... of them; what was charged, and how often it was refused."""
    charged, failed = 0.0, 0
    for number in range(count):
        op = reserve(f"{name} {number}", 100.0, PLENTY, REQUESTS)
        try:
            answer = backend.execute(op)
            assert isinstance(answer, Reservation)
        except BackendError:
            failed += 1
            insist(backend, Release(op.id))  # it may have been carried out
            continue
        used = float(number % 150)
        insist(backend, Settle(op.id, (used, 1.0)))
        charged += used
    return charged, failed


@pytest.mark.timeout(900)
def test_the_books_are_right_after_faults(
    server: RedisServer, proxy: FaultProxy, open_redis: Opener, soak: bool
) -> None:
    """Of all operations 5 % meet a fault; in the end the level is what was charged, exactly."""
    backend = open_redis(f"redis://127.0.0.1:{proxy.port}", backend_timeout=0.3)
    proxy.share = 0.05
    workers = 4
    count = (10_000 if soak else 480) // 2 // workers
    done: list[tuple[float, int]] = []

    def work(number: int) -> None:
        done.append(spend(backend, f"worker {number}", count))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    proxy.share = 0.0
    assert len(done) == workers
    assert proxy.faults > 5
    direct = open_redis(server.url)
    now = state(direct, PLENTY)
    refill = PLENTY.rate * 120  # more than comes back in the time that this takes
    assert now.held == 0.0
    assert 1e9 - now.left == pytest.approx(sum(part for part, _ in done), abs=refill)
    calls = workers * count - sum(failed for _, failed in done)
    assert 1e9 - state(direct, REQUESTS).left == pytest.approx(calls, abs=refill)


def test_faults_among_tasks(server: RedisServer, proxy: FaultProxy, open_redis: Opener) -> None:
    """The same where batches of many tasks are lost together."""
    charged = 0.0

    async def main() -> None:
        backend = RedisBackend(f"redis://127.0.0.1:{proxy.port}", backend_timeout=0.3)

        async def insist(op: Op) -> None:
            while True:
                try:
                    await backend.aexecute(op)
                    return
                except BackendError:
                    await asyncio.sleep(0.01)

        async def call(number: int) -> None:
            nonlocal charged
            op = reserve(f"task {number}", 100.0, PLENTY)
            try:
                await backend.aexecute(op)
            except BackendError:
                await insist(Release(op.id))
            else:
                await insist(Settle(op.id, (float(number),)))
                charged += number

        for turn in range(20):
            await asyncio.gather(*(call(turn * 20 + number) for number in range(20)))
        proxy.share = 0.0
        await backend.aclose()

    proxy.share = 0.2
    asyncio.run(main())
    now = state(open_redis(server.url), PLENTY)
    assert proxy.faults > 3
    assert now.held == 0.0
    assert 1e9 - now.left == pytest.approx(charged, abs=PLENTY.rate * 60)


def test_a_server_that_hangs(own_server: RedisServer, open_redis: Opener) -> None:
    """The first call fails in the time allowed, later ones at once; what was given up is not
    carried out when the server goes on, and then all is well again.
    """
    backend = open_redis(own_server.url, backend_timeout=0.4)
    backend.execute(reserve("a"))
    own_server.pause()
    try:
        began = time.monotonic()
        with pytest.raises(BackendError, match=f"127.0.0.1:{own_server.port}"):
            backend.execute(reserve("lost"))
        assert time.monotonic() - began < 0.9
        began = time.monotonic()
        with pytest.raises(BackendError, match="next attempt in"):
            backend.execute(reserve("refused"))
        assert time.monotonic() - began < 0.05
    finally:
        own_server.resume()
    insist(backend, Settle("a", (10.0,)))
    assert left(backend) == 990


def test_a_server_that_hangs_among_tasks(own_server: RedisServer) -> None:
    """No task is stuck, however many there are."""

    async def main() -> None:
        backend = RedisBackend(own_server.url, backend_timeout=0.4)
        await backend.aexecute(reserve("a"))
        own_server.pause()
        try:
            began = time.monotonic()
            answers = await asyncio.gather(
                *(backend.aexecute(reserve(f"{number}")) for number in range(600)),
                return_exceptions=True,
            )
            assert time.monotonic() - began < 2.0
        finally:
            own_server.resume()
        assert {type(answer) for answer in answers} == {BackendError}
        await backend.aclose()

    asyncio.run(main())


def test_a_restart_without_data(server: RedisServer, open_redis: Opener) -> None:
    """A server that comes back empty is found again, and what was used meanwhile is charged."""
    fresh = RedisServer()
    try:
        backend = open_redis(fresh.url)
        backend.execute(reserve("a"))
        fresh.kill()
        with pytest.raises(BackendError):
            backend.execute(Settle("a", (7.0,)))
        fresh.start()
        assert insist(backend, Settle("a", (7.0,))).first is True
        assert left(backend) == 993
    finally:
        fresh.stop()


def test_a_restart_with_its_data(own_server: RedisServer, open_redis: Opener) -> None:
    """A server that comes back with what it saved knows reservations and settles alike."""
    backend = open_redis(own_server.url)
    backend.execute(reserve("a"))
    backend.execute(reserve("b"))
    backend.execute(Settle("a", (7.0,)))
    own_server.kill()
    own_server.start()
    assert insist(backend, Settle("a", (7.0,))).first is False
    assert insist(backend, Settle("b", (1.0,))).first is True
    assert left(backend) == 992


@pytest.mark.parametrize("choice", ["refuse", "allow"])
def test_guards_while_redis_is_away(own_server: RedisServer, choice: str) -> None:
    """Calls are refused or allowed as chosen; a settle that failed is replayed when it is back."""
    url = f"{own_server.url}?backend_timeout=0.3"
    guard = Guard(limits=[SLOW], backend=url, on_backend_error=choice)
    with guard.hold(user="alice", input_tokens=100, output_tokens=0) as lease:
        own_server.kill()
        lease.record(input_tokens=40)
    if choice == "allow":
        with guard.hold(user="alice", input_tokens=5000, output_tokens=0):
            pass
    else:
        with pytest.raises(BackendError), guard.hold(user="alice", input_tokens=5):
            raise AssertionError("it was to be refused")
    own_server.start()
    deadline = time.monotonic() + 20.0
    while True:
        try:
            (found,) = guard.peek(user="alice")
        except BackendError:
            assert time.monotonic() < deadline
            continue
        if round(found.left) == 960:
            break
        assert time.monotonic() < deadline, found
    with pytest.raises(QuotaExceeded), guard.hold(user="alice", input_tokens=961, output_tokens=0):
        raise AssertionError("it was not to fit")
    guard.close()


@pytest.mark.parametrize(
    ("options", "url", "said"),
    [
        (["--requirepass", "right"], "redis://:wrong-secret@127.0.0.1:{}", "password"),
        (["--maxmemory", "1"], "redis://127.0.0.1:{}", "maxmemory"),
        (["--replicaof", "127.0.0.1", "1"], "redis://127.0.0.1:{}", "sentinel"),
        (["--cluster-enabled", "yes"], "redis://127.0.0.1:{}", "127.0.0.1"),
    ],
)
def test_errors_say_what_to_do(options: list[str], url: str, said: str, open_redis: Opener) -> None:
    """Each failure is a BackendError with the address and a hint, and no secret in it."""
    broken = RedisServer(*options)
    try:
        backend = open_redis(url.format(broken.port), backend_timeout=0.3)
        with pytest.raises(BackendError, match=said) as caught:
            backend.execute(reserve("a"))
        assert str(broken.port) in str(caught.value)
        assert "secret" not in str(caught.value)
    finally:
        broken.stop()


def test_one_node_of_a_cluster(cluster: RedisCluster, open_redis: Opener) -> None:
    """Who calls a node of a cluster a server is told how to call it."""
    said = []
    for node in cluster.nodes:
        backend = open_redis(node.url)
        try:
            backend.execute(reserve("a"))
        except BackendError as error:
            said.append(str(error))
    assert len(said) == 3
    assert all("redis+cluster://" in text for text in said)


def test_sentinels_lead_to_the_primary(tmp_path: Any, open_redis: Opener) -> None:
    """The service's name is enough; the sentinel knows where its primary is."""
    primary = RedisServer()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor main 127.0.0.1 {primary.port} 1\n")
    sentinel = RedisServer(config=config)
    try:
        backend = open_redis(f"redis+sentinel://127.0.0.1:{sentinel.port}/main")
        backend.execute(reserve("a", owner=ALICE))
        backend.execute(Settle("a", (4.0,)))
        assert left(open_redis(primary.url)) == 996
        assert left(backend) == 996
    finally:
        sentinel.stop()
        primary.stop()
