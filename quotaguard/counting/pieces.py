"""Cutting long texts into pieces whose token counts add up to the whole text's.

The regular expressions of ``cl100k_base`` and ``o200k_base`` split a text into words before any
bytes are merged, and no word of either holds

* a visible ASCII character followed by a space (only white space may follow white space, and
  punctuation takes only line breaks along), nor
* an ASCII letter or digit followed by a line feed, nor
* an ideograph, kana or Hangul syllable followed by an ideographic comma or full stop.

So a cut there changes nothing. Text that has none of these for a whole piece (a megabyte of one
letter, of spaces, of base64) is cut by force, which moves the count by a token or so per cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

PIECE = 8_192
"""Characters after which a cut is looked for; a piece is at most twice as long."""

_BOUNDARY = re.compile(
    "(?<=[!-~])(?= )"
    "|(?<=[A-Za-z0-9])(?=\n)"
    "|(?<=[\u4e00-\u9fa5\u3041-\u3096\u30a1-\u30fa\uac00-\ud7a3])(?=[\u3001\u3002\uff0c])"
)


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """The text in pieces of ``size`` to ``2 * size`` characters, in order."""
    start, end = 0, len(text)
    barren = ""  # the last window without a place to cut; hostile text repeats itself
    while end - start > 2 * size:
        window = text[start + size : start + 2 * size]
        boundary = (
            None if window == barren else _BOUNDARY.search(text, start + size, start + 2 * size)
        )
        if boundary is None:
            barren = window
        stop = boundary.start() if boundary else start + size
        yield text[start:stop]
        start = stop
    yield text[start:]
