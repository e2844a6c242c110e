"""Guards from a file or the environment, for clients that are given none.

``QUOTAGUARD_CONFIG`` names a TOML file; else ``quotaguard.toml`` is looked for in the working
directory and those above it. Without a file, ``QUOTAGUARD_LIMITS`` holds limits, separated by
semicolons, ``QUOTAGUARD_BACKEND`` the backend and ``QUOTAGUARD_JOURNAL`` the journal. With none of
these a client meters without limiting.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .errors import ConfigurationError
from .events import Event
from .guard import Guard
from .identity import Identity
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
    "lease_seconds",
    "strict",
    "count_unmetered",
    "ask_for_usage",
    "reserve_output",
    "output_guess",
    "calibrate",
    "count",
    "prices",
    "unknown_price",
    "warn_at",
    "mode",
    "journal",
    "learn_provider_limits",
)
_RELATIVE = re.compile(r"sqlite:///(?![/?:]).")
_TIER_VALUES = ("limits", "models", "warn_at", "priority", "weight")
_TIER_KEYS = (*_TIER_VALUES, "when_exceeded", "when_not_allowed")
_WHO_KEYS = ("tier", "limits", "models")


def private_guard(limits: Iterable[str | Limit]) -> Guard:
    """A guard of one's own, as ``GuardedOpenAI(limits=[...])`` makes it."""
    return Guard(limits=limits, anonymous=ANONYMOUS)


def default_guard() -> Guard:
    """The guard that the file or the environment describes; the same one each time.

    Raises:
        ConfigurationError: what they say is wrong; the message names the file and the key.
    """
    if _instead is not None:
        return _instead
    with _one_at_a_time:  # two guards would give out everything twice
        return _default(*_places())


def set_default_guard(guard: Guard | None) -> None:
    """Have clients that are made from now on without a guard use this one; None: the described."""
    global _instead
    _instead = guard


_instead: Guard | None = None


def described() -> tuple[dict[str, Any], str]:
    """What the file or the environment says, as arguments of a `Guard`, and how an error names the
    place.

    Raises:
        ConfigurationError: what they say is wrong.
    """
    file, limits, backend, journal = _places()
    if file is not None:
        said, where = _read(file)
        with blaming(where):
            return _arguments(said), where
    found: dict[str, Any] = {"limits": _texts(limits)} if _texts(limits) else {}
    if backend:
        found["backend"] = backend
    if journal:
        found["journal"] = journal
    return found, _ENVIRONMENT


_ENVIRONMENT = "QUOTAGUARD_LIMITS, QUOTAGUARD_BACKEND or QUOTAGUARD_JOURNAL: "


def config_file() -> Path | None:
    """The file that describes the default guard, absolute; None: the environment does."""
    named = os.environ.get("QUOTAGUARD_CONFIG")
    return Path(named).absolute() if named else _find(Path.cwd())


def _places() -> tuple[Path | None, str, str, str]:
    """The file, and what the environment says of limits, backend and journal."""
    names = ("QUOTAGUARD_LIMITS", "QUOTAGUARD_BACKEND", "QUOTAGUARD_JOURNAL")
    limits, backend, journal = (os.environ.get(name, "") for name in names)
    return config_file(), limits, backend, journal


def _texts(limits: str) -> list[str]:
    return [text.strip() for text in limits.split(";") if text.strip()]


@lru_cache(maxsize=8)
def _default(file: Path | None, limits: str, backend: str, journal: str) -> Guard:
    if file is not None:
        return load_guard(file)
    parsed = _texts(limits)
    hooks = () if parsed else (_WarnOnce(),)
    with blaming(_ENVIRONMENT):
        return Guard(
            limits=parsed,
            backend=backend or "memory://",
            journal=journal or None,
            anonymous=ANONYMOUS,
            hooks=hooks,
        )


@contextmanager
def blaming(where: str) -> Iterator[None]:
    """Errors say where the wrong thing stands."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}{error}") from error


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


def load_guard(source: str | Path | Mapping[str, Any], **instead: Any) -> Guard:
    """The guard that a TOML file, or a mapping of the same shape, describes.

    Args:
        source: the file, or the mapping.
        instead: arguments of `Guard` that go before what it says, such as ``hooks`` and ``clock``,
            which are no text.

    Raises:
        ConfigurationError: it can't be read or says something wrong; the message names the file,
            the key and the value, and what would be right.
    """
    said, where = _read(source)
    with blaming(where):
        return Guard(**{**_arguments(said), **instead})


def reload_guard(guard: Guard, source: str | Path | Mapping[str, Any]) -> None:
    """Change a guard's tiers, limits and terms to what the file or mapping says now, while calls
    go on; see `Guard.update`. What else it says holds for new guards only.

    Raises:
        ConfigurationError: as for `load_guard`; then nothing changes.
    """
    said, where = _read(source)
    with blaming(where):
        plans = _plans(said)
        guard.update(tiers=plans.pop("tiers"), limits=said.get("limits", ()), **plans)


def _read(source: str | Path | Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    if isinstance(source, Mapping):
        return source, ""
    if not isinstance(source, (str, os.PathLike)):
        raise ConfigurationError(f"a guard is described by a file or a mapping, not {source!r}")
    try:
        said = tomllib.loads(Path(source).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {source}: {error.strerror}") from error
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError
        raise ConfigurationError(f"{source} is not TOML: {error}") from error
    folder = Path(source).absolute().parent
    for key in ("backend", "journal"):
        if isinstance(said.get(key), str):
            said[key] = _beside(said[key], folder)
    return said, f"{source}: "


def _beside(place: str, folder: Path) -> str:
    """A place whose path is relative is meant from the file that names it: wherever processes are
    started, they share one ledger.
    """
    if _RELATIVE.match(place):
        return f"sqlite:///{quote(str(folder))}/{place.removeprefix('sqlite:///')}"
    return place if "://" in place or not place else str(folder / place)


def _arguments(said: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {key: said[key] for key in _GUARD_KEYS if key in said}
    if "when_exceeded" in arguments:
        arguments["when_exceeded"] = _policies(arguments["when_exceeded"], "when_exceeded")
    return {**arguments, **_plans(said)}


def _plans(said: Mapping[str, Any]) -> dict[str, Any]:
    """The tiers, and who has terms of their own."""
    _known(said, (*_GUARD_KEYS, "tiers", "orgs", "users"), "the top level")
    tiers = [_tier(name, table) for name, table in _tables(said, "tiers").items()]
    named = {tier.name: tier for tier in tiers} or {"default": Tier("default")}
    terms = [_terms(said, what, named) for what in ("users", "orgs")]
    plans: dict[str, Any] = {"tiers": tiers, "tier_of": _TermsOf(*terms) if any(terms) else None}
    if "default_tier" in said:
        plans["default_tier"] = said["default_tier"]
    return plans


class _TermsOf:
    """Users and organisations with terms of their own; a user's go before the organisation's."""

    def __init__(self, users: Mapping[str, Tier], orgs: Mapping[str, Tier]) -> None:
        self._users = users
        self._orgs = orgs

    def __call__(self, identity: Identity) -> Tier | None:
        return self._users.get(identity.user or "") or self._orgs.get(identity.org or "")


def _terms(said: Mapping[str, Any], what: str, tiers: Mapping[str, Tier]) -> dict[str, Tier]:
    """``[users.alice]`` and ``[orgs.acme]``: a tier, perhaps with limits or models of their own."""
    found = {}
    for name, table in _tables(said, what).items():
        where = f"{what}.{name}"
        _known(table, _WHO_KEYS, where)
        chosen = table.get("tier", said.get("default_tier", next(iter(tiers))))
        if not isinstance(chosen, str) or chosen not in tiers:
            raise ConfigurationError(f"{where}: unknown tier {chosen!r}; known: {', '.join(tiers)}")
        try:
            found[name] = tiers[chosen].overridden(table.get("limits", ()), table.get("models"))
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from error
    return found


def _tables(said: Mapping[str, Any], what: str) -> Mapping[str, Mapping[str, Any]]:
    tables = said.get(what, {})
    if not isinstance(tables, Mapping):
        raise ConfigurationError(
            f"{what} holds a table for each {what.removesuffix('s')}, not {tables!r}"
        )
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise ConfigurationError(f"{what}.{name} is a table, not {table!r}")
    return tables


def _tier(name: str, table: Mapping[str, Any]) -> Tier:
    where = f"tiers.{name}"
    _known(table, _TIER_KEYS, where)
    arguments = {key: table[key] for key in _TIER_VALUES if key in table}
    if "when_exceeded" in table:
        arguments["when_exceeded"] = _policies(table["when_exceeded"], f"{where}.when_exceeded")
    if "when_not_allowed" in table:
        chosen = _policy(table["when_not_allowed"], f"{where}.when_not_allowed")
        arguments["when_not_allowed"] = chosen
    return Tier(name, **arguments)


def _policies(said: object, where: str) -> list[Policy]:
    if not isinstance(said, list):
        raise ConfigurationError(f"{where} is a list, not {said!r}")
    return [_policy(each, where) for each in said]


def _policy(said: object, where: str) -> Policy:
    """``"refuse"``, ``{fallback = "model"}`` (or a list of models; perhaps with ``at`` and
    ``adapt``) or ``{wait = seconds}`` (perhaps with ``fair``).
    """
    if said == "refuse":
        return Refuse()
    more = {str(k): v for k, v in said.items()} if isinstance(said, Mapping) else {}
    models, seconds = more.pop("fallback", None), more.pop("wait", None)
    try:
        if models is not None and seconds is None and more.keys() <= {"at", "adapt"}:
            return Fallback(*(models if isinstance(models, list) else [models]), **more)
        if seconds is not None and models is None and more.keys() <= {"fair"}:
            return Wait(max_seconds=seconds, **more)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from error
    raise ConfigurationError(
        f'{where}: a policy is "refuse", {{fallback = "model"}} or {{wait = 30}}, not {said!r}'
    )


def _known(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in keys:
            near = get_close_matches(str(key), keys, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(keys)}"
            raise ConfigurationError(f"unknown key {key!r} in {where}{hint}")
