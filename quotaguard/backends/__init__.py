"""Backends: where buckets live. Each carries out one operation in one atomic step."""

from __future__ import annotations

from typing import Protocol

from ..clock import Clock
from ..core.ops import Answer, Op
from ..errors import ConfigurationError


class Backend(Protocol):
    """What a backend author writes; `quotaguard.testing.BackendContract` says whether it is right.

    Both methods raise `quotaguard.BackendError` when the ledger cannot be reached. ``aexecute``
    must not block the event loop, and a cancelled ``aexecute`` may have been carried out or not.
    """

    def execute(self, op: Op) -> Answer:
        """Carry out one operation, blocking."""
        ...

    async def aexecute(self, op: Op) -> Answer:
        """Carry out one operation, awaiting."""
        ...

    def close(self) -> None:
        """Give back connections and files; the backend is not used afterwards."""
        ...


def open_backend(backend: str | Backend, clock: Clock) -> Backend:
    """The backend of that URL; a ready one is returned as it is.

    Raises:
        ConfigurationError: no backend has that URL.
    """
    if not isinstance(backend, str):
        if not (hasattr(backend, "execute") and hasattr(backend, "aexecute")):
            raise ConfigurationError(f"a backend is a URL or a Backend, not {backend!r}")
        return backend
    if backend == "memory://":
        from .memory import MemoryBackend

        return MemoryBackend(clock)
    scheme = backend.partition("://")[0]
    raise ConfigurationError(f"no backend for {scheme + '://'!r}; known: 'memory://'")
