"""What is shown of jobs and waits: by whom, and that nobody has to wait for it."""

from __future__ import annotations

import gc
import io
import re
import sys
import threading
import time

import pytest

from quotaguard import Guard, Identity, Usage, Wait
from quotaguard.events import Admitted, Waited, Waiting
from quotaguard.progress import WaitProgress, Waits, _bars
from quotaguard.testing import FakeClock
from tests.core.world import until
from tests.jobs.kit import Way, each_way, new_guard


def waiting(id: str, user: str | None, seconds: float, org: str | None = None) -> Waiting:
    """An event: a call begins to wait."""
    return Waiting(id, Identity(user, org), "gpt-4o", "90k tokens/minute", seconds)


def waited(id: str) -> Waited:
    """An event: a call waits no more."""
    return Waited(id, Identity(), "gpt-4o", 1.0, admitted=True)


def threads() -> list[str]:
    """The names of the threads that show something."""
    return [t.name for t in threading.enumerate() if t.name == "quotaguard-progress"]


def test_who_should_be_next_is_shown() -> None:
    """With how many others wait, for which limit, and for how long."""
    waits = Waits()
    assert waits.next(0.0) is None
    waits.note(waiting("1", "alice", 30.0), 0.0)
    assert waits.next(10.0) == ("alice waits for 90k tokens/minute, 10 s of 30 s", 1 / 3)
    waits.note(waiting("2", "bob", 8.0), 10.0)
    waits.note(waiting("3", None, 90.0, org="acme"), 11.0)
    assert waits.next(12.0) == (
        "bob waits for 90k tokens/minute (2 more wait), 2 s of 8 s",
        0.25,
    )
    waits.note(waited("1"), 13.0)
    waits.note(waited("2"), 13.0)
    assert waits.next(20.0) == ("org acme waits for 90k tokens/minute, 9 s of 90 s", 0.1)
    waits.note(waited("3"), 14.0)
    waits.note(waited("unheard of"), 14.0)
    assert waits.next(14.0) is None


def test_a_wait_is_shown_while_it_lasts() -> None:
    """Then the line is gone, and the thread that wrote it."""
    terminal, now = io.StringIO(), [100.0]
    show = WaitProgress(terminal, now=lambda: now[0])
    show(waiting("1", "alice", 30.0))
    until(lambda: "0 s of 30 s" in terminal.getvalue())
    now[0] = 112.0
    until(lambda: "12 s of 30 s" in terminal.getvalue())
    assert "alice waits for 90k tokens/minute, " in terminal.getvalue()
    show(waited("1"))
    until(lambda: not threads())
    assert terminal.getvalue().rpartition("\r")[0].rpartition("\r")[2].strip() == ""
    show(waiting("2", "bob", 5.0))
    until(lambda: "bob" in terminal.getvalue())
    show(waited("2"))
    until(lambda: not threads())


def test_a_name_writes_nothing_else_on_the_terminal() -> None:
    """Users may choose their names; and nobody counts the seconds of a day."""
    waits = Waits()
    waits.note(waiting("1", "\x1b[2Jmallory\n", 86_400.0), 0.0)
    found = waits.next(3_600.0)
    assert found is not None
    assert found[0] == r"'\x1b[2Jmallory\n' waits for 90k tokens/minute, 60 min of 24 h"


def test_who_is_not_heard_of_any_more_is_not_shown() -> None:
    """Where a guard only observes, calls go at once; a task thrown away tells nothing."""
    waits = Waits()
    waits.note(waiting("1", "alice", 30.0), 0.0)
    waits.note(waiting("2", "bob", 40.0), 0.0)
    waits.note(Admitted("1", Identity("alice"), "gpt-4o", "gpt-4o", Usage()), 1.0)
    assert waits.next(99.0) is not None
    assert waits.next(101.0) is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # tqdm.__del__
def test_a_terminal_that_fails_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """In the log; calls go on."""

    class Terminal(io.StringIO):
        def write(self, text: str) -> int:
            raise RuntimeError(text)

    WaitProgress(Terminal())(waiting("1", "alice", 30.0))
    until(lambda: caplog.messages == ["who waits could not be shown"])
    until(lambda: not threads())
    caplog.clear()  # it holds the traceback, and that tqdm's bar
    gc.collect()


def test_a_terminal_that_hangs_holds_up_nobody() -> None:
    """An event loop whose hook wrote to it would stand still."""
    stuck = threading.Event()

    class Terminal(io.StringIO):
        def write(self, text: str) -> int:
            stuck.wait(20)
            return super().write(text)

    show = WaitProgress(Terminal())
    began = time.monotonic()
    for number in range(100):
        show(waiting(str(number), "alice", 60.0))
        show(waited(str(number)))
    assert time.monotonic() - began < 10
    assert not stuck.is_set()
    stuck.set()
    until(lambda: not threads())


def test_the_waits_of_a_guard_are_shown() -> None:
    """As a hook, for whatever calls."""
    terminal = io.StringIO()
    clock = FakeClock(auto_advance=False)
    guard = Guard(
        limits=["1 requests/minute"],
        when_exceeded=Wait(90),
        clock=clock,
        hooks=[WaitProgress(terminal)],
    )

    def call() -> None:
        with guard.hold(user="alice"):
            pass

    call()
    thread = threading.Thread(target=call)
    thread.start()
    until(lambda: "alice waits for 1 requests/minute" in terminal.getvalue())
    clock.advance(61)
    thread.join(20)
    until(lambda: not threads())


@each_way
def test_a_job_shows_how_far_it_is(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    """Of how many, and how many failed; no thread of the bar's stays behind."""

    async def work(item: int) -> int:
        return 1 // (item % 4)

    before = threading.active_count()
    done = way.run(new_guard(), work, range(8), errors="collect", progress="dividing")
    assert len(done) == 8
    shown = capsys.readouterr().err
    assert re.search(r"dividing: 100%.* 8/8 .*failed=2", shown)
    assert threading.active_count() == before


def test_what_was_done_before_is_shown_as_done(
    capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    """So the bar of a resumed job ends where the job does; of endless items it shows a count."""
    guard, file = new_guard(), f"{tmp_path}/job.jsonl"
    list(guard.map(str, range(3), resume=file))
    list(guard.map(str, iter(range(5)), resume=file, progress=True))
    assert "5item" in capsys.readouterr().err


def test_without_tqdm_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing was begun."""
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    _bars.cache_clear()
    with pytest.raises(ImportError, match=r"quotaguard\[progress\]"):
        WaitProgress()
    with pytest.raises(ImportError, match=r"quotaguard\[progress\]"):
        new_guard().map(str, [], progress=True)
