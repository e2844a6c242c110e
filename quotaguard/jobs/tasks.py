"""A job carried out by tasks."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from contextvars import Context
from typing import Any

from ..core.drive import adrive
from ..errors import ConfigurationError
from ..patience import patient
from .attempts import Attempt, Pause
from .done import Done
from .job import Job, Orders, Work


async def carried_out(
    job: Job,
    orders: Orders,
    items: Iterable[Any] | AsyncIterable[Any],
    context: Context,
) -> AsyncGenerator[Any, None]:
    """Draw items, have tasks do them, hand out what is done."""
    crew = _Crew(job, orders, context)
    try:
        if orders.finished is not None:
            await asyncio.to_thread(orders.finished.load)
        job.begin()
        crew.begin(items)
        while not job.is_over:
            for result in job.results():
                yield result
                crew.room.set()
            await crew.something()
    finally:
        try:
            await crew.stop()
        finally:  # also after a second cancellation
            job.close()


class _Crew:
    """Tasks, one for each item that is worked on, and one that draws items."""

    def __init__(self, job: Job, orders: Orders, context: Context) -> None:
        self._job = job
        self._orders = orders
        self._context = context
        self._todo: deque[Work] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._working = 0
        self._failure: BaseException | None = None
        self._bell = asyncio.Event()
        self.room = asyncio.Event()
        """Rung when results were handed out, so that more items may be drawn."""

    def begin(self, items: Iterable[Any] | AsyncIterable[Any]) -> None:
        """Begin to draw items."""
        self._task(self._draw(items))

    async def something(self) -> None:
        """Until an item is done, or there are no more."""
        if not self._job.is_over:
            await self._bell.wait()
        self._bell.clear()
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> None:
        """Cancel all tasks; back when they are gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _task(self, coroutine: Any) -> None:
        task = self._context.run(asyncio.ensure_future, coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            self._failure = self._failure or asyncio.CancelledError()
        elif task.exception() is not None:
            self._failure = self._failure or task.exception()
        self._bell.set()

    async def _draw(self, items: Iterable[Any] | AsyncIterable[Any]) -> None:
        async with aclosing(_each(items)) as drawing:
            async for item in drawing:
                if (work := self._job.take(item)) is not None:
                    self._todo.append(work)
                    self._next()
                else:
                    self._bell.set()
                while not self._job.wants_items:
                    self.room.clear()
                    await self.room.wait()
        self._job.end()

    def _next(self) -> None:
        while self._todo and self._working < self._job.concurrency:
            self._working += 1
            self._task(self._do(self._todo.popleft()))

    async def _do(self, work: Work) -> None:
        with patient(self._orders.patience):
            plan: Any = self._orders.plan(work)
            crew: Any = self  # in the backend's place: the steps are a job's
            done: Done[Any, Any] = await adrive(plan, crew)
        self._job.put(work.place, done)
        self._working -= 1
        self._next()

    async def aexecute(self, step: Attempt | Pause) -> Any:
        """One step of an item's plan."""
        if isinstance(step, Pause):
            await self._orders.clock.wait_async(asyncio.Event(), step.seconds)
            return None
        result = self._orders.function(step.item)
        if not inspect.isawaitable(result):
            raise ConfigurationError(
                "amap takes a coroutine function; for one that blocks there is map"
            )
        return await result


async def _each(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """The items of an iterable of either kind; between them the loop gets its turn."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
            await asyncio.sleep(0)
