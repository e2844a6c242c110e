"""The memory backend keeps the contract, and forgets."""

from __future__ import annotations

from quotaguard.backends.memory import MemoryBackend
from quotaguard.testing import BackendContract, FakeClock


class TestMemory(BackendContract):
    """Every promise of a backend."""

    def make_backend(self, clock: FakeClock) -> MemoryBackend:
        """Books of its own for each test."""
        return MemoryBackend(clock)
