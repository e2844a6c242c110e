"""The responses a provider keeps, for those who come back for them by id."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from .answers import Answer
from .record import Bill

_KEPT = 10_000


@dataclass
class Stored:
    """A response by the Responses API, and how far it has come."""

    answer: Answer
    bill: Bill
    polls: int
    """How many retrievals will still find it in progress."""
    cancelled: bool = False


class StoredResponses:
    """The latest responses by id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stored: dict[str, Stored] = {}

    def keep(self, answer: Answer, bill: Bill) -> None:
        """Keeps a response unless its request said not to; the oldest make room."""
        if answer.request.get("store") is False:
            return
        background = answer.request.get("background") is True
        with self._lock:
            self._stored[answer.id("resp_")] = Stored(
                answer, bill, answer.reply.polls if background else 0
            )
            if len(self._stored) > _KEPT:
                del self._stored[next(iter(self._stored))]

    def find(self, response_id: str | None) -> Stored | None:
        """The response of that id, if it is known."""
        with self._lock:
            return self._stored.get(response_id or "")

    def poll(self, stored: Stored) -> str | None:
        """The status that one retrieval finds; `None`: the one it ends with."""
        with self._lock:
            if stored.cancelled:
                return "cancelled"
            if stored.polls:
                stored.polls -= 1
                return "in_progress"
            return None

    def cancel(self, stored: Stored) -> str | None:
        """Cancels a response still in progress; the status it has then."""
        with self._lock:
            stored.cancelled = stored.cancelled or stored.polls > 0
            return "cancelled" if stored.cancelled else None
