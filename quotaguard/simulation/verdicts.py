"""The entries that a journal would hold if the policy had been in force."""

from __future__ import annotations

from dataclasses import replace

from ..core.lease import Lease
from ..entries import Entry
from ..errors import ModelNotAllowed, PriceUnknown, QuotaExceeded
from ..pricing import Prices


def served(did: Entry, lease: Lease, began: float, end: float, prices: Prices) -> Entry:
    """A call that goes: it uses what it did, or was estimated to where it was refused then."""
    before = did.outcome == "served"
    used = did.charged if before else did.reserved
    as_it_was = before and lease.model == did.served and used.nano_usd is not None
    paid = used.nano_usd if as_it_was else prices.cost(used, lease.model)
    in_full = did.in_full if before else None
    if in_full is None:
        in_full = paid if lease.because is None else prices.cost(used, did.requested)
    used = used._replace(nano_usd=paid)
    guessed = not before or did.used is None
    return replace(
        did,
        time=end,
        outcome="served",
        tier=lease.identity.tier,
        served=lease.model,
        reason=None,
        limit=None,
        because=lease.because,
        observed=None,
        began=began,
        waited=lease.waited,
        reserved=used if guessed else did.reserved,
        used=None if guessed else used,
        in_full=in_full,
    )


def refused(
    did: Entry,
    error: QuotaExceeded | ModelNotAllowed | PriceUnknown,
    arrived: float,
    now: float,
    prices: Prices,
) -> Entry:
    """A call that does not go. What it saves is what the call used, where that is known."""
    used = did.charged if did.outcome == "served" else did.reserved
    if used.nano_usd is None or did.served not in (None, did.requested):
        used = used._replace(nano_usd=prices.cost(used, did.requested))
    return replace(
        did,
        time=now,
        outcome="refused",
        served=None,
        reason=getattr(error, "code", "price_unknown"),
        limit=getattr(error, "limit", None),
        because=None,
        observed=None,
        began=None,
        waited=now - arrived,
        reserved=used,
        used=None,
        in_full=None,
    )


def priced(did: Entry, prices: Prices) -> Entry:
    """A call with its cost, also where whoever recorded it did not know it."""
    if did.outcome == "refused":
        if did.reserved.nano_usd is not None:
            return did
        cost = prices.cost(did.reserved, did.requested)
        return replace(did, reserved=did.reserved._replace(nano_usd=cost))
    used = did.charged
    if used.nano_usd is not None:
        return did
    used = used._replace(nano_usd=prices.cost(used, did.served))
    return replace(did, reserved=used) if did.used is None else replace(did, used=used)
