"""What ``%%quota`` says of a cell, and which cell a call belongs to."""

from __future__ import annotations

import argparse
import shlex
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import NamedTuple, NoReturn

from ...errors import ConfigurationError
from ...identity import Identity, name
from ...limits import Limit
from ...policies import Fallback, Policy, Wait
from ...tiers import Tier, distinct
from .meter import Meter


class Terms(NamedTuple):
    """Limits, models and policies of a cell, and whom it acts for."""

    identity: Identity = Identity()
    limits: tuple[Limit, ...] = ()
    models: tuple[str, ...] = ()
    policies: tuple[Policy, ...] = ()
    """What is tried when a limit has no room; empty: what the caller's tier says."""

    def within(self, outer: Terms) -> Terms:
        """These terms, and where they say nothing those around them; of limits about the same thing
        these.
        """
        return Terms(
            self.identity.over(outer.identity),
            Tier("outer", outer.limits).overridden(self.limits).limits,
            self.models or outer.models,
            self.policies or outer.policies,
        )

    def over(self, tier: Tier) -> Tier:
        """A caller's tier under these terms."""
        changed = tier.overridden(self.limits, when_exceeded=self.policies or None)
        if not self.models:
            return changed
        instead = Fallback(self.models[0])
        return replace(changed, models=self.models, when_not_allowed=instead)


class Arguments(argparse.ArgumentParser):
    """What the magics take; ``error`` raises, as a notebook is no command line."""

    def __init__(self) -> None:
        super().__init__(prog="%quota", add_help=False, allow_abbrev=False)
        add = self.add_argument
        add("limits", nargs="*", metavar="LIMIT", help='such as "10k tokens/day" or "$1/hour"')
        add("--user", help="whom calls are charged to")
        add("--org", help="the organisation")
        add("--tier", help="the tier, of those that quotaguard.toml has")
        add(
            "--model",
            action="append",
            default=[],
            help="the only models (several: repeat it); calls to others are served by the first",
        )
        add(
            "--fallback",
            action="append",
            default=[],
            metavar="MODEL",
            help="the model that serves a call for which a limit has no room",
        )
        add("--wait", type=float, metavar="SECONDS", help="how long a call may wait in line")
        add("--clear", action="store_true", help="take back what an earlier %%quota set")

    def error(self, message: str) -> NoReturn:
        """Say what is wrong.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(f"{message}\n{self.format_usage().strip()}")


class Line(NamedTuple):
    """What a magic's line says."""

    terms: Terms
    clear: bool


def read(line: str, expanded: Callable[[str], str] = str) -> Line:
    """What a magic's line says.

    Args:
        line: what stands behind the magic's name.
        expanded: fills variables into a word. Words are told apart before, so that a value is never
            taken for an option.

    Raises:
        ConfigurationError: it can't be read, or a value is wrong.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ConfigurationError(f"cannot read {line!r}: {error}") from error
    said = Arguments().parse_args([expanded(word) for word in words])
    policies: list[Policy] = [Fallback(*said.fallback)] if said.fallback else []
    if said.wait is not None:
        policies.append(Wait(said.wait))
    if said.model and set(said.model[0]) & set("*?["):
        raise ConfigurationError(
            f"the first --model serves calls to others, so it is a name, not {said.model[0]!r}"
        )
    models = (*said.model, *said.fallback) if said.model else ()
    who = Identity(name(said.user, "--user"), name(said.org, "--org"), name(said.tier, "--tier"))
    return Line(Terms(who, _limits(said.limits), models, tuple(policies)), said.clear)


def _limits(words: list[str]) -> tuple[Limit, ...]:
    """Limits, each a word of the line; one limit may stand without quotes."""
    try:
        return (Limit.parse(" ".join(words)),)
    except ConfigurationError:
        return distinct(words, "%%quota")


class Cell:
    """A cell that runs under terms, and what its calls come to."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.meter = Meter()
        self._tiers: dict[int, tuple[Tier, Tier]] = {}

    def tier(self, tier: Tier) -> Tier:
        """The tier that a caller of this tier has within the cell; the same object each time."""
        found = self._tiers.get(id(tier))
        if found is None:
            found = self._tiers[id(tier)] = tier, self.terms.over(tier)
        return found[1]


_marked: ContextVar[Cell | None] = ContextVar("quotaguard_cell", default=None)
_foreground: Cell | None = None
_standing: Cell | None = None


def running() -> Cell | None:
    """The cell whose code calls this.

    Tasks and ``asyncio.to_thread`` follow the cell that began them. A thread that began without a
    context, such as one of a pool, belongs to the cell that runs now.
    """
    cell = _marked.get()
    if cell is None and threading.current_thread() is not threading.main_thread():
        return _foreground
    return cell


def in_force() -> Cell | None:
    """The cell whose terms hold here: the running one, or what ``%quota`` set for all of them."""
    return running() or _standing


def stand(cell: Cell | None) -> None:
    """Have these terms hold in cells that have none of their own."""
    global _standing
    _standing = cell


def mark(cell: Cell | None, *, foreground: bool = True) -> None:
    """Calls from here on belong to that cell; None: to no cell."""
    global _foreground
    _marked.set(cell)
    if foreground:
        _foreground = cell
