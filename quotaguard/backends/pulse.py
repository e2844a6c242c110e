"""A thread that looks after a backend from time to time: what is due though nobody asks."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable


class Pulse:
    """Calls a method every ``seconds``, and when rung for, as long as its object lives. The method
    may say after how many seconds it wants to be called next.

    The thread is a daemon, starts when `start` is first called, and does not keep the object alive.
    """

    def __init__(self, method: Callable[[], float | None], seconds: float) -> None:
        self._method = weakref.WeakMethod(method)
        self._seconds = seconds
        self._begin()
        _pulses.add(self)

    def _begin(self) -> None:
        """What a forked child must not share with its parent."""
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()
        self._bell = threading.Event()
        self._beating = False
        self._stopped = False

    def start(self) -> None:
        """See that it beats."""
        if self._beating:
            return
        with self._lock:
            if not self._beating and not self._stopped:
                self._beating = True
                threading.Thread(
                    target=_beat,
                    args=(weakref.ref(self), self._bell),
                    name="quotaguard-backend",
                    daemon=True,
                ).start()

    def ring(self) -> None:
        """Let it beat now."""
        self._bell.set()

    def beat(self) -> float | None:
        """Call the method now; answers with the seconds to the next time, None if that is over."""
        with self._one_at_a_time:
            method = self._method()
            if method is None or self._stopped:
                return None
            pause = method()
            return self._seconds if pause is None else pause

    def stop(self) -> None:
        """Let it end and not start again; what it is at is finished first."""
        self._stopped = True
        self._bell.set()
        with self._one_at_a_time:
            pass


def _beat(ref: weakref.ref[Pulse], bell: threading.Event) -> None:
    while (pulse := ref()) is not None and (pause := pulse.beat()) is not None:
        del pulse
        bell.wait(pause)
        bell.clear()


_pulses: weakref.WeakSet[Pulse] = weakref.WeakSet()


def _after_fork() -> None:
    for pulse in list(_pulses):
        pulse._begin()


os.register_at_fork(after_in_child=_after_fork)
