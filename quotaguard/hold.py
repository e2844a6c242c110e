"""A reservation around a block or a function, and what runs inside it."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from .core.lease import Demand, Lease
from .core.plan import Plan
from .errors import ConfigurationError
from .identity import Identity, acting_as
from .usage import Usage

if TYPE_CHECKING:
    from .engine import Engine


class _Frame(NamedTuple):
    """A hold that is running, and the one around it."""

    guard: Engine
    lease: Lease
    outer: _Frame | None


_running: ContextVar[_Frame | None] = ContextVar("quotaguard_running", default=None)


def enclosing(guard: Engine) -> Lease | None:
    """The lease of the innermost hold of that guard that the caller is in."""
    frame = _running.get()
    while frame is not None and frame.guard is not guard:
        frame = frame.outer
    return frame.lease if frame is not None else None


class _Inside:
    """While it lasts, guarded calls belong to a hold and act for its identity."""

    __slots__ = ("_acting", "_frame", "_token")

    def __init__(self, guard: Engine, lease: Lease) -> None:
        who = lease.identity
        self._acting = acting_as(who.user, org=who.org, tier=who.tier)
        self._frame = _Frame(guard, lease, _running.get())

    def __enter__(self) -> None:
        self._acting.__enter__()
        self._token = _running.set(self._frame)

    def __exit__(self, *error: object) -> None:
        with suppress(ValueError):  # left in another context than entered: nothing is to be undone
            _running.reset(self._token)
            self._acting.__exit__(None, None, None)


def _check(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigurationError(f"{what} is a number of tokens >= 0, not {value!r}")


class Hold:
    """`Guard.hold` and `Guard.ahold`: a context manager, sync and async.

    The parts are there for callers whose block runs in pieces (generators): `admission`, `begin`,
    `inside` around each piece, and `ending`.
    """

    __slots__ = ("_demand", "_model", "_scope", "_who", "guard", "lease")

    def __init__(
        self,
        guard: Engine,
        who: Identity,
        model: str | None,
        input_tokens: int,
        output_tokens: int | None,
    ) -> None:
        _check("input_tokens", input_tokens)
        if output_tokens is not None:
            _check("output_tokens", output_tokens)
        self.guard = guard
        self._who = who
        self._model = model
        if output_tokens is None:
            self._demand = Demand(input_tokens, guard.output_guess, hard=False)
        else:
            self._demand = Demand(input_tokens, output_tokens, hard=True)

    def admission(self) -> Plan[Lease]:
        """The plan that reserves."""
        return self.guard.admission(self._who, self._model, lambda *_: self._demand)

    def begin(self, lease: Lease) -> Lease:
        """Take what `admission` gave."""
        self.lease = lease
        return lease

    def inside(self) -> AbstractContextManager[None]:
        """While it lasts, guarded calls belong to this hold and act for its identity."""
        return _Inside(self.guard, self.lease)

    def ending(self, error: BaseException | None, found: Usage | None = None) -> Plan[None] | None:
        """The plan that settles; None if nothing is left to do here and now."""
        lease = self.lease
        outcome = lease.outcome(found, failed=error is not None)
        if not lease.close():
            return None
        if isinstance(error, GeneratorExit):  # perhaps in a finalizer, which may not take locks
            self.guard.abandon(lease, lambda: outcome)
            return None
        return self.guard.settlement(lease, outcome)

    def __enter__(self) -> Lease:
        return self._entered(self.guard.run(self.admission()))

    async def __aenter__(self) -> Lease:
        return self._entered(await self.guard.arun(self.admission()))

    def _entered(self, lease: Lease) -> Lease:
        self.begin(lease)
        self._scope = self.inside()
        self._scope.__enter__()
        return lease

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scope.__exit__(kind, error, trace)
        if (plan := self.ending(error)) is not None:
            self.guard.finish(plan)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scope.__exit__(kind, error, trace)
        if (plan := self.ending(error)) is not None:
            await self.guard.afinish(plan)
