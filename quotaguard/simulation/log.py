"""Recorded usage, whoever recorded it: a journal, or a file of JSON lines of one's own."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

from ..entries import Entry
from ..errors import BackendError, ConfigurationError
from ..journal import Journal
from ..sinks import entry_of
from ..usage import NANO, Usage

log = logging.getLogger("quotaguard")

Log: TypeAlias = "str | os.PathLike[str] | Journal | Iterable[Entry | Mapping[str, Any]]"
"""A journal, its URL or its path, a file of JSON lines, or entries or mappings."""

_COUNTS = Usage._fields[:7]
_MOST_SECONDS = 1e11
"""The year 5138: a greater number is milliseconds."""
_TEXTS = ("id", "user", "org", "tier", "model")


def calls_of(source: Log) -> tuple[list[Entry], int]:
    """The calls of a log, and how many of its entries are none: adjustments by hand, and blocks
    that used nothing themselves.

    Raises:
        ConfigurationError: it is no log, or an entry of it says something wrong.
        BackendError: it could not be read.
    """
    calls: list[Entry] = []
    others = 0
    for entry in _entries(source):
        nothing = entry.outcome == "served" and not any(entry.charged.counts)
        if entry.outcome == "adjusted" or nothing:
            others += 1
        else:
            calls.append(entry)
    return calls, others


def _entries(source: Log) -> Iterator[Entry]:
    if isinstance(source, Journal):
        yield from source.entries()
    elif isinstance(source, str) and "://" in source:
        journal = Journal(source)
        try:
            yield from journal.entries()
        finally:
            journal.close()
    elif isinstance(source, (str, os.PathLike)):
        yield from _lines(Path(source))
    elif isinstance(source, Iterable) and not isinstance(source, (Mapping, bytes)):
        for number, each in enumerate(source, 1):
            yield each if isinstance(each, Entry) else _plain(each, f"entry {number}", number)
    else:
        raise ConfigurationError(
            "a usage log is a journal, a path of JSON lines, or a list of entries or mappings, "
            f"not {source!r}"
        )


def _lines(path: Path) -> Iterator[Entry]:
    """The entries of a file: lines of a journal, plain lines, or both."""
    torn = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                entry = entry_of(line)
                if entry is None:
                    try:
                        said = json.loads(line)
                    except (ValueError, RecursionError):
                        torn += 1
                        continue
                    entry = _plain(said, f"{path}, line {number}", number)
                yield entry
    except OSError as error:
        raise BackendError(f"cannot read the usage log {path}: {error.strerror}") from error
    if torn:
        log.warning("%d lines of %s are no JSON and were left out", torn, path)


def _plain(said: object, where: str, number: int) -> Entry:
    """The entry of a mapping such as ``{"time": 0, "user": "ann", "input_tokens": 5}``."""
    if not isinstance(said, Mapping):
        raise ConfigurationError(f"{where}: a call is a JSON object, not {said!r:.80}")
    try:
        return _call(said, number)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from error


def _call(said: Mapping[str, Any], number: int) -> Entry:
    if "outcome" in said:
        try:
            return Entry.from_dict(said)
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
    if "time" not in said or not said.keys() & {"input_tokens", "output_tokens"}:
        raise ConfigurationError(
            "a call has time, and input_tokens or output_tokens; this one has "
            f"{', '.join(map(str, said)) or 'nothing'}"
        )
    for name in _TEXTS:
        if said.get(name) is not None and not isinstance(said[name], str):
            raise ConfigurationError(f"{name} is a text, not {said[name]!r}")
    counts = {name: _count(said, name) for name in _COUNTS if said.get(name) is not None}
    used = Usage(**{"requests": 1, **counts}, nano_usd=_cost(said))
    most = None if said.get("max_tokens") is None else _count(said, "max_tokens")
    began, model = _moment(said["time"]), said.get("model")
    output = used.output_tokens if most is None else most
    return Entry(
        began + _seconds(said),
        said.get("id") or f"call {number}",
        "served",
        said.get("user"),
        said.get("org"),
        said.get("tier"),
        requested=model,
        served=model,
        began=began,
        reserved=Usage(1, used.input_tokens, output),
        used=used,
        stated=None if most is None else True,
    )


def _count(said: Mapping[str, Any], name: str) -> int:
    value = said[name]
    if type(value) is not int or value < 0:
        raise ConfigurationError(f"{name} is a whole number >= 0, not {value!r}")
    return value


def _seconds(said: Mapping[str, Any]) -> float:
    value = said.get("seconds") or 0.0
    if type(value) not in (int, float) or not 0 <= value < float("inf"):
        raise ConfigurationError(f"seconds is how long the call took, >= 0, not {value!r}")
    return float(value)


def _cost(said: Mapping[str, Any]) -> int | None:
    value = said.get("usd")
    if value is None:
        return None
    try:
        exact = Decimal(str(value))
    except ArithmeticError:
        exact = Decimal("NaN")
    if isinstance(value, bool) or not exact.is_finite() or exact < 0:
        raise ConfigurationError(f"usd is what the call cost in US dollars, not {value!r}")
    return int((exact * NANO).to_integral_value())


def _moment(value: object) -> float:
    """Seconds since the epoch, or ISO 8601 (UTC where it names no offset)."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and abs(value) < _MOST_SECONDS:  # type: ignore[arg-type]
        return float(value)  # type: ignore[arg-type]
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            pass
        else:
            return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()
    raise ConfigurationError(
        "time is in seconds since the epoch, or a text such as '2026-01-31T12:00:00Z', "
        f"not {value!r}"
    )
