"""The dashboard in examples/grafana: its queries name what the hook really exports."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import generate_latest

from quotaguard import Fallback, Guard, ModelNotAllowed, QuotaExceeded, Tier, Wait
from quotaguard.backends.memory import MemoryBackend
from quotaguard.contrib.opentelemetry import instrument
from quotaguard.core.ops import Answer, Op
from quotaguard.errors import BackendError
from quotaguard.events import UsageUnreadable
from quotaguard.testing import FakeClock

ROOT = Path(__file__).parents[2]
BOARD = ROOT / "examples" / "grafana" / "quotaguard.json"
PAGE = ROOT / "docs" / "how-to" / "observability.md"
_SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? \S+$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_WORD = re.compile(r"\b[a-z]\w*\b")
_PROMQL = {"sum", "min", "by", "le", "rate", "increase", "histogram_quantile", "or", "vector"}


class Flaky(MemoryBackend):
    away = False

    def execute(self, op: Op) -> Answer:
        """Fail, while away."""
        if self.away:
            raise BackendError("away")
        return super().execute(op)


def story(meters: MeterProvider) -> None:
    """All that there is a metric for."""
    limits = ["100 tokens/minute for gpt-4o", "100 tokens/minute for gpt-4o-mini"]
    ways = [Fallback("gpt-4o-mini"), Wait(60, backoff=None)]
    backend = Flaky(clock := FakeClock())
    guard = Guard(
        tiers=[Tier("pro", limits, ["gpt-4o", "gpt-4o-mini"], ways)],
        backend=backend,
        clock=clock,
        on_backend_error="allow",
        prices={"gpt-4o": {"input": 10}, "gpt-4o-mini": {"input": 1}},
        warn_at=0.8,
    )
    telemetry = instrument(guard, meter_provider=meters)

    def call(tokens: int = 80, model: str = "gpt-4o") -> None:
        with guard.hold(user="a", model=model, input_tokens=tokens, output_tokens=5) as lease:
            lease.record(input_tokens=tokens, output_tokens=1)
            telemetry(UsageUnreadable(lease.id, lease.identity, model, "chat"))

    for _ in range(3):
        call()
    with pytest.raises(ModelNotAllowed):
        call(1, "gpt-5")
    with pytest.raises(QuotaExceeded):
        call(1000)
    backend.away = True
    call()
    backend.away = False
    guard.close()


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Prometheus series -> its labels, as OpenTelemetry's exporter writes them."""
    meters = MeterProvider([PrometheusMetricReader()])
    story(meters)
    series: dict[str, set[str]] = defaultdict(set)
    for name, labels in _SERIES.findall(generate_latest().decode()):
        series[name].update(label for label, _ in _LABEL.findall(labels))
    meters.shutdown()  # and leave the registry that all of this process share
    return series


def queries() -> Iterator[str]:
    """All queries of the dashboard."""
    for panel in json.loads(BOARD.read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def test_queries_name_metrics_and_labels_that_are_exported(exported: dict[str, set[str]]) -> None:
    """A renamed metric would leave its panel empty, and nobody would notice."""
    for query in queries():
        bare = re.sub(r'"[^"]*"|\[[^\]]*\]', "", query)
        words = set(_WORD.findall(bare)) - _PROMQL
        metrics = {word for word in words if word in exported}
        assert metrics, query
        assert words - metrics <= set().union(*(exported[metric] for metric in metrics)), query


def test_legends_name_labels_of_their_query() -> None:
    """What a legend shows is what the query keeps."""
    for panel in json.loads(BOARD.read_text())["panels"]:
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), target


def family(series: str) -> str:
    """The metric of a series."""
    return re.sub(r"_(bucket|count|sum|created|total)$", "", series)


def test_every_metric_has_a_place(exported: dict[str, set[str]]) -> None:
    """What is exported is shown, and is in the documentation's table; nothing else is in there."""
    families = {family(name) for name in exported if name.startswith("quotaguard_")}
    shown = {family(word) for word in _WORD.findall(" ".join(queries()))}
    assert families - shown == set()
    table = re.findall(r"^\| `(quotaguard\.[\w.]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert {f.removesuffix("_seconds") for f in families} == {n.replace(".", "_") for n in table}


def test_panels_stand_apart() -> None:
    """Within the 24 columns of the grid, none over another, each with title and explanation."""
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(BOARD.read_text())["panels"]:
        grid = panel["gridPos"]
        cells = {
            (grid["x"] + right, grid["y"] + down)
            for right in range(grid["w"])
            for down in range(grid["h"])
        }
        assert max(right for right, _ in cells) < 24
        assert not cells & taken, panel["title"]
        assert panel["title"]
        assert panel["description"]
        taken |= cells
