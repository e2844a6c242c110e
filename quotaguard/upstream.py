"""The provider's own limits, learnt from its answers and kept like any other limit.

Answers say in their headers how much the provider allows and what is left of it. What it allows
becomes limits on buckets of the shared ledger, one set for each account and model, which every call
charges beside the caller's own. So calls are held back here before the provider refuses them, at
all workers that share the key.

A bucket is charged for a call before the provider hears of it, so it never holds more than the
provider says is left, unless somebody else uses the key or the provider counts otherwise. Then it
is taken down, to a little less. It is never lifted: while calls are under way nobody can tell by
how much.
"""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from .core.lease import Demand, Lease
from .core.ops import (
    Adjust,
    BucketState,
    Candidate,
    Change,
    Charge,
    Owner,
    Peek,
    Release,
    Reservation,
    Reserve,
)
from .core.plan import Plan
from .counting.histogram import Histogram
from .counting.pool import Pool
from .errors import BackendError
from .limits import Limit
from .models import undated
from .policies import provider_pause
from .providers.told import DAY, MINUTE, Quota, Told
from .rules import MUCH
from .weights import Weights

LONGEST_PAUSE = 3600.0
"""Seconds; whatever a provider says, after that somebody tries."""
RESERVE = 0.05
"""The share of a limit by which our bucket holds less than the provider's: for what others use, or
the provider counts beyond what it bills, until the next answer tells. It shortens a burst once; the
rate stays the provider's."""
SELDOM = 0.25
"""Seconds between two looks at an account's buckets that no refusal asks for."""
_LOCKED = 5.0
"""Seconds after which the lock of a worker that died is free."""
_MOST = 1024
"""Models of accounts whose limits are kept."""
_TOUCH = 1e-12
"""What a call charges the pause: no more than says that it came by."""


class ProviderLimit(Limit):
    """A limit of the provider's own."""

    __slots__ = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "text", f"{self.text} (the provider's)")


_NOTHING = Weights(cached=0.0, cache_write=0.0, output=0.0, models=(("*", 0.0),))
PAUSE = Limit(1.0, "tokens", 1.0, scope="global", weights=_NOTHING)
"""The bucket that is a pause: it is taken down by the seconds that the provider asked for, gets one
back each second, and has room when it is above 0. Calls take nothing of it."""
object.__setattr__(PAUSE, "text", "pause asked for by the provider")
_LOCK = Limit(1.0, "concurrent")
"""Held while buckets are corrected, so that two workers do not take the same away twice."""

_SHARED = (
    *(("requests", MINUTE), ("tokens", MINUTE), ("input_tokens", MINUTE)),
    *(("output_tokens", MINUTE), ("requests", DAY)),
)
"""The limits that workers tell one another of."""
_GROWTH = 1.001

Place = tuple[str, str]
"""An account at a provider, and a model."""


class Aim(NamedTuple):
    """What a bucket held at most at some time; from then on as much more as came back."""

    owner: Owner
    limit: Limit
    left: float
    at: float
    excess: float = math.inf
    """The most that may be taken away to get there."""
    beside_open: bool = False
    """Whether calls that are under way will take what they hold out of that."""

    def change(self, state: BucketState, now: float) -> Change | None:
        """What gets the bucket there; None: it is there."""
        back = max(0.0, now - self.at) * self.limit.rate
        over = state.left - min(self.limit.ceiling, self.left + back)
        over = min(over + state.held if self.beside_open else over, self.excess)
        return Change(self.owner, self.limit, -over) if over > self.limit.slack else None


class Correction(NamedTuple):
    """An errand: take buckets down."""

    aims: tuple[Aim, ...]
    insist: bool
    """Whether it must be done even if somebody else is at it: the provider refused a call."""


class Upstream:
    """What a guard knows of providers' limits.

    Args:
        now: the time, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.pool = Pool(
            "provider-limits", lambda: Histogram(_GROWTH, 1.0, 1e12, 4.0), _MOST * len(_SHARED)
        )
        """What is known, for `quotaguard.sharing.Sharing`."""
        self._known: dict[Place, tuple[ProviderLimit, ...]] = {}
        self._refusals: dict[Place, int] = {}
        """How often in a row, and not saying why."""
        self._looked: dict[Place, float] = {}

    # -- before a call ---------------------------------------------------------------------------

    def charges(self, account: str, model: str, demand: Demand) -> tuple[Charge, ...]:
        """What a call charges an account's buckets.

        All of the estimate, a guess too, since a refusal costs a trip; but never more than the
        bucket can hold: what is too large for good, the provider refuses for good.
        """
        place = (account, undated(model))
        charges = [Charge(("pause", *place), PAUSE, _TOUCH, _TOUCH, 0.0)]
        high, keep = demand.high, demand.keep
        for limit in self._limits(place):
            amount = limit.measure(high, model)
            least = min(amount, limit.ceiling)
            charges.append(Charge(_owner(place), limit, amount, least, limit.measure(keep, model)))
        return tuple(charges)

    def most_input(self, account: str, model: str | None) -> float | None:
        """As `quotaguard.rules.Rules.most_input`: no limit of the provider's refuses for good, but
        where it limits tokens they have to be counted.
        """
        limits = self._limits((account, undated(model or "")))
        return MUCH if any(limit.metric != "requests" for limit in limits) else None

    def _limits(self, place: Place) -> Iterable[ProviderLimit]:
        known = self._known.get(place)
        return self._hearsay(place) if known is None else known

    def _hearsay(self, place: Place) -> list[ProviderLimit]:
        """What other workers said, until an answer says it better."""
        found = []
        with self.pool.lock:
            for metric, period in _SHARED:
                told = self.pool.find(("|".join(place), f"{metric}|{period:g}"), soon=True)
                weights = told.weights if told is not None else {}
                if weights:
                    most = max(weights, key=lambda slot: (weights[slot], -slot))
                    found.append(_limit(metric, _round(_GROWTH**most), period, 1.0))
        return found

    # -- after an answer -------------------------------------------------------------------------

    def hear(
        self, account: str, lease: Lease, told: Told, *, refused: bool, last: bool
    ) -> Correction | None:
        """Take in what an answer says of the limits; what is to be corrected, if something is.

        Args:
            account: whose limits.
            lease: that of the call.
            told: what the answer says.
            refused: whether it is a 429.
            last: whether the SDK will not try again.
        """
        place = (account, undated(lease.model or ""))
        known = self._learn(place, told.quotas)
        now = self._now()
        left = [
            Aim(_owner(place), known[quota.metric], quota.remaining, now)
            for quota in told.quotas
            if quota.remaining is not None
        ]
        if not refused:
            self._refusals.pop(place, None)
            return self._served(place, left, lease, now)
        # The provider may not have charged the calls under way yet. If it has, this leaves so much
        # the more in reserve, once: no later correction takes the same away again.
        left = [aim._replace(beside_open=True) for aim in left]
        pause = told.again
        if pause is None and last and not _explains(left, lease):
            attempt = self._refusals[place] = self._refusals.get(place, 0) + 1
            pause = provider_pause(attempt)
        if pause:
            left.append(Aim(("pause", *place), PAUSE, -min(pause, LONGEST_PAUSE), now))
        return Correction(tuple(left), insist=True) if left else None

    def _learn(self, place: Place, quotas: tuple[Quota, ...]) -> dict[str, ProviderLimit]:
        before = self._known.get(place, ())
        known = {limit.metric: limit for limit in before}
        known |= {q.metric: _limit(q.metric, q.limit, q.period, q.cached) for q in quotas}
        news = set(known.values()) - set(before)
        if news:
            with self.pool.lock:
                self._known[place] = tuple(known.values())
                if len(self._known) > _MOST:
                    del self._known[next(iter(self._known))]
                for limit in news:
                    if (limit.metric, limit.period) in _SHARED:
                        key = "|".join(place), f"{limit.metric}|{limit.period:g}"
                        self.pool.add(key, limit.amount)
        return known

    def _served(self, place: Place, left: list[Aim], lease: Lease, now: float) -> Correction | None:
        """What is to be corrected after a call that was served.

        The provider looked at its limits some time between the call's admission and its answer. So
        a bucket holds too much if it did so then, by what the call was told of it, and does so now.
        Both may be true, by a little, of calls that overtook one another; hence not at each.
        """
        if lease.attempts > 1:
            return None  # what it was told is long ago
        seen = {
            (charge.owner, charge.limit.id): after
            for charge, after in zip(lease.charges, lease.after, strict=True)
        }
        aims = []
        for aim in left:
            after = seen.get((aim.owner, aim.limit.id))
            if after is None:  # nothing was known of it, and nothing charged
                aims.append(aim)
            elif (over := after - (most := _in_reserve(aim))) > aim.limit.slack:
                aims.append(aim._replace(left=most, excess=over))
        if not aims or now < self._looked.get(place, -math.inf) + SELDOM:
            return None
        if len(self._looked) >= _MOST:
            self._looked.clear()
        self._looked[place] = now
        return Correction(tuple(aims), insist=False)

    # -- correcting ------------------------------------------------------------------------------

    def correcting(self, correction: Correction) -> Plan[bool]:
        """The plan that takes buckets down; with the ledger away, nothing is done. It gives True if
        it has to be repeated.
        """
        with suppress(BackendError):
            if not (yield from self._too_much(correction)):
                return False
            _, *place = correction.aims[0].owner
            lock = Charge(("provider", *place), _LOCK, 1.0, 1.0, 0.0)
            id = _new_id()
            held = yield Reserve(id, (Candidate(None, (lock,)),), _LOCKED)
            if not isinstance(held, Reservation):
                return correction.insist
            changes = yield from self._too_much(correction)
            if changes:
                yield Adjust(_new_id(), changes)
            yield Release(id)
        return False

    def _too_much(self, correction: Correction) -> Plan[tuple[Change, ...]]:
        """What the buckets hold beyond what they may, to be taken away."""
        asked = Peek(tuple((aim.owner, aim.limit) for aim in correction.aims))
        states: tuple[BucketState, ...] = yield asked
        now = self._now()
        changes = map(Aim.change, correction.aims, states, itertools.repeat(now))
        return tuple(change for change in changes if change is not None)


def _owner(place: Place) -> Owner:
    return ("provider", *place)


def _new_id() -> str:
    return f"provider-{secrets.token_hex(8)}"  # corrections are rare, and a fork may be between


def _in_reserve(aim: Aim) -> float:
    """What our bucket may hold. What is left was rounded down: where there is no reserve, to go by
    that at each answer would add up.
    """
    reserve = math.floor(RESERVE * aim.limit.ceiling)
    return aim.left - reserve if reserve else aim.left + 1.0


def _explains(aims: Iterable[Aim], lease: Lease) -> bool:
    """Whether what is left says why a call was refused."""
    high = lease.demand.high
    return any(aim.limit.measure(high, lease.model) > aim.left for aim in aims)


@lru_cache(maxsize=_MOST)
def _limit(metric: str, amount: float, period: float, cached: float) -> ProviderLimit:
    weights = None if metric == "requests" or cached == 1.0 else Weights(cached=cached)
    return ProviderLimit(amount, metric, period, weights=weights)


def _round(value: float) -> float:
    """The roundest number that is as near as summaries tell."""
    for digits in range(1, 4):
        rounded = float(f"{value:.{digits}g}")
        if abs(rounded / value - 1.0) < _GROWTH - 1.0:
            return rounded
    return float(math.floor(value))
