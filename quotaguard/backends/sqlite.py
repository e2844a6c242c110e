"""The ledger in a file of this host: many processes, one truth, and a restart forgets nothing.

Every operation is one ``BEGIN IMMEDIATE`` transaction over `quotaguard.core.ledger.Ledger`, so the
rules are the ones of the memory backend. WAL mode keeps the file sound when a process is killed in
the middle. All processes share this host's clock.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, unquote

from ..clock import Clock, SystemClock
from ..core import bucket
from ..core.ledger import Held, Key, State
from ..core.ops import Answer, Merge, Merged, Op, Park, Queued, Reservation, Reserve
from ..core.summary import fold
from ..errors import BackendError, ConfigurationError
from ..limits import Limit
from . import records
from .bells import Bells
from .line import Line
from .pulse import Pulse
from .sqlite_places import SCHEMA, SQLitePlaces, back_by

REMEMBERED = 86_400.0
"""Seconds that a closed reservation's id is remembered, so that repeating changes nothing."""
POLL, IDLE = 0.01, 10.0
"""Seconds between two looks whether another process has let in somebody who waits in this one, as
nobody can ring through a file, and between two of them while nobody waits."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS bucket (
    owner TEXT, "limit" TEXT, drained REAL NOT NULL, at REAL NOT NULL, full_at REAL NOT NULL,
    PRIMARY KEY (owner, "limit")
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS full_buckets ON bucket (full_at);
CREATE TABLE IF NOT EXISTS reservation (
    id TEXT PRIMARY KEY, status TEXT NOT NULL, ends REAL NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ending ON reservation (status, ends);
CREATE TABLE IF NOT EXISTS summary (
    name TEXT PRIMARY KEY, until REAL NOT NULL, weights TEXT NOT NULL
) WITHOUT ROWID;
"""


class SQLiteBackend:
    """A `quotaguard.backends.Backend` over one SQLite file.

    Args:
        path: the file; it and its folder's journal files must be writable. Not a network drive:
            SQLite's locks do not hold there.
        timeout: seconds to wait for other processes' transactions before `BackendError`.
        clock: where "now" comes from; every process must be given the same.
    """

    shared = True

    def __init__(
        self, path: str | Path, *, timeout: float = 5.0, clock: Clock | None = None
    ) -> None:
        if str(path) in ("", ":memory:"):
            raise ConfigurationError(
                f"the sqlite backend needs a file, not {str(path)!r}; 'memory://' is the backend "
                "that keeps nothing"
            )
        self._path = str(path)
        self._timeout = timeout
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._watching: sqlite3.Connection | None = None
        self._seen = 0
        """The file's version when it was last looked at for who was let in."""
        self._begin_waiting()
        with self._lock, self._failing():
            self._open()
        _backends.add(self)

    @classmethod
    def from_url(cls, url: str, clock: Clock | None = None) -> SQLiteBackend:
        """The backend of ``sqlite:///relative.db``, ``sqlite:////absolute.db``, with
        ``?timeout=seconds`` if 5 are not right.

        Raises:
            ConfigurationError: the URL is not of that form.
        """
        rest, _, query = url.partition("?")
        path = unquote(rest.removeprefix("sqlite:///"))
        options = parse_qs(query)
        if not path or path == rest or set(options) - {"timeout"}:
            raise ConfigurationError(
                f"cannot read {url!r}; a file of this folder is 'sqlite:///quota.db', an absolute "
                "path 'sqlite:////var/lib/quota.db', the only option '?timeout=5'"
            )
        try:
            timeout = float(options.get("timeout", ["5"])[0])
        except ValueError as error:
            raise ConfigurationError(f"timeout in {url!r} is a number of seconds") from error
        return cls(path, timeout=timeout, clock=clock)

    def execute(self, op: Op) -> Answer:
        """Carry out one operation; only `Park` blocks for long."""
        if isinstance(op, Park):
            self._bells.park(op)
            return None
        return self._carry_out(op)

    async def aexecute(self, op: Op) -> Answer:
        """The same in a worker thread: a transaction waits for those of other processes."""
        if isinstance(op, Park):
            await self._bells.apark(op)
            return None
        return await _in_a_thread(partial(self._carry_out, op))

    def close(self) -> None:
        """Close the file."""
        self._watch.stop()
        with self._lock:
            for connection in (self._connection, self._watching):
                if connection is not None:
                    connection.close()
            self._connection = self._watching = None

    def _carry_out(self, op: Op) -> Answer:
        rung: list[tuple[str, float]] = []
        with self._transaction() as connection:
            answer = self._transact(op, connection, lambda *ring: rung.append(ring))
            self._bells.note(op, answer)
        for ring in rung:
            self._bells.ring(*ring)
        if isinstance(answer, Queued):
            self._watch.start()
            self._watch.ring()
        return answer

    def _transact(
        self, op: Op, connection: sqlite3.Connection, ring: Callable[[str, float], None]
    ) -> Answer:
        now = self._clock.now()
        store = _Store(connection, now)
        if type(op) is Merge:
            return store.merge(op)
        answer = Line(store, SQLitePlaces(connection), ring).carry_out(op, now)
        if type(op) is Reserve:
            store.sweep()
            if op.instead_of is not None and isinstance(answer, Reservation):
                store.keep_changed(op.instead_of)
        return answer

    def _look_for_rings(self) -> float:
        """Ring for whom another process has let in."""
        if not len(self._bells):
            return IDLE
        with suppress(sqlite3.Error):  # the file is away: whoever waits will find out
            if self._watching is None:
                self._watching = self._connect()
            (version,) = self._watching.execute("PRAGMA data_version").fetchone()
            if version != self._seen:
                for ring in back_by(self._watching):
                    self._bells.ring(*ring)
                self._seen = version
        return POLL

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._failing():
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise BackendError(f"the ledger in {self._path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = self._connect()
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False
        )

    def _prepare(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError:
                # Changing the mode does not wait for others by itself, as a transaction does.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA + SCHEMA)

    def _after_fork(self) -> None:
        """A connection must not be used, nor closed, in a child: it is left alone."""
        self._lock = threading.Lock()
        _inherited.extend(c for c in (self._connection, self._watching) if c is not None)
        self._connection = self._watching = None
        self._begin_waiting()

    def _begin_waiting(self) -> None:
        self._bells = Bells(self._clock)
        self._watch: Pulse = Pulse(self._look_for_rings, IDLE)

    def __del__(self) -> None:
        """Who drops it without closing it leaves no file open; nobody else can use it any more."""
        for connection in (getattr(self, "_connection", None), getattr(self, "_watching", None)):
            if connection is not None:
                connection.close()

    def __repr__(self) -> str:
        return f"<SQLiteBackend {self._path}>"


class _Store:
    """`quotaguard.core.ledger.Store` over the tables, within one transaction."""

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self._run = connection.execute
        self._now = now
        self._loaded: dict[str, Held] = {}

    def bucket(self, key: Key) -> State | None:
        found: State | None = self._run(
            'SELECT drained, at FROM bucket WHERE owner = ? AND "limit" = ?',
            (records.owner_text(key[0]), key[1]),
        ).fetchone()
        return found

    def put(self, key: Key, limit: Limit, state: State) -> None:
        drained, at = state
        name = (records.owner_text(key[0]), key[1])
        if drained <= 0.0:
            self._run('DELETE FROM bucket WHERE owner = ? AND "limit" = ?', name)
            return
        full_at = at + bucket.full_in(limit, drained, at, at)
        self._run("REPLACE INTO bucket VALUES (?, ?, ?, ?, ?)", (*name, drained, at, full_at))

    def held(self, id: str) -> Held | None:
        if id not in self._loaded:
            row = self._run("SELECT body FROM reservation WHERE id = ?", (id,)).fetchone()
            if row is None:
                return None
            self._loaded[id] = records.load(row[0])
        return self._loaded[id]

    def keep_changed(self, id: str) -> None:
        """Write what another reservation was admitted instead of; it holds nothing now."""
        held = self._loaded.get(id)
        if held is not None and held.status == "open":
            self._keep(held, held.expires)

    def hold(self, held: Held, lease: float) -> None:
        self._keep(held, held.expires)

    def closed(self, held: Held) -> None:
        self._keep(held, self._now + REMEMBERED)

    def _keep(self, held: Held, ends: float) -> None:
        self._run(
            "REPLACE INTO reservation VALUES (?, ?, ?, ?)",
            (held.answer.id, held.status, ends, records.dump(held)),
        )

    def due(self, now: float) -> Iterable[Held]:
        return self._open("AND ends <= ?", now)

    def next_expiry(self) -> float:
        """When the next lease ends, infinite if none is open."""
        (ends,) = self._run("SELECT min(ends) FROM reservation WHERE status = 'open'").fetchone()
        return float("inf") if ends is None else float(ends)

    def open_on(self, key: Key) -> float:
        return sum(
            charged
            for held in self._open()
            for charge, charged in zip(held.charges, held.charged, strict=True)
            if (charge.owner, charge.limit.id) == key
        )

    def merge(self, op: Merge) -> Merged:
        """Add to summaries, and forget those that nobody added to."""
        self._run("DELETE FROM summary WHERE until <= ?", (self._now,))
        merged = []
        for name, added, most in op.summaries:
            text = records.owner_text(name)
            row = self._run("SELECT weights FROM summary WHERE name = ?", (text,)).fetchone()
            weights = fold(records.load_weights(row[0]) if row else {}, added, most)
            if added:
                until, kept = self._now + op.kept, records.dump_weights(weights)
                self._run("REPLACE INTO summary VALUES (?, ?, ?)", (text, until, kept))
            merged.append(weights)
        return Merged(tuple(merged))

    def sweep(self) -> None:
        """Forget what is full, and what was closed long ago."""
        self._run("DELETE FROM bucket WHERE full_at <= ?", (self._now,))
        for status in ("settled", "expired"):
            self._run("DELETE FROM reservation WHERE status = ? AND ends <= ?", (status, self._now))

    def _open(self, which: str = "", *values: float) -> list[Held]:
        rows = self._run(f"SELECT body FROM reservation WHERE status = 'open' {which}", values)  # noqa: S608
        return [records.load(body) for (body,) in rows.fetchall()]


async def _in_a_thread(function: Callable[[], Answer]) -> Answer:
    """What it gives. A task that is cancelled goes on only when it has ended: what is done about
    the operation then, such as to leave the line, must come after it.
    """
    work = asyncio.get_running_loop().run_in_executor(None, function)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with suppress(asyncio.CancelledError):  # once is enough
                await asyncio.wait({work})
        work.exception()  # nobody asks for it
        raise


_backends: weakref.WeakSet[SQLiteBackend] = weakref.WeakSet()
_inherited: list[sqlite3.Connection] = []


def _after_fork() -> None:
    for backend in list(_backends):
        backend._after_fork()


os.register_at_fork(after_in_child=_after_fork)
