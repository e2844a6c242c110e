"""What buckets have left right now, as a page shows it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from ...core.ops import BucketState, Owner
from ...engine import Hashed
from ...errors import BackendError, ConfigurationError
from ...guard import Guard
from ...identity import Identity
from .books import Account, Summary

LOW = 0.2
"""A bucket of which less than this share is left is low."""


class Level(NamedTuple):
    """A bucket as it is now, in units of its metric."""

    key: str
    """Names it in a page."""
    owner: Owner
    limit: str
    metric: str
    left: float
    held: float
    capacity: float
    full_in: float

    @property
    def share(self) -> float:
        """What is left of it, 0.0 to 1.0."""
        return min(1.0, max(0.0, self.left / self.capacity)) if self.capacity else 0.0

    @property
    def state(self) -> str:
        """In a word: ``"in debt"``, ``"empty"``, ``"low"`` or ``"fine"``."""
        if self.left < 0:
            return "in debt"
        if self.left < 1e-9 * max(self.capacity, 1.0):
            return "empty"
        return "low" if self.share < LOW else "fine"


class Levels(NamedTuple):
    """Buckets, the emptiest first, and what was wrong with those that could not be read."""

    rows: tuple[Level, ...]
    problems: tuple[str, ...]


def hashes_names(guard: Guard) -> bool:
    """Whether only hashes of users' names are known."""
    return guard.known_as("alice") != "alice"


def identity_of(account: Account, tier: str | None) -> Identity:
    """Whose buckets to ask for: the journal's name of a user is the one that the ledger knows."""
    user = None if account.user is None else Hashed(account.user)
    return Identity(user, account.org, tier)


def tier_of(guard: Guard, account: Account, summary: Summary | None) -> str | None:
    """The tier to name when asking for an account's buckets; None: as for calls.

    Calls that name their tier leave it in the journal. Where a callable of the team's own gives
    tiers it knows better, unless it can't know since names are hashed.
    """
    last = None if summary is None else summary.tiers.get(account)
    if last is None and summary is not None and account.user is None:
        members = (tier for each, tier in summary.tiers.items() if each.org == account.org)
        last = next(members, None)
    if last not in guard.rules.tiers or (guard.resolver.asks and not hashes_names(guard)):
        return None
    return last


async def levels(guard: Guard, who: Iterable[Identity]) -> Levels:
    """The buckets of some identities; those that they share stand once."""
    answers = await asyncio.gather(*(_peek(guard, identity) for identity in who))
    found: dict[str, Level] = {}
    problems: dict[str, None] = {}
    for answer in answers:
        if isinstance(answer, str):
            problems[answer] = None
        else:
            found |= {level.key: level for level in map(_level, answer)}
    rows = sorted(found.values(), key=lambda level: (level.share, level.left))
    return Levels(tuple(rows), tuple(problems))


async def _peek(guard: Guard, who: Identity) -> tuple[BucketState, ...] | str:
    try:
        states = await guard.apeek(user=who.user, org=who.org, tier=who.tier, everything=True)
    except ConfigurationError as error:
        return str(error)
    except BackendError:
        return "The ledger can't be reached, so nobody knows what is left."  # it may name hosts
    except UnicodeError:
        return "A name is no text that the ledger can hold."
    if who.user is None:  # not those of the anonymous user
        return tuple(state for state in states if state.owner[0] == "org")
    return states


def _level(state: BucketState) -> Level:
    limit = state.limit
    name = repr((state.owner, limit.id)).encode("utf-8", "backslashreplace")
    return Level(
        hashlib.sha256(name).hexdigest()[:16],
        state.owner,
        limit.text,
        limit.metric,
        state.left,
        state.held,
        limit.ceiling / limit.scale,
        state.full_in,
    )
