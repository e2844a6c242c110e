"""What a job decides: what is next, what is done, what may be handed out. Nothing here blocks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..clock import Clock
from ..policies import Wait
from .attempts import Attempt, Pause, attempts
from .done import Done
from .finished import FinishedItems

if TYPE_CHECKING:
    from tenacity import BaseRetrying

AHEAD = 16
"""Items that may be drawn beyond those that are worked on: the next ones, and results that are not
handed out yet."""


@dataclass(frozen=True, slots=True)
class Work:
    """An item that is to be done."""

    place: int
    """Its place among what will be handed out."""
    index: int
    item: Any
    key: str
    """Its name in the file; empty if there is none."""


class Orders(NamedTuple):
    """How items are done."""

    function: Callable[[Any], Any]
    rules: BaseRetrying
    """By which an item is tried again."""
    patience: Wait
    """How its calls stand in line."""
    clock: Clock
    finished: FinishedItems | None

    def plan(self, work: Work) -> Generator[Attempt | Pause, Any, Done[Any, Any]]:
        """The steps that do an item; once it is done it is written down.

        Raises:
            ConfigurationError, OSError: that could not be written; the job cannot go on.
        """
        try:
            result = yield from attempts(work.item, self.rules)
        except Exception as error:  # noqa: BLE001  # told to whoever takes the results
            return Done(work.index, work.item, error=error)
        if self.finished is not None:
            self.finished.add(work.key, result)
        return Done(work.index, work.item, result)


class Show(Protocol):
    """Who shows how far a job is."""

    def begin(self) -> None:
        """It begins."""
        ...

    def over(self, done: Done[Any, Any] | None) -> None:
        """An item is over; None: it was left out."""
        ...

    def close(self) -> None:
        """The job ends."""
        ...


class Job:
    """The state of one job. It belongs to whoever hands out its results.

    Args:
        concurrency: how many items are worked on at the same time.
        ordered: whether results are handed out in the order of the items.
        stop_at_error: whether the first item that fails ends it, and bare results are handed out;
            else all items are, as `Done`.
        finished: the file of items that are done, if there is one.
        show: who shows it, if anybody does.
    """

    def __init__(
        self,
        concurrency: int,
        *,
        ordered: bool,
        stop_at_error: bool,
        finished: FinishedItems | None = None,
        show: Show | None = None,
    ) -> None:
        self.concurrency = concurrency
        self._most = concurrency + AHEAD
        self._ordered = ordered
        self._stop_at_error = stop_at_error
        self._finished = finished
        self._show = show
        self._drawn = 0
        self._taken = 0
        """Of the items drawn, those that are not left out."""
        self._arrived = 0
        self._handed_out = 0
        self._ended = False
        self._done: dict[int, Done[Any, Any]] = {}
        """By their place among what is handed out."""

    def begin(self) -> None:
        """Show it."""
        if self._show is not None:
            self._show.begin()

    def close(self) -> None:
        """Close the file, and show no more."""
        if self._finished is not None:
            self._finished.close()
        if self._show is not None:
            self._show.close()

    @property
    def wants_items(self) -> bool:
        """Whether another item may be drawn."""
        return not self._ended and self._taken - self._handed_out < self._most

    @property
    def is_over(self) -> bool:
        """Whether everything was handed out."""
        return self._ended and self._handed_out == self._taken

    def take(self, item: Any) -> Work | None:
        """The next item; None if nothing is to be done for it.

        Raises:
            ConfigurationError: it has no key, and there is a file.
        """
        index = self._drawn
        self._drawn += 1
        key, earlier = "", None
        if self._finished is not None:
            key = self._finished.key_of(item)
            earlier = self._finished.take(key)
            if earlier is not None and not earlier.kept:
                self._over(None)
                return None
        work = Work(self._taken, index, item, key)
        self._taken += 1
        if earlier is None:
            return work
        self.put(work.place, Done(index, item, earlier.result, resumed=True))
        return None

    def end(self) -> None:
        """There are no more items."""
        self._ended = True

    def put(self, place: int, done: Done[Any, Any]) -> None:
        """An item is done."""
        if not self._ordered:
            place = self._arrived
            self._arrived += 1
        self._done[place] = done
        self._over(done)
        if done.error is not None and self._stop_at_error:
            self._ended = True

    def results(self) -> Iterator[Any]:
        """What may be handed out now.

        Raises:
            Exception: the error of an item, if that ends the job.
        """
        while (done := self._done.pop(self._handed_out, None)) is not None:
            self._handed_out += 1
            if not self._stop_at_error:
                yield done
            elif done.error is None:
                yield done.result
            else:
                raise done.error

    def _over(self, done: Done[Any, Any] | None) -> None:
        if self._show is not None:
            self._show.over(done)
