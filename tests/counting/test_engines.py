"""Choosing an encoder, loading it in bounded time, and going on without."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from quotaguard.counting import count_text, encodings, engine, preload, use_engine
from quotaguard.counting.encodings import Engines, count_piece, engines
from quotaguard.errors import ConfigurationError


def works(encoding: str) -> Callable[[str], int]:
    """An engine that takes every text for seven tokens."""
    return lambda text: 7


def fails(encoding: str) -> Callable[[str], int]:
    """An engine that has no table."""
    raise OSError(f"no table for {encoding}")


def test_tiktoken_is_preferred() -> None:
    """The fast package is not even loaded."""
    found = Engines(loaders={"tiktoken": works, "fast": fails})

    assert found.count("o200k_base")[0] == "tiktoken"
    assert found.status("o200k_base").exact


def test_the_fast_package_stands_in() -> None:
    """Where tiktoken can't have its table; the status says why."""
    found = Engines(loaders={"tiktoken": fails, "fast": works})
    status = found.status("o200k_base")

    assert found.count("o200k_base")[1]("x") == 7
    assert status.name == "fast"
    assert status.exact
    assert "tiktoken: OSError: no table for o200k_base" in status.reason


def test_a_failure_is_told_by_its_cause() -> None:
    """A download that failed tells of one name that was not found, not of every attempt."""

    def lost(encoding: str) -> Callable[[str], int]:
        try:
            raise TimeoutError(f"{encoding}: nobody answered")
        except TimeoutError as error:
            retries = "retry; " * 200
            raise OSError(retries) from error

    reason = Engines(loaders={"tiktoken": lost}).status("o200k_base").reason
    assert reason == "tiktoken: OSError: TimeoutError: o200k_base: nobody answered"


def test_without_tables_the_approximation_counts_and_says_what_would_help() -> None:
    """Never zero, and not silently."""
    found = Engines(loaders={"tiktoken": fails, "fast": fails})
    status = found.status("cl100k_base")

    assert found.count("cl100k_base")[1]("hello there") >= 2
    assert (status.name, status.exact) == ("approximation", False)
    assert "quotaguard[fast]" in status.advice
    assert "TIKTOKEN_CACHE_DIR" in status.advice


def test_a_load_that_hangs_is_waited_for_once() -> None:
    """Then the approximation counts at once; the table is used when it arrives."""
    arrived = threading.Event()
    waiting = threading.Event()

    def hangs(encoding: str) -> Callable[[str], int]:
        waiting.set()
        arrived.wait(30)
        return works(encoding)

    found = Engines(load_seconds=0.05, loaders={"tiktoken": hangs})
    assert found.count("o200k_base")[0] == "approximation"
    assert "not loaded within 0.05 seconds" in found.status("o200k_base").reason

    started = time.perf_counter()
    for _ in range(100):
        assert found.count("o200k_base")[0] == "approximation"
    assert time.perf_counter() - started < 0.05 * 20

    arrived.set()
    found._load("tiktoken", "o200k_base")._done.wait(30)
    assert found.count("o200k_base")[0] == "tiktoken"


def test_a_network_that_hangs_is_not_waited_for_again_for_another_table() -> None:
    """Claude's texts and gpt-4o's need different ones; one wait has shown what to expect."""
    release = threading.Event()

    def hangs(encoding: str) -> Callable[[str], int]:
        release.wait(30)
        return works(encoding)

    found = Engines(load_seconds=0.3, loaders={"tiktoken": hangs, "fast": works})
    assert found.count("o200k_base")[0] == "fast"
    started = time.perf_counter()
    assert found.count("cl100k_base")[0] == "fast"
    assert time.perf_counter() - started < 0.25
    assert "cl100k_base was not loaded yet" in found.status("cl100k_base").reason
    release.set()


def test_a_load_tells_whether_it_is_waited_for() -> None:
    """So that an event loop can keep out of it."""
    release = threading.Event()

    def slow(encoding: str) -> Callable[[str], int]:
        release.wait(30)
        return works(encoding)

    found = Engines(load_seconds=30, loaders={"tiktoken": slow})
    assert found.loading("o200k_base") is None
    found.preload("o200k_base")
    assert found.loading("o200k_base") is True
    assert found.loading("cl100k_base") is None
    release.set()
    assert found.count("o200k_base")[0] == "tiktoken"
    assert found.loading("o200k_base") is False


def test_an_encoding_is_loaded_once_for_many_threads() -> None:
    """However many need it first."""
    loads: list[str] = []

    def counts(encoding: str) -> Callable[[str], int]:
        loads.append(encoding)
        return works(encoding)

    found = Engines(loaders={"tiktoken": counts})
    threads = [threading.Thread(target=found.count, args=("o200k_base",)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert loads == ["o200k_base"]


def test_an_engine_that_breaks_at_its_first_word_is_not_used() -> None:
    """Loading counts a word, so that a broken build shows itself then."""

    def broken(encoding: str) -> Callable[[str], int]:
        def count(text: str) -> int:
            raise RuntimeError("broken")

        return count

    assert Engines(loaders={"tiktoken": broken}).count("o200k_base")[0] == "approximation"


class PanicException(BaseException):
    """What a Rust panic looks like: no Exception, and no class to import."""


def test_a_panic_of_the_tokenizer_is_contained() -> None:
    """The piece is approximated; what is no panic goes through."""

    def panics(text: str) -> int:
        raise PanicException("regex stack")

    def interrupted(text: str) -> int:
        raise KeyboardInterrupt

    assert count_piece(panics, "hello there") >= 2
    with pytest.raises(KeyboardInterrupt):
        count_piece(interrupted, "hello")


def test_the_setting_chooses(tiktoken_tables: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``QUOTAGUARD_TOKENIZER``, read at first use."""
    for choice, exact in (("tiktoken", True), ("fast", True), ("approximation", False)):
        monkeypatch.setattr(encodings, "_engines", None)
        monkeypatch.setenv("QUOTAGUARD_TOKENIZER", choice)
        status = engine()
        assert (status.name, status.exact) == (choice, exact)
        assert f"QUOTAGUARD_TOKENIZER={choice}" in status.reason


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QUOTAGUARD_TOKENIZER", "quick"),
        ("QUOTAGUARD_TOKENIZER_SECONDS", "soon"),
        ("QUOTAGUARD_TOKENIZER_SECONDS", "-1"),
    ],
)
def test_a_wrong_setting_names_itself(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what would be right."""
    monkeypatch.setattr(encodings, "_engines", None)
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=value):
        engines()


def test_all_engines_count_alike(tiktoken_tables: str) -> None:
    """Tiktoken and the fast package, through the same door."""
    counts = []
    for choice in ("tiktoken", "fast"):
        use_engine(choice, load_seconds=30)  # type: ignore[arg-type]
        counts.append(count_text("Exactly the same, <|endoftext|> too. " * 30))

    assert counts[0] == counts[1]


def test_preloading_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins to load, in the background."""
    begun = threading.Event()
    go_on = threading.Event()

    def slow(encoding: str) -> Callable[[str], int]:
        begun.set()
        go_on.wait(30)
        return works(encoding)

    monkeypatch.setattr(encodings, "_engines", Engines(loaders={"tiktoken": slow}))
    preload()

    assert begun.wait(30)
    go_on.set()


def test_importing_counting_loads_no_tokenizer() -> None:
    """Nor any SDK."""
    code = (
        "import sys, quotaguard.counting\n"
        "print([n for n in ('tiktoken', 'splintr', 'openai', 'anthropic') if n in sys.modules])"
    )
    run: Any = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert run.stdout.strip() == "[]"
