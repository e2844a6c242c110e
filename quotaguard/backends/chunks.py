"""Chunks of shared buckets that a worker has drawn, and what calls took of them.

Whoever changes them holds the lock of the `quotaguard.backends.stock.Stock` that they are in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..core.ops import Owner, Reservation
from ..limits import Limit
from ..usage import NANO
from ..windows import window

LARGEST_SHARE = 1 / 8
"""Of what a bucket has left, a worker draws this at most: what it strands stays small."""
WORTH = 2.0
"""Calls that a chunk must be good for, else each asks for itself."""
MARGIN = 1.0
"""Seconds around a window's boundary in which nothing is drawn or served: clocks differ."""


class Bucket:
    """A shared bucket as this worker knows it."""

    __slots__ = ("asked_at", "chunk", "drawing", "left", "limit", "owner", "size")

    def __init__(self, owner: Owner, limit: Limit) -> None:
        self.owner = owner
        self.limit = limit
        ahead = limit.draw_ahead
        unit = NANO if limit.metric == "usd" else 1.0
        self.size = ahead * (unit if ahead >= 1.0 else limit.ceiling)
        self.left = 0.0
        """What the bucket had left, beside all chunks, when the ledger was last asked."""
        self.asked_at = -math.inf
        self.drawing = False
        self.chunk: Chunk | None = None

    def worth_drawing(self, amount: float, now: float, hot: float) -> float:
        """How much to draw for a call of ``amount`` that the chunk has no room for; 0.0: nothing.

        A bucket that was last asked of more than ``hot`` seconds ago is cold.
        """
        asked_at, self.asked_at = self.asked_at, now
        if self.drawing or now - asked_at > hot or _served_until(self.limit, now) <= now:
            return 0.0
        if self.chunk is not None and amount <= self.chunk.free(now):
            return 0.0
        size = min(self.size, self.left * LARGEST_SHARE)
        return size if size >= WORTH * amount else 0.0


class Chunk:
    """A part of a bucket, reserved for this worker's calls."""

    __slots__ = (
        "amount",
        "bucket",
        "calls",
        "drawn_at",
        "id",
        "lease",
        "rate",
        "retired",
        "served_at",
        "settled",
        "until",
        "used",
    )

    def __init__(self, id: str, bucket: Bucket, amount: float, now: float, lease: float) -> None:
        self.id = id
        self.bucket = bucket
        self.amount = amount
        self.used = 0.0
        """What its calls hold or were charged; above the amount it is debt."""
        self.calls = 0
        self.drawn_at = self.served_at = now
        self.lease = lease
        self.rate = bucket.limit.rate
        self.until = min(now + lease / 2, _served_until(bucket.limit, now))
        self.retired = False
        self.settled = False

    @property
    def left(self) -> float:
        """What its bucket has left, as far as this worker knows, the rest of the chunk included."""
        return self.bucket.left + self.amount - self.used

    def free(self, now: float) -> float:
        """What calls may still take.

        A bucket refills while a chunk lies idle; chunk and full bucket together would be more than
        the limit allows at once. So a chunk loses what has refilled since it was drawn.
        """
        if not self.drawn_at <= now < self.until:
            return 0.0
        return self.amount - max(self.used, self.rate * (now - self.drawn_at))

    def take(self, amount: float, now: float) -> None:
        """A call takes its part."""
        self.used += amount
        self.calls += 1
        self.served_at = now

    def retire(self) -> None:
        """It serves no more calls, and is not done with before the ledger was told."""
        self.retired = True
        self.calls += 1

    def is_idle(self, now: float, after: float) -> bool:
        """Whether it is of no use any more."""
        return now - self.served_at > after or self.free(now) <= 0.0


class Call:
    """A call that was served from chunks, at least in part."""

    __slots__ = ("answer", "chunks", "rest", "taken")

    def __init__(self, answer: Reservation, chunks: Sequence[Chunk | None]) -> None:
        self.answer = answer
        self.chunks = chunks
        """For each charge where it was taken from; None: the ledger holds it."""
        self.taken: Sequence[float] = answer.granted
        self.rest = [index for index, chunk in enumerate(chunks) if chunk is None]
        """The charges that the ledger holds."""


def _served_until(limit: Limit, now: float) -> float:
    """Until when a chunk that is drawn now may be served from; ``now`` if none is to be drawn."""
    if not limit.is_window:
        return math.inf
    start, end = window(limit.period, limit.tz, now)  # type: ignore[arg-type]
    return end - MARGIN if now >= start + MARGIN else now
