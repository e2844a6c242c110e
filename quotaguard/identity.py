"""Who is acting: the user, organisation and tier that a call is charged to; how urgent it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import NamedTuple, TypeAlias

from .errors import ConfigurationError

Who: TypeAlias = "str | Callable[[], str | None] | None"
"""A name, or what is called at each call to get one."""


class Identity(NamedTuple):
    """Whose buckets a call draws from; None where nothing was said."""

    user: str | None = None
    org: str | None = None
    tier: str | None = None

    def over(self, other: Identity) -> Identity:
        """What this one says, and where it says nothing what ``other`` says."""
        if self is NOBODY:
            return other
        return Identity(
            other.user if self.user is None else self.user,
            other.org if self.org is None else self.org,
            other.tier if self.tier is None else self.tier,
        )


NOBODY = Identity()


class _Block(NamedTuple):
    """An `acting_as` block that is running, and the one around it."""

    identity: Identity = NOBODY
    priority: float | None = None
    made_by: acting_as | None = None
    outer: _Block | None = None


_outside = _Block()
_acting: ContextVar[_Block] = ContextVar("quotaguard_acting", default=_outside)


def current() -> Identity:
    """What the enclosing `acting_as` blocks say."""
    return _acting.get().identity


def current_priority() -> float | None:
    """How urgent they say that calls are."""
    return _acting.get().priority


def name(value: object, what: str) -> str | None:
    """A user, org or tier name, called for if it is a callable.

    Raises:
        ConfigurationError: it is neither a non-empty string nor None.
    """
    if callable(value):
        value = value()
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{what} is a non-empty string or None, not {value!r}")
    return value


MOST_URGENT = 1e6
"""A priority worth a year. Beyond, one could not tell any more who came first."""


def urgency(value: object) -> float | None:
    """A priority, checked.

    Raises:
        ConfigurationError: it is neither a number between -1e6 and 1e6 nor None.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is None or (number and abs(value) <= MOST_URGENT):  # type: ignore[arg-type]
        return value  # type: ignore[return-value]
    raise ConfigurationError(
        "a priority is a number such as 1 (urgent) or -1 (it can wait), between -1e6 and 1e6, not "
        f"{value!r}"
    )


class acting_as:  # noqa: N801  # reads as a verb in a with statement
    """Within the block, guarded calls act for this user (org, tier, priority); blocks nest.

    What it says goes before what the client was made with, and what it leaves out stays as it is
    outside. It follows tasks, ``asyncio.to_thread`` and everything else that copies the context.
    One object may be entered again and again, by threads and tasks at the same time too.

    Raises:
        ConfigurationError: a name is not a non-empty string, or the priority no number.
    """

    __slots__ = ("_identity", "_priority")

    def __init__(
        self,
        user: str | None = None,
        *,
        org: str | None = None,
        tier: str | None = None,
        priority: float | None = None,
    ) -> None:
        self._identity = Identity(name(user, "user"), name(org, "org"), name(tier, "tier"))
        self._priority = urgency(priority)

    def _within(self, outer: _Block) -> _Block:
        priority = outer.priority if self._priority is None else self._priority
        return _Block(self._identity.over(outer.identity), priority, self, outer)

    def __enter__(self) -> Identity:
        block = self._within(_acting.get())
        _acting.set(block)
        return block.identity

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _acting.set(_without(self, _acting.get()))


def _without(made_by: acting_as, block: _Block) -> _Block:
    """The blocks that are running once the innermost one of that object has ended. Those inside it
    go on: a generator that ends does not end what its consumer entered since.
    """
    if block.made_by is None or block.outer is None:  # it was entered in another context
        return block
    if block.made_by is made_by:
        return block.outer
    rest = _without(made_by, block.outer)
    return block if rest is block.outer else block.made_by._within(rest)


@contextmanager
def enclosed() -> Iterator[None]:
    """What is set within the block and never left ends with it."""
    outer = _acting.get()
    try:
        yield
    finally:
        _acting.set(outer)


@contextmanager
def nobody_acting() -> Iterator[None]:
    """Within the block it is as if no `acting_as` were around it."""
    with enclosed():
        _acting.set(_outside)
        yield
