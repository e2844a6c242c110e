"""How long calls may wait in line, where more than the tier's policies has a say in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from .policies import Fallback, Policy, Wait

_job: ContextVar[Wait | None] = ContextVar("quotaguard_patience", default=None)


@contextmanager
def patient(wait: Wait) -> Iterator[None]:
    """Calls inside wait like this when a limit has no room, whatever their tier says."""
    token = _job.set(wait)
    try:
        yield
    finally:
        _job.reset(token)


def bounded(
    policies: tuple[Policy, ...], timeout: Callable[[], float | None] | None
) -> tuple[Policy, ...]:
    """A tier's policies for this call.

    Args:
        policies: those of the tier.
        timeout: tells the seconds that the call may take by itself, None if nobody said; it may
            wait no longer than that. Within `patient` it does not matter.
    """
    job = _job.get()
    if job is not None:
        return (*(each for each in policies if isinstance(each, Fallback)), job)
    if timeout is None or not policies or not any(isinstance(each, Wait) for each in policies):
        return policies
    seconds = timeout()
    if seconds is None:
        return policies
    return tuple(
        replace(each, max_seconds=min(each.max_seconds, seconds))
        if isinstance(each, Wait)
        else each
        for each in policies
        if seconds > 0 or not isinstance(each, Wait)
    )
