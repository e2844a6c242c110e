"""Reservations as text, for backends that keep them outside this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from ..core.ledger import Held
from ..core.ops import Charge, Owner, Reservation, Shortfall
from ..limits import Limit


def owner_text(owner: Owner) -> str:
    """An owner as text that no other owner has, whatever characters its names are made of."""
    return json.dumps(owner)  # escapes what is not ASCII, lone surrogates included


def dump(held: Held) -> str:
    """A reservation as JSON; floats keep every digit."""
    answer = held.answer
    return json.dumps(
        (
            held.status,
            held.expires,
            held.charged,
            held.marks,
            [_charge(charge) for charge in held.charges],
            answer._replace(
                passed_over=tuple(
                    tuple((_charge(s.charge), s.left, s.wait) for s in shortfalls)  # type: ignore[misc]
                    for shortfalls in answer.passed_over
                )
            ),
        )
    )


def load(text: str) -> Held:
    """The reservation that `dump` wrote."""
    status, expires, charged, marks, charges, (id, choice, granted, left, passed) = json.loads(text)
    passed_over = tuple(
        tuple(Shortfall(_read(charge), room, wait) for charge, room, wait in shortfalls)
        for shortfalls in passed
    )
    answer = Reservation(id, choice, tuple(granted), tuple(left), passed_over)
    held = Held(answer, tuple(map(_read, charges)), tuple(marks), expires)
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


def _charge(charge: Charge) -> tuple[Any, ...]:
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
    )
    return owner, facts, amount, least, keep


def _read(charge: list[Any]) -> Charge:
    owner, facts, amount, least, keep = charge
    facts[5] = tuple(facts[5])
    return Charge(tuple(owner), _limit(*facts), amount, least, keep)


@lru_cache(maxsize=1024)
def _limit(*facts: Any) -> Limit:
    return Limit(*facts)
