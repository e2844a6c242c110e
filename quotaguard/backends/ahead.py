"""Drawing ahead from hot shared buckets: one trip to the ledger for many calls.

A worker reserves a chunk of a bucket under a lease, serves calls from it without asking, and
settles it with what they used when it is spent, idle, or the backend is closed. What it holds is
debited in the ledger, so all workers together never admit more than the bucket does.
"""

from __future__ import annotations

import os
import secrets
import weakref
from contextlib import suppress
from itertools import count
from queue import Empty
from typing import TYPE_CHECKING

from ..clock import Clock
from ..core.drive import adrive, drive
from ..core.ops import (
    Answer,
    Candidate,
    Charge,
    Decision,
    Op,
    Queued,
    Refusal,
    Release,
    Renew,
    Reservation,
    Reserve,
    Settle,
    Settled,
)
from ..core.plan import Plan
from ..errors import BackendError
from .chunks import Bucket, Call, Chunk
from .pulse import Pulse
from .stock import IDLE, Stock

if TYPE_CHECKING:
    from . import Backend


class DrawAhead:
    """A `Backend` over another one, that asks it once for many calls of the same bucket."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self._backend = backend
        self._now = clock.now
        self._pulse = Pulse(self._tend, IDLE)
        self._begin()
        _open.add(self)

    def _begin(self) -> None:
        """What a forked child must not share with its parent."""
        self._name = f"chunk-{secrets.token_hex(8)}"
        self._numbers = count()
        self._stock = Stock(self._pulse.ring)

    @property
    def shared(self) -> bool:
        """Whether other processes use it too."""
        return getattr(self._backend, "shared", False)

    def execute(self, op: Op) -> Answer:
        """Carry out one operation, from what was drawn if that is enough."""
        answer = self._at_once(op)
        return answer if answer is not None else drive(self._asking(op), self._backend)

    async def aexecute(self, op: Op) -> Answer:
        """The same, awaiting."""
        answer = self._at_once(op)
        return answer if answer is not None else await adrive(self._asking(op), self._backend)

    def close(self) -> None:
        """Return what is left, and close the backend."""
        self._leave()
        self._backend.close()

    async def aclose(self) -> None:
        """`close`, from a task."""
        import asyncio  # whoever awaits has loaded it

        await asyncio.to_thread(self._leave)
        closing = getattr(self._backend, "aclose", None)
        if closing is None:
            self._backend.close()
        else:
            await closing()

    def _at_once(self, op: Op) -> Answer:
        """The answer, if nobody needs to be asked for it; else None."""
        if type(op) is Reserve:
            return self._stock.serve(op, self._now())
        if type(op) is Settle and (call := self._stock.call(op.id)) is not None and not call.rest:
            return self._stock.settled(call, op)
        return None

    # -- asking ----------------------------------------------------------------------------------

    def _asking(self, op: Op) -> Plan[Answer]:
        if isinstance(op, Reserve):
            return (yield from self._reserving(op))
        call = self._stock.call(getattr(op, "id", ""))
        if call is not None:
            if isinstance(op, Settle):
                amounts = op.amounts or call.answer.granted
                told: Settled = yield Settle(op.id, tuple(amounts[i] for i in call.rest))
                return self._stock.settled(call, op, told)
            if isinstance(op, Renew):
                return (yield from self._renewing(call, op))
            if isinstance(op, Release):
                if call.rest:
                    yield op
                self._stock.settled(call, Settle(op.id, (0.0,) * len(call.answer.granted)))
                return None
        answer: Answer = yield op
        return answer

    @staticmethod
    def _renewing(call: Call, op: Renew) -> Plan[bool]:
        alive = True
        for chunk in call.chunks:
            if chunk is not None:
                alive &= yield Renew(chunk.id, op.lease)
        if call.rest:
            alive &= yield op
        return alive

    def _reserving(self, op: Reserve) -> Plan[Decision]:
        yield from self._drawing(op)
        gave_back = False
        while True:
            asked, held = self._stock.strip(op, self._now())
            decision: Decision = Reservation(op.id, 0, (), ())
            try:
                if not held or asked.candidates[0].charges:
                    decision = yield asked
            except BaseException:
                self._stock.untake(held)
                raise
            if isinstance(decision, Reservation):
                return self._stock.admitted(op, decision, held)
            self._stock.untake(held)
            refusal = decision.refusal if isinstance(decision, Queued) else decision
            chunks = self._stock.held_back(refusal, self._now())
            for chunk in chunks:
                yield from self._finishing(chunk)
            if gave_back or not chunks:
                return decision
            gave_back = True

    def _drawing(self, op: Reserve) -> Plan[None]:
        """Draw what the first candidate needs of hot buckets."""
        for charge in op.candidates[0].charges:
            if charge.limit.draw_ahead:
                worth = self._stock.to_draw(charge, self._now())
                if worth is not None:
                    self._pulse.start()
                    yield from self._draw(*worth, op)

    def _draw(self, bucket: Bucket, size: float, op: Reserve) -> Plan[None]:
        chunk = Chunk(self._new_id(), bucket, size, self._now(), op.lease)
        urgency = min(op.priority, 0.0)  # a chunk serves other calls than this one too
        got, left = None, bucket.left
        try:
            decision: Decision = yield Reserve(
                chunk.id, (_all_of(chunk),), op.lease, priority=urgency
            )
            if isinstance(decision, Reservation):
                got, (left,) = chunk, decision.left
            elif isinstance(decision, Refusal):
                left = decision.binding().left
        except BaseException:
            self._stock.give_back(chunk)  # it may have been carried out
            raise
        finally:
            self._stock.drawn(bucket, got, left)

    def _finishing(self, chunk: Chunk) -> Plan[None]:
        """Settle a retired chunk; as long as calls go on, give back what is free of it."""
        try:
            if chunk.calls == 1:  # this one
                yield Settle(chunk.id, (chunk.used,))
                chunk.settled = True
            elif chunk.used < chunk.amount:
                used = max(0.0, chunk.used)
                rest = Chunk(self._new_id(), chunk.bucket, used, self._now(), chunk.lease)
                op = Reserve(rest.id, (_all_of(rest),), rest.lease, 0.0, chunk.id)
                if isinstance((yield op), Reservation):
                    chunk.id, chunk.amount = rest.id, rest.amount
        finally:
            self._stock.finished(chunk)

    def _new_id(self) -> str:
        return f"{self._name}-{next(self._numbers)}"

    # -- in the background -----------------------------------------------------------------------

    def _tend(self) -> None:
        """Return what is idle, settle what is spent."""
        self._stock.retire_idle(self._now())
        self._finish_spent()

    def _leave(self) -> None:
        self._pulse.stop()
        self._stock.give_up()
        self._finish_spent()

    def _finish_spent(self) -> None:
        with suppress(Empty, BackendError):  # away: what is left waits for the next time
            while True:
                drive(self._finishing(self._stock.spent.get_nowait()), self._backend)

    def __repr__(self) -> str:
        return f"<DrawAhead {self._backend!r}>"


def _all_of(chunk: Chunk) -> Candidate:
    """All or nothing; and if its worker dies all of it stays charged, as it may have been used."""
    amount = chunk.amount
    charge = Charge(chunk.bucket.owner, chunk.bucket.limit, amount, amount, amount)
    return Candidate(None, (charge,))


_open: weakref.WeakSet[DrawAhead] = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(_open):
        each._begin()


os.register_at_fork(after_in_child=_after_fork)
