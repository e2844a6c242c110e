"""Files and sounds, read from their bytes."""

from __future__ import annotations

import base64
import io
import struct
import time
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotaguard.counting.audio import audio_tokens
from quotaguard.counting.files import FileText, read_file
from tests.counting.conftest import Letters


def b64(raw: bytes) -> str:
    """Base64, as bodies carry files."""
    return base64.b64encode(raw).decode()


def pdf(*pages: bytes, compressed: bool = True) -> bytes:
    """A PDF of pages that show the given operators."""
    out = b"%%PDF-1.4\n1 0 obj << /Type /Pages /Count %d >> endobj\n" % len(pages)
    for page in pages:
        body = zlib.compress(page) if compressed else page
        coded = b"/Filter /FlateDecode" if compressed else b""
        out += b"2 0 obj << /Type /Page >> endobj\n"
        out += b"3 0 obj << /Length %d %s >>\nstream\n%s\nendstream\nendobj\n" % (
            len(body),
            coded,
            body,
        )
    return out


@pytest.mark.parametrize("compressed", [True, False])
def test_a_pdf_is_its_pages_and_its_strings(letters: Letters, compressed: bool) -> None:
    """Strings of one line are joined, lines are broken, escapes stay inside."""
    page = rb"BT /F1 12 Tf [(Hel) -20 (lo)] TJ 0 -14 Td (a \(b\)) Tj ET"
    found = read_file(b64(pdf(page, page, compressed=compressed)), letters)

    text = "Hello\na \\(b\\)\n"
    assert found == FileText(2, len(text + "\n" + text) // 2)


def test_glyphs_in_hex_count_without_being_read(letters: Letters) -> None:
    """Four digits a glyph, 3.6 glyphs a token."""
    found = read_file(b64(pdf(b"BT <" + b"0041" * 36 + b"> Tj ET")), letters)

    assert found.tokens == 10


def test_pages_in_object_streams_are_found(letters: Letters) -> None:
    """Newer files keep their page tree compressed."""
    body = zlib.compress(b"<< /Type /Pages /Count 3 >> " + b"<< /Type /Page >> " * 3)
    stream = b"5 0 obj << /Type /ObjStm /Filter /FlateDecode >>\nstream\n" + body
    raw = b"%PDF-1.7\n" + stream + b"\nendstream" + b" " * 400

    assert read_file(b64(raw), letters).pages == 3


def test_office_files_are_their_xml_without_tags(letters: Letters) -> None:
    """Word, Excel and PowerPoint alike."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("word/document.xml", "<w:p><w:t>Hello</w:t> <w:t>there</w:t></w:p>")
        file.writestr("word/styles.xml", "<s>not shown</s>")

    assert read_file(b64(archive.getvalue()), letters).tokens == len("Hello there")


def test_text_is_text_and_the_unknown_its_bytes(letters: Letters) -> None:
    """A quarter of a token a byte."""
    assert read_file(b64("naïve".encode()), letters) == FileText(0, 5)
    assert read_file("data:application/x;base64," + b64(b"\xff" * 400), letters).tokens == 100


@given(
    st.binary(max_size=400), st.sampled_from([b"", b"%PDF-1.7\n", b"PK\x03\x04", b"%PDF-stream\n"])
)
def test_any_bytes_have_some_count(body: bytes, head: bytes) -> None:
    """Broken files are counted, not refused."""
    found = read_file(b64(head + body), Letters())

    assert found.tokens >= 0
    assert found.pages >= 0


@pytest.mark.parametrize(
    "body",
    [
        b"(" * 2_000_000,
        b"\\(" * 1_000_000,
        b"BT " * 600_000,
        b"(a" * 1_000_000,
        b"<A" * 1_000_000,
        b"<<" * 1_000_000,
        b"stream\n" * 250_000,
        b"/Type /Page " * 150_000,
    ],
    ids=lambda body: repr(body[:6]),
)
def test_hostile_pdfs_take_bounded_time(body: bytes) -> None:
    """Two megabytes of what a careless pattern would go over again and again."""
    started = time.perf_counter()
    read_file(b64(pdf(b"BT " + body + b" ET") + body), Letters())

    assert time.perf_counter() - started < 3


def test_a_deflated_bomb_is_not_inflated(letters: Letters) -> None:
    """A hundred megabytes of text in a hundred kilobytes."""
    page = b"BT (" + b"a" * 100_000_000 + b") Tj ET"

    assert read_file(b64(pdf(page)), letters).tokens <= 4_000_000


def wav(seconds: float) -> bytes:
    """A silent sound of 24 kHz."""
    rate = 48_000
    head = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 24_000, rate, 2, 16)
    return head + b"data\0\0\0\0" + b"\0" * int(rate * seconds)


def test_wav_counts_by_its_length() -> None:
    """Ten tokens a second, and a frame."""
    assert audio_tokens(b64(wav(2.5))) == 4 + 25


def test_mp3_counts_by_its_bit_rate() -> None:
    """128 kbit/s are 16,000 bytes a second."""
    frame = b"\xff\xfb\x90\x00"

    assert audio_tokens(b64(frame + b"\0" * 31_996)) == 4 + 20


def test_mp3_of_varying_bit_rate_counts_by_its_frames() -> None:
    """The first frame says how many there are; tags before it are skipped."""
    tagged = b"ID3\x04\0\0\0\0\0\x0a" + b"\xff\xe2" * 5
    head = b"\xff\xfb\x90\x00" + b"\0" * 32 + b"Xing\0\0\0\x01" + struct.pack(">I", 1000)
    seconds = 1000 * 1152 / 44_100

    assert audio_tokens(b64(tagged + head + b"\0" * 500)) == 4 + round(seconds * 10)


@given(st.text(max_size=50) | st.binary(max_size=200).map(b64))
def test_any_sound_has_a_count(data: str) -> None:
    """Unknown formats are taken for long ones."""
    assert audio_tokens(data) > 4
