"""Operations that the tests of backends use."""

from __future__ import annotations

from typing import Any

from quotaguard.backends import Backend
from quotaguard.core.ops import Candidate, Charge, Owner, Peek, Reserve
from quotaguard.limits import Limit

ALICE: Owner = ("user", "", "alice")
SLOW = Limit.parse("1k tokens/rolling month")
"""It refills by less than one in the time that a test takes."""


def reserve(
    id: str,
    amount: float = 10.0,
    *limits: Limit,
    owner: Owner = ALICE,
    lease: float = 60.0,
    patience: float = 0.0,
    keep: float = 0.0,
) -> Reserve:
    """A call that charges the amount to each limit."""
    charges = tuple(Charge(owner, limit, amount, amount, keep) for limit in limits or (SLOW,))
    return Reserve(id, (Candidate("m", charges),), lease, patience)


def state(backend: Backend, limit: Limit = SLOW, owner: Owner = ALICE) -> Any:
    """The bucket as it is."""
    (found,) = backend.execute(Peek(((owner, limit),)))  # type: ignore[misc]
    return found


def left(backend: Backend, limit: Limit = SLOW, owner: Owner = ALICE) -> float:
    """What it has left, but for what refilled meanwhile."""
    return round(float(state(backend, limit, owner).left), 1)
