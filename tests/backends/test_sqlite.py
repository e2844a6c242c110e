"""SQLite: the contract, and what only a file can do."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from quotaguard import BackendError, ConfigurationError
from quotaguard.backends import Backend, open_backend
from quotaguard.backends.sqlite import SQLiteBackend
from quotaguard.clock import SystemClock
from quotaguard.core.ops import (
    Answer,
    Candidate,
    Charge,
    Op,
    Owner,
    Peek,
    Release,
    Reservation,
    Reserve,
    Settle,
)
from quotaguard.limits import Limit
from quotaguard.testing import BackendContract, FakeClock

ALICE: Owner = ("user", "", "al\n'ice\ud800")
DAY = Limit.parse("100 tokens/day")


def reserve(id: str, amount: float = 30.0) -> Reserve:
    """A call of Alice's."""
    return Reserve(id, (Candidate("m", (Charge(ALICE, DAY, amount, amount, 0.0),)),), 60.0)


def left(backend: Backend) -> float:
    """What she has left of the day."""
    (state,) = backend.execute(Peek(((ALICE, DAY),)))  # type: ignore[misc]
    return float(state.left)


class TestSQLite(BackendContract):
    """A file."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_backend(self, clock: FakeClock) -> Backend:
        """A new file."""
        return SQLiteBackend(self.folder / f"{len(list(self.folder.iterdir()))}.db", clock=clock)


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    """What was charged, what is held and which ids were used outlive the process."""
    url, clock = f"sqlite:///{tmp_path}/quota.db", FakeClock()
    first = open_backend(url, clock)
    first.execute(reserve("a"))
    first.execute(reserve("b"))
    first.execute(Settle("a", (10.0,)))
    first.close()
    second = open_backend(url, clock)
    assert left(second) == 60.0
    answer = second.execute(reserve("a"))
    assert isinstance(answer, Reservation)
    assert answer.granted == (30.0,)
    assert second.execute(Settle("a", (10.0,))).first is False  # type: ignore[union-attr]
    assert second.execute(Settle("b", (0.0,))).first is True  # type: ignore[union-attr]
    assert left(second) == 90.0
    second.close()


def test_full_buckets_and_old_ids_leave_nothing(tmp_path: Path) -> None:
    """The file does not grow with users who were active once."""
    clock = FakeClock()
    backend = SQLiteBackend(tmp_path / "quota.db", clock=clock)
    for number in range(20):
        backend.execute(reserve(f"{number}", 5.0))
        backend.execute(Settle(f"{number}", None))
    clock.advance(2 * 86_400.0)
    backend.execute(reserve("last"))
    backend.execute(Settle("last", (0.0,)))
    with backend._transaction() as connection:
        (buckets,) = connection.execute("SELECT count(*) FROM bucket").fetchone()
        (ids,) = connection.execute("SELECT count(*) FROM reservation").fetchone()
    assert (buckets, ids) == (0, 1)
    backend.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_uses_a_connection_of_its_own(tmp_path: Path) -> None:
    """Parent and child share the file, not the connection."""
    backend = SQLiteBackend(tmp_path / "quota.db")
    backend.execute(reserve("parent"))
    child = os.fork()
    if child == 0:
        backend.execute(reserve("child"))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert left(backend) == pytest.approx(40.0)
    backend.close()


def test_an_unusable_file_is_a_backend_error(tmp_path: Path) -> None:
    """A file that is no database, or that others keep locked, is told by its name."""
    path = tmp_path / "notes.txt"
    path.write_text("no database at all, but long enough to look like one" * 100)
    with pytest.raises(BackendError, match=r"notes\.txt"):
        SQLiteBackend(path)
    backend = SQLiteBackend(tmp_path / "busy.db", timeout=0.05)
    other = SQLiteBackend(tmp_path / "busy.db")
    with other._transaction(), pytest.raises(BackendError, match=r"busy\.db: database is locked"):
        backend.execute(reserve("a"))
    assert isinstance(backend.execute(reserve("a")), Reservation)
    backend.close()
    other.close()


@pytest.mark.parametrize(
    "url", ["sqlite://quota.db", "sqlite:///", "sqlite:///q.db?x=1", "sqlite:///q.db?timeout=soon"]
)
def test_a_wrong_url_says_the_right_one(url: str) -> None:
    """The message names what was given."""
    with pytest.raises(ConfigurationError, match="sqlite:///"):
        open_backend(url, SystemClock())


@pytest.mark.anyio
@pytest.mark.parametrize("times", [1, 2])
async def test_who_is_cancelled_while_it_asks_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """A thread cannot be cancelled: what it asks for must not come after the giving back."""
    backend = SQLiteBackend(tmp_path / "quota.db")
    carry_out = backend._carry_out
    asking, may_ask = threading.Event(), threading.Event()

    def slow(op: Op) -> Answer:
        if isinstance(op, Reserve):
            asking.set()
            may_ask.wait(20.0)
        return carry_out(op)

    monkeypatch.setattr(backend, "_carry_out", slow)

    async def call() -> None:
        try:
            await backend.aexecute(reserve("a"))
        except asyncio.CancelledError:
            await backend.aexecute(Release("a"))
            raise

    task = asyncio.ensure_future(call())
    await asyncio.to_thread(asking.wait, 20.0)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.01)
    may_ask.set()
    await asyncio.wait({task})
    assert task.cancelled()
    assert left(backend) == 100.0
    backend.close()


def test_who_drops_it_leaves_no_file_open(tmp_path: Path) -> None:
    """A notebook makes guards and forgets them."""
    backend = SQLiteBackend(tmp_path / "q.db")
    backend.execute(reserve("a"))
    connection = backend._connection
    assert connection is not None
    del backend
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
