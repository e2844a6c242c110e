"""What could not be done where it came up, done soon after.

A finalizer may run while its own thread is inside a backend's lock, so it may only put an errand
into a queue (`queue.SimpleQueue.put` is re-entrant). So may a task that was thrown away, and a
settle that found the backend away. Errands are run by the guard's next operation, or by one daemon
thread of the process, whichever comes first.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

T = TypeVar("T")


class Runner(Protocol):
    """Who owns errands: a guard."""

    def run_errands(self) -> None:
        """Carry out all that wait now."""
        ...


class LastWord(Protocol):
    """What must be said before the interpreter exits: an open stream's settlement."""

    def cut(self) -> None:
        """End it now."""
        ...


class _Helper:
    """The daemon thread; it sleeps in a queue until it is rung for."""

    def __init__(self) -> None:
        self.bell: SimpleQueue[weakref.ref[Runner]] = SimpleQueue()
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """See that it runs. Not for finalizers: starting a thread takes locks."""
        if self.thread is None or not self.thread.is_alive():
            self.thread = threading.Thread(target=self._run, name="quotaguard", daemon=True)
            self.thread.start()

    def _run(self) -> None:
        bell = self.bell
        while True:
            runner = bell.get()()
            if runner is not None:
                runner.run_errands()
                del runner


_helper = _Helper()
_open: weakref.WeakSet[LastWord] = weakref.WeakSet()
_runners: weakref.WeakSet[Runner] = weakref.WeakSet()


def expect(runner: Runner, word: LastWord) -> None:
    """Something is open that a finalizer, or the interpreter's exit, may have to end."""
    _helper.start()
    _open.add(word)
    _runners.add(runner)


def ring(runner: Runner) -> None:
    """Errands wait; safe in a finalizer."""
    _helper.bell.put(weakref.ref(runner))


def at_exit(runner: Runner) -> None:
    """Run its errands once more when the interpreter exits."""
    _runners.add(runner)


def soon(runner: Runner) -> None:
    """Errands wait that had better not be run on a call's way: the thread runs them. Not for
    finalizers.
    """
    ring(runner)
    with suppress(RuntimeError):  # the interpreter exits
        _helper.start()


def take(queue: SimpleQueue[T]) -> T | None:
    """The next errand, None if there is none."""
    try:
        return queue.get_nowait()
    except Empty:
        return None


def _after_fork() -> None:
    global _helper
    _helper = _Helper()
    _open.clear()  # the parent ends what is the parent's
    _runners.clear()


def _at_exit() -> None:
    for word in list(_open):
        word.cut()
    for runner in list(_runners):
        runner.run_errands()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
