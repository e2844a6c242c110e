"""Operations on their way: batches of them, sent together and answered one by one.

`Exchange.batch` is a generator that yields what to send and is sent the replies, so the blocking
and the awaiting side (``coalesce.py``) are two short loops.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

from ...clock import Clock
from ...core.ops import (
    Adjust,
    Answer,
    Charge,
    Merge,
    Op,
    Peek,
    Queued,
    Release,
    Renew,
    Reservation,
    Reserve,
    Settle,
)
from ...errors import BackendError
from . import wire

REMEMBERED = 600.0
"""Seconds for which a settled reservation's id is kept, so that repeating changes nothing. An
expired one is kept for a day."""
ROUNDS = 3
EXPIRED_KEPT = 86_400.0
MOST_CLOSED = 65_536

Batch: TypeAlias = Generator[tuple[bytes, bytes], "list[bytes]", None]


class Call:
    """One operation, waiting for its answer."""

    __slots__ = (
        "answer",
        "charges",
        "done",
        "error",
        "insist",
        "op",
        "shard",
        "since",
        "tell",
    )

    def __init__(self, op: Op, shard: bytes) -> None:
        self.op = op
        self.shard = shard
        self.since = time.monotonic()
        self.charges: tuple[Charge, ...] = ()
        self.insist = False
        self.answer: Answer = None
        self.error: BaseException | None = None
        self.done = False
        self.tell: Callable[[], None] | None = None
        """Called when it is answered."""

    def finish(self, answer: Answer = None, error: BaseException | None = None) -> None:
        """Answer it, once."""
        if not self.done:
            self.answer, self.error, self.done = answer, error, True
            if self.tell is not None:
                self.tell()

    def result(self) -> Answer:
        """The answer, or the error raised."""
        if self.error is not None:
            raise self.error
        return self.answer

    def encode(self, now: float, process: bytes) -> tuple[bytes, bytes]:
        """As the script reads it: its id and its body; ``now`` is the server's time as far as it
        is known, ``process`` whom to ring for if it waits.
        """
        op = self.op
        if type(op) is Peek:
            return b"", wire.peek(op, now)
        if type(op) is Merge:
            return b"", wire.merge(op)
        id = wire.text(op.id)  # type: ignore[union-attr]  # the others were above
        if type(op) is Reserve:
            return id, wire.reserve(op, now, process)
        if type(op) is Settle:
            return id, wire.settle(op, self.charges, self.insist, now)
        if type(op) is Renew:
            return id, wire.renew(op)
        if type(op) is Adjust:
            return id, wire.adjust(op, now)
        return id, wire.RELEASE


class Exchange:
    """What goes to and fro: the script's arguments and its replies.

    Args:
        clock: None for the server's clock, else where "now" comes from.
        patience: seconds after which nobody waits for an answer any more.
        process: eight bytes, the name of the channel on which this process is rung for.
    """

    def __init__(self, clock: Clock | None, sent: Sent, patience: float, process: bytes) -> None:
        self._clock = clock
        self.sent = sent
        self._patience = patience
        self.process = process
        self._ahead: float | None = None
        """The server's time less our monotonic clock's, at most; None: not heard yet."""

    def batch(self, calls: list[Call]) -> Batch:
        """The plan of sending calls of one shard, all of which it answers."""
        for _ in range(ROUNDS):
            sent_at = time.monotonic()
            told, now, latest = math.nan, time.time(), math.inf
            if self._clock is not None:
                told = now = self._clock.now()
            elif self._ahead is not None:
                now = sent_at + self._ahead
                # What arrives after we gave it up must not be carried out: nobody would know of it.
                latest = calls[0].since + self._patience + self._ahead
            operations = [call.encode(now, self.process) for call in calls]
            replies = yield calls[0].shard, wire.batch(told, latest, REMEMBERED, operations)
            self._ahead = wire.read_time(replies[0]) - sent_at
            if len(replies) > 1:  # else it came too late, or the server's clock was set forward
                calls = [
                    call
                    for call, raw in zip(calls, replies[1:], strict=True)
                    if not self._answered(call, raw)
                ]
            if not calls:
                return
        for call in calls:
            call.finish(error=BackendError("the ledger's clock jumps from one call to the next"))

    def _answered(self, call: Call, raw: bytes) -> bool:
        try:
            answer = wire.read(call.op, raw)
        except (wire.Unknown, wire.OutOfReach):
            # The server lost the reservation, or our clock was off by days: say it in full.
            call.insist = True
            if isinstance(call.op, Settle):
                call.charges = self.sent.charges(call.op.id)
            return False
        self.sent.note(call.op, answer)
        call.finish(answer)
        return True


class _Entry:
    __slots__ = ("charges", "settling", "shard", "until")

    def __init__(self, shard: bytes, until: float) -> None:
        self.shard = shard
        self.until = until
        self.charges: tuple[Charge, ...] = ()
        self.settling: float | None = None


class Sent:
    """The reservations that this process asked for: in which shard, and what they charge.

    A server that was emptied knows them no more, and then what was used is charged by what is
    known here; but only while the server would still remember that it was charged before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Entry] = OrderedDict()
        self._closed: OrderedDict[str, bytes] = OrderedDict()
        """Id -> shard, of those whose Settle may be repeated."""

    def reserving(self, op: Reserve, shard: bytes) -> None:
        """It is about to be sent."""
        now = time.monotonic()
        with self._lock:
            self._open[op.id] = _Entry(shard, now + op.lease + EXPIRED_KEPT)
            while next(iter(self._open.values())).until <= now:
                self._open.popitem(last=False)

    def forget(self, op: Op) -> None:
        """It was not sent after all."""
        if isinstance(op, Reserve):
            with self._lock:
                self._open.pop(op.id, None)

    def settling(self, id: str) -> None:
        """A Settle is about to be sent, perhaps again."""
        entry = self._open.get(id)
        if entry is not None and entry.settling is None:
            entry.settling = time.monotonic()

    def shard(self, id: str) -> bytes | None:
        """Where a reservation is; None if this process did not ask for it."""
        entry = self._open.get(id)
        return entry.shard if entry is not None else self._closed.get(id)

    def charges(self, id: str) -> tuple[Charge, ...]:
        """What to charge for a reservation that the server does not know; empty if it may just
        have forgotten it.
        """
        entry = self._open.get(id)
        now = time.monotonic()
        if entry is None or entry.until <= now:
            return ()
        if entry.settling is not None and entry.settling + REMEMBERED <= now:
            return ()
        return entry.charges

    def note(self, op: Op, answer: Any) -> None:
        """What became of an operation."""
        if isinstance(op, Reserve):
            if isinstance(answer, Reservation):
                if (entry := self._open.get(op.id)) is not None:
                    entry.charges = op.candidates[answer.choice].charges
            elif not isinstance(answer, Queued):  # who waits may be released
                with self._lock:
                    self._open.pop(op.id, None)
        elif isinstance(op, (Settle, Release)):
            with self._lock:
                entry = self._open.pop(op.id, None)
                if entry is not None:
                    self._closed[op.id] = entry.shard
                    if len(self._closed) > MOST_CLOSED:
                        self._closed.popitem(last=False)
