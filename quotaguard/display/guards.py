"""A guard, shown: its tiers, and the levels of whoever acts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.ops import BucketState
from ..errors import QuotaguardError
from ..identity import current
from ..policies import Fallback, Wait
from ..wording import shown
from . import levels, page

if TYPE_CHECKING:
    from ..guard import Guard
    from ..policies import Policy
    from ..tiers import Tier

_MOST_TIERS = 20


def as_html(guard: Guard) -> page.Html:
    """The guard as a card."""
    found, why = _levels(guard)
    tiers = [_line(guard, tier) for tier in guard.rules.tiers.values()]
    return page.card(
        _title(guard),
        page.note(why),
        levels.as_html(levels.of(found)),
        page.table(("tier", "limits", "models", "when exceeded"), tiers[:_MOST_TIERS], names=4),
        page.note(f"{len(tiers) - _MOST_TIERS} more tiers" if len(tiers) > _MOST_TIERS else ""),
    )


def as_text(guard: Guard) -> str:
    """Its ``repr``, and a line for each level."""
    found, why = _levels(guard)
    return "\n".join([repr(guard), levels.as_text(levels.of(found)) or why]).rstrip()


def _title(guard: Guard) -> str:
    backend = type(guard.backend).__name__.removesuffix("Backend")
    mode = ", observes only" if guard._observing else ""
    return f"Guard, {backend} ledger{mode}"


def _levels(guard: Guard) -> tuple[tuple[BucketState, ...], str]:
    """The levels of whoever acts, and a word on them; none where the ledger does not say."""
    who = current().user or guard.rules.anonymous
    try:
        found = guard.peek(everything=True)
    except QuotaguardError as error:
        return (), str(error)
    if not found:
        return (), "no limits: calls are metered only"
    return found, f"levels of {shown(who)}" if who is not None else "shared levels"


def _line(guard: Guard, tier: Tier) -> tuple[str, str, str, str]:
    limits = [limit.text for limit in (*tier.limits, *guard.rules.limits)]
    policies = guard._policies if tier.when_exceeded is None else tier.when_exceeded
    return (
        tier.name,
        ", ".join(limits) or "none",
        ", ".join(tier.models) or "all",
        ", then ".join(map(_policy, policies)) or "refuse",
    )


def _policy(policy: Policy) -> str:
    if isinstance(policy, Fallback):
        return f"{' or '.join(policy.models)} instead"
    return f"wait up to {policy.max_seconds:g} s" if isinstance(policy, Wait) else "refuse"
