"""What an image costs, from its width and height alone.

Dimensions are read from the header bytes of base64 data; the picture is never decoded. A picture
that lies behind a URL is never fetched: it counts as the worst case of its level of detail.
"""

from __future__ import annotations

import math

from .body import decode_base64
from .models import ClaudeRules, Patches, Tiles

Size = tuple[int, int]
_HEAD = 4_096
_LONG_HEAD = 1_000_000


def image_size(data: str) -> Size | None:
    """Width and height in pixels of a base64 image or data URL; None when they can't be read.

    PNG, GIF, WebP and JPEG are understood.
    """
    head = decode_base64(data, _HEAD)
    size = _png(head) or _gif(head) or _webp(head) or _jpeg(head)
    if size is None and head[:2] == b"\xff\xd8":
        size = _jpeg(decode_base64(data, _LONG_HEAD))  # long metadata before the frame
    if size is None or min(size) < 1:
        return None
    return size


def _png(head: bytes) -> Size | None:
    if head[:8] != b"\x89PNG\r\n\x1a\n" or len(head) < 24:
        return None
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def _gif(head: bytes) -> Size | None:
    if head[:4] != b"GIF8" or len(head) < 10:
        return None
    return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")


def _webp(head: bytes) -> Size | None:
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP" or len(head) < 30:
        return None
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = (int.from_bytes(head[i : i + 2], "little") & 0x3FFF for i in (26, 28))
        return width, height
    return None


_MAX_SEGMENTS = 10_000
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})


def _jpeg(head: bytes) -> Size | None:
    if head[:2] != b"\xff\xd8":
        return None
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if at + 9 > len(head) or head[at] != 0xFF:
            return None
        marker = head[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _FRAMES:
            height, width = (int.from_bytes(head[at + i : at + i + 2], "big") for i in (5, 7))
            return width, height
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
        else:
            at += 2 + max(2, int.from_bytes(head[at + 2 : at + 4], "big"))
    return None


def openai_image(size: Size | None, detail: str, rules: Tiles | Patches) -> int:
    """Tokens of one image for an OpenAI model.

    Args:
        size: width and height in pixels, or None when unknown (the worst case counts).
        detail: ``low``, ``high`` or ``auto`` (which counts as high).
        rules: how the model counts pictures.
    """
    if isinstance(rules, Patches):
        return _patches(size, rules)
    if detail == "low":
        return rules.base
    return rules.base + rules.tile * (_tiles(*size) if size else MAX_TILES)


MAX_TILES = 8
"""The most tiles a picture can have: 2048 by 768 pixels."""


def _tiles(width: int, height: int) -> int:
    scale = min(1.0, 2048 / max(width, height))
    width, height = max(1, int(width * scale)), max(1, int(height * scale))
    scale = min(1.0, 768 / min(width, height))
    width, height = max(1, int(width * scale)), max(1, int(height * scale))
    return math.ceil(width / 512) * math.ceil(height / 512)


def _patches(size: Size | None, rules: Patches) -> int:
    patches = rules.cap
    if size:
        patches = min(patches, math.ceil(size[0] / 32) * math.ceil(size[1] / 32))
    return 1 + math.ceil(patches * rules.factor)


def claude_image(size: Size | None, rules: ClaudeRules) -> int:
    """Tokens of one image for Claude: an area of 750 pixels each, after fitting 1568 pixels."""
    if size is None:
        return rules.image_cap + 5
    width, height = size
    scale = min(1.0, 1568 / max(width, height))
    return min(rules.image_cap, math.ceil(width * scale * height * scale / 750)) + 5
