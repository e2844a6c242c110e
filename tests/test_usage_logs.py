"""Logs that a simulation replays."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from quotaguard import BackendError, ConfigurationError, Guard, Journal, Usage
from quotaguard.testing import FakeClock
from quotaguard.testing.clock import START
from tests.books import PRICES, kept
from tests.test_simulation import GUARD, fates, line


@pytest.mark.parametrize("kind", ["path", "text", "sqlite", "journal", "entries"])
def test_logs_of_all_kinds(kind: str, tmp_path: Path) -> None:
    """A journal, where it lies, or what it holds."""
    place = f"sqlite:///{tmp_path}/usage.db" if kind == "sqlite" else str(tmp_path / "usage.jsonl")
    guard = Guard(limits=["1k tokens/day"], journal=place, prices=PRICES, clock=FakeClock())
    with guard.hold(user="ann", model="large", input_tokens=300, output_tokens=0):
        pass
    guard.grant(5, user="ann", by="ops")
    guard.close()
    log: Any = {"path": Path(place), "journal": guard.journal}.get(kind, place)
    found = guard.simulate(kept(guard) if kind == "entries" else log, limits=["100 tokens/day"])
    assert (fates(found), found.left_out) == ("r", 1)


def test_lines_of_ones_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Documented fields; what else is there does not matter; a torn line is left out, and said."""
    file = tmp_path / "calls.jsonl"
    lines = [
        {"time": "2026-01-01T01:00:00+01:00", "user": "ann", "model": "large", "input_tokens": 5},
        {"time": START + 1, "output_tokens": 2, "usd": "0.5", "seconds": 3, "mood": "good"},
    ]
    file.write_text("\n".join(map(json.dumps, lines)) + '\n\n{"time": 17')
    found = GUARD.simulate(file)
    first, second = found.did
    assert (first.began, first.user, first.charged) == (START, "ann", Usage(1, 5, nano_usd=50_000))
    assert (second.time, second.charged.usd, second.user) == (START + 4, Decimal("0.5"), None)
    assert "1 lines of" in caplog.text


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"time": 1}, "a call has time, and input_tokens or output_tokens; this one has time"),
        ({"input_tokens": 1}, "this one has input_tokens"),
        ({"time": 1, "input_tokens": "5"}, "input_tokens is a whole number >= 0, not '5'"),
        ({"time": 1, "input_tokens": -5}, "input_tokens is a whole number >= 0, not -5"),
        ({"time": 1, "input_tokens": True}, "input_tokens is a whole number >= 0, not True"),
        ({"time": 1, "input_tokens": 5, "max_tokens": 0.5}, "max_tokens is a whole number"),
        ({"time": "noon", "input_tokens": 5}, "'2026-01-31T12:00:00Z', not 'noon'"),
        ({"time": 1.7e12, "input_tokens": 5}, "seconds since the epoch"),
        ({"time": None, "input_tokens": 5}, "not None"),
        ({"time": 1, "input_tokens": 5, "user": 7}, "user is a text, not 7"),
        ({"time": 1, "input_tokens": 5, "seconds": -1}, "seconds is how long"),
        ({"time": 1, "input_tokens": 5, "usd": "much"}, "usd is what the call cost"),
        ({"time": 1, "outcome": "lost"}, "no entry of a journal"),
        ([1, 2], r"a call is a JSON object, not [1, 2]"),
    ],
)
def test_wrong_lines(said: object, words: str, tmp_path: Path) -> None:
    """The error names the file, the line, the value, and what is right."""
    file = tmp_path / "calls.jsonl"
    file.write_text(json.dumps(line(0, 1)) + "\n" + json.dumps(said))
    with pytest.raises(ConfigurationError) as refused:
        GUARD.simulate(file)
    assert str(refused.value).startswith(f"{file}, line 2: ")
    assert words in str(refused.value)


def test_logs_that_are_none(tmp_path: Path) -> None:
    """Each with its own error."""
    with pytest.raises(ConfigurationError, match="a usage log is a journal, a path"):
        GUARD.simulate(5)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match=r"no\.jsonl: No such file"):
        GUARD.simulate(tmp_path / "no.jsonl")
    with pytest.raises(ConfigurationError, match="can't be read back"):
        GUARD.simulate(Journal(print))
    assert GUARD.simulate([]).total.did.calls == 0
