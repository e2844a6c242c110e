"""The journal: an entry for each call that was served or refused, kept where you say.

Entries are written by a thread of the journal's own, so a slow disk holds up no call. What is not
written yet is written by `Journal.flush`, by `Journal.close` and when the interpreter exits; a
process that is killed loses what it had still to write, usually the last few milliseconds.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote

from .entries import Bookkeeper, Entry
from .errors import BackendError, ConfigurationError
from .events import Event, Hook
from .sinks import Calls, JsonLines, Memory, ReadableSink, Sink, SQLite

log = logging.getLogger("quotaguard")

MOST_PENDING = 100_000
"""Entries that may wait to be written while that fails; those that come then are lost, counted."""
RETRY = 1.0
"""Seconds after which what could not be written is tried again."""
PATIENCE = 5.0
"""Seconds that closing, or the interpreter's exit, waits for a write that hangs."""

Place: TypeAlias = "str | os.PathLike[str] | Callable[[Entry], object] | Sink"


class Journal:
    """Keeps an `Entry` for each call; ``Guard(journal=...)`` makes one, or takes one.

    Args:
        to: a path of a file of JSON lines (``"usage.jsonl"``), ``"sqlite:///usage.db"`` (four
            slashes before an absolute path), ``"memory://"`` (the newest 100 000), a callable that
            is given each `Entry` (from a thread, one at a time, in order), or a
            `quotaguard.sinks.Sink`.

    Raises:
        ConfigurationError: it is none of these.
    """

    def __init__(self, to: Place) -> None:
        self._sink = _sink(to)
        self._writer = _Writer(self._sink)
        self._hook = Bookkeeper(self._writer.add, time.time)
        weakref.finalize(self, self._writer.end).atexit = False

    def __call__(self, event: Event, /) -> None:
        """Take note of an event: a journal is a hook."""
        self._hook(event)

    def listening(self, now: Callable[[], float]) -> Hook:
        """A hook that dates entries by another clock."""
        return Bookkeeper(self._writer.add, now)

    def entries(self, since: float | None = None, until: float | None = None) -> Iterator[Entry]:
        """The entries of ``since <= time < until`` (seconds since the epoch; None: all), in the
        order they were written, by whichever process.

        Raises:
            ConfigurationError: the journal can't be read back: it goes to a callable.
            BackendError: it could not be read.
        """
        sink: Any = self._sink
        if not self.readable:
            raise ConfigurationError(
                f"a journal that goes to {self!r} can't be read back; one that can goes to "
                "'usage.jsonl', 'sqlite:///usage.db' or 'memory://'"
            )
        self.flush()
        readable: ReadableSink = sink
        return _reading(
            readable.read(
                -math.inf if since is None else since, math.inf if until is None else until
            )
        )

    @property
    def readable(self) -> bool:
        """Whether it can be read back."""
        return hasattr(self._sink, "read")

    @property
    def lost(self) -> int:
        """Entries that could not be kept."""
        return self._writer.lost

    def flush(self) -> bool:
        """Write what is not written yet, and say whether that was done; what fails is tried again
        later.
        """
        return self._writer.flush()

    def close(self) -> None:
        """Write what is not written yet and close the files; what fails now is lost."""
        self._writer.close()

    def __repr__(self) -> str:
        where = getattr(self._sink, "path", None)
        return f"<Journal {type(self._sink).__name__}{f' {where}' if where else ''}>"


class _Writer:
    """Entries on their way to a sink, and the thread that brings them there."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._pending: deque[Entry] = deque()
        self._complained = False
        self._closed = False
        self.lost = 0
        self.begin()
        _writers.add(self)

    def begin(self) -> None:
        """With nothing under way: at first, and in a forked child, whose parent writes its own."""
        self._pending.clear()
        self._lock = threading.Lock()
        self._bell: SimpleQueue[bool] = SimpleQueue()
        self._rung = False
        self._thread: threading.Thread | None = None
        self._paused = False

    def pause(self) -> None:
        """No write is under way and no file open: before a fork, whose child would inherit it."""
        self._paused = self._lock.acquire(timeout=PATIENCE)
        if self._paused:
            self._sink.close()

    def go_on(self) -> None:
        """After a pause."""
        if self._paused:
            self._lock.release()

    def add(self, entry: Entry) -> None:
        """Take an entry; it will be written soon, or at once where no thread is any more."""
        if len(self._pending) >= MOST_PENDING:
            self._lose(1)
            return
        self._pending.append(entry)
        if self._closed or _exiting:
            self.flush()
            return
        if self._thread is None:
            self._start()
        if not self._rung:
            self._rung = True
            self._bell.put(True)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="quotaguard-journal", daemon=True
                )
                self._thread.start()
                multiprocessing = sys.modules.get("multiprocessing.util")
                if multiprocessing is not None:  # its processes end without atexit
                    multiprocessing.Finalize(None, self.flush, exitpriority=1)

    def _run(self) -> None:
        bell = self._bell
        while bell.get():
            self._rung = False
            while not self.flush():
                time.sleep(RETRY)
        self.close()

    def flush(self) -> bool:
        """Write what there is; whether that was done."""
        if not self._lock.acquire(timeout=PATIENCE):
            return False
        try:
            while self._pending:
                before = len(self._pending)
                try:
                    self._sink.write(self._pending)
                except Exception as error:  # noqa: BLE001  # of whatever sink; calls go on
                    self._complain(error)
                    if isinstance(self._sink, Calls):
                        self._lose(1)
                    elif len(self._pending) >= before:
                        return False
            return True
        finally:
            self._lock.release()

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            log.error("the journal could not be written (said once): %r", error)

    def _lose(self, count: int) -> None:
        self.lost += count
        if not self._complained:
            self._complained = True
            log.error("the journal lost entries: it could not be written (said once)")

    def end(self) -> None:
        """Nobody will add more; safe in a finalizer."""
        self._bell.put(False)

    def close(self) -> None:
        """Write what there is, and close the sink."""
        self._closed = True
        self._bell.put(False)
        if not self.flush():
            self._lose(len(self._pending))
            self._pending.clear()
        if self._lock.acquire(timeout=PATIENCE):
            try:
                self._sink.close()
            finally:
                self._lock.release()


_writers: weakref.WeakSet[_Writer] = weakref.WeakSet()
_exiting = False


def _for_all(method: Callable[[_Writer], object]) -> Callable[[], None]:
    def called() -> None:
        for writer in list(_writers):
            method(writer)

    return called


def _at_exit() -> None:
    global _exiting
    _exiting = True  # what comes later, such as the last word of an open stream, is written at once
    for writer in list(_writers):
        writer.flush()
        writer.pause()
        writer.go_on()


os.register_at_fork(
    before=_for_all(_Writer.pause),
    after_in_parent=_for_all(_Writer.go_on),
    after_in_child=_for_all(_Writer.begin),
)
atexit.register(_at_exit)


def _reading(entries: Iterator[Entry]) -> Iterator[Entry]:
    from sqlite3 import Error

    try:
        yield from entries
    except (OSError, Error) as error:
        raise BackendError(f"the journal could not be read: {error}") from error


def _sink(to: object) -> Any:
    if isinstance(to, os.PathLike):
        return JsonLines(to)
    if hasattr(to, "write") and hasattr(to, "close"):
        return to
    if callable(to):
        return Calls(to)
    if isinstance(to, str) and to == "memory://":
        return Memory()
    if isinstance(to, str) and to.startswith("sqlite:///"):
        return _sqlite(to)
    if not isinstance(to, str) or not to or "://" in to or to.endswith((".db", ".sqlite")):
        raise ConfigurationError(
            f"a journal goes to a file of JSON lines such as 'usage.jsonl', to "
            f"'sqlite:///usage.db', 'memory://' or a callable, not {to!r}"
        )
    return JsonLines(to)


def _sqlite(url: str) -> SQLite:
    rest, _, query = url.partition("?")
    path, options = unquote(rest.removeprefix("sqlite:///")), parse_qs(query)
    try:
        timeout = float(options.pop("timeout", ["5"])[0])
    except ValueError as error:
        raise ConfigurationError(f"timeout in {url!r} is a number of seconds") from error
    if not path or path == ":memory:" or options:
        raise ConfigurationError(
            f"cannot read {url!r}; a file of this folder is 'sqlite:///usage.db', an absolute path "
            "'sqlite:////var/lib/usage.db', the only option '?timeout=5'"
        )
    return SQLite(path, timeout)
