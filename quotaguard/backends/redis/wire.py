"""Operations and answers as the Lua reads and writes them (``lua/bucket.lua``, ``lua/batch.lua``).

All numbers travel as little-endian doubles. Owners and limits travel as digests of a fixed size, so
no name, whatever characters it is made of, can be taken for another or reach another's keys.
"""

from __future__ import annotations

import hashlib
import struct
from base64 import urlsafe_b64encode
from functools import lru_cache
from struct import Struct, pack, unpack_from

from ...core.ops import (
    Adjust,
    Adjusted,
    Answer,
    BucketState,
    Candidate,
    Charge,
    Merge,
    Merged,
    Op,
    Owner,
    Peek,
    Queued,
    Refusal,
    Renew,
    Reservation,
    Reserve,
    Settle,
    Settled,
    Shortfall,
)
from ...limits import Limit
from ...windows import window

_CHARGE = Struct("<20s8sB9d")
_RESERVE = Struct("<cdddd20s8sHI")
_RING = Struct("<dI")
_COUNT = Struct("<H")
_SIZES = Struct("<II")
_SUMMARY = Struct("<20sdH")
_BIN = Struct("<hd")
_KEPT = {"keep_all": float("inf"), "return_all": 0.0}
"""What expiry leaves charged at most, where it is not the charge that says so."""


class Unknown(Exception):
    """The server has no such reservation."""


class OutOfReach(Exception):
    """The calendar boundaries that were sent do not tell the server's present window."""


@lru_cache(maxsize=4096)
def owner_name(owner: Owner) -> bytes:
    """Twenty characters that name an owner."""
    digest = hashlib.blake2b(digest_size=15)
    for part in owner:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(raw))
        digest.update(raw)
    return urlsafe_b64encode(digest.digest())


@lru_cache(maxsize=4096)
def limit_name(id: str) -> bytes:
    """Eight bytes that name a limit among its owner's."""
    return hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest()


_around: dict[tuple[str, str], tuple[float, float, float, float]] = {}


def boundaries(unit: str, tz: str, now: float) -> tuple[float, float, float, float]:
    """Of the calendar windows around ``now``: start of the one before, start, end, next end."""
    found = _around.get((unit, tz))
    if found is None or not found[1] <= now < found[2]:
        start, end = window(unit, tz, now)
        found = window(unit, tz, start - 1.0)[0], start, end, window(unit, tz, end)[1]
        _around[unit, tz] = found
    return found


def _rule(limit: Limit, now: float) -> tuple[float, float, float, float]:
    if isinstance(limit.period, str):
        return boundaries(limit.period, limit.tz, now)
    return limit.rate, 0.0, 0.0, 0.0


def _charges(charges: tuple[Charge, ...], now: float) -> list[bytes]:
    return [
        _CHARGE.pack(
            owner_name(owner),
            limit_name(limit.id),
            limit.fair + 2 * limit.in_flight,
            amount,
            least,
            _KEPT.get(limit.on_expire, keep),
            limit.ceiling,
            limit.slack,
            *_rule(limit, now),
        )
        for owner, limit, amount, least, keep in charges
    ]


def batch(
    told: float, latest: float, remembered: float, operations: list[tuple[bytes, bytes]]
) -> bytes:
    """What the script is called with: its clock (NaN: the server's), the time after which nothing
    is to be done, seconds to remember what is settled, and ids and bodies of operations.
    """
    parts = [pack("<ddd", told, latest, remembered)]
    for id, body in operations:
        parts += (_SIZES.pack(len(id), len(body)), id, body)
    return b"".join(parts)


def text(id: str) -> bytes:
    """An id, whatever it is made of."""
    return id.encode("utf-8", "surrogatepass")


def reserve(op: Reserve, now: float, process: bytes) -> bytes:
    """A Reserve; ``now`` is the server's time as far as it is known, ``process`` eight bytes that
    name the channel to ring on if it stands in line.
    """
    instead_of = text(op.instead_of or "")
    who = op.priority, op.weight, owner_name((op.flow,)), process
    head = op.lease, op.patience, *who, len(op.candidates), len(instead_of)
    parts = [_RESERVE.pack(b"R", *head), instead_of]
    for candidate in op.candidates:
        parts.append(_COUNT.pack(len(candidate.charges)))
        parts += _charges(candidate.charges, now)
    return b"".join(parts)


def settle(op: Settle, charges: tuple[Charge, ...], insist: bool, now: float) -> bytes:
    """A Settle. With ``charges`` it is carried out even if the server lost the reservation;
    ``insist``: it is not asked back for them.
    """
    amounts = op.amounts or ()
    count = len(amounts)
    head = pack(f"<cBHH{count}d", b"S", insist, count, len(charges), *amounts)
    return b"".join([head, *_charges(charges, now)]) if charges else head


def renew(op: Renew) -> bytes:
    """A Renew."""
    return pack("<cd", b"N", op.lease)


RELEASE = b"X"


def peek(op: Peek, now: float) -> bytes:
    """A Peek: charges of nothing."""
    charges = tuple(Charge(owner, limit, 0.0, 0.0, 0.0) for owner, limit in op.buckets)
    return b"".join([b"P", _COUNT.pack(len(charges)), *_charges(charges, now)])


def adjust(op: Adjust, now: float) -> bytes:
    """An Adjust: charges whose amounts are given."""
    charges = tuple(Charge(*change, 0.0, 0.0) for change in op.changes)
    return b"".join([b"J", _COUNT.pack(len(charges)), *_charges(charges, now)])


def merge(op: Merge) -> bytes:
    """A Merge."""
    parts = [pack("<cHd", b"M", len(op.summaries), op.kept)]
    for name, added, most in op.summaries:
        parts.append(_SUMMARY.pack(owner_name(name), most, len(added)))
        parts += [_BIN.pack(slot, weight) for slot, weight in added.items()]
    return b"".join(parts)


def _merged(raw: bytes) -> Merged:
    found, at = [], 1
    while at < len(raw):
        end = at + _COUNT.size + _BIN.size * int(_COUNT.unpack_from(raw, at)[0])
        found.append(dict(_BIN.iter_unpack(raw[at + _COUNT.size : end])))
        at = end
    return Merged(tuple(found))


def read_time(raw: bytes) -> float:
    """The server's time, which comes with every reply."""
    (now,) = unpack_from("<d", raw)
    return float(now)


def read_rings(raw: bytes) -> list[tuple[str, float]] | None:
    """What a process is rung for: the ids of waiters, and in how many seconds to ask again; None if
    it cannot be read, as of another version of this library.
    """
    found, at = [], 0
    try:
        while at < len(raw):
            seconds, size = _RING.unpack_from(raw, at)
            at += _RING.size + size
            found.append((raw[at - size : at].decode("utf-8", "surrogatepass"), seconds))
    except (struct.error, UnicodeDecodeError):
        return None
    return found if at == len(raw) else None


def read(op: Op, raw: bytes) -> Answer:
    """An answer.

    Raises:
        Unknown, OutOfReach: see there.
    """
    if raw[:1] == b"M":
        return _merged(raw)
    kind, numbers = raw[:1], unpack_from(f"<{(len(raw) - 1) // 8}d", raw, 1)
    if kind == b"A":
        return _reservation(op, numbers)  # type: ignore[arg-type]
    if kind == b"S":
        return Settled(numbers[0] == 1.0, numbers[1] == 1.0, numbers[2:])
    if kind == b"R":
        return Refusal(_shortfalls(op.candidates, numbers, 0))  # type: ignore[union-attr]
    if kind == b"Q":
        refusal = Refusal(_shortfalls(op.candidates, numbers, 2))  # type: ignore[union-attr]
        return Queued(refusal, numbers[0], numbers[1] == 1.0)
    if kind == b"P":
        return tuple(
            BucketState(owner, limit, *numbers[3 * i : 3 * i + 3])
            for i, (owner, limit) in enumerate(op.buckets)  # type: ignore[union-attr]
        )
    if kind == b"J":
        half = len(numbers) // 2
        return Adjusted(numbers[:half], numbers[half:])
    if kind == b"U":
        raise Unknown
    if kind == b"W":
        raise OutOfReach
    return {b"T": True, b"F": False, b"N": None}[kind]


def _reservation(op: Reserve, numbers: tuple[float, ...]) -> Reservation:
    choice, count = int(numbers[0]), int(numbers[1])
    return Reservation(
        op.id,
        choice,
        numbers[2 : 2 + count],
        numbers[2 + count : 2 + 2 * count],
        _shortfalls(op.candidates[:choice], numbers, 2 + 2 * count),
    )


def _shortfalls(
    candidates: tuple[Candidate, ...], numbers: tuple[float, ...], at: int
) -> tuple[tuple[Shortfall, ...], ...]:
    found = []
    for candidate in candidates:
        end = at + 1 + 3 * int(numbers[at])
        found.append(
            tuple(
                Shortfall(candidate.charges[int(numbers[i])], numbers[i + 1], numbers[i + 2])
                for i in range(at + 1, end, 3)
            )
        )
        at = end
    return tuple(found)
