"""Progress in a terminal or a notebook: of batch jobs, and of calls that wait.

``pip install 'quotaguard[progress]'``.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TextIO

from .events import Event, Waiting
from .identity import Identity
from .wording import seconds, shown

log = logging.getLogger("quotaguard")

EVERY = 0.2
"""Seconds between two looks at those who wait."""
LOST = 60.0
"""Seconds after the end of a wait when it is shown no more: its task was thrown away, and no event
tells of that."""


class JobBar:
    """How far a job is (`quotaguard.jobs.job.Show`).

    Args:
        text: what stands before the bar.
        total: the number of items, None if nobody knows.
    """

    def __init__(self, text: str | None, total: int | None) -> None:
        self._bars = _bars()
        self._text = text
        self._total = total
        self._bar: Any = None
        self._failed = 0

    def begin(self) -> None:
        """Show it."""
        self._bar = self._bars(desc=self._text, total=self._total, unit="item")

    def over(self, done: Any) -> None:
        """One item more; None: it was left out."""
        if done is not None and done.error is not None:
            self._failed += 1
            self._bar.set_postfix({"failed": self._failed}, refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Leave it as it is."""
        if self._bar is not None:
            self._bar.close()


class _Wait(NamedTuple):
    """A call that waits."""

    identity: Identity
    limit: str
    began: float
    ends: float
    """When it should be admitted."""


class Waits:
    """Who waits, and for how long: what `WaitProgress` shows."""

    def __init__(self) -> None:
        self._waits: dict[str, _Wait] = {}
        self._lock = threading.Lock()

    def note(self, event: Event, now: float) -> None:
        """Take note of a wait that begins; whatever else happens to the call ends it."""
        if isinstance(event, Waiting):
            wait = _Wait(event.identity, event.limit, now, now + event.seconds)
            with self._lock:
                self._waits[event.id] = wait
        elif event.id in self._waits:
            with self._lock:
                self._waits.pop(event.id, None)

    def next(self, now: float) -> tuple[str, float] | None:
        """What to say about who should be next, and the share of the wait that is over; None:
        nobody waits.
        """
        with self._lock:
            for id in [id for id, wait in self._waits.items() if wait.ends + LOST < now]:
                del self._waits[id]
            if not self._waits:
                return None
            wait = min(self._waits.values(), key=lambda wait: wait.ends)
            others = len(self._waits) - 1
        user, org, _ = wait.identity
        who = shown(user) if user else f"org {shown(org)}" if org else "a call"
        more = f" ({others} more wait)" if others else ""
        waited = now - wait.began
        total = max(wait.ends - wait.began, waited)
        of = f"{seconds(math.floor(waited))} of {seconds(total)}"
        return f"{who} waits for {wait.limit}{more}, {of}", waited / total if total > 0.0 else 1.0


class WaitProgress:
    """A hook that shows who waits in line, for which limit, and how long it should take:
    ``Guard(hooks=[WaitProgress()])``.

    There is one line while anybody waits, about who should be next. A thread of its own writes it,
    so neither a call nor an event loop waits for the terminal.

    Args:
        file: where to write; None: standard error, or the notebook.

    Raises:
        ImportError: ``quotaguard[progress]`` is not installed.
    """

    def __init__(
        self, file: TextIO | None = None, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._bars = _bars()
        self._file = file
        self._now = now
        self._waits = Waits()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, event: Event, /) -> None:
        """Take note of an event."""
        self._waits.note(event, self._now())
        if not isinstance(event, Waiting):
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():  # as after a fork
                self._thread = threading.Thread(
                    target=self._showing, name="quotaguard-progress", daemon=True
                )
                self._thread.start()

    def _showing(self) -> None:
        try:
            self._show()
        except Exception:
            log.exception("who waits could not be shown")
            self._bars.set_lock(threading.RLock())  # tqdm keeps its own when writing fails

    def _show(self) -> None:
        """Show those who wait as long as there are any."""
        bar: Any = None
        while True:
            with self._lock:
                found = self._waits.next(self._now())
                if found is None:
                    self._thread = None
                    break
            text, share = found
            if bar is None:
                bar = self._bars(
                    desc=text, total=1.0, file=self._file, leave=False, bar_format="{desc} |{bar}|"
                )
            bar.set_description_str(text, refresh=False)
            bar.n = share
            bar.refresh()
            time.sleep(EVERY)
        if bar is not None:
            bar.close()


@cache
def _bars() -> Any:
    """The class of all bars: those of one class know of each other's lines.

    Raises:
        ImportError: tqdm is not installed.
    """
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped]  # it has no types
    except ModuleNotFoundError as error:
        raise ImportError("progress needs tqdm: pip install 'quotaguard[progress]'") from error

    class Bar(tqdm):  # type: ignore[misc]  # tqdm is not typed
        monitor_interval = 0  # no thread of tqdm's, which would never end

    Bar.set_lock(threading.RLock())  # tqdm's own would be one for processes, too
    return Bar
