"""How the tests of the contract are written: once, as plans, and run in sync and in async."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ...backends import Backend
from ...core.drive import adrive, drive
from ...core.ops import (
    Candidate,
    Charge,
    Op,
    Owner,
    Peek,
    Refusal,
    Reservation,
    Reserve,
    Settle,
    Settled,
)
from ...core.plan import Plan
from ...limits import Limit
from ..clock import START, FakeClock

Self = TypeVar("Self", bound="Contract")

ALICE: Owner = ("user", "", "alice")
BOB: Owner = ("user", "", "bob")
ACME: Owner = ("org", "acme")
EVERYBODY: Owner = ("global",)

TOKENS = Limit.parse("60 tokens/minute")
"""A bucket of 60 that refills by one each second."""
REQUESTS = Limit.parse("3 requests/minute")
DAY = Limit.parse("100 tokens/day")
"""A window that resets at midnight."""

LEASE = 1e7
PATIENT = 500.0
HAIR = 1e-3
"""Seconds; too early by that is too early."""


class Contract:
    """What the parts of `BackendContract` share."""

    clock: FakeClock
    shared: bool
    """Whether the backend says that other processes use it too."""

    def make_backend(self, clock: FakeClock) -> Backend:
        """A new backend with empty books. Override it.

        Args:
            clock: the backend's "now", unless it has a clock of its own (see `advance`).
        """
        raise NotImplementedError(f"{type(self).__name__}.make_backend says what is tested")

    def advance(self, seconds: float) -> None:
        """Let time pass. Override it, and `now`, if the backend's time is a server's."""
        self.clock.advance(seconds)

    def now(self) -> float:
        """The backend's time, in seconds since the epoch."""
        return self.clock.now()

    def setup_method(self) -> None:
        """Begin each test in the morning of a Thursday, off every boundary."""
        self.clock = FakeClock(START + 36_000.25, auto_advance=False)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Each test runs twice."""
        if "mode" in metafunc.fixturenames:
            metafunc.parametrize("mode", ["sync", "async"])

    def run(self, plan: Plan[None], mode: str) -> None:
        """Carry a test out over a new backend."""
        backend = self.make_backend(self.clock)
        self.shared = getattr(backend, "shared", False)
        try:
            if mode == "sync":
                drive(plan, backend)
            else:
                asyncio.run(adrive(plan, backend))
        finally:
            backend.close()


def both(test: Callable[[Self], Plan[None]]) -> Callable[[Self, str], None]:
    """A test written as a plan: it yields operations and is sent their answers."""

    def run(self: Self, mode: str) -> None:
        self.run(test(self), mode)

    # Not functools.wraps: pytest would look through it and miss the argument.
    run.__name__, run.__qualname__, run.__doc__ = test.__name__, test.__qualname__, test.__doc__
    return run


# -- operations ------------------------------------------------------------------------------------


def charge(
    amount: float,
    limit: Limit = TOKENS,
    owner: Owner = ALICE,
    *,
    least: float | None = None,
    keep: float = 0.0,
) -> Charge:
    """A charge; all of it is hard unless ``least`` is given."""
    return Charge(owner, limit, amount, amount if least is None else least, keep)


def reserve(
    id: str,
    *charges: Charge,
    lease: float = LEASE,
    patience: float = 0.0,
    instead_of: str | None = None,
) -> Reserve:
    """A reserve of one candidate."""
    return Reserve(id, (Candidate("model", charges),), lease, patience, instead_of)


def choose(id: str, *candidates: Sequence[Charge]) -> Reserve:
    """A reserve of several candidates."""
    return Reserve(id, tuple(Candidate("model", tuple(charges)) for charges in candidates), LEASE)


def settle(id: str, *amounts: float) -> Settle:
    """A settle; without amounts: as reserved."""
    return Settle(id, amounts or None)


# -- plans that several tests use ------------------------------------------------------------------


def take(op: Reserve) -> Plan[Reservation]:
    """A reserve that must be admitted."""
    answer = yield op
    expect(isinstance(answer, Reservation), f"{op} was to be admitted, not {answer}")
    return answer  # type: ignore[no-any-return]


def fail(op: Reserve) -> Plan[Refusal]:
    """A reserve that must be refused."""
    answer = yield op
    expect(isinstance(answer, Refusal), f"{op} was to be refused, not {answer}")
    return answer  # type: ignore[no-any-return]


def pay(id: str, *amounts: float) -> Plan[Settled]:
    """A settle that must be the first."""
    op: Op = settle(id, *amounts)
    answer = yield op
    expect(isinstance(answer, Settled) and answer.first, f"{op} was to count, not {answer}")
    return answer  # type: ignore[no-any-return]


def left(limit: Limit = TOKENS, owner: Owner = ALICE) -> Plan[float]:
    """What a bucket has left."""
    (state,) = yield Peek(((owner, limit),))
    return state.left  # type: ignore[no-any-return]


# -- expectations, with messages that need no help from pytest -------------------------------------


def expect(condition: bool, otherwise: str) -> None:
    """Fail with a message unless the condition holds."""
    if not condition:
        raise AssertionError(otherwise)


def same(actual: object, expected: object) -> None:
    """Fail unless the two are equal."""
    expect(actual == expected, f"got {actual!r}, not {expected!r}")


def near(actual: float, expected: float, within: float = 1e-5) -> None:
    """Fail unless the two numbers are equal up to how floats round."""
    expect(
        actual == expected or math.isclose(actual, expected, rel_tol=1e-9, abs_tol=within),
        f"got {actual!r}, not {expected!r}",
    )
