"""Who is acting: the user, organisation and tier that a call is charged to."""

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
        return Identity(
            other.user if self.user is None else self.user,
            other.org if self.org is None else self.org,
            other.tier if self.tier is None else self.tier,
        )


NOBODY = Identity()


class _Block(NamedTuple):
    """An `acting_as` block that is running, and the one around it."""

    identity: Identity
    said: Identity
    """What it says itself."""
    made_by: acting_as | None = None
    outer: _Block | None = None


_outside = _Block(NOBODY, NOBODY)
_acting: ContextVar[_Block] = ContextVar("quotaguard_acting", default=_outside)


def current() -> Identity:
    """What the enclosing `acting_as` blocks say."""
    return _acting.get().identity


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


class acting_as:  # noqa: N801  # reads as a verb in a with statement
    """Within the block, guarded calls act for this user (org, tier); blocks nest.

    What it says goes before what the client was made with, and what it leaves out stays as it is
    outside. It follows tasks, ``asyncio.to_thread`` and everything else that copies the context.
    One object may be entered again and again, by threads and tasks at the same time too.

    Raises:
        ConfigurationError: a name is not a non-empty string.
    """

    __slots__ = ("_identity",)

    def __init__(
        self, user: str | None = None, *, org: str | None = None, tier: str | None = None
    ) -> None:
        self._identity = Identity(name(user, "user"), name(org, "org"), name(tier, "tier"))

    def __enter__(self) -> Identity:
        outer = _acting.get()
        identity = self._identity.over(outer.identity)
        _acting.set(_Block(identity, self._identity, self, outer))
        return identity

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
    outer = block.outer
    if outer is None:  # it was entered in another context
        return block
    if block.made_by is made_by:
        return outer
    rest = _without(made_by, outer)
    return (
        block
        if rest is outer
        else _Block(block.said.over(rest.identity), block.said, block.made_by, rest)
    )


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
