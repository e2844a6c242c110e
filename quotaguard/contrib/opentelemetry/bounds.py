"""Attributes with few values, and levels of few limits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

OTHER = "other"


class Few:
    """Names as they are for the first ``most`` that come, or for those listed; else ``"other"``.

    Callers choose models and organisations: without a bound each makes time series of its own.
    """

    __slots__ = ("_known", "_most")

    def __init__(self, most: int, listed: Iterable[str] = ()) -> None:
        self._known = dict.fromkeys(listed)
        self._most = len(self._known) or most

    def __call__(self, name: str) -> str:
        """The name, or ``"other"``."""
        if name not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known[name] = None  # threads that race may add one each: still few
        return name


class Levels:
    """The emptiest bucket of each limit, of those seen within the last one or two ``PERIOD``."""

    PERIOD = 60.0
    """Seconds; not shorter than metrics are usually collected."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._began = now()
        self._before: dict[str, float] = {}
        self._lately: dict[str, float] = {}

    def note(self, limit: str, level: float) -> None:
        """A bucket of the limit has that share left."""
        with self._lock:
            self._turn()
            self._lately[limit] = min(level, self._lately.get(limit, level))

    def lowest(self) -> dict[str, float]:
        """Limit -> what its emptiest bucket had left, as a part of what it can hold."""
        with self._lock:
            self._turn()
            found = dict(self._before)
            for limit, level in self._lately.items():
                found[limit] = min(level, found.get(limit, level))
            return found

    def _turn(self) -> None:
        now = self._now()
        past = now - self._began
        if past >= self.PERIOD:
            self._before = self._lately if past < 2 * self.PERIOD else {}
            self._lately = {}
            self._began = now
