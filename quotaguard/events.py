"""What happened, for hooks: frozen values without prompt text or keys.

A hook is any callable that takes an event. Hooks observe: an error in one is logged and changes
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from .errors import ConfigurationError, QuotaguardError
from .identity import Identity
from .usage import Usage

log = logging.getLogger("quotaguard")


@dataclass(frozen=True, slots=True)
class Event:
    """What every event says.

    Attributes:
        id: the reservation's id (or the adjustment's); all events of one call share it.
        identity: whose call it is.
        model: the model that was asked for, None for calls without one.
    """

    id: str
    identity: Identity
    model: str | None


@dataclass(frozen=True, slots=True)
class Waiting(Event):
    """The call stands in line; it should be admitted in ``seconds``."""

    limit: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Waited(Event):
    """The call stood in line for ``seconds`` in all; ``admitted`` says with what result."""

    seconds: float
    admitted: bool


@dataclass(frozen=True, slots=True)
class FellBack(Event):
    """Another model serves the call.

    Attributes:
        served: that model.
        limit: the limit that had no room for the one asked for; None: the tier does not include it.
    """

    served: str
    limit: str | None


@dataclass(frozen=True, slots=True)
class Admitted(Event):
    """The call may go; ``reserved`` is what was estimated for it."""

    served: str | None
    reserved: Usage


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """The call may not go; the caller gets ``error``.

    Attributes:
        estimated: what it was estimated to use.
        enforced: False if the guard only observes, so that the call goes all the same.
        waited: seconds that it stood in line.
        stated: whether the request states the most that its answer may have.
    """

    error: QuotaguardError
    estimated: Usage
    enforced: bool = True
    waited: float = 0.0
    stated: bool = False


@dataclass(frozen=True, slots=True)
class Approaching(Event):
    """A limit is nearly used up: this call took it past one of the shares that were to warn.

    Attributes:
        limit: the limit, as text.
        share: the share of it that was passed, such as 0.8.
        left: what is left of it, in units of its metric.
    """

    limit: str
    share: float
    left: float


@dataclass(frozen=True, slots=True)
class Settled(Event):
    """The call is over and charged.

    Attributes:
        served: the model that served it.
        reserved: what was estimated for it.
        used: what it used, with its cost where that is known; None: nobody can tell, it was charged
            as reserved.
        late: its lease had expired before.
        because: why the model asked for did not serve it; None if it did.
        waited: seconds that it stood in line.
        in_full: nano-dollars that it would have cost with the model asked for; None: unknown.
        observed: what would have been done with it, were the guard not only observing:
            ``"refused"``, ``"delayed"`` or ``"downgraded"``; None: nothing.
        left: the limits that were charged, each with the share of its bucket that is left: 1.0 of a
            full one, negative in debt.
        began: when it was admitted, in seconds since the epoch.
        stated: whether the request stated the most that its answer might have.
    """

    served: str | None
    reserved: Usage
    used: Usage | None
    late: bool
    because: str | None = None
    waited: float = 0.0
    in_full: int | None = None
    observed: str | None = None
    left: tuple[tuple[str, float], ...] = ()
    began: float = 0.0
    stated: bool = False


@dataclass(frozen=True, slots=True)
class UsageUnreadable(Event):
    """The provider answered without usage that can be read; charged as reserved."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class BackendFailed(Event):
    """The ledger could not be reached; ``outcome`` is what was done: refused, allowed, queued, or
    local: decided by this process's share of the limits.
    """

    outcome: str
    error: str


@dataclass(frozen=True, slots=True)
class Adjusted(Event):
    """Somebody gave to buckets, or took from them, by hand (`quotaguard.Guard.grant`, ``reset``).

    ``model`` is None: it is about no call.

    Attributes:
        by: who did it, as they said.
        limits: the limits whose buckets they are, as they are written.
        given: what each got, in units of its metric; negative: what was taken.
        left: what each had then.
    """

    by: str
    limits: tuple[str, ...]
    given: tuple[float, ...]
    left: tuple[float, ...]


class Hook(Protocol):
    """Anything that wants to know."""

    def __call__(self, event: Event, /) -> object:
        """Take note of an event; the result is ignored."""
        ...


_everywhere: tuple[Hook, ...] = ()


def listen(hook: Hook) -> Callable[[], None]:
    """Tell a hook of the events of all guards of this process; what is returned ends that."""
    global _everywhere
    _everywhere = (*_everywhere, hook)

    def stop() -> None:
        global _everywhere
        _everywhere = tuple(each for each in _everywhere if each is not hook)

    return stop


class Teller:
    """Tells hooks of events; true if anybody listens, so that events for nobody need not be made.

    An error in a hook is logged and goes no further.
    """

    __slots__ = ("_hooks",)

    def __init__(self, hooks: Iterable[Hook]) -> None:
        if callable(hooks) or not isinstance(hooks, Iterable):
            raise ConfigurationError(f"hooks is a list of callables, not {hooks!r}")
        self._hooks = tuple(hooks)
        for hook in self._hooks:
            if not callable(hook):
                raise ConfigurationError(f"a hook is a callable that takes an event, not {hook!r}")

    def add(self, hook: Hook) -> None:
        """Tell one more."""
        self._hooks = (*self._hooks, hook)

    def __bool__(self) -> bool:
        return bool(self._hooks or _everywhere)

    def __call__(self, event: Event) -> None:
        """Tell them."""
        for hook in (*self._hooks, *_everywhere):
            try:
                hook(event)
            except Exception:
                log.exception("a quotaguard hook failed on %s", type(event).__name__)
