"""What a span says of the calls made in it, and what it never does."""

from __future__ import annotations

import pytest

from quotaguard import Fallback, Guard, GuardedOpenAI, QuotaExceeded
from quotaguard.testing import FakeProvider, Reply
from tests.contrib.telemetry import LARGE, Recorded, call, make


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
