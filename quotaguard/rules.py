"""What applies to whom: a guard's tiers and limits, and what a call charges under them."""

from __future__ import annotations

from collections.abc import Iterable

from .core.lease import Demand
from .core.ops import Charge, Owner
from .errors import ConfigurationError
from .identity import Identity, current, name
from .limits import Limit
from .tiers import Tier, distinct


class Rules:
    """Tiers by name, and limits for everybody.

    Raises:
        ConfigurationError: two tiers have one name, two limits of a tier and the guard are about
            the same thing, or the default tier is unknown.
    """

    def __init__(
        self,
        tiers: Iterable[Tier],
        limits: Iterable[str | Limit],
        default_tier: str | None,
        anonymous: str | None,
    ) -> None:
        everybodys = distinct(limits, "the guard")
        self.tiers = _by_name(tiers, everybodys)
        self._limits_of = {name: (*t.limits, *everybodys) for name, t in self.tiers.items()}
        self._default = name(default_tier, "default_tier")
        if self._default is None and len(self.tiers) == 1:
            self._default = next(iter(self.tiers))
        if self._default is not None:
            self.tier(self._default)
        self._anonymous = name(anonymous, "anonymous")

    def resolve(self, who: Identity) -> tuple[Identity, Tier]:
        """The identity that acts now, complete as far as it can be, and its tier.

        Raises:
            ConfigurationError: the tier is missing or unknown.
        """
        identity = current().over(who)
        tier = self.tier(identity.tier)
        return Identity(identity.user or self._anonymous, identity.org, tier.name), tier

    def tier(self, wanted: str | None) -> Tier:
        """The tier of that name; None: the default one.

        Raises:
            ConfigurationError: there is none.
        """
        if wanted is None:
            wanted = self._default
            if wanted is None:
                raise ConfigurationError(
                    "no tier: say tier= on the client or in acting_as, or give the guard a "
                    f"default_tier; known: {', '.join(self.tiers)}"
                )
        tier = self.tiers.get(wanted)
        if tier is None:
            raise ConfigurationError(f"unknown tier {wanted!r}; known: {', '.join(self.tiers)}")
        return tier

    def _applying(self, tier: Tier, identity: Identity, model: str | None) -> list[Limit]:
        """The limits that a call of the model comes under."""
        return [
            limit
            for limit in self._limits_of[tier.name]
            if limit.covers(model) and (limit.scope != "org" or identity.org is not None)
        ]

    def buckets(
        self, tier: Tier, identity: Identity, model: str | None
    ) -> list[tuple[Owner, Limit]]:
        """The buckets that a call of the model draws from."""
        return [(_owner(limit, identity), limit) for limit in self._applying(tier, identity, model)]

    def most_input(self, identity: Identity, model: str | None) -> float | None:
        """The least that a bucket for tokens can hold, of those that a call draws from; None if it
        draws from none.
        """
        tier = self.tier(identity.tier)
        return min(
            (
                limit.ceiling
                for limit in self._applying(tier, identity, model)
                if limit.metric in ("tokens", "input_tokens")
            ),
            default=None,
        )

    def charges(
        self, tier: Tier, identity: Identity, model: str | None, demand: Demand
    ) -> tuple[Charge, ...]:
        """What a call charges each of them."""
        high, keep = demand.high, demand.keep
        least = high if demand.hard else keep
        charges = []
        for owner, limit in self.buckets(tier, identity, model):
            amount = limit.read(high)
            # Something must be left even where all is a guess, or an empty bucket would admit it.
            needed = limit.read(least) or min(1.0, amount)
            charges.append(Charge(owner, limit, amount, needed, limit.read(keep)))
        return tuple(charges)


def _by_name(tiers: Iterable[Tier], everybodys: tuple[Limit, ...]) -> dict[str, Tier]:
    """Tiers by name; without any, one that has no limits of its own."""
    named: dict[str, Tier] = {}
    for tier in tiers:
        if not isinstance(tier, Tier):
            raise ConfigurationError(f"tiers holds Tier objects, not {tier!r}")
        if tier.name in named:
            raise ConfigurationError(f"two tiers are named {tier.name!r}")
        distinct((*tier.limits, *everybodys), f"tier {tier.name!r} and the guard together")
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
