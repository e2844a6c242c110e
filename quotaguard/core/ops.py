"""Operations on the ledger and their answers: plain data.

A backend carries out one operation in one atomic step. New operations are new values here; the
interface of a backend (`quotaguard.backends.Backend`) stays two methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from ..limits import Limit

Owner: TypeAlias = tuple[str, ...]
"""Whose bucket: ``("user", org, user)``, ``("org", org)`` or ``("global",)``; the provider's own:
``("provider", account, model)`` and ``("pause", account, model)`` (`quotaguard.upstream`)."""


class Charge(NamedTuple):
    """What a call asks of one bucket, in units of the limit's metric."""

    owner: Owner
    limit: Limit
    amount: float
    """What is reserved if the bucket holds it."""
    least: float
    """What must be there. Below ``amount``: between them lies the soft part, reserved as far as the
    bucket holds it, which alone never refuses a call. Above it: what is to be left untouched."""
    keep: float
    """What stays charged if the lease expires before it is settled."""


class Candidate(NamedTuple):
    """One way to serve a call: a model and what that would charge."""

    model: str | None
    charges: tuple[Charge, ...]


class Reserve(NamedTuple):
    """Debit the first candidate whose charges all fit, all of them or none.

    Answer: `Reservation`, or `Refusal`, or (``patience`` > 0 only) `Queued`. Repeated with the
    same id it answers with the reservation that was made, and changes nothing.
    """

    id: str
    candidates: tuple[Candidate, ...]
    lease: float
    """Seconds after which the reservation expires unless renewed or settled."""
    patience: float = 0.0
    """Seconds that the caller would wait in line."""
    instead_of: str | None = None
    """An open reservation whose hold counts as free for this one; it is left holding nothing in the
    same step if this one is admitted, and untouched if not."""
    priority: float = 0.0
    """In line it counts as having come so much earlier (`quotaguard.backends.line.HEAD_START`)."""
    flow: str = ""
    """For whom it waits, where a bucket is shared fairly among flows."""
    weight: float = 1.0
    """How large a share that flow has, in proportion to the others'."""


class Settle(NamedTuple):
    """Replace what a reservation holds by what was really used. Answer: `Settled`.

    Repeated it changes nothing. After the lease expired it charges the difference to what expiry
    had left charged.
    """

    id: str
    amounts: tuple[float, ...] | None
    """One for each charge of the admitted candidate; None: as reserved."""


class Renew(NamedTuple):
    """Let the lease last ``lease`` seconds from now. Answer: True, False if it is not open."""

    id: str
    lease: float


class Park(NamedTuple):
    """Block until it is worth repeating the queued Reserve, at most ``seconds``. Answer: None."""

    id: str
    seconds: float


class Release(NamedTuple):
    """Forget a Reserve whose answer nobody will use: leave the line, or give everything back.

    Answer: None. Changes nothing if there is no such reservation or waiter.
    """

    id: str


class Peek(NamedTuple):
    """Read buckets without spending. Answer: a tuple of `BucketState`, one for each pair."""

    buckets: tuple[tuple[Owner, Limit], ...]


class Consult(NamedTuple):
    """Ask somebody other than the ledger: the driver calls the function, and awaits what it gives
    if that has to be. Answer: what it gives.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]


class Change(NamedTuple):
    """What is given back to one bucket, in units of the limit's metric."""

    owner: Owner
    limit: Limit
    amount: float
    """Never more than makes the bucket full; `FILL`: just that. Negative: what is taken away, if
    need be into debt. Slots of calls in flight come back with the calls: none is given or taken."""


FILL = math.inf
"""The amount of a `Change` that makes a bucket full, whatever it lacks."""


class Adjust(NamedTuple):
    """Give to buckets, or take from them, by hand: all of it in one step. Answer: `Adjusted`.

    Open reservations keep what they hold. Repeated with the same id it answers the same and changes
    nothing; ids are shared with reservations, so no two operations may be given the same one.
    """

    id: str
    changes: tuple[Change, ...]


class Summary(NamedTuple):
    """What one process adds to a summary that many share (`quotaguard.core.summary`)."""

    name: tuple[str, ...]
    added: Mapping[int, float]
    """Weights by bin, bins being integers of 16 bits; empty: it is only asked for."""
    most: float
    """The weight that it may come to; beyond that all of it is halved."""


class Merge(NamedTuple):
    """Add to summaries. Answer: `Merged`. Only backends with ``shared = True`` are asked to.

    Repeated it adds again: a summary can bear it.
    """

    summaries: tuple[Summary, ...]
    kept: float
    """Seconds after which a summary that nobody adds to is forgotten."""


Op: TypeAlias = Reserve | Settle | Renew | Park | Release | Peek | Adjust | Merge
Step: TypeAlias = Op | Consult
"""What a plan may yield: an operation on the ledger, or a question to somebody else."""


class Shortfall(NamedTuple):
    """A bucket that has no room for a charge."""

    charge: Charge
    left: float
    wait: float
    """Seconds until it would have; infinite if it never will. Of calls in flight: until the last
    lease that holds a slot ends, if it is not renewed; one may end any moment."""


class Reservation(NamedTuple):
    """An admitted call: which candidate, and what it holds."""

    id: str
    choice: int
    """Index of the admitted candidate."""
    granted: tuple[float, ...]
    """What each charge of that candidate holds: between its least and its amount."""
    left: tuple[float, ...]
    """What each of those buckets has left."""
    passed_over: tuple[tuple[Shortfall, ...], ...] = ()
    """For each candidate before the admitted one, the buckets that had no room."""


class Refusal(NamedTuple):
    """No candidate fits: for each one the buckets in the way."""

    shortfalls: tuple[tuple[Shortfall, ...], ...]

    def wait(self) -> float:
        """Seconds until the first candidate fits: the least, over the candidates, of the longest
        wait among its buckets.
        """
        return self.binding().wait

    def at_least(self) -> float:
        """The same if calls in flight ended at once, as any of them may."""
        return min(
            max(0.0 if s.charge.limit.in_flight and s.wait < math.inf else s.wait for s in short)
            for short in self.shortfalls
        )

    def binding(self) -> Shortfall:
        """The bucket that takes longest, for the candidate that fits first."""
        return min(map(longest, self.shortfalls), key=lambda s: s.wait)


def longest(short: tuple[Shortfall, ...]) -> Shortfall:
    """Of the buckets in the way of one candidate, the one that takes longest."""
    return max(short, key=lambda s: s.wait)


class Queued(NamedTuple):
    """In line: repeat the same Reserve after `Park`."""

    refusal: Refusal
    wait: float
    """Seconds to park, unless something wakes the line earlier."""
    first: bool = False
    """Whether it is the first in a line."""


Decision: TypeAlias = Reservation | Refusal | Queued


class Alone(NamedTuple):
    """Answer to a Reserve that this process decided by itself, as the ledger is away."""

    decision: Decision
    why: str
    """How the ledger failed."""


class Settled(NamedTuple):
    """The outcome of a Settle."""

    first: bool
    """Whether this was the one that counted, not a repetition."""
    late: bool
    """Whether the lease had expired."""
    left: tuple[float, ...]
    """What each of the buckets has left; empty for a repetition."""


class Adjusted(NamedTuple):
    """What an Adjust did, one number for each change."""

    given: tuple[float, ...]
    """What each bucket was given; negative: what was taken."""
    left: tuple[float, ...]
    """What it had left then."""


class Merged(NamedTuple):
    """The summaries as they are now, in the order of the question: weights by bin."""

    weights: tuple[Mapping[int, float], ...]


class BucketState(NamedTuple):
    """A bucket as it is now, in units of its metric."""

    owner: Owner
    limit: Limit
    left: float
    """What it holds; negative while it is in debt."""
    held: float
    """What open reservations hold of it (already out of ``left``)."""
    full_in: float
    """Seconds until it is full again if nothing else is drawn (for a window, until it resets)."""


Answer: TypeAlias = (
    Decision | Alone | Settled | Adjusted | Merged | bool | tuple[BucketState, ...] | None
)
