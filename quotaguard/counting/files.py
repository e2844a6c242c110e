"""How much text a file holds, read from its bytes without a document library.

PDFs are only skimmed: their pages, and the strings that zlib can uncover within a fixed amount of
work. Office files are zip archives of XML, plain text is text; anything else is worth its bytes.
Every loop is bounded, for the bytes may come from anybody.
"""

from __future__ import annotations

import io
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from .body import decode_base64
from .tokens import Tok

MAX_BYTES = 20_000_000
"""Bytes of a file that are looked at."""
MAX_INFLATED = 4_000_000
"""Bytes that are inflated from one file, in all."""
UNSEEN_TOKENS = 3_000
"""Tokens assumed for a file behind a URL or an id, which is never fetched: a guess."""

_MAX_STREAMS = 2_000
_MAX_MARKS = 300_000
_GLYPHS_PER_TOKEN = 3.6
_HEADER = 2_000
_MAX_PLAIN = 500_000
_STREAM = re.compile(rb"(?<!end)stream\r?\n")
_OTHER = re.compile(rb"/Subtype\s*/(?!Form)|/Length1|/Type\s*/(?!ObjStm|XObject)")
"""In the header of what shows no text: pictures, fonts, metadata."""
_PAGE = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
_PAGES = re.compile(rb"/Count\s+(\d{1,6})")
_MARK = re.compile(
    rb"\\.|[()]|<([0-9A-Fa-f\s]{1,4000})>(?!>)|(T\*|\bET\b|-?[1-9][\d.]{0,20}\s+T[dD]\b)", re.DOTALL
)
"""Escapes, the ends of literal strings, strings in hex, and moves to another line."""
_BEGIN = re.compile(rb"\bBT\b")
_OFFICE_TEXT = re.compile(r"(document|sharedStrings|sheet\d+|slide\d+)\.xml$")
_TAG = re.compile(r"<[^<>]*>")


@dataclass(frozen=True, slots=True)
class FileText:
    """What a file holds: pages (0 where it has none), and text in tokens."""

    pages: int
    tokens: int


def read_file(data: str, tok: Tok) -> FileText:
    """Pages and tokens of a base64 file or data URL.

    Args:
        data: base64, with or without a ``data:`` prefix.
        tok: counts the tokens of a text.
    """
    raw = decode_base64(data, MAX_BYTES)
    if raw.startswith(b"%PDF-"):
        return _pdf(raw, tok)
    if raw.startswith(b"PK\x03\x04"):
        return FileText(0, tok(_office(raw)))
    try:
        return FileText(0, tok(raw.decode("utf-8")))
    except UnicodeDecodeError:
        return FileText(0, len(raw) // 4)


def _pdf(raw: bytes, tok: Tok) -> FileText:
    pages, counted, glyphs = _count(_PAGE, raw), _counted(raw), 0
    texts = []
    for header, body in _streams(raw):
        if b"/ObjStm" in header:
            pages += _count(_PAGE, body)
            counted = max(counted, _counted(body))
        else:
            text, coded = _shown(body)
            texts.append(text)
            glyphs += coded
    text = "\n".join(filter(None, texts))
    found = min(tok(text), len(text) // 2) + glyphs / _GLYPHS_PER_TOKEN
    return FileText(max(1, pages, min(counted, len(raw) // 100)), math.ceil(found))


def _count(pattern: re.Pattern[bytes], raw: bytes) -> int:
    return sum(1 for _ in islice(pattern.finditer(raw), _MAX_STREAMS))


def _counted(raw: bytes) -> int:
    """The greatest number of pages that a page tree says it has."""
    found = islice(_PAGES.finditer(raw), _MAX_STREAMS)
    return max((int(match[1]) for match in found), default=0)


def _streams(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The streams that may hold text, each with its header, inflated within the budget."""
    budget = MAX_INFLATED
    for match in islice(_STREAM.finditer(raw), _MAX_STREAMS):
        header = raw[max(0, match.start() - _HEADER) : match.start()].rpartition(b"obj")[2]
        if _OTHER.search(header):
            continue
        body = _inflate(raw, match.end(), b"FlateDecode" in header, budget)
        budget -= len(body)
        yield header, body
        if budget <= 0:
            return


def _inflate(raw: bytes, start: int, compressed: bool, budget: int) -> bytes:
    if not compressed:
        end = raw.find(b"endstream", start, start + min(budget, _MAX_PLAIN))
        return raw[start:end] if end > 0 else b""
    try:
        return zlib.decompressobj().decompress(memoryview(raw)[start:], budget)
    except zlib.error:
        return b""


def _shown(content: bytes) -> tuple[str, int]:
    """What a page shows: the text of its literal strings, and the glyphs of those in hex."""
    if not _BEGIN.search(content):
        return "", 0
    parts: list[bytes] = []
    glyphs = depth = begun = 0
    for mark in islice(_MARK.finditer(content), _MAX_MARKS):
        if mark[0] == b"(":
            begun = begun if depth else mark.end()
            depth += 1
        elif mark[0] == b")" and depth:
            depth -= 1
            if not depth:
                parts.append(content[begun : mark.start()])
        elif mark[1] and not depth:
            glyphs += len(mark[1]) // 4
        elif mark[2] and not depth:
            parts.append(b"\n")
    return b"".join(parts).decode("latin-1"), glyphs


def _office(raw: bytes) -> str:
    """The text of a Word, Excel or PowerPoint file."""
    import zipfile

    texts = []
    budget = MAX_INFLATED
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            for name in filter(_OFFICE_TEXT.search, archive.namelist()):
                with archive.open(name) as part:
                    xml = part.read(budget).decode("utf-8", "replace")
                budget -= len(xml)
                texts.append(" ".join(_TAG.sub(" ", xml).split()))
                if budget <= 0:
                    break
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, ValueError):
        return "\n".join(texts)
    return "\n".join(texts)
