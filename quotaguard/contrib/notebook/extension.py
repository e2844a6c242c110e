"""The IPython extension: the magics, and what happens before and after a cell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from IPython.core.error import UsageError
from IPython.core.magic import no_var_expand
from IPython.display import display as untyped
from IPython.utils.text import FullEvalFormatter

from ...config import set_default_guard
from ...core.ops import BucketState
from ...errors import BackendError, ConfigurationError, QuotaguardError
from ...events import Event, listen
from ...identity import Identity, acting_as
from ...report import Report
from . import terms
from .guard import NotebookGuard, notebook_guard
from .refusals import shorten
from .terms import Cell, Line, Terms, in_force, mark, running, stand
from .views import CellView, LevelsView, Standing
from .waiting import WaitingLine

display: Any = untyped
_MOST_CALLERS = 5
"""Callers whose levels are shown below a cell."""
_FIRST_LINE = re.compile(r"%%quota(?:[ \t]+(?P<line>.*))?$")
_loaded: Extension | None = None


class _Run(NamedTuple):
    """A cell that runs."""

    cell: Cell
    acting: acting_as
    result: Any
    """IPython's own record of the run, by which its end is known."""


class Extension:
    """What is loaded into a shell.

    A cell that begins with ``%%quota`` runs as any other cell does, awaits and last value included,
    after a call of the line magic ``%quota_begin``; IPython's event at its end ends it.
    """

    def __init__(self, shell: Any, guard: NotebookGuard) -> None:
        self.shell = shell
        self.guard = guard
        self._runs: list[_Run] = []
        """Cells that run, each inside the one before it."""
        self._line = WaitingLine(lambda view: display(view, display_id=True))
        self._deaf = listen(self._hear)
        guard.tell.add(self._hear_own)
        shell.register_magic_function(self.quota, "line_cell", "quota")
        shell.register_magic_function(self.quota_begin, "line", "quota_begin")
        shell.input_transformers_cleanup.append(transformed)
        shell.events.register("pre_run_cell", self._before)
        shell.events.register("post_run_cell", self._after)
        shorten(on=True)
        set_default_guard(guard)

    def unload(self) -> None:
        """Take all of it back, and close the guard."""
        while self._runs:
            self._end()
        stand(None)
        set_default_guard(None)
        shorten(on=False)
        self._deaf()
        self.shell.events.unregister("pre_run_cell", self._before)
        self.shell.events.unregister("post_run_cell", self._after)
        self.shell.input_transformers_cleanup.remove(transformed)
        for kind, magic in (("line", "quota"), ("cell", "quota"), ("line", "quota_begin")):
            self.shell.magics_manager.magics[kind].pop(magic, None)
        self.guard.close()

    # -- the magics ------------------------------------------------------------------------------

    @no_var_expand  # it takes the $ of "$5/day" for a variable
    def quota(self, line: str, cell: str | None = None) -> None:
        """Quotas of this notebook.

        On a cell, ``%%quota [LIMIT ...] [options]`` puts its calls under the limits and shows below
        it what they cost. As a line, ``%quota`` shows the levels and what was used today; with
        limits (or --model, --fallback, --wait) it sets them for all cells, and --clear ends that.

        Options: --user, --org, --tier: whom calls are charged to. --model: the only models (calls
        to others are served by the first). --fallback MODEL: who serves calls for which a limit has
        no room. --wait SECONDS: how long a call may stand in line. ``{name}`` stands for what a
        variable holds.
        """
        if cell is not None:  # called by code, not at the top of a cell
            self.shell.run_cell(f"%%quota {line}\n{cell}").raise_error()
            return
        said = self._read(line)
        if said.clear:
            stand(None)
        elif said.terms.limits or said.terms.models or said.terms.policies:
            cell_of_all = Cell(said.terms)
            self._check(cell_of_all)
            stand(cell_of_all)
        now = in_force() or Cell(Terms())
        who = said.terms.identity.over(now.terms.identity)
        display(LevelsView(self._standing(now, who), self._where(), self._today()))

    @no_var_expand
    def quota_begin(self, line: str) -> None:
        """Put what is below it in the cell under terms; ``%%quota`` is how to write it."""
        said = self._read(line).terms
        result = getattr(self.shell.displayhook, "exec_result", None)
        if result is not None and result.info.silent:
            raise UsageError("%%quota in a silent execution, of whose end IPython does not tell")
        around = in_force()
        cell = Cell(said if around is None else said.within(around.terms))
        self._check(cell)
        acting = acting_as(cell.terms.identity.user, org=cell.terms.identity.org)
        acting.__enter__()  # for clients of other guards; `_end` leaves it
        self._runs.append(_Run(cell, acting, result))
        mark(cell)

    def _read(self, line: str) -> Line:
        """What a line says, in which ``{name}`` stands for what a variable holds."""
        try:
            return terms.read(line, self._expanded)
        except ConfigurationError as error:
            raise UsageError(str(error)) from None

    def _expanded(self, word: str) -> str:
        try:
            return str(FullEvalFormatter().vformat(word, (), self.shell.user_ns))
        except Exception as error:  # whatever the notebook's own code raises
            raise ConfigurationError(f"cannot evaluate {word!r}: {error!r}") from error

    def _check(self, cell: Cell) -> None:
        """Whether the terms go together with the guard's; the ledger may be away for now."""
        try:
            self._peek(cell, cell.terms.identity)
        except ConfigurationError as error:
            raise UsageError(str(error)) from None
        except BackendError:
            pass

    # -- events ----------------------------------------------------------------------------------

    def _hear(self, event: Event) -> None:
        """Of any guard."""
        self._line(event)
        cell = running()
        if cell is not None:
            cell.meter(event)

    def _hear_own(self, event: Event) -> None:
        """Of the notebook's guard."""
        cell = running()
        if cell is not None:
            cell.meter.own.add(event.id)

    def _before(self, *_: object) -> None:
        self._line.begin()

    def _after(self, result: Any = None) -> None:
        """A cell ended; perhaps one inside the one with ``%%quota`` (``%%capture`` runs such), and
        all of them if it was thrown away, which has no result.
        """
        while self._runs and (result is None or self._runs[-1].result is result):
            cell = self._end()
            display(CellView(cell.meter, self._standings(cell)))

    def _end(self) -> Cell:
        """The innermost cell is over; the one around it goes on."""
        run = self._runs.pop()
        run.acting.__exit__(None, None, None)
        mark(self._runs[-1].cell if self._runs else None)
        return run.cell

    # -- levels ----------------------------------------------------------------------------------

    def _standings(self, cell: Cell) -> list[Standing]:
        """The levels of those who called through the notebook's guard, or would have."""
        callers = dict.fromkeys(
            Identity(entry.user, entry.org, entry.tier)
            for entry in cell.meter.entries
            if entry.id in cell.meter.own
        )
        return [
            self._standing(cell, identity)
            for identity in list(callers or [cell.terms.identity])[:_MOST_CALLERS]
        ]

    def _standing(self, cell: Cell, identity: Identity) -> Standing:
        named = self.guard.rules.who(identity)
        try:
            return Standing(named, self._peek(cell, identity))
        except QuotaguardError as error:
            return Standing(named, why=str(error))

    def _peek(self, cell: Cell, identity: Identity) -> tuple[BucketState, ...]:
        before = running()
        mark(cell, foreground=False)
        try:
            with acting_as(identity.user, org=identity.org, tier=identity.tier):
                return self.guard.peek(everything=True)
        finally:
            mark(before, foreground=False)

    def _today(self) -> Report | None:
        try:
            return self.guard.report("day", by="hour")
        except QuotaguardError:  # a journal that can't be read is no reason to show no levels
            return None

    def _where(self) -> str:
        """Which ledger; the home folder is not spelled out, since notebooks are handed on."""
        backend = self.guard.backend
        kind, whole = type(backend).__name__, repr(backend).strip("<>")
        said = whole if whole.startswith(kind) else kind
        return f"ledger: {said}".replace(str(Path.home()), "~")


def transformed(lines: list[str]) -> list[str]:
    """A cell with ``%%quota`` at its top, as a cell that begins with a call of ``%quota_begin``.

    Another cell magic below it stays the cell's first line, and goes around.
    """
    first = _FIRST_LINE.match(lines[0].rstrip("\r\n")) if lines else None
    if first is None:
        return lines
    begin = f"get_ipython().run_line_magic('quota_begin', {first['line'] or ''!r})\n"
    body = lines[1:]
    if body and body[0].startswith("%%"):
        return [body[0], begin, *body[1:]]
    return [begin, *body]


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext quotaguard``: from here on clients that are made without a guard use the
    notebook's, calls that wait show a progress bar, and refusals are short.

    Raises:
        ConfigurationError: ``quotaguard.toml`` or the environment says something wrong.
    """
    global _loaded
    if _loaded is None:
        _loaded = Extension(shell, notebook_guard())


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext quotaguard``: all of that ends."""
    global _loaded
    if _loaded is not None and _loaded.shell is shell:
        _loaded.unload()
        _loaded = None
