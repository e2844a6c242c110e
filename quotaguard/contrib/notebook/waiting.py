"""A progress bar for calls that stand in line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from ...display import page
from ...events import Event, Waited, Waiting
from ...wording import seconds, shown
from .views import View

_SELDOM = 0.1
"""Seconds between two updates while somebody stands in line."""


class WaitingLine:
    """A hook that shows how many calls stand in line, and for how long; one bar for a cell.

    Args:
        display: shows a view and gives a handle with ``update(view)``.
    """

    def __init__(self, display: Callable[[View], Any]) -> None:
        self._display = display
        self._lock = threading.Lock()
        self.begin()

    def begin(self) -> None:
        """A cell begins: what waits next is shown below that."""
        with self._lock:
            self._handle: Any = None
            self._standing: dict[str, tuple[str, float]] = {}
            self._began = 0.0
            self._drawn = 0.0
            self._done = 0
            self._seconds = 0.0

    def __call__(self, event: Event, /) -> None:
        """Take note of who joins the line and who leaves it, however that ends."""
        now = time.monotonic()
        with self._lock:
            if isinstance(event, Waiting):
                if not self._standing:
                    self._began = now
                self._standing[event.id] = event.limit, now + event.seconds
                first = len(self._standing) == 1
            elif self._standing.pop(event.id, None) is not None:
                if isinstance(event, Waited):
                    self._done += 1
                    self._seconds += event.seconds
                first = False
            else:
                return
            if self._standing and not first and now - self._drawn < _SELDOM:
                return
            self._drawn = now
            view = self._view(now)
            if self._handle is None:
                self._handle = self._display(view)
            else:
                self._handle.update(view)

    def _view(self, now: float) -> LineView:
        if not self._standing:
            calls = "1 call" if self._done == 1 else f"{self._done:,} calls"
            return LineView(f"{calls} waited in line, {seconds(self._seconds)} in all")
        limit, until = max(self._standing.values(), key=lambda each: each[1])
        count = len(self._standing)
        calls = "1 call waits" if count == 1 else f"{count:,} calls wait"
        left = max(0.0, until - now)
        sentence = f"{calls} in line for {shown(limit)}, about {seconds(left)}"
        return LineView(sentence, now - self._began, left)


class LineView(View):
    """The line as it is.

    Args:
        sentence: what is said of it.
        stood: seconds that somebody has stood in it.
        left: seconds until the last of them should be admitted; None: nobody stands in it.
    """

    def __init__(self, sentence: str, stood: float = 0.0, left: float | None = None) -> None:
        self._sentence = sentence
        self._stood = stood
        self._left = left

    def html(self) -> page.Html:
        """A bar that fills by itself, so that nothing has to run while the call waits."""
        if self._left is None:
            return page.card("", page.note(self._sentence))
        whole = self._stood + self._left
        moves = f"animation:qg-wait {whole:.1f}s linear -{self._stood:.1f}s forwards"
        return page.card(
            "",
            page.note(self._sentence),
            page.Html(
                "<style>@keyframes qg-wait { from { width: 0 } to { width: 100% } }</style>"
                '<div class="qg-track" role="progressbar" aria-label="waiting in line">'
                f'<i style="background:{page.BLUE};{moves}"></i></div>'
            ),
        )

    def text(self) -> str:
        """The sentence."""
        return f"quotaguard: {self._sentence}"
