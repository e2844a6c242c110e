"""How long a sound is, from its header: OpenAI bills ten tokens a second of input."""

from __future__ import annotations

import math

from .body import decode_base64

TOKENS_PER_SECOND = 10
FRAME = 4
"""Around each sound."""
MAX_BYTES = 40_000_000

_SLOWEST_BYTES_PER_SECOND = 4_000
"""An unknown format is taken for 32 kbit/s: the longest sound its bytes can be, in practice."""
_BITRATES = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_BITRATES_LOW = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)


def audio_tokens(data: str) -> int:
    """Tokens of a base64 sound (WAV and MP3 by their length, others by a bound on it)."""
    size = len(data) * 3 // 4
    head = decode_base64(data, 65_536)
    seconds = _wav_seconds(head, size)
    if seconds is None:
        seconds = _mp3_seconds(head, size)
    if seconds is None:
        seconds = size / _SLOWEST_BYTES_PER_SECOND
    return FRAME + max(1, math.ceil(seconds * TOKENS_PER_SECOND - 0.5))


def _wav_seconds(head: bytes, size: int) -> float | None:
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    rate = int.from_bytes(head[28:32], "little")
    return max(0, size - 44) / rate if rate else None


def _mp3_seconds(head: bytes, size: int) -> float | None:
    start = 0
    if head[:3] == b"ID3" and len(head) > 10:
        start = 10 + sum(
            byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)
        )
    at = head.find(b"\xff", start)
    while 0 <= at < len(head) - 4 and head[at + 1] & 0xE6 != 0xE2:
        at = head.find(b"\xff", at + 1)
    if not 0 <= at < len(head) - 4:
        return None
    version, index, rate_index = head[at + 1] >> 3 & 3, head[at + 2] >> 4, head[at + 2] >> 2 & 3
    kilobits = (_BITRATES if version == 3 else _BITRATES_LOW)[index]
    if not kilobits or rate_index == 3:
        return None
    rate = (44_100, 48_000, 32_000)[rate_index] // {3: 1, 2: 2, 0: 4}.get(version, 4)
    tag = max(head.find(b"Xing", at, at + 200), head.find(b"Info", at, at + 200))
    if tag > 0 and head[tag + 7] & 1:
        frames = int.from_bytes(head[tag + 8 : tag + 12], "big")
        return frames * (1152 if version == 3 else 576) / rate
    return (size - at) / (kilobits * 125)
