"""A job carried out by threads."""

from __future__ import annotations

import inspect
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextvars import Context
from queue import SimpleQueue
from typing import Any

from ..clock import Stop, stoppable
from ..core.drive import drive
from ..errors import ConfigurationError
from ..patience import patient
from .attempts import Attempt, Pause
from .done import Done
from .job import Job, Orders, Work


def carried_out(
    job: Job, orders: Orders, items: Iterable[Any], context: Context
) -> Generator[Any, None, None]:
    """Draw items, have threads do them, hand out what is done."""
    crew = _Crew(orders, job.concurrency, context)
    drawing = iter(items)
    try:
        if orders.finished is not None:
            orders.finished.load()
        job.begin()
        while not job.is_over:
            if job.wants_items:
                _draw(job, drawing, crew)
            else:
                crew.wait()
            for place, done in crew.done():
                job.put(place, done)
            for result in job.results():
                while job.wants_items and crew.has_room:  # while the consumer works, so do they
                    _draw(job, drawing, crew)
                yield result
    finally:
        try:
            crew.stop()
        finally:  # also after a second Ctrl-C
            job.close()


def _draw(job: Job, drawing: Iterator[Any], crew: _Crew) -> None:
    try:
        item = next(drawing)
    except StopIteration:
        job.end()
        return
    if (work := job.take(item)) is not None:
        crew.start(work)


class _Crew:
    """Threads that do items, begun as they are needed.

    They are daemons: a generator that nobody closed does not keep the interpreter from exiting.
    """

    def __init__(self, orders: Orders, most: int, context: Context) -> None:
        self._orders = orders
        self._most = most
        self._context = context
        self._stop = Stop()
        self._todo: SimpleQueue[Work | None] = SimpleQueue()
        self._done: deque[tuple[int, Done[Any, Any] | BaseException]] = deque()
        self._bell = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open = 0
        """Items that were begun, or will be, and are not taken out yet."""

    @property
    def has_room(self) -> bool:
        """Whether a thread has nothing to do."""
        return self._open < self._most

    def start(self, work: Work) -> None:
        """Have an item done."""
        self._open += 1
        self._todo.put(work)
        if len(self._threads) < min(self._open, self._most):
            thread = threading.Thread(target=self._work, name="quotaguard-job", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self) -> None:
        """Block until an item is done."""
        if not self._done:
            with stoppable(self._bell):  # a job in the thread of another one ends with it
                self._bell.wait()
        self._bell.clear()

    def done(self) -> Generator[tuple[int, Done[Any, Any]], None, None]:
        """The items that are done now, each with its place."""
        while self._done:
            place, done = self._done.popleft()
            self._open -= 1
            if isinstance(done, BaseException):
                raise done
            yield place, done

    def stop(self) -> None:
        """End all waits; requests that are under way are awaited, no others begin."""
        if sys.is_finalizing():  # no other thread runs any more
            return
        self._stop.set()
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():  # the garbage collector runs anywhere
                thread.join()

    def _work(self) -> None:
        for work in iter(self._todo.get, None):
            if self._stop.is_set:
                return
            done: Done[Any, Any] | BaseException
            try:
                done = self._context.copy().run(self._do, work)
            except BaseException as error:  # noqa: BLE001  # raised again where results are taken
                done = error
            self._done.append((work.place, done))
            self._bell.set()

    def _do(self, work: Work) -> Done[Any, Any]:
        with self._stop.covers(), patient(self._orders.patience):
            plan: Any = self._orders.plan(work)
            crew: Any = self  # in the backend's place: the steps are a job's
            done: Done[Any, Any] = drive(plan, crew)
            return done

    def execute(self, step: Attempt | Pause) -> Any:
        """One step of an item's plan."""
        self._stop.check()
        if isinstance(step, Pause):
            self._orders.clock.wait(threading.Event(), step.seconds)
            return None
        result = self._orders.function(step.item)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise ConfigurationError("map takes a function that blocks; for this one there is amap")
        return result
