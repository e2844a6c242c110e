"""What the events of a stream add up to."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from ..usage import Usage


class Tally(ABC):
    """Listens to a stream's events and knows what they add up to.

    Nearly every event says a word of the answer and nothing else. Those are read only if the stream
    is cut off: reading them is most of what metering a stream would cost.

    Attributes:
        over: whether the answer is complete: what follows says nothing more about usage.
        background: the id of the response, where it goes on should its reader leave.
        malformed: whether usage was said, but not in a way that can be read.
    """

    def __init__(self) -> None:
        self.over = False
        self.background: str | None = None
        self.malformed = False

    def take(self, data: bytes) -> bool:
        """Take note of an event's JSON; False if the caller must not see the event."""
        if not self.tells(data):
            return True
        try:
            event = json.loads(data)
            return self._hear(event) if isinstance(event, dict) else True
        except Exception:  # noqa: BLE001 -- an event of a shape unknown is the caller's to deal with
            return True

    @abstractmethod
    def usage(self) -> Usage | None:
        """What the provider has said was used, as far as it is final."""

    def cut_off(
        self, events: Iterable[bytes], count: Callable[[str], int]
    ) -> tuple[int | None, int]:
        """For a stream that ended early: input tokens if the provider said them, and the output
        tokens that were delivered.

        Args:
            events: the JSON of all its events.
            count: counts a text's tokens.
        """
        texts: list[str] = []
        for data in events:
            with suppress(Exception):
                texts.extend(text for text in self._texts(json.loads(data)) if type(text) is str)
        return self._input(), count("".join(texts))

    @abstractmethod
    def tells(self, data: bytes) -> bool:
        """Whether an event, or any of several, may say more than a word of the answer: cheap; True
        if in doubt.
        """

    @abstractmethod
    def _hear(self, event: Mapping[str, Any]) -> bool:
        """Take note of an event that tells; False if the caller must not see it."""

    @abstractmethod
    def _texts(self, event: Mapping[str, Any]) -> Iterator[object]:
        """The words of the answer in an event, among what may be none."""

    def _input(self) -> int | None:
        """Input tokens, if they are said before the end."""
        return None
