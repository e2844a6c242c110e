"""Backends: where buckets live. Each carries out one operation in one atomic step."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal, Protocol

from ..clock import Clock
from ..core.ops import Answer, Op
from ..errors import ConfigurationError
from ..limits import Limit


class Backend(Protocol):
    """What a backend author writes; `quotaguard.testing.BackendContract` says whether it is right.

    Both methods raise `quotaguard.BackendError` when the ledger cannot be reached. ``aexecute``
    must not block the event loop, and a cancelled ``aexecute`` may have been carried out or not.
    One that other processes use too says so by ``shared = True``: then guards share by it what they
    learn of answers and bills (`quotaguard.core.ops.Merge`).
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


def open_backend(
    backend: str | Backend, clock: Clock, limits: Collection[Limit] = (), on_error: str = "refuse"
) -> Backend:
    """The backend of that URL, or of that redis-py client; a ready one is used as it is.

    Args:
        clock: where "now" comes from.
        limits: those that it is to keep, as far as they are known.
        on_error: ``"local"``: this process's share of them is admitted while the backend is away.

    Raises:
        ConfigurationError: no backend has that URL.
    """
    found = _found(backend, clock, limits)
    if backend != "memory://" and any(limit.draw_ahead for limit in limits):
        from .ahead import DrawAhead

        found = DrawAhead(found, clock)
    if on_error == "local":
        from .local import Local

        found = Local(found, clock)
    return found


def _found(backend: str | Backend, clock: Clock, limits: Collection[Limit]) -> Backend:
    if not isinstance(backend, str):
        if type(backend).__module__.partition(".")[0] == "redis":
            from .redis import RedisBackend

            return RedisBackend(backend, clock=clock, scope=_broadest(limits))
        if not (hasattr(backend, "execute") and hasattr(backend, "aexecute")):
            raise ConfigurationError(
                f"a backend is a URL, a client of redis-py or a Backend, not {backend!r}"
            )
        return backend
    scheme = backend.partition("://")[0]
    opener = _OPENERS.get(scheme)
    if opener is None:
        known = ", ".join(f"{name}://" for name in _OPENERS)
        raise ConfigurationError(f"no backend for {scheme + '://'!r}; known: {known}")
    return opener(backend, clock, limits)


def _broadest(limits: Collection[Limit]) -> Literal["org", "global"]:
    """What the buckets of one call may be spread over."""
    return "global" if any(limit.scope == "global" for limit in limits) else "org"


def _memory(url: str, clock: Clock, _: Collection[Limit]) -> Backend:
    from .memory import MemoryBackend

    if url != "memory://":
        raise ConfigurationError(f"the memory backend's URL is 'memory://', not {url!r}")
    return MemoryBackend(clock)


def _sqlite(url: str, clock: Clock, _: Collection[Limit]) -> Backend:
    from .sqlite import SQLiteBackend

    return SQLiteBackend.from_url(url, clock)


def _redis(url: str, clock: Clock, limits: Collection[Limit]) -> Backend:
    try:
        from .redis import RedisBackend
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{url.partition('://')[0]}:// needs redis-py: pip install 'quotaguard[redis]'"
        ) from error
    return RedisBackend.from_url(url, clock, _broadest(limits))


_OPENERS: dict[str, Callable[[str, Clock, Collection[Limit]], Backend]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "redis": _redis,
    "rediss": _redis,
    "unix": _redis,
    "redis+cluster": _redis,
    "rediss+cluster": _redis,
    "redis+sentinel": _redis,
    "rediss+sentinel": _redis,
}
"""URL scheme -> how to open it. A new backend is one entry here."""
