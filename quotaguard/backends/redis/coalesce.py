"""Operations that come up together travel together: one script call for all of one shard."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import closing, suppress
from itertools import groupby
from typing import Any, TypeAlias

from ...clock import Clock
from ...errors import BackendError
from . import script
from .calls import Call, Exchange, Sent
from .connect import Place
from .failure import FAILURES, Breaker, explained, is_away, worth_another

MOST_TOGETHER = 256
"""Operations in one script call: the server does nothing else meanwhile, for a few milliseconds."""
MOST_IN_FLIGHT = 4
"""Script calls of one event loop on their way at once; what comes up meanwhile waits and travels
together."""
ATTEMPT, PAUSE = 0.45, 0.02
"""The parts of the time allowed that one attempt may take, and the pause before the second one."""


Step: TypeAlias = "tuple[tuple[bytes, ...], bytes] | float"
"""The keys and the argument to send, or seconds to pause."""
Steps: TypeAlias = Generator[Step, "list[bytes]", None]


class Link:
    """What the blocking and the awaiting side share."""

    def __init__(
        self, place: Place, timeout: float, clock: Clock | None, sent: Sent, process: bytes
    ) -> None:
        self.place = place
        self.timeout = timeout
        self.attempt = timeout * ATTEMPT
        self.exchange = Exchange(clock, sent, 2 * self.attempt, process)
        self.breaker = Breaker()

    def exchanging(self, calls: list[Call], deadline: float) -> Steps:
        """The plan of having calls of one shard answered: it yields what to send, or seconds to
        pause, and is sent replies or thrown what failed. However it ends, all have their answer.
        """
        refused = self.breaker.refusal()
        if refused is not None:
            self.refused(calls, refused)
            return
        try:
            batch = self.exchange.batch(calls)
            shard, argument = next(batch)
            with suppress(StopIteration):
                while True:
                    replies = yield from self._insisting(shard, argument, deadline)
                    shard, argument = batch.send(replies)
            self.breaker.succeeded()
        except FAILURES as error:
            self.failed(calls, error)
        finally:
            self.interrupted(calls)

    @staticmethod
    def interrupted(calls: list[Call]) -> None:
        """Whoever sends and is interrupted leaves nobody waiting."""
        for call in calls:
            if not call.done:
                call.finish(error=BackendError("what sent it was interrupted before the answer"))

    def _insisting(
        self, shard: bytes, argument: bytes, deadline: float
    ) -> Generator[Step, list[bytes], list[bytes]]:
        """Send, and once more if that may help."""
        while True:
            try:
                return (yield self.keys(shard), argument)
            except FAILURES as error:
                if not worth_another(error) or deadline - time.monotonic() < self.attempt:
                    raise
                yield self.timeout * PAUSE

    def keys(self, shard: bytes) -> tuple[bytes, ...]:
        """What to tell the server that the script uses.

        It uses keys that nobody can know in advance. While a cluster moves a slot, they may be here
        and there; so a second key is named that never exists, and a node that has not got all keys
        that are named of a slot on the move answers that it be tried again.
        """
        return (shard, shard + b":moved") if self.place.cluster else (shard,)

    def failed(self, calls: list[Call], error: BaseException) -> None:
        """Answer calls with the failure."""
        found = explained(error, self.place)
        if is_away(error):
            self.breaker.failed(found)
        for call in calls:  # each its own: it collects a traceback where it is raised
            own = BackendError(str(found))
            own.__cause__ = error
            call.finish(error=own)

    def refused(self, calls: list[Call], error: BackendError) -> None:
        """Answer calls that are not sent."""
        for call in calls:
            own = BackendError(str(error))
            own.sent = False
            self.exchange.sent.forget(call.op)
            call.finish(error=own)

    def late(self) -> BackendError:
        """The error of one whose time is up."""
        return BackendError(f"Redis at {self.place}: no answer within {self.timeout:g} s")


def shards(calls: list[Call]) -> Iterator[list[Call]]:
    """Those of one shard together, in order, not too many at once."""
    if len(calls) == 1:
        yield calls
        return
    if calls and calls[0].shard != calls[-1].shard:
        calls = sorted(calls, key=lambda call: call.shard)
    for _, group in groupby(calls, key=lambda call: call.shard):
        those = list(group)
        for at in range(0, len(those), MOST_TOGETHER):
            yield those[at : at + MOST_TOGETHER]


class Combiner:
    """Threads: whoever gets the turn sends what everybody has asked for meanwhile."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._turn = threading.Lock()
        self._waiting: deque[Call] = deque()
        self._client: Any = None

    def carry_out(self, call: Call) -> None:
        """Have a call answered, by this thread or by another, in the time allowed."""
        self._waiting.append(call)
        deadline = call.since + self._link.timeout
        if not self._turn.acquire(timeout=self._link.timeout):
            call.finish(error=self._link.late())
            return
        try:
            if not call.done:
                self._send(deadline)
        finally:
            self._turn.release()

    def _send(self, deadline: float) -> None:
        calls = []
        while self._waiting:
            calls.append(self._waiting.popleft())
        try:
            for group in shards([call for call in calls if not call.done]):
                self._exchange(group, deadline)
        finally:
            self._link.interrupted(calls)

    def _exchange(self, calls: list[Call], deadline: float) -> None:
        steps = self._link.exchanging(calls, deadline)
        with suppress(StopIteration), closing(steps):
            step = next(steps)
            while True:
                try:
                    replies = self._take(step)
                except FAILURES as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(replies)

    def _take(self, step: Step) -> list[bytes]:
        if not isinstance(step, tuple):
            time.sleep(step)
            return []
        if self._client is None:
            self._client = self._link.place.client(self._link.attempt)
        return script.call(self._client, *step)

    def close(self) -> None:
        """Close the connection."""
        with self._turn:
            if self._client is not None:
                self._client.close()
                self._client = None


class Turns:
    """Tasks of one event loop: what comes up in one turn of the loop is sent at its end."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._client = link.place.async_client(link.attempt)
        self._waiting: deque[Call] = deque()
        self._flushing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._lifetime: AsyncGenerator[None, None] | None = None

    async def carry_out(self, call: Call) -> None:
        """Have a call answered in the time allowed."""
        loop = asyncio.get_running_loop()
        if self._lifetime is None:
            self._lifetime = self._until_the_loop_ends()
            await self._lifetime.__anext__()
        answered: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            if not answered.done():  # the task may have been cancelled
                answered.set_result(None)

        call.tell = tell
        self._waiting.append(call)
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)
        await answered

    def _flush(self) -> None:
        self._flushing = False
        while self._waiting and len(self._tasks) < MOST_IN_FLIGHT:
            calls = list(self._waiting)
            self._waiting.clear()
            for group in shards([call for call in calls if not call.done]):
                task = asyncio.get_running_loop().create_task(self._exchange(group))
                self._tasks.add(task)
                task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._waiting and not self._flushing:
            self._flush()

    async def _exchange(self, calls: list[Call]) -> None:
        deadline = calls[0].since + self._link.timeout
        steps = self._link.exchanging(calls, deadline)
        with suppress(StopIteration), closing(steps):
            step = next(steps)
            while True:
                try:
                    replies = await self._take(step, deadline)
                except FAILURES as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(replies)

    async def _take(self, step: Step, deadline: float) -> list[bytes]:
        if not isinstance(step, tuple):
            await asyncio.sleep(step)
            return []
        asking = script.acall(self._client, *step)
        return await asyncio.wait_for(asking, deadline - time.monotonic())

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        """What `asyncio.run` closes at its end, as it does every async generator left open: so the
        connections do not outlive their loop, though nobody closed the backend in it.
        """
        try:
            yield
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Send what waits and close the connections."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        close = getattr(self._client, "aclose", self._client.close)
        await close()
