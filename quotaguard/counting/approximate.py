"""Token counts without a tokenizer: an estimate that errs upward, for when no table is at hand.

Words, numbers, marks and line breaks are told apart by counting bytes, which takes a few
milliseconds a megabyte on any text. The weights were fitted to ``o200k_base`` and ``cl100k_base``
on the texts of recorded requests; ``docs/explanation/counting.md`` states the error.
"""

from __future__ import annotations

import math
import re

MARGIN = 1.07
"""What the fitted count is multiplied by, so that it falls short of few texts."""


def _kind(byte: int) -> int:
    character = chr(byte)
    if byte < 128 and character.isalpha():
        return ord("a")
    if byte < 128 and character.isdigit():
        return ord("0")
    return ord({" ": " ", "\t": " ", "\n": "\n", "\r": "\n"}.get(character, "."))


_KINDS = bytes(_kind(byte) for byte in range(256))

_WEIGHTS = {
    b" a": 1.0,  # a word begins: after a space, a mark, a digit, a line break
    b".a": 1.0,
    b"0a": 1.0,
    b"\na": 1.0,
    b" 0": 1.75,  # a number
    b".0": 1.75,
    b"a0": 1.75,
    b"\n0": 1.75,
    b" .": 0.77,  # marks
    b"a.": 0.77,
    b"0.": 0.77,
    b"\n.": 0.77,
    b"a": 0.007,
    b"0": 0.12,
    b".": 0.12,
    b"\n": 0.57,
    b"  ": 0.13,
}
_LONG = re.compile(
    rb"(?P<letters>[A-Za-z]{21,})|(?P<compound>[A-Za-z]{9,20})"
    rb"|(?P<digits>[0-9]{7,})|(?P<marks>[!-/:-@\[-`{-~]{9,})"
)
_PER_CHARACTER = {"letters": 0.6, "compound": 0.09, "digits": 0.25, "marks": 0.7}
"""For each character of a run too long to be a common word, a number or a rule."""
_CAMEL = re.compile(rb"[a-z][A-Z]")

_WRITTEN = re.compile("[\u00c0-\u024f\u0370-\u06ff\u0900-\u0dff]")
_SYLLABLES = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def approximate_tokens(text: str) -> int:
    """About as many tokens as the text has, and rarely fewer; never more than its bytes."""
    if not text:
        return 0
    plain = text.encode("ascii", "replace")
    kinds = b" " + plain.translate(_KINDS)
    total = sum(weight * kinds.count(pattern) for pattern, weight in _WEIGHTS.items())
    for run in _LONG.finditer(plain):
        total += _PER_CHARACTER[run.lastgroup or "marks"] * len(run[0])
    total += 1.9 * len(_CAMEL.findall(plain))
    size = len(plain)
    if not text.isascii():
        size = len(text.encode("utf-8", "surrogatepass"))
        total += _beyond_ascii(text, size - len(plain), kinds.count(b"a"))
    return max(1, min(size, math.ceil(total * MARGIN)))


def _beyond_ascii(text: str, extra_bytes: int, letters: int) -> float:
    """What characters beyond ASCII add.

    Alphabets cost about a token for each letter, syllables and ideographs a little less, what is
    rare nearly one for each byte. Letters with accents say that the plain ones around them are
    not English, whose words are the only ones that mostly cost a single token.
    """
    written, syllables = len(_WRITTEN.findall(text)), len(_SYLLABLES.findall(text))
    rare = max(0, extra_bytes - written - 2 * syllables)
    foreign = 0.08 * letters if written * 100 > letters else 0.0
    return 0.9 * written + 0.8 * syllables + 0.9 * rare + foreign
