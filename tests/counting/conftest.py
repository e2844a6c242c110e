"""Tokenizer tables and recordings for the tests of counting, and what to do without them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from quotaguard.counting import encodings, tokens

SHARED = Path(__file__).parents[3] / "shared"
RECORDINGS = SHARED / "recorded_usage"
_SIZES = {"cl100k_base": 100_256, "o200k_base": 199_998}


class Letters:
    """A tokenizer for tests of framing: every character is a token."""

    def __call__(self, text: str) -> int:
        """Characters of the text."""
        return len(text)

    def derived(self, kind: str, source: str, count: Callable[[], float]) -> float:
        """The count, derived anew each time."""
        return count()


@pytest.fixture
def letters() -> Letters:
    """Counts characters, so that the tests of framing need no tables."""
    return Letters()


@pytest.fixture(autouse=True)
def _no_state_between_tests(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins with no counts remembered and leaves the process's engine as it was."""
    monkeypatch.setattr(encodings, "_engines", encodings._engines)
    tokens.memo.clear()
    yield
    tokens.memo.clear()


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder where tiktoken finds its tables, made from those that splintr carries.

    tiktoken checks their hashes, which proves both packages to hold the same tables.
    """
    splintr = pytest.importorskip(
        "splintr", reason="no tokenizer tables: pip install 'quotaguard[fast]' brings them"
    )
    import tiktoken.load

    def table(path: str, *_: Any) -> bytes:
        name = PurePosixPath(path).stem
        decode = splintr.Tokenizer.from_pretrained(name).decode_bytes
        lines = (b"%s %d\n" % (base64.b64encode(decode([n])), n) for n in range(_SIZES[name]))
        return b"".join(lines)

    folder = str(tmp_path_factory.mktemp("tiktoken"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", folder)
        patch.setattr(tiktoken.load, "read_file", table)
        for name in _SIZES:
            tiktoken.get_encoding(name)
    return folder


@pytest.fixture
def tiktoken_tables(tables: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment that lets tiktoken load offline."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", tables)
    return tables


@pytest.fixture
def exact(tiktoken_tables: str) -> str:
    """Tiktoken as the engine of the process, for tests that need true counts."""
    encodings.use_engine("tiktoken", load_seconds=30)
    status = encodings.engines().status("o200k_base")
    assert status.exact, status
    return tiktoken_tables


@pytest.fixture
def without_tables() -> None:
    """The approximation as the engine of the process: what a machine without tables has."""
    encodings.use_engine("approximation")
