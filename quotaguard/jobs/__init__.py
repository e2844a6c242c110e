"""Batch jobs: many items, as fast as the limits allow and no faster."""

from __future__ import annotations

import inspect
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Sized,
)
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from ..accounts import Accounts
from ..errors import ConfigurationError
from ..policies import Wait
from .done import Done

if TYPE_CHECKING:  # most guards run no jobs
    from tenacity import BaseRetrying
    from typing_extensions import TypedDict, Unpack

    from .finished import FinishedItems
    from .job import Job, Orders, Show
__all__ = ["Done", "Jobs"]

T = TypeVar("T")
R = TypeVar("R")

if TYPE_CHECKING:

    class _Terms(TypedDict, Generic[T], total=False):
        """What `Jobs.map` takes besides, whatever it gives."""

        concurrency: int
        ordered: bool
        retries: int | BaseRetrying
        patience: Wait | None
        resume: str | os.PathLike[str] | None
        key: Callable[[T], str | int] | None
        keep_results: bool
        progress: bool | str


PATIENCE = 31 * 86_400.0
"""Seconds that a job's call may stand in line: a month, the longest period that most limits are
for."""


class Jobs(Accounts):
    """The part of `quotaguard.Guard` that runs batch jobs."""

    @overload
    def map(
        self,
        function: Callable[[T], R],
        items: Iterable[T],
        *,
        errors: Literal["raise"] = ...,
        **terms: Unpack[_Terms[T]],
    ) -> Generator[R, None, None]: ...
    @overload
    def map(
        self,
        function: Callable[[T], R],
        items: Iterable[T],
        *,
        errors: Literal["collect"],
        **terms: Unpack[_Terms[T]],
    ) -> Generator[Done[T, R], None, None]: ...
    def map(
        self,
        function: Callable[[T], R],
        items: Iterable[T],
        *,
        concurrency: int = 16,
        ordered: bool = True,
        errors: Literal["raise", "collect"] = "raise",
        retries: int | BaseRetrying = 5,
        patience: Wait | None = None,
        resume: str | os.PathLike[str] | None = None,
        key: Callable[[T], str | int] | None = None,
        keep_results: bool = False,
        progress: bool | str = False,
    ) -> Generator[Any, None, None]:
        """Call a function with each item, in threads, as fast as this guard's limits allow.

        The function calls guarded clients, or is ``token_limited``: what it does past the guard is
        not limited. Its calls wait in line whatever their tier says about that; fallbacks stay.
        They act for whom `acting_as` named when ``map`` was called.

        It is a generator: items are drawn, and the job goes on, while results are taken. At most
        ``concurrency`` + 16 items are drawn of which no result was taken yet, so items may be
        endless. Who takes no more results closes it (a ``for`` loop that is left does, if nobody
        else holds the generator): waits end, requests under way are awaited, others never begin.

        Args:
            function: called with one item.
            items: the items, which are drawn in the thread that takes the results.
            concurrency: the most items that are worked on at the same time.
            ordered: hand out results in the order of the items; False: as they come.
            errors: ``"raise"``: hand out results; the first item that fails ends the job with its
                error. ``"collect"``: hand out a `Done` for each item, with its result or error.
            retries: how often an item is tried again after a transient error of the provider (as
                its ``Retry-After`` says, else after a random time that doubles, up to a minute), or
                a ``tenacity.Retrying`` with rules of your own, which does not do the sleeping.
            patience: how its calls wait in line; None: each for a month at most.
            resume: a file of JSON lines that notes each item that is done. Items that it has are
                not done again. A file belongs to one function.
            key: gives an item's name in that file (default: a digest of the item as JSON).
            keep_results: keep results there too, so that a later run hands them out again; they
                have to be JSON values. False: the file has nothing but keys, and a later run leaves
                out what is done.
            progress: show a progress bar, with this text before it if it is one.

        Raises:
            ConfigurationError: an argument is wrong.
            ImportError: a progress bar needs ``quotaguard[progress]``.
        """
        from .threads import carried_out

        if inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"{function!r} is a coroutine function: amap runs these")
        finished = _file(resume, key, keep_results)
        job = _job(items, concurrency, ordered, errors, finished, progress)
        orders = self._orders(function, retries, patience, finished)
        return carried_out(job, orders, items, copy_context())

    @overload
    def amap(
        self,
        function: Callable[[T], Awaitable[R]],
        items: Iterable[T] | AsyncIterable[T],
        *,
        errors: Literal["raise"] = ...,
        **terms: Unpack[_Terms[T]],
    ) -> AsyncGenerator[R, None]: ...
    @overload
    def amap(
        self,
        function: Callable[[T], Awaitable[R]],
        items: Iterable[T] | AsyncIterable[T],
        *,
        errors: Literal["collect"],
        **terms: Unpack[_Terms[T]],
    ) -> AsyncGenerator[Done[T, R], None]: ...
    def amap(
        self,
        function: Callable[[T], Awaitable[R]],
        items: Iterable[T] | AsyncIterable[T],
        *,
        concurrency: int = 16,
        ordered: bool = True,
        errors: Literal["raise", "collect"] = "raise",
        retries: int | BaseRetrying = 5,
        patience: Wait | None = None,
        resume: str | os.PathLike[str] | None = None,
        key: Callable[[T], str | int] | None = None,
        keep_results: bool = False,
        progress: bool | str = False,
    ) -> AsyncGenerator[Any, None]:
        """`map` with a coroutine function, in tasks; items may be an async iterable.

        An ``async for`` that is left closes the generator only when the loop gets round to it:
        ``async with contextlib.aclosing(guard.amap(...)) as results`` closes it there.
        """
        from .tasks import carried_out

        finished = _file(resume, key, keep_results)
        job = _job(items, concurrency, ordered, errors, finished, progress)
        orders = self._orders(function, retries, patience, finished)
        return carried_out(job, orders, items, copy_context())

    def _orders(
        self,
        function: Callable[[Any], Any],
        retries: int | BaseRetrying,
        patience: Wait | None,
        finished: FinishedItems | None,
    ) -> Orders:
        """How its items are done."""
        from .attempts import retrying
        from .job import Orders

        if patience is None:
            patience = Wait(PATIENCE)
        elif not isinstance(patience, Wait):
            raise ConfigurationError(f"patience is a Wait(max_seconds=...), not {patience!r}")
        rules = retrying(retries, patience.max_seconds, self.clock.now)
        return Orders(function, rules, patience, self.clock, finished)


def _job(
    items: object,
    concurrency: int,
    ordered: bool,
    errors: str,
    finished: FinishedItems | None,
    progress: bool | str,
) -> Job:
    """The job, not begun yet."""
    from .job import Job

    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigurationError(f"concurrency is a whole number >= 1, not {concurrency!r}")
    if errors not in ("raise", "collect"):
        raise ConfigurationError(f"errors is 'raise' or 'collect', not {errors!r}")
    return Job(
        concurrency,
        ordered=ordered,
        stop_at_error=errors == "raise",
        finished=finished,
        show=_show(progress, items),
    )


def _file(
    resume: str | os.PathLike[str] | None,
    key: Callable[[Any], str | int] | None,
    keep_results: bool,
) -> FinishedItems | None:
    """The file of the items that are done."""
    from .finished import FinishedItems

    if resume is None:
        if key is not None or keep_results:
            raise ConfigurationError("key= and keep_results= are about the file that resume= names")
        return None
    if key is not None and not callable(key):
        raise ConfigurationError(f"key is a callable that gives an item's name, not {key!r}")
    return FinishedItems(resume, key, keep_results)


def _show(progress: bool | str, items: object) -> Show | None:
    """The progress bar."""
    if progress is False:
        return None
    from ..progress import JobBar

    total = len(items) if isinstance(items, Sized) else None
    return JobBar(progress if isinstance(progress, str) else None, total)
