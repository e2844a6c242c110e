"""What tests of metrics and spans share."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from quotaguard import Guard, Tier
from quotaguard.contrib.opentelemetry import OpenTelemetry
from quotaguard.testing import FakeClock

LARGE, SMALL = "100 tokens/minute for large", "100 tokens/minute for small"


class Recorded:
    """A meter and a tracer whose records can be read back, and a clock that moves by itself."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader])
        self.spans = InMemorySpanExporter()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.tracer = tracers.get_tracer("tests")
        self.time = 0.0

    def now(self) -> float:
        """A thousandth of a second later at each look."""
        self.time += 0.001
        return self.time

    def hook(self, **options: Any) -> OpenTelemetry:
        """A hook that records here."""
        return OpenTelemetry(meter_provider=self.meter_provider, now=self.now, **options)

    def points(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        """Metric name -> its points: attributes, and the value or the histogram's sum."""
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: [
                (dict(point.attributes), getattr(point, "value", None) or getattr(point, "sum", 0))
                for point in metric.data.data_points
            ]
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def of(self, name: str) -> dict[Any, float]:
        """A metric's values by the sorted values of their attributes."""
        return {tuple(sorted(map(str, a.values()))): v for a, v in self.points().get(name, [])}


def make(*hooks: Any, **options: Any) -> Guard:
    """A guard with a large and a small model."""
    tier = Tier("pro", [LARGE, SMALL], ["large", "small"], options.pop("when_exceeded", ()))
    return Guard(tiers=[tier], clock=FakeClock(), hooks=hooks, **options)


def call(guard: Guard, tokens: int, model: str = "large", user: str = "alice") -> None:
    """A call that uses half of what it reserves."""
    with guard.hold(user=user, model=model, input_tokens=tokens, output_tokens=10) as lease:
        lease.record(input_tokens=tokens // 2, output_tokens=5)
