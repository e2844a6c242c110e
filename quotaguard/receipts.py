"""Receipts: what a guarded call asked for, got and paid, found by its response."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from .core.lease import Lease
from .display import Displayed
from .identity import Identity
from .usage import NANO, Usage


@dataclass(frozen=True, slots=True)
class Receipt(Displayed):
    """The story of one guarded call.

    Attributes:
        id: the reservation's id, as in events.
        identity: whose call it was.
        requested_model: the model that was asked for.
        served_model: the model that served it.
        because: the limit that had no room for the requested model; None if that was served.
        reserved: what was estimated before the call.
        used: what was charged after it; None while it runs, or if it was charged as reserved.
        settled: whether the call is over and charged.
        waited: seconds that it stood in line.
        left: text of each limit -> what its bucket had left then, in units of its metric.
        cost: US dollars that it cost with the model that served it, by the guard's prices; None: it
            is not settled, or nobody knows.
        in_full: what it would have cost with the model that was asked for.
        observed: what would have been done with it, were the guard not only observing.
    """

    id: str
    identity: Identity
    requested_model: str | None
    served_model: str | None
    because: str | None
    reserved: Usage
    used: Usage | None
    settled: bool
    waited: float
    left: Mapping[str, float] = field(default_factory=dict)
    cost: Decimal | None = None
    in_full: Decimal | None = None
    observed: str | None = None


class _Book:
    """Leases by the identity of what was returned for them, for as long as that lives."""

    def __init__(self) -> None:
        self._leases: dict[int, tuple[weakref.ref[Any], Lease]] = {}

    def enter(self, response: object, lease: Lease) -> None:
        key = id(response)
        try:
            ref = weakref.ref(response, lambda _: self._leases.pop(key, None))
        except TypeError:  # a dict, a str: nothing can hang on it
            return
        self._leases[key] = ref, lease

    def find(self, response: object) -> Lease | None:
        found = self._leases.get(id(response))
        return found[1] if found is not None and found[0]() is response else None


_book = _Book()
enter = _book.enter
_PARTS = ("response", "http_response", "_raw_stream", "_response")
"""Where the SDKs' wrappers keep what they wrap."""


def receipt(response: object) -> Receipt:
    """The receipt of a guarded call, by what it returned: a response, a stream, a raw response.

    Raises:
        LookupError: the object does not come from a guarded call (or is a plain dict or text, on
            which nothing can be noted).
    """
    lease = _search(response, 3)
    if lease is None:
        raise LookupError(f"no receipt: {type(response).__name__} is not from a guarded call")
    return of(lease)


def of(lease: Lease) -> Receipt:
    """The receipt of a lease as it is now."""
    return Receipt(
        id=lease.id,
        identity=lease.identity,
        requested_model=lease.requested,
        served_model=lease.model,
        because=lease.because,
        reserved=lease.reserved,
        used=lease.used,
        settled=not lease.is_open,
        waited=lease.waited,
        left=lease.left,
        cost=_dollars(lease, lease.model),
        in_full=_dollars(lease, lease.requested),
        observed=lease.observed,
    )


def _dollars(lease: Lease, model: str | None) -> Decimal | None:
    if lease.is_open or lease.cost is None:
        return None
    nano = lease.cost(lease.used or lease.reserved, model, lease.demand.service)
    return None if nano is None else Decimal(nano) / NANO


_collected: ContextVar[list[Lease] | None] = ContextVar("quotaguard_collected", default=None)


@contextmanager
def collecting() -> Iterator[list[Lease]]:
    """The leases of all calls that are admitted within the block, by whichever guard.

    It follows tasks, threads and blocks as `acting_as` does; of nested blocks the innermost gets
    them.
    """
    leases: list[Lease] = []
    token = _collected.set(leases)
    try:
        yield leases
    finally:
        _collected.reset(token)


def note(lease: Lease) -> None:
    """Tell `collecting` of an admitted call."""
    leases = _collected.get()
    if leases is not None:
        leases.append(lease)


def _search(response: object, depth: int) -> Lease | None:
    found = _book.find(response)
    if found is not None or depth == 0:
        return found
    for name in _PARTS:
        part = vars(response).get(name) if hasattr(response, "__dict__") else None
        if part is not None and (found := _search(part, depth - 1)) is not None:
            return found
    return None
