"""What metrics say of calls, and what they never do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quotaguard import (
    BackendError,
    ConfigurationError,
    Fallback,
    Guard,
    ModelNotAllowed,
    QuotaExceeded,
    Tier,
    Wait,
    acting_as,
)
from quotaguard.backends.memory import MemoryBackend
from quotaguard.contrib.opentelemetry import OpenTelemetry, instrument
from quotaguard.core.ops import Answer, Op
from quotaguard.testing import FakeClock
from tests.contrib.telemetry import LARGE, SMALL, Recorded, call, make


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
    guard = make(recorded.hook(), when_exceeded=[Fallback("small"), Wait(60, backoff=None)])
    for _ in range(3):
        call(guard, 80)
    with pytest.raises(ModelNotAllowed):
        call(guard, 1, "huge")
    with pytest.raises(QuotaExceeded):
        call(guard, 1000)
    assert recorded.of("quotaguard.downgraded") == {(LARGE, "large", "small"): 1}
    assert recorded.of("quotaguard.refused") == {
        ("True", "huge", "model_not_allowed"): 1,
        (LARGE, "True", "large", "request_too_large"): 1,
    }
    ((labels, seconds),) = recorded.points()["quotaguard.wait.duration"]
    assert labels == {"gen_ai.request.model": "large", "quotaguard.admitted": True}
    assert seconds == pytest.approx(21)


def test_cost_and_savings(recorded: Recorded) -> None:
    """In US dollars, for models whose price is known."""
    guard = make(
        recorded.hook(),
        when_exceeded=Fallback("small"),
        prices={"large": {"input": 10, "output": 20}, "small": {"input": 1, "output": 2}},
    )
    with recorded.tracer.start_as_current_span("request"):
        for _ in range(2):
            call(guard, 80)  # 40 in and 5 out each
    assert recorded.of("quotaguard.cost.usd") == {
        ("large", "large"): pytest.approx(500e-6),
        ("large", "small"): pytest.approx(50e-6),
    }
    assert recorded.of("quotaguard.savings.usd") == {("large", "small"): pytest.approx(450e-6)}
    (span,) = recorded.spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["quotaguard.cost.usd"] == pytest.approx(550e-6)


def test_what_would_have_been_is_told_apart(recorded: Recorded) -> None:
    """A guard that only observes refuses nothing."""
    guard = make(recorded.hook(), mode="observe", warn_at=0.8)
    for _ in range(2):
        call(guard, 80)
    assert recorded.of("quotaguard.refused") == {
        (LARGE, "False", "large", "quota_exceeded"): 1,
    }
    assert recorded.of("quotaguard.approaching") == {("0.8", LARGE, "large"): 1}


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
    guard.run_errands()  # what could not be told is tried again
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
    guard = make(when_exceeded=[Wait(60, backoff=None)])
    instrument(guard, meter_provider=recorded.meter_provider)
    for _ in range(3):
        call(guard, 80)
    assert {key[-1] for key in recorded.of("quotaguard.backend.duration")} == {"reserve", "settle"}
