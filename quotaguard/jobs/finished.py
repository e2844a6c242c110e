"""The file of a job's finished items, by which it is resumed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigurationError
from ..linefile import LineFile

log = logging.getLogger("quotaguard")

KeyOf = Callable[[Any], "str | int"]


class Found(NamedTuple):
    """An item that is done."""

    kept: bool
    """Whether its result was kept."""
    result: Any = None


class FinishedItems:
    """JSON lines, one for each item that is done: ``{"key": "..."}``, and ``"result"`` if results
    are kept.

    A line is written by whoever finished the item. What was cut off when a process died is left
    out. The result of an item is read when its turn comes, so memory holds keys alone.

    Args:
        path: the file; it need not be there yet.
        key: gives an item's name in it; None: the digest of the item as JSON.
        keep_results: whether results are written too.
    """

    def __init__(
        self, path: str | os.PathLike[str], key: KeyOf | None = None, keep_results: bool = False
    ) -> None:
        self._path = Path(path)
        self._key = key
        self._keep_results = keep_results
        self._file = LineFile(path)
        self._lock = threading.Lock()
        self._places: dict[str, list[int]] = {}
        """By key: where the lines of finished items begin, as long as nobody has taken them."""

    def load(self) -> None:
        """Read what is done.

        Raises:
            ConfigurationError: results are to be kept, and there are items without.
            OSError: the file cannot be read.
        """
        if not self._path.exists():
            return
        at = bad = 0
        with self._path.open("rb") as lines:
            for line in lines:
                found = _parsed(line)
                if found is None:
                    bad += bool(line.strip())
                elif self._keep_results and "result" not in found:
                    raise ConfigurationError(
                        f"{self._path} has finished items without their results, which cannot be "
                        "handed out: keep_results=False goes on without them, another file anew"
                    )
                else:
                    self._places.setdefault(found["key"], []).append(at)
                at += len(line)
        if bad:
            log.warning("%d lines of %s are no finished items of a job", bad, self._path)

    def key_of(self, item: Any) -> str:
        """An item's name in the file.

        Raises:
            ConfigurationError: it has none.
        """
        if self._key is None:
            try:
                text = json.dumps(item, sort_keys=True, separators=(",", ":"))
            except (TypeError, ValueError, RecursionError):
                raise ConfigurationError(
                    f"an item of type {type(item).__name__} is no JSON value; to resume a job "
                    "with such items, pass key=, a callable that gives each its name"
                ) from None
            return hashlib.sha256(text.encode()).hexdigest()[:32]
        key = self._key(item)
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            raise ConfigurationError(f"an item's key is a string or an int, not {type(key)}")
        return str(key)

    def take(self, key: str) -> Found | None:
        """One item of that key that was done before; None if there is none left."""
        places = self._places.get(key)
        if places is None:
            return None
        at = places.pop()
        if not places:
            del self._places[key]
        if not self._keep_results:
            return Found(kept=False)
        with self._path.open("rb") as lines:
            lines.seek(at)
            found = _parsed(lines.readline())
        assert found is not None  # nobody changes what was written
        return Found(True, found["result"])

    def add(self, key: str, result: Any) -> None:
        """An item is done. Any thread may call it.

        Raises:
            ConfigurationError: its result is to be kept and is no JSON value.
            OSError: it could not be written.
        """
        said = {"key": key}
        if self._keep_results:
            said["result"] = result
        try:
            line = json.dumps(said, separators=(",", ":")).encode("ascii") + b"\n"
        except (TypeError, ValueError, RecursionError):
            raise ConfigurationError(
                f"a result of type {type(result).__name__} is no JSON value and cannot be kept: "
                "let the function return what is, such as the answer's text"
            ) from None
        with self._lock:
            self._file.append(line)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The finished item that a line tells of; None if it is no such line."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("key"), str) else None
