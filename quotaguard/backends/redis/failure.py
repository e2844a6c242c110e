"""When Redis fails: what it is called, whether to try again, and when to stop asking."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from redis import exceptions as redis_errors

from ...errors import BackendError

FAILURES: tuple[type[BaseException], ...] = (
    redis_errors.RedisError,
    OSError,
    asyncio.TimeoutError,  # its own class before Python 3.11
)
"""What a client raises when Redis, or the way to it, fails."""

_HINTS: tuple[tuple[type[Exception], str, str], ...] = (
    (redis_errors.AuthenticationError, "NOAUTH", "check user name and password"),
    (
        redis_errors.NoPermissionError,
        "NOPERM",
        "the how-to on Redis says what a user must be allowed",
    ),
    (redis_errors.ReadOnlyError, "READONLY", "it is a replica; name the primary or its sentinels"),
    (redis_errors.OutOfMemoryError, "OOM", "it is full (maxmemory); the ledger cannot grow"),
    (redis_errors.TryAgainError, "TTL exhausted", "the slot is being moved"),
    (redis_errors.MovedError, "MOVED", "it is a cluster; use redis+cluster://"),
    (redis_errors.ClusterCrossSlotError, "non local key", "it is a cluster; use redis+cluster://"),
)
"""What to say of an error: by its class, or where it came up inside the script by its text."""
_HOPELESS = (redis_errors.AuthenticationError, redis_errors.AuthorizationError)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


def is_away(error: BaseException) -> bool:
    """Whether Redis did not answer, rather than answered with an error."""
    away = (redis_errors.ConnectionError, redis_errors.TimeoutError, OSError, asyncio.TimeoutError)
    return isinstance(error, away)


def worth_another(error: BaseException) -> bool:
    """Whether the same call may succeed right away on a new connection. Repeating is safe: every
    operation is named by its id and counts once.
    """
    if isinstance(error, redis_errors.ReadOnlyError) or "READONLY" in str(error):
        return True
    return is_away(error) and not isinstance(error, _HOPELESS)


def explained(error: BaseException, where: Any) -> BackendError:
    """The failure as this library's error, without secrets."""
    if isinstance(error, BackendError):
        return error
    said = str(error) or type(error).__name__
    hints = (hint for kind, code, hint in _HINTS if isinstance(error, kind) or code in said)
    hint = next((f"; {text}" for text in hints), "")
    return BackendError(f"Redis at {where}: {said}{hint}")


class Breaker:
    """After a failure everybody is refused at once, until the one that is let through as a probe
    succeeds. The pause before the next probe doubles from 0.1 to 2 seconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._error: BackendError | None = None
        self._pause = _FIRST_PAUSE
        self._retry_at = 0.0

    def refusal(self) -> BackendError | None:
        """Why nobody is to be asked now; None if it may be tried."""
        if self._error is None:
            return None
        with self._lock:
            if self._error is None:
                return None
            left = self._retry_at - time.monotonic()
            if left > 0.0:
                return BackendError(f"{self._error} (next attempt in {left:.1f} s)")
            self._retry_at += self._pause - left  # this one is the probe
            return None

    def failed(self, error: BackendError) -> None:
        """Redis did not answer."""
        with self._lock:
            self._error = error
            self._retry_at = time.monotonic() + self._pause
            self._pause = min(self._pause * 2.0, _LONGEST_PAUSE)

    def succeeded(self) -> None:
        """It did."""
        if self._error is not None:
            with self._lock:
                self._error = None
                self._pause = _FIRST_PAUSE
