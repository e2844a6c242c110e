"""Redis, alone and as a cluster, against the suite that every backend must pass."""

from __future__ import annotations

import pytest

from quotaguard.backends import Backend
from quotaguard.testing import BackendContract, FakeClock

pytest.importorskip("redis")

from quotaguard.backends.redis import RedisBackend

from .redis_server import RedisCluster, RedisServer


class TestRedis(BackendContract):
    """One server."""

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer) -> None:
        self.server = server

    def make_backend(self, clock: FakeClock) -> Backend:
        """Over the server that tests share, emptied."""
        self.server.flush()
        return RedisBackend(self.server.url, clock=clock)


class TestRedisCluster(BackendContract):
    """Three nodes; with limits for everybody all buckets are in one slot."""

    @pytest.fixture(autouse=True)
    def _cluster(self, cluster: RedisCluster) -> None:
        self.cluster = cluster

    def make_backend(self, clock: FakeClock) -> Backend:
        """Over the cluster that tests share, emptied."""
        self.cluster.flush()
        return RedisBackend(self.cluster.url, scope="global", clock=clock)
