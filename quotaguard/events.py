"""What happened, for hooks: frozen values without prompt text or keys.

A hook is any callable that takes an event. Hooks observe: an error in one is logged and changes
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from .errors import QuotaguardError
from .identity import Identity
from .usage import Usage

log = logging.getLogger("quotaguard")


@dataclass(frozen=True, slots=True)
class Event:
    """What every event says.

    Attributes:
        id: the reservation's id; all events of one call share it.
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
    """Another model serves the call; ``limit`` had no room for the one asked for."""

    served: str
    limit: str


@dataclass(frozen=True, slots=True)
class Admitted(Event):
    """The call may go; ``reserved`` is what was estimated for it."""

    served: str | None
    reserved: Usage


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """The call may not go; the caller gets ``error``."""

    error: QuotaguardError


@dataclass(frozen=True, slots=True)
class Settled(Event):
    """The call is over and charged.

    Attributes:
        used: what it used; None: nobody can tell, it was charged as reserved.
        late: its lease had expired before.
    """

    served: str | None
    reserved: Usage
    used: Usage | None
    late: bool


@dataclass(frozen=True, slots=True)
class UsageUnreadable(Event):
    """The provider answered without usage that can be read; charged as reserved."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class BackendFailed(Event):
    """The ledger could not be reached; ``outcome`` is what was done: refused, allowed or queued."""

    outcome: str
    error: str


class Hook(Protocol):
    """Anything that wants to know."""

    def __call__(self, event: Event, /) -> object:
        """Take note of an event; the result is ignored."""
        ...


class Teller:
    """Tells hooks of events; true if anybody listens, so that events for nobody need not be made.

    An error in a hook is logged and goes no further.
    """

    __slots__ = ("_hooks",)

    def __init__(self, hooks: Iterable[Hook]) -> None:
        self._hooks = tuple(hooks)

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def __call__(self, event: Event) -> None:
        """Tell them."""
        for hook in self._hooks:
            try:
                hook(event)
            except Exception:
                log.exception("a quotaguard hook failed on %s", type(event).__name__)
