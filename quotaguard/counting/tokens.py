"""Counting the tokens of texts: exactly and remembered, or bounded by their bytes.

Every formula of this package takes one of these: run with ``Exact`` it counts a request, run with
``Bytes`` it bounds it from above, for no token is shorter than a byte of UTF-8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .encodings import count_piece, engines
from .memo import Memo, digest
from .pieces import PIECE, pieces

REMEMBERED_FROM = 24
"""Characters from which a count is remembered; shorter texts are as quick to count anew (between
other work, that is: in a tight loop a tokenizer counts 200 in the time of a look-up)."""

memo = Memo()
"""Counts of this process, by digests of what was counted. No text is kept."""


class Tok(Protocol):
    """Counts texts."""

    def __call__(self, text: str) -> int:
        """Tokens of a text, special-token literals counted as plain text."""
        ...

    def derived(self, kind: str, source: str, count: Callable[[], float]) -> float:
        """A count that follows from ``source`` alone, which need not be derived again.

        Args:
            kind: tells apart what is derived from the same source.
            source: all that the count depends on.
            count: derives it.
        """
        ...


class LimitPassed(Exception):
    """The running count has passed the number it was to stop at; carries the count so far."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        self.tokens = tokens


class Exact:
    """Counts by the process's tokenizer.

    Args:
        encoding: ``cl100k_base`` or ``o200k_base``.
        stop_after: raise ``LimitPassed`` as soon as all that was counted passes this number.
    """

    __slots__ = ("_encoding", "_so_far", "_stop_after")

    def __init__(self, encoding: str, stop_after: float | None = None) -> None:
        self._encoding = encoding
        self._stop_after = stop_after
        self._so_far = 0

    def __call__(self, text: str) -> int:
        """Tokens of a text; long ones are counted piece by piece, and remembered."""
        if len(text) < REMEMBERED_FROM:
            if not text:
                return 0
            total = count_piece(engines().count(self._encoding)[1], text)
        else:
            key = digest(text, self._encoding)
            known = memo.get(key)
            if known is None:
                return self._long(text, key)
            total = int(known)
        if self._stop_after is not None:
            self._add(total)
        return total

    def _long(self, text: str, key: bytes) -> int:
        engine, count = engines().count(self._encoding)
        total = 0
        alike: dict[str, int] = {}  # a megabyte of spaces is the same piece sixty times
        for piece in pieces(text) if len(text) > 2 * PIECE else (text,):
            found = alike.get(piece)
            if found is None:
                found = alike[piece] = count_piece(count, piece)
            total += found
            if self._stop_after is not None:
                self._add(found)
        if engine != "approximation":
            memo.put(key, total)
        return total

    def _add(self, tokens: int) -> None:
        self._so_far += tokens
        if self._stop_after is not None and self._so_far > self._stop_after:
            raise LimitPassed(self._so_far)

    def derived(self, kind: str, source: str, count: Callable[[], float]) -> float:
        """A count that follows from ``source`` alone, remembered."""
        key = digest(f"{kind}\0{source}", self._encoding)
        known = memo.get(key)
        if known is None:
            known = count()
            if engines().count(self._encoding)[0] != "approximation":
                memo.put(key, known)
        elif self._stop_after is not None:
            self._add(int(known))
        return known


class Bytes:
    """Counts a token for every byte: a bound that needs no tokenizer."""

    __slots__ = ()

    def __call__(self, text: str) -> int:
        """Bytes of a text in UTF-8."""
        return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))

    def derived(self, kind: str, source: str, count: Callable[[], float]) -> float:
        """A bound that follows from ``source`` alone, remembered."""
        key = digest(f"{kind}\0{source}", "bytes")
        known = memo.get(key)
        if known is None:
            known = count()
            memo.put(key, known)
        return known
