"""Where a journal's entries go: a file of JSON lines, a SQLite table, memory, or a callable."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .entries import Entry
from .linefile import LineFile

if TYPE_CHECKING:
    import sqlite3

log = logging.getLogger("quotaguard")

KEPT_IN_MEMORY = 100_000
"""Entries that ``memory://`` keeps: the newest."""
_BATCH = 1000
"""Entries in one transaction."""
_START = '{"time":'
"""What each line begins with. In a line it stands nowhere else, since JSON escapes the quotes that
are in its strings."""


class Sink(Protocol):
    """A place for entries. One thread at a time calls it."""

    def write(self, pending: deque[Entry]) -> None:
        """Put the entries there, in order, and take each off ``pending`` once it is there.

        Raises:
            Exception: that failed; what is still in ``pending`` will be tried again.
        """
        ...

    def close(self) -> None:
        """Give back files; they are opened again if there is more to write."""
        ...


class ReadableSink(Sink, Protocol):
    """A place that can be read."""

    def read(self, since: float, until: float) -> Iterator[Entry]:
        """Its entries of ``since <= time < until``, in the order they were written."""
        ...


class Memory:
    """The newest entries, in this process."""

    def __init__(self, most: int = KEPT_IN_MEMORY) -> None:
        self._kept: deque[Entry] = deque(maxlen=most)

    def write(self, pending: deque[Entry]) -> None:
        """Keep them."""
        while pending:
            self._kept.append(pending.popleft())

    def read(self, since: float, until: float) -> Iterator[Entry]:
        """Those of ``since <= time < until``."""
        return (entry for entry in self._kept.copy() if since <= entry.time < until)

    def close(self) -> None:
        """Nothing to give back."""


class Calls:
    """A function that is called with each entry; one that it fails on is not tried again."""

    def __init__(self, function: Callable[[Entry], object]) -> None:
        self._function = function

    def write(self, pending: deque[Entry]) -> None:
        """Call it with each."""
        while pending:
            self._function(pending.popleft())

    def close(self) -> None:
        """Nothing to give back."""


class JsonLines:
    """A file with one JSON object a line, to which many processes may append (`LineFile`)."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = LineFile(path)

    def write(self, pending: deque[Entry]) -> None:
        """Append them."""
        while pending:
            self._file.append(line_of(pending[0]))
            pending.popleft()

    def read(self, since: float, until: float) -> Iterator[Entry]:
        """Those of ``since <= time < until``; what is torn or no entry is left out."""
        if not self.path.exists():
            return
        bad = 0
        with self.path.open("rb") as lines:
            for line in lines:
                entry = entry_of(line)
                if entry is None:
                    bad += bool(line.strip())
                elif since <= entry.time < until:
                    yield entry
        if bad:
            log.warning("%d lines of %s are no entries of a journal", bad, self.path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def line_of(entry: Entry) -> bytes:
    """An entry as a line of JSON, in ASCII."""
    return json.dumps(entry.as_dict(), separators=(",", ":")).encode("ascii") + b"\n"


def entry_of(line: bytes | str) -> Entry | None:
    """The entry in a line; None if there is none.

    Where a process was killed while it wrote, its torn line and the next one are one: then it is
    the entry of the second.
    """
    text = line.decode("ascii", "replace") if isinstance(line, bytes) else line
    start = max(0, text.rfind(_START))
    try:
        return Entry.from_dict(json.loads(text[start:]))
    except (ValueError, RecursionError, AttributeError, IndexError):
        return None


_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS quotaguard_entry (time REAL NOT NULL, body TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS quotaguard_entry_time ON quotaguard_entry (time)",
    """
    CREATE VIEW IF NOT EXISTS quotaguard_usage AS
    SELECT time, json_extract(body, '$.id') AS id, outcome,
        json_extract(body, '$.user') AS user, json_extract(body, '$.org') AS org,
        json_extract(body, '$.tier') AS tier, json_extract(body, '$.requested') AS requested,
        json_extract(body, '$.served') AS served, json_extract(body, '$.limit') AS "limit",
        json_extract(body, '$.waited') AS waited,
        coalesce(json_extract(charged, '$.input_tokens'), 0) AS input_tokens,
        coalesce(json_extract(charged, '$.output_tokens'), 0) AS output_tokens,
        json_extract(charged, '$.nano_usd') AS nano_usd
    FROM (
        SELECT time, body, json_extract(body, '$.outcome') AS outcome,
            CASE WHEN json_extract(body, '$.outcome') = 'served' THEN
                coalesce(json_extract(body, '$.used'), json_extract(body, '$.reserved'))
            ELSE '{}' END AS charged
        FROM quotaguard_entry
    )
    """,
)


class SQLite:
    """A table of a SQLite file: the entries as JSON, and a view ``quotaguard_usage`` with columns.

    Many processes of this host may write to it; it may be the file that the ledger is in.

    Args:
        path: the file.
        timeout: seconds to wait for other processes' transactions.
    """

    def __init__(self, path: str | os.PathLike[str], timeout: float = 5.0) -> None:
        self.path = Path(path)
        self._timeout = timeout
        self._connection: sqlite3.Connection | None = None

    def write(self, pending: deque[Entry]) -> None:
        """Insert them, each thousand in one transaction."""
        if self._connection is None:
            self._connection = self._open()
        connection = self._connection
        while pending:
            rows = [(pending[i].time, line_of(pending[i]).decode()) for i in range(_few(pending))]
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT INTO quotaguard_entry VALUES (?, ?)", rows)
            for _ in rows:
                pending.popleft()

    def _open(self) -> sqlite3.Connection:
        import sqlite3

        connection = sqlite3.connect(
            self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            for statement in _SCHEMA:
                connection.execute(statement)
        except BaseException:
            connection.close()
            raise
        return connection

    def read(self, since: float, until: float) -> Iterator[Entry]:
        """Those of ``since <= time < until``."""
        if not self.path.exists():
            return
        connection = self._open()
        try:
            rows = connection.execute(
                "SELECT body FROM quotaguard_entry WHERE time >= ? AND time < ? ORDER BY rowid",
                (since, until),
            )
            yield from (entry for (body,) in rows if (entry := entry_of(body)) is not None)
        finally:
            connection.close()

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        """Who drops it without closing it leaves no file open."""
        if getattr(self, "_connection", None) is not None:
            self.close()


def _few(pending: deque[Entry]) -> int:
    return min(len(pending), _BATCH)
