"""Counts remembered by content, so that a conversation that grows is counted by what is new."""

from __future__ import annotations

import threading
from collections import OrderedDict
from hashlib import blake2b

from ..errors import ConfigurationError

ENTRY_BYTES = 240
"""What one entry takes: digest, count, and their place in an OrderedDict (measured)."""
MAX_BYTES = 4_000_000
"""Memory that the counts of one process may take."""


def digest(text: str, salt: str) -> bytes:
    """A 128-bit digest of a text, told apart by a salt of at most 16 bytes."""
    data = text.encode("utf-8", "surrogatepass")
    return blake2b(data, digest_size=16, person=salt.encode()).digest()


class Memo:
    """A thread-safe LRU from digest to count, bounded in bytes.

    Args:
        max_bytes: memory the entries may take; the least recently used go first. 0 remembers
            nothing.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        if max_bytes < 0:
            raise ConfigurationError(f"max_bytes must be 0 (off) or more, not {max_bytes!r}")
        self._max_entries = max_bytes // ENTRY_BYTES
        self._counts: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> float | None:
        """The remembered count, or None."""
        with self._lock:
            count = self._counts.get(key)
            if count is not None:
                self._counts.move_to_end(key)
            return count

    def put(self, key: bytes, count: float) -> None:
        """Remember a count."""
        with self._lock:
            self._counts[key] = count
            self._counts.move_to_end(key)
            while len(self._counts) > self._max_entries:
                self._counts.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._counts.clear()

    def __len__(self) -> int:
        return len(self._counts)
