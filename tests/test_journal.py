"""The journal: one entry for each call, whatever happens to it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from quotaguard import (
    ConfigurationError,
    Entry,
    Fallback,
    Guard,
    Journal,
    ModelNotAllowed,
    QuotaExceeded,
    Usage,
    Wait,
    journal,
)
from quotaguard.events import Event, Waiting
from quotaguard.testing.clock import START
from tests.books import call, guard_of, kept


@pytest.fixture(params=["usage.jsonl", "sqlite", "memory"])
def to(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Every kind of journal that can be read back."""
    url = {"sqlite": f"sqlite:///{tmp_path}/usage.db", "memory": "memory://"}
    return url.get(request.param, str(tmp_path / request.param))


def test_a_guard_may_begin_to_keep_one_later() -> None:
    """A guard of a configuration file may be told where by the command line; but only once."""
    guard = Guard(limits=["100 tokens/day"])
    guard.keep_journal("memory://")
    with guard.hold(user="ann", input_tokens=10, output_tokens=0):
        pass
    assert [row.calls for row in guard.report("all").rows.values()] == [1]
    with pytest.raises(ConfigurationError, match="keeps a journal already"):
        guard.keep_journal("memory://")


def test_a_served_call(to: str) -> None:
    """Who, which model, when, what was reserved, used and paid."""
    guard = guard_of(to)
    with guard.hold(
        user="alice", org="acme", model="large", input_tokens=80, output_tokens=0
    ) as held:
        guard.clock.advance(3)  # type: ignore[attr-defined]
        held.record(input_tokens=40)
    assert kept(guard) == [
        Entry(
            START + 3,
            held.id,
            "served",
            "alice",
            "acme",
            "pro",
            requested="large",
            served="large",
            began=START,
            reserved=Usage(1, 80, nano_usd=800_000),
            used=Usage(1, 40, nano_usd=400_000),
            in_full=400_000,
            stated=True,
        )
    ]
    guard.close()


def test_a_refused_call(to: str) -> None:
    """Which limit, and what it was estimated to cost."""
    guard = guard_of(to)
    for tokens, model in ((101, "large"), (80, "large"), (60, "large"), (1, "huge")):
        with suppress(QuotaExceeded, ModelNotAllowed):
            call(guard, tokens, model)
    guard.close()
    large, _, exceeded, denied = kept(guard)
    limit = "100 tokens/minute for large"
    assert (large.outcome, large.reason, large.limit) == ("refused", "request_too_large", limit)
    assert (large.reserved, large.used) == (Usage(1, 101, nano_usd=1_010_000), None)
    assert (large.requested, large.served, large.began) == ("large", None, None)
    # 60 were left of the call that used 40 of 80: this one was served
    assert exceeded.outcome == "served"
    assert (denied.outcome, denied.reason, denied.limit) == ("refused", "model_not_allowed", None)
    assert denied.reserved.nano_usd is None


def test_a_fallback_and_a_wait(to: str) -> None:
    """What the model asked for would have cost, and how long the call stood in line."""
    guard = guard_of(to, when_exceeded=[Fallback("small"), Wait(60, backoff=None)])
    for _ in range(3):
        call(guard, 80)
    first, fell, waited = kept(guard)
    limit = "100 tokens/minute for large"
    assert (first.because, first.saved) == (None, 0)
    assert (fell.requested, fell.served, fell.because) == ("large", "small", limit)
    assert (fell.charged.nano_usd, fell.in_full, fell.saved) == (40_000, 400_000, 360_000)
    assert waited.waited == pytest.approx(12)
    assert waited.began == pytest.approx(START + 12)
    guard.close()


def test_a_refusal_after_a_wait_says_how_long() -> None:
    """It stood in line, and then had to be refused all the same."""

    def take_away(event: Event) -> None:
        if isinstance(event, Waiting):
            guard.grant(-60, user="alice", by="an operator")

    guard = guard_of("memory://", when_exceeded=Wait(13, backoff=None))
    guard.tell.add(take_away)
    call(guard, 80)
    with pytest.raises(QuotaExceeded):
        call(guard, 80)
    _, adjusted, refused = kept(guard)
    assert (adjusted.outcome, refused.outcome) == ("adjusted", "refused")
    assert refused.waited == pytest.approx(12)


@pytest.mark.parametrize(
    ("tokens", "policies", "observed", "reason"),
    [
        (100, (), "refused", "quota_exceeded"),
        (101, (), "refused", "request_too_large"),
        (100, Wait(60), "delayed", None),
        (100, Fallback("small"), "downgraded", None),
    ],
)
def test_an_observed_call_is_one_entry(
    tokens: int, policies: Any, observed: str, reason: str | None
) -> None:
    """What would have been done with it, and by which limit, stands in the entry of the call."""
    guard = guard_of("memory://", "observe", policies)
    call(guard, 100)
    call(guard, tokens)
    first, second = kept(guard)
    assert (first.observed, first.limit) == (None, None)
    assert (second.outcome, second.observed, second.reason) == ("served", observed, reason)
    assert second.limit == "100 tokens/minute for large"
    assert (second.served, second.because, second.saved) == ("large", None, 0)


def test_adjustments_leave_an_audit_entry(to: str) -> None:
    """Who did it, for whom, how much each bucket got and had then."""
    guard = guard_of(to)
    call(guard, 80)
    guard.grant(-10, user="alice", by="an operator", id="ticket 7")
    _, entry = kept(guard)
    assert (entry.time, entry.id, entry.outcome) == (START, "ticket 7", "adjusted")
    assert (entry.user, entry.by) == ("alice", "an operator")
    assert entry.changes == (
        ("100 tokens/minute for large", -10.0, 50.0),
        ("100 tokens/minute for small", -10.0, 90.0),
    )
    guard.close()


def test_a_callable_gets_each_entry_in_order(caplog: pytest.LogCaptureFixture) -> None:
    """One that fails on an entry is not asked again, the error is logged once."""
    seen: list[str | None] = []

    def take(entry: Entry) -> None:
        seen.append(entry.user)
        if entry.user in ("2", "3"):
            raise ZeroDivisionError("no prompt here")

    guard = guard_of(take)
    for user in "12345":
        call(guard, 1, user=user)
    guard.close()
    assert seen == list("12345")
    assert guard.journal is not None
    assert guard.journal.lost == 2
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    with pytest.raises(ConfigurationError, match="can't be read back"):
        guard.report()


def test_a_disk_that_fails_holds_up_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls go on, the error is logged once, and what could not be written is when it can be."""
    monkeypatch.setattr(journal, "RETRY", 0.001)
    folder = tmp_path / "missing"
    guard = guard_of(folder / "usage.jsonl")
    for _ in range(5):
        call(guard, 1)
    assert kept(guard) == []
    folder.mkdir()
    call(guard, 1)
    assert len(kept(guard)) == 6
    assert guard.journal is not None
    assert guard.journal.lost == 0
    assert len(caplog.records) == 1
    guard.close()


def test_what_waits_to_be_written_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is too much is lost, and counted; so is what can't be written when it is closed."""
    monkeypatch.setattr(journal, "MOST_PENDING", 3)
    guard = guard_of(tmp_path / "missing" / "usage.jsonl")
    for _ in range(5):
        call(guard, 1)
    assert guard.journal is not None
    assert guard.journal.lost == 2
    guard.close()
    assert guard.journal.lost == 5
    assert len(caplog.records) == 1


def test_a_call_after_the_guard_is_closed_is_written(tmp_path: Path) -> None:
    """Such as the rest of a stream."""
    guard = guard_of(tmp_path / "usage.jsonl")
    guard.close()
    call(guard, 1)
    assert len(kept(guard)) == 1
    assert guard.journal is not None
    guard.journal.close()


_WRONG_URLS = ["sqlite:///", "sqlite:///a?b=c", "sqlite:///:memory:", "sqlite:///a?timeout=x"]


def test_one_journal_for_two_guards() -> None:
    """Closing one of them leaves it to the other; each dates by its own clock."""
    shared = Journal("memory://")
    one, two = guard_of(shared), guard_of(shared)
    two.clock.advance(60)  # type: ignore[attr-defined]
    call(one, 1)
    one.close()
    call(two, 1)
    assert [entry.time for entry in shared.entries()] == [START, START + 60]
    shared.close()


@pytest.mark.parametrize("wrong", ["", "usage.db", "redis://x", 7, ["a.jsonl"], *_WRONG_URLS])
def test_a_wrong_place_is_an_error(wrong: Any) -> None:
    """It says what would be right."""
    with pytest.raises(ConfigurationError, match=r"usage.jsonl|usage.db|seconds"):
        Guard(journal=wrong)


_MANY = """
import sys
from quotaguard import Guard
guard = Guard(journal=sys.argv[1])
for number in range(300):
    with guard.hold(user=f"{sys.argv[2]} {number} " + "x" * number) as lease:
        lease.record(input_tokens=number)
"""


@pytest.mark.parametrize("kind", ["usage.jsonl", "sqlite:///usage.db"])
def test_processes_append_at_once_and_lose_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four of them, who end without closing anything."""
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-c", _MANY, kind]
    root = str(Path(__file__).parents[1])
    writers = [
        subprocess.Popen([*command, str(n)], cwd=tmp_path, env={"PYTHONPATH": root})
        for n in range(4)
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    found = [entry.user for entry in Journal(kind).entries()]
    assert len(found) == 1200
    assert set(found) == {
        f"{n} {number} " + "x" * number for n in range(4) for number in range(300)
    }


_FORKS = """
import multiprocessing, os, sys, warnings
from quotaguard import Guard
warnings.simplefilter("ignore")
guard = Guard(journal=sys.argv[1])

def call(user):
    with guard.hold(user=user):
        pass

call("parent")
fork = multiprocessing.get_context("fork")
children = [fork.Process(target=call, args=(f"child {n}",)) for n in range(3)]
for child in children:
    child.start()
call("parent")
for child in children:
    child.join()

class Last:
    def cut(self):
        call("at exit")
from quotaguard import errands
last = Last()
errands.expect(guard, last)
"""


@pytest.mark.parametrize("kind", ["usage.jsonl", "sqlite:///usage.db"])
def test_forks_and_last_words(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child writes its own and nothing of its parent's; what is said at exit is kept."""
    monkeypatch.chdir(tmp_path)
    root = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", _FORKS, kind]
    subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": root}, check=True, timeout=60)
    found = sorted(str(entry.user) for entry in Journal(kind).entries())
    assert found == ["at exit", "child 0", "child 1", "child 2", "parent", "parent"]


def test_a_dropped_guard_still_writes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody closed it; its thread writes what there was and ends."""
    path = tmp_path / "usage.jsonl"
    guard = guard_of(path)
    call(guard, 1)
    assert guard.journal is not None
    thread = guard.journal._writer._thread
    assert thread is not None
    del guard
    thread.join(20)
    assert not thread.is_alive()
    assert json.loads(path.read_text())["user"] == "alice"
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
