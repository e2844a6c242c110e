"""Pictures: dimensions from header bytes, tokens from dimensions."""

from __future__ import annotations

import base64
import struct

import pytest

from quotaguard.counting.images import claude_image, image_size, openai_image
from quotaguard.counting.models import ClaudeRules, Patches, Tiles


def png(width: int, height: int) -> bytes:
    """The head of a PNG."""
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height)


def gif(width: int, height: int) -> bytes:
    """The head of a GIF."""
    return b"GIF89a" + struct.pack("<HH", width, height)


def jpeg(width: int, height: int, before: bytes = b"\xff\xe0\0\x10JFIF" + b"\0" * 10) -> bytes:
    """A JPEG up to its frame header."""
    frame = b"\xff\xc0\0\x11\x08" + struct.pack(">HH", height, width)
    return b"\xff\xd8" + before + frame + b"\0" * 10


def webp_extended(width: int, height: int) -> bytes:
    """The head of an extended WebP."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\0\0\0\0WEBPVP8X" + b"\0" * 8 + size


def webp_lossless(width: int, height: int) -> bytes:
    """The head of a lossless WebP."""
    bits = (width - 1) | (height - 1) << 14
    return b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + struct.pack("<I", bits) + b"\0" * 8


def webp_lossy(width: int, height: int) -> bytes:
    """The head of a lossy WebP."""
    head = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a"
    return head + struct.pack("<HH", width, height)


FORMATS = [png, gif, jpeg, webp_extended, webp_lossless, webp_lossy]


@pytest.mark.parametrize("form", FORMATS)
def test_dimensions_are_read_from_the_header(form: object) -> None:
    """With or without the prefix of a data URL."""
    data = base64.b64encode(form(640, 480)).decode()  # type: ignore[operator]

    assert image_size(data) == (640, 480)
    assert image_size(f"data:image/any;base64,{data}") == (640, 480)


@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_header_has_no_dimensions(form: object) -> None:
    """Rather None than a wrong number."""
    whole = form(640, 480)  # type: ignore[operator]
    for length in range(10):
        data = base64.b64encode(whole[:length]).decode()
        assert image_size(data) is None


def test_a_frame_after_long_metadata_is_found() -> None:
    """Cameras put a preview before the frame header."""
    segment = b"\xff\xe1\xff\xff" + b"\0" * 65_533
    data = base64.b64encode(jpeg(640, 480, before=segment * 3)).decode()

    assert image_size(data) == (640, 480)


@pytest.mark.parametrize(
    "data", ["", "é", "not base64!", "AAAA", "data:image/png;base64,", "data:,x"]
)
def test_what_is_no_picture_has_no_dimensions(data: str) -> None:
    """Nothing is raised."""
    assert image_size(data) is None


def test_a_picture_of_no_width_has_no_dimensions() -> None:
    """A hostile header can't divide by zero."""
    assert image_size(base64.b64encode(png(0, 480)).decode()) is None


@pytest.mark.parametrize(
    ("size", "tiles"),
    [
        ((1, 1), 1),
        ((512, 512), 1),
        ((513, 512), 2),
        ((1024, 1024), 4),
        ((2048, 4096), 6),
        ((9999, 1), 4),
    ],
)
def test_tiles_are_counted_after_fitting(size: tuple[int, int], tiles: int) -> None:
    """Into 2048 pixels, and then a short side of 768."""
    assert openai_image(size, "auto", Tiles(85, 170)) == 85 + 170 * tiles


def test_low_detail_costs_the_base_alone() -> None:
    """Whatever the size."""
    assert openai_image((4000, 4000), "low", Tiles(85, 170)) == 85


def test_patches_are_counted_up_to_a_cap() -> None:
    """Times the model's factor."""
    assert openai_image((64, 33), "auto", Patches(1.5)) == 1 + 6
    assert openai_image((4000, 4000), "auto", Patches(2.0)) == 1 + 2 * 1536


@pytest.mark.parametrize("rules", [Tiles(85, 170), Patches(1.62)])
def test_an_unseen_picture_counts_as_the_worst_case(rules: Tiles | Patches) -> None:
    """No picture of any size costs more."""
    worst = openai_image(None, "high", rules)

    for width in (1, 500, 2000, 9000):
        for height in (1, 500, 2000, 9000):
            assert openai_image((width, height), "high", rules) <= worst


def test_claude_counts_the_area_after_fitting() -> None:
    """750 pixels a token, at most the model's cap."""
    assert claude_image((750, 100), ClaudeRules()) == 105
    assert claude_image((9000, 9000), ClaudeRules()) == 1538
    assert claude_image(None, ClaudeRules()) == 1538
