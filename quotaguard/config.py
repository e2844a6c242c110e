"""Guards from a file or the environment, for clients that are given none.

``QUOTAGUARD_CONFIG`` names a TOML file; else ``quotaguard.toml`` is looked for in the working
directory and those above it. Without a file, ``QUOTAGUARD_LIMITS`` holds limits, separated by
semicolons, and ``QUOTAGUARD_BACKEND`` the backend. With none of these a client meters without
limiting.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import ConfigurationError
from .events import Event
from .guard import Guard
from .limits import Limit
from .policies import Fallback, Policy, Refuse, Wait
from .tiers import Tier

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

log = logging.getLogger("quotaguard")

_one_at_a_time = threading.Lock()

FILE = "quotaguard.toml"
ANONYMOUS = "anonymous"
"""The user that a notebook's own guard charges when none is named."""
_GUARD_KEYS = (
    "backend",
    "default_tier",
    "anonymous",
    "on_backend_error",
    "limits",
    "when_exceeded",
)
_TIER_KEYS = ("limits", "models", "when_exceeded")


def private_guard(limits: Iterable[str | Limit]) -> Guard:
    """A guard of one's own, as ``GuardedOpenAI(limits=[...])`` makes it."""
    return Guard(limits=limits, anonymous=ANONYMOUS)


def default_guard() -> Guard:
    """The guard that the file or the environment describes; the same one each time.

    Raises:
        ConfigurationError: what they say is wrong; the message names the file and the key.
    """
    named = os.environ.get("QUOTAGUARD_CONFIG")
    file = Path(named).absolute() if named else _find(Path.cwd())
    limits = os.environ.get("QUOTAGUARD_LIMITS", "")
    backend = os.environ.get("QUOTAGUARD_BACKEND", "memory://")
    with _one_at_a_time:  # two guards would give out everything twice
        return _default(file, limits, backend)


@lru_cache(maxsize=8)
def _default(file: Path | None, limits: str, backend: str) -> Guard:
    if file is not None:
        return load(file)
    parsed = [text.strip() for text in limits.split(";") if text.strip()]
    try:
        hooks = () if parsed else (_WarnOnce(),)
        return Guard(limits=parsed, backend=backend, anonymous=ANONYMOUS, hooks=hooks)
    except ConfigurationError as error:
        raise ConfigurationError(f"QUOTAGUARD_LIMITS or QUOTAGUARD_BACKEND: {error}") from error


class _WarnOnce:
    """Says at the first call that nothing is limited."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, event: Event, /) -> None:
        if not self._said:
            self._said = True
            log.warning(
                "guarded clients meter without limiting: no guard was passed, and neither %s nor "
                "QUOTAGUARD_LIMITS says what the limits are",
                FILE,
            )


def _find(directory: Path) -> Path | None:
    return next((d / FILE for d in (directory, *directory.parents) if (d / FILE).is_file()), None)


def load(file: str | Path) -> Guard:
    """The guard that a TOML file describes.

    Raises:
        ConfigurationError: the file can't be read or says something wrong.
    """
    try:
        said = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError
        raise ConfigurationError(f"{file} is not TOML: {error}") from error
    try:
        return from_dict(said)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from error


def from_dict(said: Mapping[str, Any]) -> Guard:
    """The guard that a mapping describes, in the shape of the TOML file.

    Raises:
        ConfigurationError: a key is unknown or a value wrong.
    """
    _known(said, (*_GUARD_KEYS, "tiers"), "the top level")
    tables = said.get("tiers", {})
    if not isinstance(tables, Mapping):
        raise ConfigurationError(f"tiers holds a table for each tier, not {tables!r}")
    tiers = [_tier(name, table) for name, table in tables.items()]
    arguments = {key: said[key] for key in _GUARD_KEYS if key in said}
    if "when_exceeded" in arguments:
        arguments["when_exceeded"] = _policies(arguments["when_exceeded"], "when_exceeded")
    return Guard(tiers=tiers, **arguments)


def _tier(name: str, table: object) -> Tier:
    where = f"tiers.{name}"
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{where} is a table, not {table!r}")
    _known(table, _TIER_KEYS, where)
    chosen = table.get("when_exceeded")
    return Tier(
        name,
        limits=table.get("limits", ()),
        models=table.get("models", ()),
        when_exceeded=None if chosen is None else _policies(chosen, f"{where}.when_exceeded"),
    )


def _policies(said: object, where: str) -> list[Policy]:
    if not isinstance(said, list):
        raise ConfigurationError(f"{where} is a list, not {said!r}")
    return [_policy(each, where) for each in said]


def _policy(said: object, where: str) -> Policy:
    """``"refuse"``, ``{fallback = "model"}`` (or a list of models) or ``{wait = seconds}``."""
    if said == "refuse":
        return Refuse()
    if isinstance(said, Mapping) and len(said) == 1:
        ((kind, value),) = said.items()
        try:
            if kind == "fallback":
                return Fallback(*(value if isinstance(value, list) else [value]))
            if kind == "wait":
                return Wait(max_seconds=value)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from error
    raise ConfigurationError(
        f'{where}: a policy is "refuse", {{fallback = "model"}} or {{wait = 30}}, not {said!r}'
    )


def _known(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in keys:
            raise ConfigurationError(f"unknown key {key!r} in {where}; known: {', '.join(keys)}")
