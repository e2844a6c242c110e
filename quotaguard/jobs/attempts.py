"""Whether an item is tried again, and when: decided by tenacity, carried out by a crew.

tenacity's loop is run step by step: it says what to do, an attempt or a pause, and neither calls
nor sleeps itself. So it is the same for threads and tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeAlias

from tenacity import (
    AsyncRetrying,
    BaseRetrying,
    DoAttempt,
    DoSleep,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random,
    wait_random_exponential,
)

from ..errors import BackendError, ConfigurationError, QuotaguardError
from ..providers import field


class Attempt(NamedTuple):
    """A step: call the function with the item; the answer is what it returns or raises."""

    item: Any


class Pause(NamedTuple):
    """A step: let time pass."""

    seconds: float


Steps: TypeAlias = "Generator[Attempt | Pause, Any, Any]"

_CURVE = wait_random_exponential(multiplier=1, max=60)
"""Pauses of which the provider says nothing: up to 1, 2, 4, ... 60 s, at random."""
_SPREAD = wait_random(0, 1)
"""What is added to the time that the provider names: others were told the same."""
_BROKEN = {"APIConnectionError", "TransportError", "ConnectionError", "TimeoutError"}
"""Errors of both SDKs, of httpx and of Python that tell of a connection, by name: also what
derives from them, and what ``asyncio`` and httpx2 call the same."""


def retrying(
    retries: int | BaseRetrying, patience: float, now: Callable[[], float]
) -> BaseRetrying:
    """The rules by which an item is tried again.

    Args:
        retries: how often a transient error of the provider is met with another attempt; or rules
            of the caller's own.
        patience: seconds; an item is given up whose provider names a later time.
        now: seconds since the epoch.

    Raises:
        ConfigurationError: it is neither.
    """
    if isinstance(retries, BaseRetrying) and not isinstance(retries, AsyncRetrying):
        return retries
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise ConfigurationError(
            f"retries is how often an item is tried again, or a tenacity.Retrying, not {retries!r}"
        )

    def worth_it(error: BaseException) -> bool:
        return is_transient(error) and (retry_after(error, now()) or 0.0) <= patience

    def pause(state: RetryCallState) -> float:
        assert state.outcome is not None
        error = state.outcome.exception()
        asked = retry_after(error, now()) if error is not None else None
        return _CURVE(state) if asked is None else asked + _SPREAD(state)

    return Retrying(
        stop=stop_after_attempt(retries + 1),
        wait=pause,
        retry=retry_if_exception(worth_it),
        reraise=True,
    )


def attempts(item: Any, rules: BaseRetrying) -> Steps:
    """An item's attempts, with the pauses between; the result, or the error, that counts."""
    loop = rules.copy()  # its statistics belong to one loop
    loop.begin()
    state = RetryCallState(loop, None, (), {})
    while True:
        do = loop.iter(state)
        if isinstance(do, DoAttempt):
            try:
                state.set_result((yield Attempt(item)))
            except Exception as error:  # noqa: BLE001  # the rules decide about it
                state.set_exception((type(error), error, error.__traceback__))
        elif isinstance(do, DoSleep):
            state.prepare_for_next_attempt()
            yield Pause(float(do))
        else:
            return do


def is_transient(error: BaseException) -> bool:
    """Whether another attempt may do better: what the SDKs themselves repeat, and a ledger that is
    away. A refusal of the guard is none: its wait was over, or could never help.

    The provider's ``x-should-retry`` goes before the status, as in the SDKs. A 429 for an account
    without credit is none (``insufficient_quota``,
    https://platform.openai.com/docs/guides/error-codes).
    """
    if isinstance(error, QuotaguardError):
        return isinstance(error, BackendError)
    status = field(error, "status_code")
    if not isinstance(status, int):
        return any(cls.__name__ in _BROKEN for cls in type(error).__mro__)
    told = _headers(error).get("x-should-retry")
    if told in ("true", "false"):
        return bool(told == "true")
    if field(error, "code") == "insufficient_quota":
        return False
    return status in (408, 409, 429) or status >= 500


def retry_after(error: BaseException, now: float) -> float | None:
    """Seconds after which the provider wants to be asked again; None: it does not say.

    ``Retry-After`` is seconds or a date (RFC 9110, section 10.2.3); OpenAI's ``retry-after-ms`` is
    more exact.
    """
    headers = _headers(error)
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / scale
        except (KeyError, TypeError, ValueError):
            continue
        if 0.0 <= seconds < float("inf"):
            return seconds
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - now)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _headers(error: BaseException) -> Mapping[str, Any]:
    """The header fields of the response that an error carries."""
    headers = field(field(error, "response"), "headers")
    return headers if isinstance(headers, Mapping) else {}
