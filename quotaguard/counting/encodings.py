"""The door to tokenizers: tiktoken, a faster package in its place, or an approximation.

A table is loaded at first use, once per process, never at import. ``tiktoken`` downloads its
tables, so it is given a stated time, in a daemon thread; if it fails, a package that carries the
tables takes its place, and without one an approximation that errs upward. A table that arrives
late is used from then on.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from textwrap import shorten
from typing import Literal

from ..errors import ConfigurationError
from .approximate import approximate_tokens

EngineName = Literal["tiktoken", "fast", "approximation"]
EngineChoice = Literal["auto", "tiktoken", "fast", "approximation"]
Count = Callable[[str], int]
Loader = Callable[[str], Count]

CHOICES = ("auto", "tiktoken", "fast", "approximation")
LOAD_SECONDS = 5.0
"""How long the first use waits for tiktoken's table."""
SETTING = "QUOTAGUARD_TOKENIZER"
SECONDS_SETTING = "QUOTAGUARD_TOKENIZER_SECONDS"

_ADVICE = (
    "pip install 'quotaguard[fast]' (it carries the tables), or point TIKTOKEN_CACHE_DIR at a "
    "folder that holds tiktoken's tables"
)


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Which encoder counts, why, and what would make the counts exact ("" where they are)."""

    name: EngineName
    exact: bool
    reason: str
    advice: str


def _load_tiktoken(encoding: str) -> Count:
    import tiktoken

    encode = tiktoken.get_encoding(encoding).encode_ordinary
    return lambda text: len(encode(text))


def _load_fast(encoding: str) -> Count:
    from splintr import Tokenizer

    encode = Tokenizer.from_pretrained(encoding).encode_ordinary

    def count(text: str) -> int:
        try:
            return len(encode(text))
        except UnicodeEncodeError:  # lone surrogates: replaced, as tiktoken does
            return len(encode(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")))

    return count


_LOADERS: Mapping[EngineName, Loader] = {"tiktoken": _load_tiktoken, "fast": _load_fast}


class Engines:
    """The encoders of one process.

    Args:
        choice: which engine to use; ``auto`` prefers tiktoken, then the fast package.
        load_seconds: how long the first use of an encoding waits for its table.
        loaders: how each engine loads an encoding, in order of preference.

    Raises:
        ConfigurationError: ``choice`` or ``load_seconds`` makes no sense.
    """

    def __init__(
        self,
        choice: str = "auto",
        load_seconds: float = LOAD_SECONDS,
        loaders: Mapping[EngineName, Loader] = _LOADERS,
    ) -> None:
        if choice not in CHOICES:
            raise ConfigurationError(
                f"the tokenizer must be one of {', '.join(CHOICES)}, not {choice!r}"
            )
        if not load_seconds >= 0:
            raise ConfigurationError(
                f"the seconds to wait for a tokenizer must be 0 or more, not {load_seconds!r}"
            )
        self._choice = choice
        self._seconds = load_seconds
        self._loaders: dict[EngineName, Loader] = {
            name: load for name, load in loaders.items() if choice in ("auto", name)
        }
        self._loads: dict[tuple[EngineName, str], _Load] = {}
        self._lock = threading.Lock()

    def count(self, encoding: str) -> tuple[EngineName, Count]:
        """The engine in use for an encoding, and its counting function."""
        for name in self._loaders:
            counted = self._load(name, encoding).wait()
            if counted is not None:
                return name, counted
        return "approximation", approximate_tokens

    def preload(self, encoding: str) -> None:
        """Begin to load an encoding in the background."""
        for name in list(self._loaders)[:1]:
            self._load(name, encoding)

    def loading(self, encoding: str) -> bool | None:
        """Whether `count` would wait for a load that has begun; None: none has."""
        loads = [load for (_, table), load in list(self._loads.items()) if table == encoding]
        return any(load.waited_for for load in loads) if loads else None

    def _load(self, name: EngineName, encoding: str) -> _Load:
        key = (name, encoding)
        found = self._loads.get(key)
        if found is None:
            with self._lock:
                found = self._loads.get(key)
                if found is None:
                    hangs = any(
                        load.overdue for (engine, _), load in self._loads.items() if engine == name
                    )
                    seconds = 0.0 if hangs else self._seconds  # one wait shows it, and is enough
                    found = _Load(self._loaders[name], encoding, seconds)
                    self._loads[key] = found
        return found

    def status(self, encoding: str) -> EngineStatus:
        """What counts texts now; loads the encoding if that has not happened yet."""
        name, _ = self.count(encoding)
        failures = [
            f"{engine}: {load.failure}"
            for (engine, table), load in list(self._loads.items())
            if table == encoding and load.count is None
        ]
        chosen = "loaded" if self._choice == "auto" else f"chosen by {SETTING}={self._choice}"
        exact = name != "approximation"
        reason = "; ".join(failures) or chosen
        return EngineStatus(name, exact, reason, "" if exact else _ADVICE)


class _Load:
    """One attempt to load an encoding, in a daemon thread that nobody waits for twice."""

    def __init__(self, load: Loader, encoding: str, seconds: float) -> None:
        self.count: Count | None = None
        late = f"within {seconds:g} seconds" if seconds else "yet"
        self.failure = f"{encoding} was not loaded {late}"
        self._deadline = time.monotonic() + seconds
        self._done = threading.Event()
        threading.Thread(
            target=self._run, args=(load, encoding), daemon=True, name="quotaguard-load-encoding"
        ).start()

    def _run(self, load: Loader, encoding: str) -> None:
        try:
            count = load(encoding)
            count("a first use")
            self.count = count
        except BaseException as error:  # noqa: BLE001  a Rust panic is no Exception
            self.failure = _why(error)
        finally:
            self._done.set()

    @property
    def waited_for(self) -> bool:
        """Whether it is under way, and not for too long."""
        return not self._done.is_set() and time.monotonic() < self._deadline

    @property
    def overdue(self) -> bool:
        """Whether it is under way for longer than anybody waits."""
        return not self._done.is_set() and time.monotonic() >= self._deadline

    def wait(self) -> Count | None:
        """The counting function, or None where it failed or is not there in time."""
        if not self._done.is_set():
            self._done.wait(max(0.0, self._deadline - time.monotonic()))
        return self.count


def _why(error: BaseException) -> str:
    """An error with what it came from: a download fails with pages of retries about one cause."""
    root = error
    while True:
        deeper = root.__cause__ or (None if root.__suppress_context__ else root.__context__)
        if deeper is None:
            break
        root = deeper
    names = [type(each).__name__ for each in ((error,) if root is error else (error, root))]
    return shorten(": ".join([*names, str(root)]), 300)


_engines: Engines | None = None
_engines_lock = threading.Lock()


def engines() -> Engines:
    """The process's encoders, set up from the environment at first use.

    ``QUOTAGUARD_TOKENIZER`` chooses (auto, tiktoken, fast, approximation) and
    ``QUOTAGUARD_TOKENIZER_SECONDS`` bounds the wait for a table.

    Raises:
        ConfigurationError: one of them holds something else.
    """
    global _engines
    if _engines is None:
        with _engines_lock:
            if _engines is None:
                _engines = _from_environment()
    return _engines


def use_engine(choice: EngineChoice = "auto", load_seconds: float = LOAD_SECONDS) -> None:
    """Choose the encoder for this process; what was loaded before is loaded anew when needed.

    Raises:
        ConfigurationError: there is no such engine.
    """
    global _engines
    chosen = Engines(choice, load_seconds)
    with _engines_lock:
        _engines = chosen


def _from_environment() -> Engines:
    seconds = os.environ.get(SECONDS_SETTING, str(LOAD_SECONDS))
    try:
        limit = float(seconds)
    except ValueError:
        raise ConfigurationError(
            f"{SECONDS_SETTING} must be a number of seconds, not {seconds!r}"
        ) from None
    return Engines(os.environ.get(SETTING, "auto"), limit)


def count_piece(count: Count, text: str) -> int:
    """One piece of text, counted by an engine; approximated should the engine break on it."""
    try:
        return count(text)
    except BaseException as error:
        # pyo3 raises a Rust panic as PanicException, which is no Exception and has no import.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            return approximate_tokens(text)
        raise


__all__ = [
    "CHOICES",
    "LOAD_SECONDS",
    "EngineChoice",
    "EngineName",
    "EngineStatus",
    "Engines",
    "count_piece",
    "engines",
    "use_engine",
]
