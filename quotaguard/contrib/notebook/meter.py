"""What the calls of a cell come to."""

from __future__ import annotations

import time

from ...entries import Bookkeeper, Entry
from ...errors import QuotaguardError
from ...events import Admitted, Event, Refused, Settled


class Meter:
    """A hook that takes note of the calls of one cell, by whichever guard.

    Attributes:
        entries: calls that are over, and refused ones.
        own: the ids of those that went through the notebook's guard.
        under_way: the ids of those that are not over.
        refusal: the last error that a caller got.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.own: set[str] = set()
        self.under_way: set[str] = set()
        self.refusal: QuotaguardError | None = None
        self._hook = Bookkeeper(self.entries.append, time.time)
        self._known: set[str] = set()

    def __call__(self, event: Event, /) -> None:
        """Take note of an event; the end of a call that began elsewhere is not this cell's."""
        if isinstance(event, Settled):
            if event.id not in self._known:
                return
            self.under_way.discard(event.id)
        else:
            self._known.add(event.id)
        if isinstance(event, Admitted):
            self.under_way.add(event.id)
        elif isinstance(event, Refused) and event.enforced:
            self.refusal = event.error
        self._hook(event)
