"""Reservations as text, for backends that keep them outside this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from ..core.ledger import Held, Key
from ..core.ops import Charge, Owner, Reservation, Shortfall
from ..limits import Limit


def owner_text(owner: Owner) -> str:
    """An owner as text that no other owner has, whatever characters its names are made of."""
    return json.dumps(owner)  # escapes what is not ASCII, lone surrogates included


def bucket_text(key: Key) -> str:
    """The same for a bucket."""
    return json.dumps(key)


def dump(held: Held) -> str:
    """A reservation as JSON; floats keep every digit."""
    answer = held.answer
    return json.dumps(
        (
            held.status,
            held.expires,
            held.charged,
            held.marks,
            [charge_facts(charge) for charge in held.charges],
            answer._replace(
                passed_over=tuple(
                    tuple((charge_facts(s.charge), s.left, s.wait) for s in shortfalls)  # type: ignore[misc]
                    for shortfalls in answer.passed_over
                )
            ),
        )
    )


def load(text: str) -> Held:
    """The reservation that `dump` wrote."""
    status, expires, charged, marks, charges, (id, choice, granted, left, passed) = json.loads(text)
    passed_over = tuple(
        tuple(Shortfall(charge_of(charge), room, wait) for charge, room, wait in shortfalls)
        for shortfalls in passed
    )
    answer = Reservation(id, choice, tuple(granted), tuple(left), passed_over)
    held = Held(answer, tuple(map(charge_of, charges)), tuple(marks), expires)
    held.status = status
    held.charged = tuple(charged)
    return held


def dump_weights(weights: Mapping[int, float]) -> str:
    """The weights of a summary as JSON."""
    return json.dumps(weights)


def load_weights(text: object) -> dict[int, float]:
    """The weights that `dump_weights` wrote; of anything else what looks like some."""
    weights: dict[int, float] = {}
    with suppress(ValueError, TypeError, RecursionError):
        found = json.loads(text)  # type: ignore[arg-type]
        for slot, weight in found.items() if isinstance(found, dict) else ():
            if isinstance(weight, float) and slot.removeprefix("-").isdecimal() and len(slot) < 6:
                weights[int(slot)] = weight
    return weights


def charge_facts(charge: Charge) -> tuple[Any, ...]:
    """What a charge is, in values that JSON has. Of a limit, what the ledger goes by."""
    owner, limit, amount, least, keep = charge
    facts = (
        limit.amount,
        limit.metric,
        limit.period,
        limit.burst,
        limit.scope,
        limit.models,
        limit.tz,
        limit.on_expire,
        limit.fair,
    )
    return owner, facts, amount, least, keep


def charge_of(facts: list[Any]) -> Charge:
    """The charge that `charge_facts` tells of."""
    owner, limit, amount, least, keep = facts
    limit[5] = tuple(limit[5])
    return Charge(tuple(owner), _limit(*limit), amount, least, keep)


@lru_cache(maxsize=1024)
def _limit(amount: float, metric: str, *facts: Any) -> Limit:
    period, burst, scope, models, tz, on_expire, fair = facts
    return Limit(amount, metric, period, burst, scope, models, tz, on_expire, fair=fair)
