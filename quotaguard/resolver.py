"""Which tier a caller has, where a callable of the team's own says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from .core.ops import Consult
from .errors import ConfigurationError
from .identity import Identity
from .rules import Rules
from .tiers import Tier

_KEPT = 4096
"""Answers that are remembered."""


TierOf: TypeAlias = Callable[[Identity], Any]
"""Gives the tier of a caller: a `Tier`, the name of one, None for the default one, or an awaitable
of these."""


class Resolver:
    """Maps callers to tiers.

    Args:
        tier_of: called with the identity of a caller who names no tier; gives a tier's name, a
            `Tier` (perhaps one of the guard's with other limits), or None for the default tier.
            May be a coroutine function.
        seconds: how long its answer holds.
        now: seconds since the epoch.
    """

    def __init__(self, tier_of: TierOf | None, seconds: float, now: Callable[[], float]) -> None:
        if tier_of is not None and not callable(tier_of):
            raise ConfigurationError(f"tier_of is a callable of the identity, not {tier_of!r}")
        self._tier_of = tier_of
        self._seconds = seconds
        self._now = now
        self._known: dict[tuple[str | None, str | None], tuple[float, Tier | str | None]] = {}

    @property
    def asks(self) -> bool:
        """Whether a callable says which tier somebody has."""
        return self._tier_of is not None

    def question(self, identity: Identity) -> Consult:
        """What is to be asked where the tier is not known."""
        assert self._tier_of is not None
        return Consult(self._tier_of, (identity,))

    def known(self, identity: Identity, rules: Rules) -> Tier | None:
        """The tier of an identity; None: it has to be asked for."""
        if identity.tier is not None or self._tier_of is None:
            return rules.tier(identity.tier)
        found = self._known.get(identity[:2])
        if found is None or self._now() >= found[0]:
            return None
        return self._tier(found[1], rules)

    def learn(self, identity: Identity, answer: object, rules: Rules) -> Tier:
        """Take in what the callable said.

        Raises:
            ConfigurationError: it is neither the name of a tier nor a tier.
        """
        if not (answer is None or isinstance(answer, (str, Tier))):
            raise ConfigurationError(f"tier_of gives a tier or the name of one, not {answer!r}")
        tier = self._tier(answer, rules)
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[identity[:2]] = self._now() + self._seconds, answer
        return tier

    def again(self, tier_of: TierOf | None, now: Callable[[], float] | None = None) -> Resolver:
        """The same without what it has learnt, perhaps with another callable or clock."""
        return Resolver(tier_of or self._tier_of, self._seconds, now or self._now)

    @staticmethod
    def _tier(answer: Tier | str | None, rules: Rules) -> Tier:
        return answer if isinstance(answer, Tier) else rules.tier(answer)
