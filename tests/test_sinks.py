"""Files and tables of entries: read as they were written, whatever happened to them."""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quotaguard import (
    Entry,
    Fallback,
    Guard,
    Journal,
    QuotaExceeded,
    Usage,
)
from quotaguard.errors import BackendError
from quotaguard.sinks import JsonLines, Memory, SQLite, entry_of, line_of
from quotaguard.testing import FakeClock
from quotaguard.testing.clock import START
from tests.books import call, entries, guard_of, kept


@pytest.fixture(params=["usage.jsonl", "sqlite", "memory"])
def to(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Every kind of journal that can be read back."""
    url = {"sqlite": f"sqlite:///{tmp_path}/usage.db", "memory": "memory://"}
    return url.get(request.param, str(tmp_path / request.param))


def test_the_period_is_half_open(to: str) -> None:
    """Entries at its start are in it, those at its end are not."""
    kept = Journal(to)
    hook = kept.listening(clock := FakeClock().now)
    assert clock() == START
    guard = Guard(hooks=[hook], clock=FakeClock())
    with guard.hold(user="alice"):
        pass
    assert [len(list(kept.entries(*span))) for span in _SPANS] == [1, 1, 1, 0, 0]
    kept.close()


_SPANS = [(None, None), (START, None), (START, START + 1), (None, START), (START + 1, None)]


@given(st.lists(entries, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_entries_are_read_as_they_were_written(to: str, written: list[Entry]) -> None:
    """Whatever the names and numbers: each is one line, and comes back equal."""
    assert all(line_of(entry).count(b"\n") == 1 for entry in written)
    assert [entry_of(line_of(entry)) for entry in written] == written
    path = to.removeprefix("sqlite:///")
    Path(path).unlink(missing_ok=True)
    sink = Memory() if to == "memory://" else JsonLines(to) if path == to else SQLite(path)
    sink.write(deque(written))
    sink.close()
    assert list(sink.read(0, 1e11)) == written


@given(st.lists(entries, min_size=2, max_size=4), st.data())
def test_a_torn_line_costs_one_entry(written: list[Entry], data: st.DataObject) -> None:
    """One process was killed while it wrote, another one wrote on: only the torn one is gone."""
    lines = [line_of(entry) for entry in written]
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at]) - 2))]
    found = [entry_of(line) for line in b"".join(lines).split(b"\n")]
    assert [e for e in found if e is not None] == written[:at] + written[at + 1 :]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "null",
        "[]",
        "7",
        "{}",
        '{"time":1}',
        '{"time":1,"id":"x"}',
        '{"time":1,"id":"x","outcome":"eaten"}',
        '{"time":1,"id":7,"outcome":"served"}',
        '{"time":1,"id":"x","outcome":"served","used":{"input_tokens":"many"}}',
        '{"time":1,"id":"x","outcome":"served","used":{"input_tokens":1.5}}',
        '{"time":1,"id":"x","outcome":"served","used":[1]}',
        '{"time":1,"id":"x","outcome":"served","in_full":"x"}',
        '{"time":1,"id":"x","outcome":"served","changes":[[1]]}',
        "[" * 100_000,
    ],
)
def test_what_is_no_entry_is_left_out(tmp_path: Path, line: str) -> None:
    """And what stands around it is read; only whole lines are complained of."""
    path = tmp_path / "usage.jsonl"
    good = line_of(Entry(1.0, "x", "served"))
    path.write_bytes(good + line.encode() + b"\n" + good)
    assert len(list(Journal(path).entries())) == 2


def test_keys_of_a_newer_version_are_left_out() -> None:
    """An older reader reads what it knows."""
    said = Entry(1.0, "x", "served", used=Usage(1)).as_dict() | {"mood": "good"}
    said["used"]["pictures"] = 2
    assert Entry.from_dict(said) == Entry(1.0, "x", "served", used=Usage(1))


def test_a_torn_file_is_continued_on_a_new_line(tmp_path: Path) -> None:
    """After a power failure nothing that is written then is lost."""
    path = tmp_path / "usage.jsonl"
    path.write_text('{"time":1,"id":"to')
    guard = guard_of(path)
    call(guard, 10)
    assert [entry.user for entry in kept(guard)] == ["alice"]
    assert path.read_text().splitlines()[0] == '{"time":1,"id":"to'
    guard.close()


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    """As logrotate does."""
    path, old = tmp_path / "usage.jsonl", tmp_path / "usage.jsonl.1"
    guard = guard_of(path)
    call(guard, 10)
    assert len(kept(guard)) == 1
    path.rename(old)
    call(guard, 10)
    call(guard, 10)
    assert (len(kept(guard)), len(list(Journal(old).entries()))) == (2, 1)
    guard.close()


def test_the_view_has_columns(tmp_path: Path) -> None:
    """SQL on the table of a SQLite journal gives the sums that a report gives."""
    path = tmp_path / "usage.db"
    guard = guard_of(f"sqlite:///{path}", when_exceeded=Fallback("small"))
    for _ in range(3):
        with suppress(QuotaExceeded):
            call(guard, 80)
    with guard.hold(user="alice", model="small", input_tokens=1, output_tokens=2):
        pass  # nobody says what it used
    guard.close()
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT served, outcome, sum(input_tokens), sum(output_tokens), sum(nano_usd)"
        " FROM quotaguard_usage GROUP BY served, outcome ORDER BY served, outcome"
    ).fetchall()
    connection.close()
    assert rows == [
        (None, "refused", 0, 0, None),
        ("large", "served", 40, 0, 400_000),
        ("small", "served", 41, 2, 45_000),
    ]
    total = guard.report("all").total
    assert (total.input_tokens, total.output_tokens, total.nano_usd) == (81, 2, 445_000)


def test_a_full_disk_tears_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of which only a part could be written is written again, on a line of its own."""
    path = tmp_path / "usage.jsonl"
    whole, short = os.write, iter([10, 0])

    def write(fd: int, data: bytes) -> int:
        most = next(short, None)
        return whole(fd, data if most is None else data[:most])

    monkeypatch.setattr("quotaguard.sinks.os.write", write)
    sink, entry = JsonLines(path), Entry(1.0, "x", "served")
    pending = deque([entry, entry])
    for _ in range(2):
        with pytest.raises(OSError, match="only"):
            sink.write(pending)
    sink.write(pending)
    sink.close()
    assert list(sink.read(0, 2)) == [entry, entry]


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    """When it is read; calls go on."""
    path = tmp_path / "usage.db"
    path.write_text("this is no database, and long enough to be seen as none" * 50)
    with pytest.raises(BackendError, match="could not be read"):
        list(Journal(f"sqlite:///{path}").entries())
