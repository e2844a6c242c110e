"""The ledger's rules over any store: which operation does what to which bucket.

Pure: the state comes from a `Store`, the time is an argument. The memory backend runs it over
dictionaries under a lock, a transactional store can run it in a transaction, and it is the oracle
that other backends are tested against.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from ..limits import Limit
from . import bucket
from .ops import (
    Adjust,
    Adjusted,
    BucketState,
    Candidate,
    Charge,
    Owner,
    Peek,
    Refusal,
    Renew,
    Reservation,
    Reserve,
    Settle,
    Settled,
    Shortfall,
)

Key = tuple[Owner, str]
"""A bucket: its owner and the limit's id."""
State = bucket.State
NOBODY_AHEAD: Mapping[Key, float] = {}


class Held:
    """A reservation in the books."""

    __slots__ = ("answer", "charged", "charges", "expires", "marks", "status")

    def __init__(
        self,
        answer: Reservation,
        charges: tuple[Charge, ...],
        marks: tuple[float, ...],
        expires: float,
    ) -> None:
        self.answer = answer
        self.charges = charges
        self.charged = answer.granted
        """What each bucket is charged for it now."""
        self.marks = marks
        """Each bucket's ``at`` when it was charged."""
        self.expires = expires
        self.status = "open"
        """open -> settled, or open -> expired -> settled."""


class Store(Protocol):
    """Where the books are kept."""

    def bucket(self, key: Key, /) -> State | None:
        """The stored state, None for a full bucket."""
        ...

    def put(self, key: Key, limit: Limit, state: State) -> None:
        """Keep a state; one that is full may be dropped."""
        ...

    def held(self, id: str, /) -> Held | None:
        """The reservation of that id, of any status, unless long forgotten."""
        ...

    def hold(self, held: Held, lease: float) -> None:
        """Keep a new open reservation, or one whose lease was renewed."""
        ...

    def closed(self, held: Held) -> None:
        """A reservation's status went from open to expired or settled, or from expired to settled.
        Of one that is settled nothing but its answer is needed any more.
        """
        ...

    def due(self, now: float) -> Iterable[Held]:
        """The open reservations whose lease has ended."""
        ...

    def open_on(self, key: Key) -> float:
        """What open reservations hold of a bucket."""
        ...


class Ledger:
    """Carries out operations over a store. Not thread-safe: the store's owner sees to that."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def reserve(
        self, op: Reserve, now: float, ahead: Mapping[Key, float] = NOBODY_AHEAD
    ) -> Reservation | Refusal:
        """Admit the first candidate whose charges all fit.

        ``ahead`` says what others, waiting in line for some buckets, will take of them first: this
        call fits into what they leave.
        """
        store = self._store
        found = store.held(op.id)
        if found is not None:
            return found.answer
        replaced = store.held(op.instead_of) if op.instead_of is not None else None
        if replaced is not None and replaced.status != "open":
            replaced = None
        refused: list[tuple[Shortfall, ...]] = []
        for choice, candidate in enumerate(op.candidates):
            takes: list[tuple[Key, Limit, float, float, float]] = []
            short: list[Shortfall] = []
            for charge in candidate.charges:
                owner, limit, amount, least, _ = charge
                key = (owner, limit.id)
                state = bucket.advance(limit, store.bucket(key), now)
                if replaced is not None:
                    state = self._without(replaced, key, limit, state, now)
                drained, at = state
                before = ahead.get(key, 0.0) if ahead else 0.0
                granted = bucket.room(limit, drained + before, amount, least)
                if granted is None:
                    seconds = bucket.wait(limit, drained, at, least, now, before)
                    short.append(Shortfall(charge, limit.ceiling - drained, seconds))
                elif not short:
                    takes.append((key, limit, drained, at, granted))
            if not short:
                if replaced is not None:
                    self._charge(replaced, (0.0,) * len(replaced.charges), now)
                return self._admit(op, choice, candidate, takes, tuple(refused), now)
            refused.append(tuple(short))
        return Refusal(tuple(refused))

    def _admit(
        self,
        op: Reserve,
        choice: int,
        candidate: Candidate,
        takes: list[tuple[Key, Limit, float, float, float]],
        refused: tuple[tuple[Shortfall, ...], ...],
        now: float,
    ) -> Reservation:
        granted: list[float] = []
        left: list[float] = []
        marks: list[float] = []
        for key, limit, drained, at, amount in takes:
            if amount > 0.0:
                until = max(at, now + op.lease) if limit.in_flight else at
                self._store.put(key, limit, (drained + amount, until))
            granted.append(amount)
            left.append(limit.ceiling - drained - amount)
            marks.append(at)
        answer = Reservation(op.id, choice, tuple(granted), tuple(left), refused)
        held = Held(answer, candidate.charges, tuple(marks), now + op.lease)
        self._store.hold(held, op.lease)
        return answer

    @staticmethod
    def _without(held: Held, key: Key, limit: Limit, state: State, now: float) -> State:
        """A bucket's state if a reservation gave back what it holds of it."""
        drained, at = state
        for charge, charged, mark in zip(held.charges, held.charged, held.marks, strict=True):
            if (charge.owner, charge.limit.id) == key:
                drained = bucket.correct(limit, drained, at, -charged, mark)
        return bucket.advance(limit, (drained, at), now)

    def settle(self, op: Settle, now: float) -> Settled:
        """Replace what a reservation holds by what was used, once."""
        held = self._store.held(op.id)
        if held is None or held.status == "settled":
            return Settled(first=False, late=held is None, left=())
        late = held.status == "expired"
        left = self._charge(held, op.amounts or held.answer.granted, now)
        held.status = "settled"
        self._store.closed(held)
        return Settled(first=True, late=late, left=left)

    def expire(self, now: float) -> list[Charge]:
        """End the leases that are due; answers with what they were charged."""
        refunded: list[Charge] = []
        for held in self._store.due(now):
            kept = tuple(
                _kept(charge, granted)
                for charge, granted in zip(held.charges, held.charged, strict=True)
            )
            self._charge(held, kept, now)
            held.status = "expired"
            self._store.closed(held)
            refunded += held.charges
        return refunded

    def _charge(self, held: Held, amounts: tuple[float, ...], now: float) -> tuple[float, ...]:
        """Bring what the buckets are charged for a reservation to ``amounts``."""
        if len(amounts) != len(held.charges):
            raise ValueError(
                f"{held.answer.id} charges {len(held.charges)} buckets, not {len(amounts)}"
            )
        charges: list[float] = []
        left: list[float] = []
        for charge, used, charged, mark in zip(  # noqa: B905  # strict is slow, and checked above
            held.charges, amounts, held.charged, held.marks
        ):
            limit = charge.limit
            amount = 0.0 if limit.in_flight else used
            key = (charge.owner, limit.id)
            drained, at = bucket.advance(limit, self._store.bucket(key), now)
            drained = bucket.correct(limit, drained, at, amount - charged, mark)
            self._store.put(key, limit, (drained, at))
            charges.append(amount)
            left.append(limit.ceiling - drained)
        held.charged = tuple(charges)
        return tuple(left)

    def renew(self, op: Renew, now: float) -> bool:
        """Let an open reservation's lease end ``lease`` seconds from now."""
        held = self._store.held(op.id)
        if held is None or held.status != "open":
            return False
        held.expires = now + op.lease
        for charge, charged in zip(held.charges, held.charged, strict=True):
            if charge.limit.in_flight and charged > 0.0:
                key = (charge.owner, charge.limit.id)
                drained, at = bucket.advance(charge.limit, self._store.bucket(key), now)
                self._store.put(key, charge.limit, (drained, max(at, held.expires)))
        self._store.hold(held, op.lease)
        return True

    def release(self, id: str, now: float) -> tuple[Charge, ...]:
        """Give an open reservation back in full; answers with what it was charged."""
        held = self._store.held(id)
        if held is None or held.status != "open":
            return ()
        charges = held.charges
        self.settle(Settle(id, (0.0,) * len(charges)), now)
        return charges

    def adjust(self, op: Adjust, now: float) -> Adjusted:
        """Give to buckets or take from them, once."""
        found = self._store.held(op.id)
        if found is not None:
            return Adjusted(found.answer.granted, found.answer.left)
        given: list[float] = []
        left: list[float] = []
        for owner, limit, amount in op.changes:
            key = (owner, limit.id)
            drained, at = bucket.advance(limit, self._store.bucket(key), now)
            gift = 0.0 if limit.in_flight else min(amount, drained)
            if gift != 0.0:
                self._store.put(key, limit, (drained - gift, at))
            given.append(gift)
            left.append(limit.ceiling - drained + gift)
        # It is remembered as settled reservations are, so that repeating it changes nothing.
        record = Held(Reservation(op.id, 0, tuple(given), tuple(left)), (), (), now)
        self._store.hold(record, 0.0)
        record.status = "settled"
        self._store.closed(record)
        return Adjusted(tuple(given), tuple(left))

    def peek(self, op: Peek, now: float) -> tuple[BucketState, ...]:
        """Read buckets."""
        states = []
        for owner, limit in op.buckets:
            key = (owner, limit.id)
            drained, at = bucket.advance(limit, self._store.bucket(key), now)
            states.append(
                BucketState(
                    owner,
                    limit,
                    left=limit.ceiling - drained,
                    held=self._store.open_on(key),
                    full_in=bucket.full_in(limit, drained, at, now),
                )
            )
        return tuple(states)


def key_of(charge: Charge) -> Key:
    """The bucket that is charged."""
    return charge.owner, charge.limit.id


def _kept(charge: Charge, granted: float) -> float:
    """What expiry leaves charged, by the rule of the limit."""
    if charge.limit.on_expire == "keep_all":
        return granted
    if charge.limit.on_expire == "return_all":
        return 0.0
    return min(granted, charge.keep)
