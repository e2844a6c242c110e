"""How fast the ledger answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...backends import Backend
from ...core.ops import Answer, Op, Park
from ..attributes import Value

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram


class TimedBackend:
    """A backend, and a histogram of the seconds that its operations take.

    Standing in line (`Park`) is no latency and is left out.
    """

    def __init__(self, backend: Backend, latency: Histogram, now: Callable[[], float]) -> None:
        self._backend = backend
        self._latency = latency
        self._now = now
        self._name = type(backend).__name__.removesuffix("Backend").lower()

    def execute(self, op: Op) -> Answer:
        """Carry out one operation, blocking."""
        with self._timed(op):
            return self._backend.execute(op)

    async def aexecute(self, op: Op) -> Answer:
        """Carry out one operation, awaiting."""
        with self._timed(op):
            return await self._backend.aexecute(op)

    def close(self) -> None:
        """Close the backend."""
        self._backend.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    @contextmanager
    def _timed(self, op: Op) -> Iterator[None]:
        labels: dict[str, Value] = {
            "quotaguard.backend": self._name,
            "quotaguard.operation": type(op).__name__.lower(),
        }
        began = self._now()
        try:
            yield
        except BaseException as error:
            labels["error.type"] = type(error).__name__
            raise
        finally:
            if not isinstance(op, Park):
                self._latency.record(self._now() - began, labels)
