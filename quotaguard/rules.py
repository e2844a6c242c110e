"""What applies to whom: a guard's tiers and limits, and what a call charges under them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .core.lease import Demand
from .core.ops import Charge, Owner
from .errors import ConfigurationError
from .identity import Identity, name
from .limits import Limit, Scope
from .pricing import Prices
from .tiers import Tier, distinct

_COMPILED = 4096
"""Tiers whose limits are kept at hand; a resolver may make one for each user."""
MUCH = 2.0**53
"""Tokens; more than any request has."""


class _Applied(NamedTuple):
    """A tier's limits and everybody's."""

    tier: Tier
    limits: tuple[Limit, ...]
    always: bool
    """Whether they apply to every call, whatever its model and org."""
    usd: bool
    """Whether one of them is on money."""


class Rules:
    """Tiers by name, and limits for everybody.

    Args:
        tiers, limits, default_tier, anonymous: as `quotaguard.Guard` takes them.
        prices: what calls cost, for limits on money.

    Raises:
        ConfigurationError: two tiers have one name, two limits of a tier and the guard are about
            the same thing, or the default tier is unknown.
    """

    def __init__(
        self,
        tiers: Iterable[Tier],
        limits: Iterable[str | Limit | Mapping[str, Any]],
        default_tier: str | None,
        anonymous: str | None,
        prices: Prices,
    ) -> None:
        self.limits = distinct(limits, "the guard")
        self.tiers = _by_name(tiers)
        self._prices = prices
        self._compiled: dict[int, _Applied] = {}
        for tier in self.tiers.values():
            self._applied(tier)
        self.default = name(default_tier, "default_tier")
        if self.default is None and len(self.tiers) == 1:
            self.default = next(iter(self.tiers))
        if self.default is not None:
            self.tier(self.default)
        self.anonymous = name(anonymous, "anonymous")

    def changed(
        self,
        tiers: Iterable[Tier] | None = None,
        limits: Iterable[str | Limit | Mapping[str, Any]] | None = None,
        default_tier: str | None = None,
        prices: Prices | None = None,
    ) -> Rules:
        """Other rules that agree with these in what is left out.

        Raises:
            ConfigurationError: an argument is wrong.
        """
        return Rules(
            self.tiers.values() if tiers is None else tiers,
            self.limits if limits is None else limits,
            default_tier or (self.default if tiers is None else None),
            self.anonymous,
            prices or self._prices,
        )

    def who(self, identity: Identity) -> Identity:
        """The identity, complete as far as it can be before its tier is known."""
        if identity.user is None and self.anonymous is not None:
            return identity._replace(user=self.anonymous)
        return identity

    def tier(self, wanted: str | None) -> Tier:
        """The tier of that name; None: the default one.

        Raises:
            ConfigurationError: there is none.
        """
        if wanted is None:
            wanted = self.default
            if wanted is None:
                raise ConfigurationError(
                    "no tier: say tier= on the client or in acting_as, or give the guard a "
                    f"default_tier; known: {', '.join(self.tiers)}"
                )
        tier = self.tiers.get(wanted)
        if tier is None:
            raise ConfigurationError(f"unknown tier {wanted!r}; known: {', '.join(self.tiers)}")
        return tier

    @property
    def known_limits(self) -> frozenset[Limit]:
        """All that there are, of whatever tier."""
        return frozenset(each for found in self._compiled.values() for each in found.limits)

    def _applied(self, tier: Tier) -> _Applied:
        found = self._compiled.get(id(tier))
        if found is not None and found.tier is tier:
            return found
        where = f"tier {tier.name!r} and the guard together"
        limits = distinct((*tier.limits, *self.limits), where)
        found = _Applied(
            tier,
            limits,
            not any(limit.models or limit.scope == "org" for limit in limits),
            any(limit.metric == "usd" for limit in limits),
        )
        if len(self._compiled) >= _COMPILED:
            self._compiled.clear()
        self._compiled[id(tier)] = found
        return found

    def in_money(self, tier: Tier) -> bool:
        """Whether calls of the tier come under a limit on money."""
        return self._applied(tier).usd

    def _limits_of(self, tier: Tier, identity: Identity) -> list[Limit]:
        """The limits that some call of an identity comes under."""
        limits = self._applied(tier).limits
        return [limit for limit in limits if limit.scope != "org" or identity.org is not None]

    def _applying(self, tier: Tier, identity: Identity, model: str | None) -> Iterable[Limit]:
        """The limits that a call of the model comes under."""
        applied = self._applied(tier)
        if applied.always:
            return applied.limits
        return [limit for limit in self._limits_of(tier, identity) if limit.covers(model)]

    def buckets(
        self, tier: Tier, identity: Identity, model: str | None
    ) -> list[tuple[Owner, Limit]]:
        """The buckets that a call of the model draws from."""
        return [(_owner(limit, identity), limit) for limit in self._applying(tier, identity, model)]

    def all_buckets(
        self, tier: Tier, identity: Identity, scope: Scope | None = None
    ) -> list[tuple[Owner, Limit]]:
        """All buckets that calls may draw from, whatever the model; with a scope, those of it."""
        return [
            (_owner(limit, identity), limit)
            for limit in self._limits_of(tier, identity)
            if scope in (None, limit.scope)
        ]

    def most_input(self, tier: Tier, identity: Identity, model: str | None) -> float | None:
        """The most input tokens that every bucket can hold, of those that a call draws from; None
        if none of them depends on tokens.
        """
        most: float | None = None
        for limit in self._applying(tier, identity, model):
            if limit.metric in ("tokens", "input_tokens"):
                weight = 1.0 if limit.weights is None else limit.weights.of_model(model)
                holds = limit.ceiling / weight if weight > 0.0 else MUCH
            elif limit.metric == "usd":
                holds = MUCH
            else:
                continue
            most = holds if most is None or holds < most else most
        return most

    def charges(
        self,
        tier: Tier,
        identity: Identity,
        model: str | None,
        demand: Demand,
        untouched: float = 0.0,
    ) -> tuple[Charge, ...]:
        """What a call charges each of them.

        Args:
            untouched: the share of each limit that must be left.

        Raises:
            PriceUnknown: a limit on money applies, and the model has no price.
        """
        high, keep = demand.high, demand.keep
        if self.in_money(tier):
            price = self._prices.of(model, demand.service)
            high = high._replace(nano_usd=price.nano_usd(high))
            keep = keep._replace(nano_usd=price.nano_usd(keep))
        charges = []
        for limit in self._applying(tier, identity, model):
            amount, kept = limit.measure(high, model), limit.measure(keep, model)
            needed = amount if demand.hard else kept
            if limit.in_flight:
                amount = 1.0
            # Something must be left even where all is a guess, or an empty bucket would admit it.
            if not needed:
                needed = 1.0 if amount > 1.0 else amount
            if untouched:
                needed += untouched * limit.ceiling
            charges.append(Charge(_owner(limit, identity), limit, amount, needed, kept))
        return tuple(charges)


def _by_name(tiers: Iterable[Tier]) -> dict[str, Tier]:
    """Tiers by name; without any, one that has no limits of its own."""
    if isinstance(tiers, (Tier, str, Mapping)) or not isinstance(tiers, Iterable):
        raise ConfigurationError(f"tiers is a list of Tier objects, not {tiers!r}")
    named: dict[str, Tier] = {}
    for tier in tiers:
        if not isinstance(tier, Tier):
            raise ConfigurationError(f"tiers holds Tier objects, not {tier!r}")
        if tier.name in named:
            raise ConfigurationError(f"two tiers are named {tier.name!r}")
        named[tier.name] = tier
    return named or {"default": Tier("default")}


def _owner(limit: Limit, identity: Identity) -> Owner:
    if limit.scope == "user":
        if identity.user is None:
            raise ConfigurationError(
                f"no user: the limit of {limit} is per user; say user= on the client or use "
                "acting_as(...), or let callers without one share a bucket with "
                "Guard(anonymous='anonymous')"
            )
        return ("user", identity.org or "", identity.user)
    if limit.scope == "org":
        return ("org", identity.org or "")
    return ("global",)
