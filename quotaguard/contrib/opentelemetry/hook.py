"""The hook: which event counts where."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any
from zlib import crc32

from opentelemetry import metrics

from ...backends import Backend
from ...errors import ConfigurationError, QuotaExceeded
from ...events import (
    Admitted,
    Approaching,
    BackendFailed,
    Event,
    FellBack,
    Refused,
    Settled,
    UsageUnreadable,
    Waited,
)
from ...guard import Guard
from ...identity import Identity
from ...usage import NANO
from ..attributes import LIMIT, REASON, REQUEST_MODEL, RESPONSE_MODEL, Value, reason
from .bounds import Few, Levels
from .spans import Spans
from .timing import TimedBackend

BY = ("tier", "org", "user_bucket")
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105  # the name of an attribute
_WAITS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_LATENCIES = (1e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
"""Bounds of histograms, in seconds: from a bucket in memory to a Redis that is in trouble."""


def instrument(guard: Guard, **options: Any) -> OpenTelemetry:
    """Record what a guard does from now on, and how fast its backend answers.

    Args:
        guard: any guard, also one that a file describes (`quotaguard.config.default_guard`).
        options: as `OpenTelemetry` takes them.

    Raises:
        ConfigurationError: the guard is instrumented already, or an option is wrong.
    """
    if isinstance(guard.backend, TimedBackend):
        raise ConfigurationError("this guard is instrumented already")
    telemetry = OpenTelemetry(**options)
    guard.tell.add(telemetry)
    guard.backend = telemetry.timed(guard.backend)
    return telemetry


class OpenTelemetry:
    """A hook that records metrics and sets attributes on spans.

    One serves any number of guards. `instrument` is the short way; ``Guard(hooks=[...])`` takes it
    too, and then the backend's latency is not measured.

    Metrics never say who the user is. The attributes of a span tell of the calls admitted in it:
    the last one's models and limits, and what all of them used.

    Args:
        meter_provider: default: OpenTelemetry's global one.
        by: attributes for metrics besides the models: ``"tier"``, ``"org"``, ``"user_bucket"`` (a
            number that users share, to see whether few of them make the load).
        most: the most values that an attribute takes (models, limits, organisations ...); the
            rest is told as ``"other"``.
        models: the models that are told by name, and no others (default: the first ``most`` that
            are asked for).
        user_buckets: into how many parts ``"user_bucket"`` divides the users.
        spans: whether to set attributes on spans.
        users: whether spans say who the user is.
        now: seconds, for latencies and for how old a level is; a fake clock's in tests.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    def __init__(
        self,
        *,
        meter_provider: metrics.MeterProvider | None = None,
        by: Iterable[str] = (),
        most: int = 50,
        models: Iterable[str] = (),
        user_buckets: int = 16,
        spans: bool = True,
        users: bool = False,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._now = now
        self._by = tuple(by)
        for each in self._by:
            if each not in BY:
                raise ConfigurationError(f"by= takes {', '.join(BY)}, not {each!r}")
        for what, number in (("most", most), ("user_buckets", user_buckets)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ConfigurationError(f"{what} is a whole number >= 1, not {number!r}")
        self._user_buckets = user_buckets
        self._model = Few(most, models)
        self._limit, self._org, self._endpoint = Few(most), Few(most), Few(most)
        self._spans = Spans(users) if spans else None
        meter = metrics.get_meter("quotaguard", version("quotaguard"), meter_provider)
        self._levels = Levels(now)
        self._make(meter)

    def _make(self, meter: metrics.Meter) -> None:
        counter = meter.create_counter
        self._admitted = counter("quotaguard.admitted", "{call}", "Calls that were let through")
        self._refused = counter("quotaguard.refused", "{call}", "Calls that were refused")
        self._downgraded = counter(
            "quotaguard.downgraded", "{call}", "Calls that another model than the one asked served"
        )
        self._approached = counter(
            "quotaguard.approaching", "{call}", "Calls that took a limit past a share that warns"
        )
        self._settled = counter("quotaguard.settled", "{call}", "Calls that were charged")
        self._unreadable = counter(
            "quotaguard.usage.unreadable", "{call}", "Answers without usage that can be read"
        )
        self._reserved = counter(
            "quotaguard.tokens.reserved", "{token}", "Tokens estimated for the calls charged"
        )
        self._used = counter("quotaguard.tokens.used", "{token}", "Tokens charged")
        self._cost = counter("quotaguard.cost.usd", "{USD}", "US dollars charged, at list prices")
        self._saved = counter(
            "quotaguard.savings.usd",
            "{USD}",
            "What the models asked for would have cost, less what those that served did",
        )
        self._waited = meter.create_histogram(
            "quotaguard.wait.duration",
            "s",
            "How long calls stood in line that did",
            explicit_bucket_boundaries_advisory=_WAITS,
        )
        self._errors = counter(
            "quotaguard.backend.errors", "{error}", "Times that the ledger could not be reached"
        )
        self._latency = meter.create_histogram(
            "quotaguard.backend.duration",
            "s",
            "How long the ledger takes to answer",
            explicit_bucket_boundaries_advisory=_LATENCIES,
        )
        meter.create_observable_gauge(
            "quotaguard.limit.level",
            [self._observe],
            "{share}",  # not "1": Prometheus exporters differ about its suffix
            "What the emptiest bucket of a limit had left, of those charged in the last minute",
        )

    def __call__(self, event: Event, /) -> None:
        """Record one event."""
        if self._spans is not None:
            self._spans(event)
        labels = self._labels(event.identity)
        if event.model is not None:
            labels[REQUEST_MODEL] = self._model(event.model)
        match event:
            case Admitted():
                self._admitted.add(1, self._with_served(labels, event.served))
            case Settled():
                self._charged(event, self._with_served(labels, event.served))
            case FellBack():
                self._downgrade(event, self._with_served(labels, event.served))
            case Approaching():
                labels |= {LIMIT: self._limit(event.limit), "quotaguard.share": event.share}
                self._approached.add(1, labels)
            case Refused():
                self._refusal(event, labels)
            case Waited():
                self._waited.record(
                    event.seconds, {**labels, "quotaguard.admitted": event.admitted}
                )
            case UsageUnreadable():
                self._unreadable.add(
                    1, {**labels, "quotaguard.endpoint": self._endpoint(event.endpoint)}
                )
            case BackendFailed():
                self._errors.add(1, {"quotaguard.outcome": event.outcome})
            case _:
                pass  # Waiting is counted by how it ends

    def timed(self, backend: Backend) -> TimedBackend:
        """A backend whose latency is recorded."""
        return TimedBackend(backend, self._latency, self._now)

    def _downgrade(self, event: FellBack, labels: dict[str, Value]) -> None:
        if event.limit is not None:
            labels = labels | {LIMIT: self._limit(event.limit)}
        self._downgraded.add(1, labels)

    def _refusal(self, event: Refused, labels: dict[str, Value]) -> None:
        labels |= {REASON: reason(event.error), "quotaguard.enforced": event.enforced}
        if isinstance(event.error, QuotaExceeded):
            labels[LIMIT] = limit = self._limit(event.error.limit)
            self._levels.note(limit, event.error.left / (event.error.capacity or math.inf))
        self._refused.add(1, labels)

    def _charged(self, event: Settled, labels: dict[str, Value]) -> None:
        used = event.reserved if event.used is None else event.used
        self._settled.add(
            1, labels | {"quotaguard.late": event.late, "quotaguard.known": event.used is not None}
        )
        for limit, share in event.left:
            self._levels.note(self._limit(limit), share)
        for counter, usage in ((self._reserved, event.reserved), (self._used, used)):
            counter.add(usage.input_tokens, labels | {TOKEN_TYPE: "input"})
            counter.add(usage.output_tokens, labels | {TOKEN_TYPE: "output"})
        if used.nano_usd is None:
            return
        self._cost.add(used.nano_usd / NANO, labels)
        if event.in_full is not None and event.in_full > used.nano_usd:
            self._saved.add((event.in_full - used.nano_usd) / NANO, labels)

    def _observe(self, options: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        for limit, level in self._levels.lowest().items():
            yield metrics.Observation(level, {LIMIT: limit})

    def _labels(self, identity: Identity) -> dict[str, Value]:
        labels: dict[str, Value] = {}
        for each in self._by:
            if each == "tier" and identity.tier is not None:
                labels["quotaguard.tier"] = identity.tier
            elif each == "org" and identity.org is not None:
                labels["quotaguard.org"] = self._org(identity.org)
            elif each == "user_bucket" and identity.user is not None:
                user = f"{identity.org or ''}/{identity.user}".encode(errors="surrogatepass")
                labels["quotaguard.user_bucket"] = crc32(user) % self._user_buckets
        return labels

    def _with_served(self, labels: dict[str, Value], served: str | None) -> dict[str, Value]:
        return labels if served is None else {**labels, RESPONSE_MODEL: self._model(served)}
