"""Places in line in the tables of a SQLite file, within one transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from sqlite3 import Connection

from ..core.ledger import Key
from . import records
from .places import NEXT, Spot, Turn, Waiter

SCHEMA = """
CREATE TABLE IF NOT EXISTS waiter (
    id TEXT PRIMARY KEY, place REAL NOT NULL, back_by REAL NOT NULL, deadline REAL NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS patience ON waiter (deadline);
CREATE INDEX IF NOT EXISTS places ON waiter (place);
CREATE TABLE IF NOT EXISTS spot (
    bucket TEXT, turn REAL, place REAL, id TEXT NOT NULL, least REAL NOT NULL,
    PRIMARY KEY (bucket, turn, place)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS flow (
    bucket TEXT, name TEXT, finish REAL NOT NULL, PRIMARY KEY (bucket, name)
) WITHOUT ROWID;
"""
SERVED = ""
"""The text that the latest start of a bucket has among its flows; a flow's is longer."""


class SQLitePlaces:
    """`quotaguard.backends.places.Places` over these tables."""

    def __init__(self, connection: Connection) -> None:
        self._run = connection.execute
        self._loaded: dict[str, Waiter] = {}

    def __bool__(self) -> bool:
        return self._run("SELECT 1 FROM waiter LIMIT 1").fetchone() is not None

    def waiter(self, id: str) -> Waiter | None:
        if id not in self._loaded:
            row = self._run(
                "SELECT place, back_by, deadline, body FROM waiter WHERE id = ?", (id,)
            ).fetchone()
            if row is None:
                return None
            self._loaded[id] = _read(id, *row)
        return self._loaded[id]

    def next_place(self, now: float) -> float:
        (last,) = self._run("SELECT max(place) FROM waiter").fetchone()
        return now if last is None else max(now, float(last) + NEXT)

    def keep(self, waiter: Waiter) -> None:
        self._loaded[waiter.id] = waiter
        self._run(
            "REPLACE INTO waiter VALUES (?, ?, ?, ?, ?)",
            (waiter.id, waiter.place, waiter.back_by, waiter.deadline, _written(waiter)),
        )

    def forget(self, waiter: Waiter) -> None:
        self._loaded.pop(waiter.id, None)
        self._run("DELETE FROM waiter WHERE id = ?", (waiter.id,))

    def stand(self, waiter: Waiter, spot: Spot) -> None:
        self._loaded[waiter.id] = waiter
        self._run(
            "INSERT INTO spot VALUES (?, ?, ?, ?, ?)",
            (records.bucket_text(spot.key), *spot.turn, waiter.id, spot.charge.least),
        )
        spot.standing = True

    def step_out(self, waiter: Waiter, spot: Spot) -> None:
        name = records.bucket_text(spot.key)
        self._run(
            "DELETE FROM spot WHERE bucket = ? AND turn = ? AND place = ?", (name, *spot.turn)
        )
        spot.standing = False
        if spot.charge.limit.fair and not self._is_waited_for(name):
            self._run("DELETE FROM flow WHERE bucket = ?", (name,))

    def line(self, key: Key) -> Iterator[Waiter]:
        name = records.bucket_text(key)
        turn: Turn = (float("-inf"), 0.0)
        while True:
            row = self._run(
                "SELECT turn, place, id FROM spot WHERE bucket = ? AND (turn, place) > (?, ?) "
                "ORDER BY turn, place LIMIT 1",
                (name, *turn),
            ).fetchone()
            if row is None:
                return
            turn = (row[0], row[1])
            waiter = self.waiter(row[2])
            assert waiter is not None  # who stands in a line has its row
            yield waiter

    def wanted(self, key: Key, before: Turn) -> float:
        (wanted,) = self._run(
            "SELECT total(least) FROM spot WHERE bucket = ? AND (turn, place) < (?, ?)",
            (records.bucket_text(key), *before),
        ).fetchone()
        return float(wanted)

    def overdue(self, until: float) -> Iterable[Waiter]:
        rows = self._run("SELECT id FROM waiter WHERE deadline < ?", (until,)).fetchall()
        found = [self.waiter(id) for (id,) in rows]
        return [waiter for waiter in found if waiter is not None]

    def start(self, key: Key, flow: str) -> float:
        (start,) = self._run(
            "SELECT max(finish) FROM flow WHERE bucket = ? AND name IN (?, ?)",
            (records.bucket_text(key), _text(flow), SERVED),
        ).fetchone()
        return float(start or 0.0)

    def finish(self, key: Key, flow: str, at: float) -> None:
        self._finish(records.bucket_text(key), _text(flow), at)

    def _finish(self, bucket: str, name: str, at: float) -> None:
        if self._is_waited_for(bucket):
            self._run("REPLACE INTO flow VALUES (?, ?, ?)", (bucket, name, at))

    def serve(self, key: Key, start: float) -> None:
        name = records.bucket_text(key)
        (served,) = self._run(
            "SELECT finish FROM flow WHERE bucket = ? AND name = ?", (name, SERVED)
        ).fetchone() or (0.0,)
        if start > served:
            self._finish(name, SERVED, start)
            self._run("DELETE FROM flow WHERE bucket = ? AND finish < ?", (name, start))

    def _is_waited_for(self, bucket: str) -> bool:
        found = self._run("SELECT 1 FROM spot WHERE bucket = ? LIMIT 1", (bucket,)).fetchone()
        return found is not None


def _text(flow: str) -> str:
    return records.owner_text((flow,))


def back_by(connection: Connection) -> list[tuple[str, float]]:
    """Who waits, and when each is to ask again."""
    return connection.execute("SELECT id, back_by FROM waiter").fetchall()


def _written(waiter: Waiter) -> str:
    spots = [
        (records.charge_facts(spot.charge), spot.turn, spot.start, spot.due, spot.standing)
        for spot in waiter.spots.values()
    ]
    return json.dumps((waiter.flow, waiter.weight, spots))


def _read(id: str, place: float, back_by: float, deadline: float, body: str) -> Waiter:
    flow, weight, spots = json.loads(body)
    waiter = Waiter(id, place, flow, weight)
    waiter.back_by, waiter.deadline = back_by, deadline
    for facts, turn, start, due, standing in spots:
        spot = Spot(records.charge_of(facts), tuple(turn), start)
        spot.due, spot.standing = due, standing
        waiter.spots[spot.key] = spot
    return waiter
