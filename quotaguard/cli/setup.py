"""Which guard a command is about."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import ANONYMOUS, FILE, blaming, config_file, described, load_guard
from ..errors import ConfigurationError
from ..guard import Guard
from ..journal import Journal

if TYPE_CHECKING:
    import click


@dataclass(frozen=True, slots=True)
class Setup:
    """What the options before the command say."""

    config: Path | None
    app: str | None
    context: click.Context

    @property
    def file(self) -> Path | None:
        """The configuration file, if there is one."""
        return self.config or config_file()

    def guard(self, **instead: Any) -> Guard:
        """The guard that is meant; it is closed when the command ends.

        Args:
            instead: arguments of `Guard` that go before what the file says; one that is taken from
                Python is as it is.

        Raises:
            ConfigurationError: nothing says which, or what says it is wrong.
        """
        # Whether the ledger can be reached is what is to be told, so nothing stands in for it.
        said = {"on_backend_error": "refuse", **instead}
        if self.app is not None:
            guard = _from_python(self.app)
        elif self.file is not None:
            guard = load_guard(self.file, **said)
        else:
            guard = _from_environment(said)
        self.context.call_on_close(guard.close)
        return guard

    def policy(self) -> Guard:
        """The guard's limits and prices, without its ledger and its journal."""
        return self.guard(backend="memory://", journal=None)

    def ledger(self) -> Guard:
        """The guard, whose ledger must be one that this process can see.

        Raises:
            ConfigurationError: it is not.
        """
        guard = self.guard()
        if not getattr(guard.backend, "shared", False):
            raise ConfigurationError(
                "the ledger is 'memory://': it lives in the process that makes the calls, where "
                "this command cannot see it; backend = 'sqlite:///quota.db' and Redis can be shared"
            )
        return guard

    def books(self) -> Guard:
        """The guard, which must keep a journal that this process can read.

        Raises:
            ConfigurationError: it does not.
        """
        guard = self.guard(backend="memory://")
        journal = guard.journal
        if journal is None or not journal.readable or _in_memory(journal):
            raise ConfigurationError(
                "there is no journal that can be read from here: say journal = 'usage.jsonl' or "
                f"'sqlite:///usage.db' in {FILE}, or QUOTAGUARD_JOURNAL"
            )
        return guard


def _in_memory(journal: Journal) -> bool:
    return repr(journal) == "<Journal Memory>"


def _from_environment(instead: Mapping[str, Any]) -> Guard:
    said, where = described()
    if not said:
        raise ConfigurationError(
            f"nothing says which guard is meant: 'quotaguard init' writes a {FILE}, --config "
            "or QUOTAGUARD_CONFIG names a file, --guard a guard in Python"
        )
    with blaming(where):
        return Guard(**{"anonymous": ANONYMOUS, **said, **instead})


def _from_python(said: str) -> Guard:
    module, _, name = said.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"--guard {said!r}: {error}; it names a module and a guard in it, such as "
            "myapp.quotas:guard"
        ) from error
    if not isinstance(found, Guard):
        raise ConfigurationError(f"--guard {said!r} is no Guard but {type(found).__name__}")
    return found
