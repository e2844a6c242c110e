"""What a worker has drawn ahead, and which calls it serves from it: all that needs no asking."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

from ..core.ledger import Key
from ..core.ops import Candidate, Charge, Refusal, Reservation, Reserve, Settle, Settled
from .chunks import Bucket, Call, Chunk

IDLE = 1.0
"""Seconds without a call after which a chunk goes back, and a bucket counts as cold."""
MOST_REMEMBERED = 65_536


Taken: TypeAlias = dict[Key, tuple[Chunk, float]]
"""What a call that is not admitted yet took, and of which chunk."""


class Stock:
    """Chunks by bucket, and the calls that were served from them.

    Args:
        ring: called when a chunk is spent and waits to be settled.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._lock = threading.Lock()
        self._buckets: dict[Key, Bucket] = {}
        self._calls: dict[str, Call] = {}
        self.call = self._calls.get
        self.spent: SimpleQueue[Chunk] = SimpleQueue()
        """Retired chunks that the ledger is to be told of; each counts one call more meanwhile."""

    def serve(self, op: Reserve, now: float) -> Reservation | None:
        """Admit the first candidate, if all that it charges was drawn; else None."""
        buckets = self._buckets
        charges = op.candidates[0].charges
        with self._lock:
            known = self._calls.get(op.id)
            if known is not None:
                return known.answer
            if not charges or op.instead_of in self._calls:
                return None
            chunks = []
            for owner, limit, amount, _, _ in charges:
                bucket = buckets.get((owner, limit.id))
                if bucket is None or (chunk := bucket.chunk) is None or amount > chunk.free(now):
                    return None
                chunks.append(chunk)
            left = []
            for chunk, charge in zip(chunks, charges):  # noqa: B905  # strict is slow
                chunk.used = used = chunk.used + charge[2]
                chunk.calls += 1
                chunk.served_at = now
                left.append(chunk.bucket.left + chunk.amount - used)
            granted = tuple([charge[2] for charge in charges])
            answer = Reservation(op.id, 0, granted, tuple(left))
            self._remember(Call(answer, chunks))
            return answer

    def settled(self, call: Call, op: Settle, rest: Settled | None = None) -> Settled:
        """Charge a call's chunks what it used; ``rest``: what the ledger said of other buckets."""
        amounts = op.amounts or call.answer.granted
        told = iter(rest.left if rest is not None else ())
        left: list[float | None] = []
        with self._lock:
            if self._calls.pop(op.id, None) is None:
                return Settled(first=False, late=False, left=())
            for chunk, taken, amount in zip(call.chunks, call.taken, amounts):  # noqa: B905
                if chunk is None:
                    left.append(next(told, None))
                else:
                    self._give(chunk, amount - taken)
                    left.append(chunk.left)
        lefts = () if None in left else tuple(left)
        return Settled(True, rest is not None and rest.late, lefts)  # type: ignore[arg-type]

    def strip(self, op: Reserve, now: float) -> tuple[Reserve, Taken]:
        """Take from chunks what all candidates charge to their buckets; the rest is to be asked."""
        wanted: dict[Key, float] = {}
        for candidate in op.candidates:
            for charge in candidate.charges:
                if charge.limit.draw_ahead:
                    key = key_of(charge)
                    wanted[key] = max(wanted.get(key, 0.0), charge.amount)
        held: Taken = {}
        with self._lock:
            outer = self._calls.get(op.instead_of or "")
            freed = dict(zip(outer.chunks, outer.taken, strict=True)) if outer is not None else {}
            for key, amount in wanted.items():
                chunk = self._chunk(key)
                if chunk is not None and amount <= chunk.free(now) + freed.get(chunk, 0.0):
                    chunk.take(amount, now)
                    held[key] = chunk, amount
        if not held:
            return op, held
        candidates = tuple(
            Candidate(each.model, tuple(c for c in each.charges if key_of(c) not in held))
            for each in op.candidates
        )
        return op._replace(candidates=candidates), held

    def untake(self, held: Taken) -> None:
        """Nothing came of a call: what it took is free again."""
        with self._lock:
            for chunk, taken in held.values():
                self._give(chunk, -taken)

    def admitted(self, op: Reserve, made: Reservation, held: Taken) -> Reservation:
        """One answer of what was taken here and what was granted there."""
        granted: list[float] = []
        left: list[float] = []
        chunks: list[Chunk | None] = []
        told = iter(zip(made.granted, made.left, strict=True))
        with self._lock:
            for charge in op.candidates[made.choice].charges:
                key = key_of(charge)
                chunk, taken = held.pop(key, (None, 0.0))
                if chunk is None:
                    amount, remaining = next(told)
                    if key in self._buckets:
                        self._buckets[key].left = remaining
                else:
                    amount = charge.amount
                    chunk.used += amount - taken
                    remaining = chunk.left
                chunks.append(chunk)
                granted.append(amount)
                left.append(remaining)
            for chunk, taken in held.values():  # of candidates that were not chosen
                self._give(chunk, -taken)
            outer = self._calls.get(op.instead_of or "")
            if outer is not None:
                for chunk, taken in zip(outer.chunks, outer.taken, strict=True):
                    if chunk is not None:
                        chunk.used -= taken
                outer.taken = (0.0,) * len(outer.taken)
            answer = made._replace(granted=tuple(granted), left=tuple(left))
            if any(chunks):
                self._remember(Call(answer, chunks))
        return answer

    # -- chunks ----------------------------------------------------------------------------------

    def to_draw(self, charge: Charge, now: float) -> tuple[Bucket, float] | None:
        """The bucket, and how much of it is worth drawing for a charge; None if nothing is. Who
        gets an answer draws, and says `drawn` in the end.
        """
        with self._lock:
            key = key_of(charge)
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = self._buckets[key] = Bucket(charge.owner, charge.limit)
            size = bucket.worth_drawing(charge.amount, now, IDLE)
            if not size:
                return None
            bucket.drawing = True
            self._retire(bucket)
            return bucket, size

    def drawn(self, bucket: Bucket, chunk: Chunk | None, left: float) -> None:
        """The bucket has a new chunk, or none could be had; this is left beside it."""
        with self._lock:
            bucket.drawing = False
            bucket.chunk = chunk
            bucket.left = left

    def held_back(self, refusal: Refusal, now: float) -> list[Chunk]:
        """The chunks of buckets that had no room in which something is free, now retired and to be
        finished by the caller.
        """
        found = []
        with self._lock:
            for short in (short for each in refusal.shortfalls for short in each):
                key = key_of(short.charge)
                if key in self._buckets:
                    self._buckets[key].left = short.left
                chunk = self._chunk(key)
                if chunk is not None and chunk.free(now) > 0.0:
                    chunk.bucket.chunk = None
                    chunk.retire()
                    found.append(chunk)
        return found

    def retire_idle(self, now: float) -> None:
        """Retire chunks of no more use."""
        with self._lock:
            for bucket in self._buckets.values():
                if bucket.chunk is not None and bucket.chunk.is_idle(now, IDLE):
                    self._retire(bucket)

    def finished(self, chunk: Chunk) -> None:
        """The ledger was told of a retired chunk; if that is not all, it will be once more."""
        with self._lock:
            self._give(chunk, 0.0)

    def give_up(self) -> None:
        """Retire all chunks, whether or not their calls are settled."""
        with self._lock:
            for bucket in self._buckets.values():
                if bucket.chunk is not None:
                    bucket.chunk.calls = 0
                    self._retire(bucket)

    def _chunk(self, key: Key) -> Chunk | None:
        bucket = self._buckets.get(key)
        return bucket.chunk if bucket is not None else None

    def _retire(self, bucket: Bucket) -> None:
        """A chunk serves no more calls; it is settled when those that it served are."""
        chunk, bucket.chunk = bucket.chunk, None
        if chunk is not None:
            self.give_back(chunk)

    def give_back(self, chunk: Chunk) -> None:
        """Have the ledger told of a chunk that serves no more."""
        chunk.retire()
        self.spent.put(chunk)
        self._ring()

    def _give(self, chunk: Chunk, change: float) -> None:
        """A call is over with its part of a chunk, which is charged that much more or less."""
        chunk.used += change
        chunk.calls -= 1
        if chunk.retired and not chunk.calls and not chunk.settled:
            self.give_back(chunk)

    def _remember(self, call: Call) -> None:
        self._calls[call.answer.id] = call
        if len(self._calls) > MOST_REMEMBERED:  # those that nobody ever settled
            del self._calls[next(iter(self._calls))]


def key_of(charge: Charge) -> Key:
    """The bucket that a charge is for."""
    return charge.owner, charge.limit.id
