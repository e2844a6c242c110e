"""The notebook's guard: clients that are given none use it, and a cell's limits hold in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...config import ANONYMOUS, blaming, described
from ...core.plan import Plan
from ...engine import Caller
from ...errors import ConfigurationError
from ...guard import Guard
from ...identity import Identity
from .terms import Cell, in_force


class NotebookGuard(Guard):
    """A `quotaguard.Guard` whose callers come under the terms of the ``%%quota`` cell that they
    call from, or of ``%quota``, over those of their tier.
    """

    def known_caller(self, said: Identity) -> Caller | None:
        """Whose call it is, under which tier; None if somebody has to be asked."""
        cell = in_force()
        if cell is None:
            return super().known_caller(said)
        found = super().known_caller(cell.terms.identity.over(said))
        return None if found is None else _within(cell, found)

    def caller(self, said: Identity, acting: Identity | None = None) -> Plan[Caller]:
        """The plan that tells who calls, under which tier."""
        cell = in_force() if acting is None else None
        if cell is None:
            return (yield from super().caller(said, acting))
        found = yield from super().caller(cell.terms.identity.over(said))
        return _within(cell, found)


def _within(cell: Cell, caller: Caller) -> Caller:
    return caller._replace(tier=cell.tier(caller.tier))


def ledger() -> Path:
    """The file that notebooks keep levels and journal in where nothing else is said: one for each
    user of this machine, so that a restarted kernel, and another notebook, go on where the day is.
    """
    home = Path.home()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or home / ".local" / "share"
    return Path(base) / "quotaguard" / "notebooks.db"


def notebook_guard() -> NotebookGuard:
    """The guard that ``quotaguard.toml`` or the environment describes, made for a notebook: its
    ledger is `ledger` where they name no backend, and it keeps a journal in the same file (of a
    Redis, in `ledger`).

    Raises:
        ConfigurationError: what they say is wrong, or the file can't be written.
    """
    said, where = described()
    arguments: dict[str, Any] = {"anonymous": ANONYMOUS} | said
    backend = arguments.setdefault("backend", _file_url())
    if "journal" not in arguments:
        here = str(backend).startswith(("memory://", "sqlite:///"))
        arguments["journal"] = backend if here else _file_url()
    with blaming(where):
        return NotebookGuard(**arguments)


def _file_url() -> str:
    file = ledger()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"the ledger of notebooks, {file}, cannot be made: {error.strerror}; name another one "
            "with QUOTAGUARD_BACKEND=sqlite:///quota.db before %load_ext quotaguard"
        ) from error
    return f"sqlite:///{quote(str(file))}"
