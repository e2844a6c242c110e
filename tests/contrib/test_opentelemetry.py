"""What metrics and spans say of calls, and what they never do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from quotaguard import (
    BackendError,
    ConfigurationError,
    Fallback,
    Guard,
    GuardedOpenAI,
    ModelNotAllowed,
    QuotaExceeded,
    Tier,
    Wait,
    acting_as,
)
from quotaguard.backends.memory import MemoryBackend
from quotaguard.contrib.opentelemetry import OpenTelemetry, instrument
from quotaguard.core.ops import Answer, Op
from quotaguard.testing import FakeClock, FakeProvider, Reply

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


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """Providers of a test's own."""
    made = Recorded()
    yield made
    made.meter_provider.shutdown()


def make(*hooks: Any, **options: Any) -> Guard:
    """A guard with a large and a small model."""
    tier = Tier("pro", [LARGE, SMALL], ["large", "small"], options.pop("when_exceeded", ()))
    return Guard(tiers=[tier], clock=FakeClock(), hooks=hooks, **options)


def call(guard: Guard, tokens: int, model: str = "large", user: str = "alice") -> None:
    """A call that uses half of what it reserves."""
    with guard.hold(user=user, model=model, input_tokens=tokens, output_tokens=10) as lease:
        lease.record(input_tokens=tokens // 2, output_tokens=5)


def test_a_call_is_counted_with_its_models_and_tokens(recorded: Recorded) -> None:
    """Admitted once, charged once; what was reserved stands beside what was used."""
    call(make(recorded.hook()), 80)
    models = {"gen_ai.request.model": "large", "gen_ai.response.model": "large"}
    points = recorded.points()
    assert points["quotaguard.admitted"] == [(models, 1)]
    assert points["quotaguard.settled"] == [
        ({**models, "quotaguard.late": False, "quotaguard.known": True}, 1)
    ]
    assert points["quotaguard.tokens.reserved"] == [
        ({**models, "gen_ai.token.type": "input"}, 80),
        ({**models, "gen_ai.token.type": "output"}, 10),
    ]
    assert points["quotaguard.tokens.used"] == [
        ({**models, "gen_ai.token.type": "input"}, 40),
        ({**models, "gen_ai.token.type": "output"}, 5),
    ]


def test_detours_and_refusals(recorded: Recorded) -> None:
    """Which limit sent a call to another model or away, and how long those in line stood there."""
    guard = make(recorded.hook(), when_exceeded=[Fallback("small"), Wait(60, jitter=None)])
    for _ in range(3):
        call(guard, 80)
    with pytest.raises(ModelNotAllowed):
        call(guard, 1, "huge")
    with pytest.raises(QuotaExceeded):
        call(guard, 1000)
    assert recorded.of("quotaguard.downgraded") == {(LARGE, "large", "small"): 1}
    assert recorded.of("quotaguard.refused") == {
        ("huge", "model_not_allowed"): 1,
        (LARGE, "large", "request_too_large"): 1,
    }
    ((labels, seconds),) = recorded.points()["quotaguard.wait.duration"]
    assert labels == {"gen_ai.request.model": "large", "quotaguard.admitted": True}
    assert seconds == pytest.approx(21)


def test_what_nobody_can_tell_is_charged_as_reserved(recorded: Recorded) -> None:
    """And says so."""
    with make(recorded.hook()).hold(user="alice", model="large", input_tokens=30, output_tokens=9):
        pass
    assert [p for _, p in recorded.points()["quotaguard.tokens.used"]] == [30, 9]
    ((labels, _),) = recorded.points()["quotaguard.settled"]
    assert labels["quotaguard.known"] is False


def test_users_are_in_no_metric(recorded: Recorded) -> None:
    """A thousand users make as many time series as one."""
    guard = make(recorded.hook(), on_backend_error="allow")
    for number in range(1000):
        call(guard, 8, user=f"user-{number}")
    points = recorded.points()
    assert {name: len(of) for name, of in points.items()} == {
        "quotaguard.admitted": 1,
        "quotaguard.settled": 1,
        "quotaguard.tokens.reserved": 2,
        "quotaguard.tokens.used": 2,
        "quotaguard.limit.level": 1,
    }
    assert "user-" not in str(points)


def test_models_that_callers_make_up_share_one_name(recorded: Recorded) -> None:
    """The first few have their own, or those that are listed."""
    first, listed = recorded.hook(most=3, spans=False), Recorded()
    guard = Guard(hooks=[first, listed.hook(models=["m-7"])])
    for number in range(20):
        call(guard, 8, f"m-{number}")
    names = ("m-0", "m-0"), ("m-1", "m-1"), ("m-2", "m-2"), ("other", "other")
    assert recorded.of("quotaguard.admitted") == dict(zip(names, (1, 1, 1, 17), strict=True))
    assert listed.of("quotaguard.admitted") == {("m-7", "m-7"): 1, ("other", "other"): 19}


def test_identities_by_choice(recorded: Recorded) -> None:
    """Tier, organisations up to a number of them, and which of a few parts a user falls in."""
    guard = Guard(
        tiers=[Tier("free")],
        hooks=[recorded.hook(by=["tier", "org", "user_bucket"], most=2, user_buckets=4)],
    )
    for number in range(40):
        with acting_as(f"u{number}\udcff", org=f"o{number % 5}"):
            call(guard, 8)
    seen = [labels for labels, _ in recorded.points()["quotaguard.admitted"]]
    assert {labels["quotaguard.tier"] for labels in seen} == {"free"}
    assert {labels["quotaguard.org"] for labels in seen} == {"o0", "o1", "other"}
    assert {labels["quotaguard.user_bucket"] for labels in seen} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": ["user"]}, "by= takes tier, org, user_bucket, not 'user'"),
        ({"by": "tier"}, "by= takes tier, org, user_bucket, not 't'"),
        ({"most": 0}, "most is a whole number >= 1, not 0"),
        ({"user_buckets": 1.5}, "user_buckets is a whole number >= 1, not 1.5"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    """With what would be right."""
    with pytest.raises(ConfigurationError, match=message):
        OpenTelemetry(**options)


def test_the_level_is_that_of_the_emptiest_bucket(recorded: Recorded) -> None:
    """Of each limit, from charges and refusals; one that nobody charges any more has none."""
    guard = make(recorded.hook())
    call(guard, 80, user="alice")  # 55 of 100 are left
    call(guard, 20, user="bob")  # 85
    assert recorded.of("quotaguard.limit.level") == {(LARGE,): pytest.approx(0.55)}
    with pytest.raises(QuotaExceeded):
        call(guard, 60, user="alice")
    call(guard, 10, "small")
    recorded.time += 70
    call(guard, 80, "large", user="carol")
    assert recorded.of("quotaguard.limit.level") == {
        (LARGE,): pytest.approx(0.55),
        (SMALL,): pytest.approx(0.9),
    }
    recorded.time += 130
    assert recorded.of("quotaguard.limit.level") == {}


class Away(MemoryBackend):
    """A backend that can go away."""

    away = False

    def execute(self, op: Op) -> Answer:
        """Fail, while away."""
        if self.away:
            raise BackendError("away")
        return super().execute(op)


def test_the_backends_latency_and_errors(recorded: Recorded) -> None:
    """By operation; an operation that failed says with what, and what the guard did about it."""
    backend = Away(FakeClock())
    guard = Guard(limits=["100 tokens/day"], backend=backend, on_backend_error="allow")
    instrument(guard, meter_provider=recorded.meter_provider, now=recorded.now)
    call(guard, 8)
    backend.away = True
    call(guard, 8)
    times = recorded.of("quotaguard.backend.duration")
    assert times == {
        ("away", "reserve"): pytest.approx(0.001),
        ("away", "settle"): pytest.approx(0.001),
        ("BackendError", "away", "reserve"): pytest.approx(0.001),
        ("BackendError", "away", "release"): pytest.approx(0.001),
    }
    assert recorded.of("quotaguard.backend.errors") == {("allowed",): 1}
    backend.away = False
    guard.close()


def test_an_instrumented_guard_is_the_same_guard(recorded: Recorded) -> None:
    """Its backend keeps its other members, tasks are measured too, and nothing is counted twice."""
    guard = Guard(limits=["100 tokens/day"])
    instrument(guard, meter_provider=recorded.meter_provider)
    with pytest.raises(ConfigurationError, match="instrumented already"):
        instrument(guard)

    async def main() -> None:
        async with guard.ahold(user="alice", input_tokens=5, output_tokens=5):
            assert guard.backend.open_reservations == 1  # type: ignore[attr-defined]
        await guard.aclose()

    asyncio.run(main())
    assert recorded.of("quotaguard.admitted") == {(): 1}
    assert set(recorded.of("quotaguard.backend.duration")) == {
        ("memory", "reserve"),
        ("memory", "settle"),
    }


def test_waiting_in_line_is_no_latency(recorded: Recorded) -> None:
    """It has a histogram of its own."""
    guard = make(when_exceeded=[Wait(60, jitter=None)])
    instrument(guard, meter_provider=recorded.meter_provider)
    for _ in range(3):
        call(guard, 80)
    assert {key[-1] for key in recorded.of("quotaguard.backend.duration")} == {"reserve", "settle"}


def test_a_span_tells_of_its_call(recorded: Recorded) -> None:
    """By the conventions for generative AI, and our own names; not who the user is."""
    guard = make(recorded.hook(), when_exceeded=[Fallback("small")])
    call(guard, 80)
    with recorded.tracer.start_as_current_span("chat"):
        call(guard, 60)
    (span,) = recorded.spans.get_finished_spans()
    facts = dict(span.attributes or {})
    assert facts.pop("quotaguard.id")
    expected = {
        "gen_ai.request.model": "large",
        "gen_ai.response.model": "small",
        "gen_ai.usage.input_tokens": 30,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "quotaguard.reserved.input_tokens": 60,
        "quotaguard.reserved.output_tokens": 10,
        "quotaguard.because": LARGE,
        "quotaguard.tier": "pro",
        "quotaguard.late": False,
    }
    assert {name: facts.get(name) for name in expected} == expected
    assert "alice" not in str(facts)


def test_a_refusal_is_on_the_span_too(recorded: Recorded) -> None:
    """And the user, if that was asked for."""
    guard = make(recorded.hook(users=True))
    with recorded.tracer.start_as_current_span("chat"), pytest.raises(QuotaExceeded):
        call(guard, 1000)
    (span,) = recorded.spans.get_finished_spans()
    facts = dict(span.attributes or {})
    assert facts["quotaguard.reason"] == "request_too_large"
    assert facts["quotaguard.limit"] == LARGE
    assert facts["quotaguard.user"] == "alice"
    assert facts["quotaguard.asked"] == 1010


def test_usage_adds_up_over_the_calls_of_a_span(recorded: Recorded) -> None:
    """A reservation around several calls, charged nothing itself, does not wipe theirs out."""
    guard = Guard(limits=["1000 tokens/day"], hooks=[recorded.hook()])
    with (
        recorded.tracer.start_as_current_span("request"),
        guard.hold(user="alice", input_tokens=200, output_tokens=50),
    ):
        call(guard, 80)
        call(guard, 20)
    (span,) = recorded.spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["gen_ai.usage.input_tokens"] == 50
    assert span.attributes["gen_ai.usage.output_tokens"] == 10


def test_a_stream_that_ends_elsewhere_keeps_to_its_span(recorded: Recorded) -> None:
    """The span that it was begun in, though another is current when its usage comes."""
    secret = "the-secret-word"
    with FakeProvider(Reply(text=f"{secret} of all", input_tokens=30, output_tokens=4)) as provider:
        guard = Guard(limits=["1000 tokens/day"], hooks=[recorded.hook(users=True)])
        with (
            GuardedOpenAI(
                guard=guard, user="alice", base_url=provider.openai_url, api_key="k"
            ) as client,
            recorded.tracer.start_as_current_span("first"),
        ):
            stream = client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": secret}], stream=True
            )
            with recorded.tracer.start_as_current_span("second"):
                assert list(stream)
    spans = {span.name: dict(span.attributes or {}) for span in recorded.spans.get_finished_spans()}
    assert spans["first"]["gen_ai.usage.input_tokens"] == 30
    assert spans["first"]["gen_ai.request.model"] == "gpt-4o"
    assert spans["second"] == {}
    assert secret not in str(spans) + str(recorded.points())


def test_a_span_that_is_over_is_left_alone(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    """A call that outlives its span is charged all the same, and nothing is complained of."""
    guard = make(recorded.hook())
    with recorded.tracer.start_as_current_span("chat"):
        hold = guard.hold(user="alice", model="large", input_tokens=8, output_tokens=1)
        hold.__enter__()
    hold.__exit__(None, None, None)
    assert recorded.of("quotaguard.settled")
    assert caplog.records == []


def test_no_span_is_touched_if_so_chosen(recorded: Recorded) -> None:
    """For applications whose spans are full enough."""
    guard = make(recorded.hook(spans=False))
    with recorded.tracer.start_as_current_span("chat"):
        call(guard, 8)
    (span,) = recorded.spans.get_finished_spans()
    assert dict(span.attributes or {}) == {}
