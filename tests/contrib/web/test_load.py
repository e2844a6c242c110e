"""Worker processes that share a ledger in Redis; `benchmarks.web` is the long version."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("redis")

from quotaguard.testing import FakeProvider
from tests.backends import redis_server

from . import load

USERS = [f"user-{number % 20}" for number in range(100)]

pytestmark = pytest.mark.skipif(redis_server.binary() is None, reason="no redis-server")


def test_workers_admit_no_more_than_there_is_and_leave_nothing_open() -> None:
    """Statuses and fields are right, the sum is within the limit, and whoever hangs up in the
    middle of a stream leaves no reservation behind.
    """
    server = redis_server.RedisServer()
    guard = load.watcher(server.url)
    try:
        with (
            FakeProvider(load.reply) as provider,
            load.workers(server.url, provider.openai_url) as port,
        ):
            answers = asyncio.run(
                load.crowd(port, "/guarded/chat", 120, 32, user="ann", tier="narrow")
            )
            passed = load.admitted(answers)
            assert 0 < passed <= load.NARROW // load.COST
            (state,) = guard.peek(user="ann", tier="narrow")
            assert (state.left, state.held) == (load.NARROW - load.COST * passed, 0)
            got = asyncio.run(load.hang_ups(port, USERS, 50, seed=7))
            assert got > len(USERS) / 2
            assert load.seconds_until_free(guard, USERS) < 30
    finally:
        guard.close()
        server.stop()
