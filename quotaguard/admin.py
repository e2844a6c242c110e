"""What operators do with a guard's buckets: look at them, give to them, make them full again."""

from __future__ import annotations

import os
from typing import NamedTuple

from .core.ops import FILL, Adjust, Adjusted, BucketState, Change, Owner, Peek
from .core.plan import Plan
from .engine import Engine
from .errors import ConfigurationError
from .events import Adjusted as AdjustedEvent
from .identity import NOBODY, Identity, name
from .limits import Limit, Scope
from .metrics import METRICS

_TOO_MUCH = 1e300


class Adjustment(NamedTuple):
    """What was done to one bucket by hand, in units of its metric."""

    owner: Owner
    limit: Limit
    given: float
    """What it got; negative: what was taken from it."""
    left: float
    """What it had then; negative while it is in debt."""


class Administration(Engine):
    """The part of `quotaguard.Guard` that is about buckets and not about calls."""

    def peek(
        self,
        *,
        user: str | None = None,
        org: str | None = None,
        tier: str | None = None,
        model: str | None = None,
        everything: bool = False,
    ) -> tuple[BucketState, ...]:
        """The buckets that a call would draw from, without spending.

        Args:
            user, org, tier: whose; `acting_as` goes before it.
            model: the call's model; None: limits for some models only are left out.
            everything: all limits, those for some models included, whatever the model. With an org
                and without a user: the limits that the org's users share.

        Raises:
            ConfigurationError: the user or tier is missing or unknown.
            BackendError: the ledger could not be reached.
        """
        return self.run(self._look(Identity(user, org, tier), model, everything))

    async def apeek(
        self,
        *,
        user: str | None = None,
        org: str | None = None,
        tier: str | None = None,
        model: str | None = None,
        everything: bool = False,
    ) -> tuple[BucketState, ...]:
        """`peek`, awaiting."""
        return await self.arun(self._look(Identity(user, org, tier), model, everything))

    def grant(
        self,
        amount: float,
        *,
        user: str | None = None,
        org: str | None = None,
        tier: str | None = None,
        metric: str = "tokens",
        by: str = "",
        id: str | None = None,
    ) -> tuple[Adjustment, ...]:
        """Give a user, or an org, room in all its buckets of a metric: those of its tier and of the
        guard, whatever the model. It never lifts a bucket above its capacity.

        Unlike calls it goes by its arguments alone: `acting_as` does not matter.

        Args:
            amount: units of the metric; negative: taken away, if need be into debt.
            user: whose buckets; with ``org``, those of the user in that org.
            org: without a user: the buckets that the org's users share.
            tier: the tier whose limits are meant (default: as for calls).
            metric: which limits.
            by: who does it, for the record: it stands in the event (`quotaguard.events.Adjusted`).
            id: names this grant. Repeated with the same id within ten minutes (after a lost reply,
                from a webhook that is delivered twice) it changes nothing and answers the same.

        Returns:
            What each bucket was given, and what it has left.

        Raises:
            ConfigurationError: an argument is wrong, or nobody's limit is meant.
            BackendError: the ledger could not be reached; whether it was done is not known.
        """
        amount = _amount(amount)
        return self.run(self._adjust(Identity(user, org, tier), amount, _metric(metric), by, id))

    async def agrant(
        self,
        amount: float,
        *,
        user: str | None = None,
        org: str | None = None,
        tier: str | None = None,
        metric: str = "tokens",
        by: str = "",
        id: str | None = None,
    ) -> tuple[Adjustment, ...]:
        """`grant`, awaiting."""
        amount = _amount(amount)
        plan = self._adjust(Identity(user, org, tier), amount, _metric(metric), by, id)
        return await self.arun(plan)

    def reset(
        self,
        *,
        user: str | None = None,
        org: str | None = None,
        tier: str | None = None,
        metric: str | None = None,
        by: str = "",
        id: str | None = None,
    ) -> tuple[Adjustment, ...]:
        """Make the buckets of a user, or of an org, full again, debts included.

        Calls that are under way keep what they hold. Arguments and errors are those of `grant`;
        without ``metric`` the limits of all metrics are meant.
        """
        return self.run(self._adjust(Identity(user, org, tier), FILL, _metric(metric), by, id))

    async def areset(
        self,
        *,
        user: str | None = None,
        org: str | None = None,
        tier: str | None = None,
        metric: str | None = None,
        by: str = "",
        id: str | None = None,
    ) -> tuple[Adjustment, ...]:
        """`reset`, awaiting."""
        plan = self._adjust(Identity(user, org, tier), FILL, _metric(metric), by, id)
        return await self.arun(plan)

    def _adjust(
        self, who: Identity, amount: float, metric: str | None, by: str, id: str | None
    ) -> Plan[tuple[Adjustment, ...]]:
        """One Adjust of all buckets that are meant, and the event that tells of it."""
        if not isinstance(by, str):
            raise ConfigurationError(f"by is the operator's name, not {by!r}")
        id = name(id, "id") or os.urandom(12).hex()
        identity, meant = yield from self._meant(who, metric)
        changes = tuple(Change(owner, limit, amount * limit.scale) for owner, limit in meant)
        answer: Adjusted = yield Adjust(id, changes)
        scales = [limit.scale for _, limit in meant]
        given = tuple(each / scale for each, scale in zip(answer.given, scales, strict=True))
        left = tuple(each / scale for each, scale in zip(answer.left, scales, strict=True))
        if self.tell:
            texts = tuple(limit.text for _, limit in meant)
            self.tell(AdjustedEvent(id, identity, None, by, texts, given, left))
        return tuple(
            Adjustment(*bucket, gave, has)
            for bucket, gave, has in zip(meant, given, left, strict=True)
        )

    def _look(
        self, who: Identity, model: str | None, everything: bool
    ) -> Plan[tuple[BucketState, ...]]:
        identity, tier = yield from self.caller(who)
        if everything:
            shared: Scope | None = "org" if identity.user is None and identity.org else None
            buckets = self.rules.all_buckets(tier, identity, shared)
        else:
            buckets = self.rules.buckets(tier, identity, model)
        found: tuple[BucketState, ...] = yield Peek(tuple(buckets))
        return tuple(
            state._replace(left=state.left / state.limit.scale, held=state.held / state.limit.scale)
            for state in found
        )

    def _meant(
        self, who: Identity, metric: str | None
    ) -> Plan[tuple[Identity, list[tuple[Owner, Limit]]]]:
        """The buckets of a user, or else those that an org's users share."""
        user, org = name(who.user, "user"), name(who.org, "org")
        if user is None and org is None:
            raise ConfigurationError(
                "whose buckets? say user=, or org= for those that an org shares"
            )
        scope: Scope = "org" if user is None else "user"
        identity, tier = yield from self.caller(who, acting=NOBODY)
        meant = [
            (owner, limit)
            for owner, limit in self.rules.all_buckets(tier, identity, scope)
            if metric in (None, limit.metric) and not limit.in_flight
        ]
        if not meant:
            kind = "" if metric is None else f" on {metric.replace('_', ' ')}"
            raise ConfigurationError(f"tier {tier.name!r} has no limit{kind} per {scope}")
        return identity, meant


def _metric(metric: str | None) -> str | None:
    if metric == "concurrent":
        raise ConfigurationError(
            "slots of calls in flight come back when the calls end; they are not granted"
        )
    if metric is not None and metric not in METRICS:
        raise ConfigurationError(f"unknown metric {metric!r}; known: {', '.join(METRICS)}")
    return metric


def _amount(amount: object) -> float:
    number = isinstance(amount, (int, float)) and not isinstance(amount, bool)
    if not number or not 0 < abs(amount) < _TOO_MUCH:  # type: ignore[arg-type]
        raise ConfigurationError(f"an amount is a finite number other than 0, not {amount!r}")
    return float(amount)  # type: ignore[arg-type]
