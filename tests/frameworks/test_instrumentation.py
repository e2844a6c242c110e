"""Tracing beside quotaguard: both see each call once, and agree on what it used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import openai
import pytest

from quotaguard import GuardedOpenAI, patch
from quotaguard.testing import FakeProvider
from tests.frameworks.kit import Audit, Charge

ASK: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "What is a token bucket?"}],
}
ASKING = {"stream": True, "stream_options": {"include_usage": True}}


@contextmanager
def openinference(tracing: Any) -> Iterator[None]:
    """OpenInference replaces ``request`` of the SDK's class."""
    from openinference.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=tracing)
    yield
    OpenAIInstrumentor().uninstrument()


@contextmanager
def openllmetry(tracing: Any) -> Iterator[None]:
    """OpenLLMetry replaces the methods of resources."""
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=tracing)
    yield
    OpenAIInstrumentor().uninstrument()


@contextmanager
def logfire(tracing: Any) -> Iterator[None]:
    """Logfire replaces ``request`` of the class that it is given."""
    import logfire

    logfire.configure(
        send_to_logfire=False, console=False, additional_span_processors=[tracing.processor]
    )
    with logfire.instrument_openai(openai.OpenAI):
        yield


class Tracing:
    """A tracer that keeps its spans; the attributes of those of calls."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self._spans = InMemorySpanExporter()
        self.processor = SimpleSpanProcessor(self._spans)
        self.provider = TracerProvider()
        self.provider.add_span_processor(self.processor)
        self.get_tracer = self.provider.get_tracer

    def calls(self) -> list[dict[str, Any]]:
        """What the spans of calls say."""
        return [
            dict(span.attributes or {})
            for span in self._spans.get_finished_spans()
            if not span.name.startswith("streaming response")  # logfire's second span of a stream
        ]


Instrument = Callable[[Any], AbstractContextManager[None]]
each_tracer = pytest.mark.parametrize(
    "instrument", [openinference, openllmetry, logfire], ids=lambda it: it.__name__
)
USAGE = {
    "openinference": ("llm.token_count.prompt", "llm.token_count.completion"),
    "openllmetry": ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"),
    "logfire": ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"),
}


@pytest.fixture
def audit() -> Audit:
    """The guard, and what it charged."""
    return Audit()


@each_tracer
def test_a_guarded_client_is_traced(instrument: Any, provider: FakeProvider, audit: Audit) -> None:
    """Its spans carry the usage that it was charged."""
    tracing = Tracing()
    client = GuardedOpenAI(
        guard=audit.guard, user="alice", base_url=provider.openai_url, api_key="test"
    )
    with instrument(tracing), client:
        client.chat.completions.create(**ASK)
    audit.check(provider)
    (span,) = tracing.calls()
    said = Charge(*(span[name] for name in USAGE[instrument.__name__]))
    assert audit.charges == [("alice", said)]


@pytest.mark.parametrize("order", ["traced first", "patched first"])
@each_tracer
def test_a_patched_client_is_traced(
    instrument: Any, order: str, provider: FakeProvider, audit: Audit
) -> None:
    """Whoever came first: one span and one charge for each call, streams too."""
    tracing = Tracing()
    steps = [instrument(tracing), patch(guard=audit.guard, user="alice")]
    with ExitStack() as stack:
        if order == "patched first":
            steps.reverse()
        for step in steps:
            stack.enter_context(step)
        with openai.OpenAI(base_url=provider.openai_url, api_key="test") as client:
            client.chat.completions.create(**ASK)
            for _ in client.chat.completions.create(**ASK, **ASKING):
                pass
    audit.check(provider)
    assert len(audit.charges) == 2
    assert len(tracing.calls()) == 2
    with openai.OpenAI(base_url=provider.openai_url, api_key="test") as client:
        client.chat.completions.create(**ASK)
    assert len(audit.charges) == 2


def test_langfuse_agrees(provider: FakeProvider, audit: Audit) -> None:
    """Its observations carry the usage that was charged, of a stream that was asked for it too."""
    import langfuse.openai  # noqa: F401 -- it traces from here on
    from langfuse import Langfuse
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    traces = Langfuse(
        public_key="pk-audit", secret_key="x", span_exporter=spans, tracer_provider=TracerProvider()
    )
    client = GuardedOpenAI(
        guard=audit.guard, user="alice", base_url=provider.openai_url, api_key="test"
    )
    client.chat.completions.create(**ASK, langfuse_public_key="pk-audit")
    for _ in client.chat.completions.create(**ASK, **ASKING, langfuse_public_key="pk-audit"):
        pass
    traces.flush()
    audit.check(provider)
    told = [
        json.loads(str((span.attributes or {})["langfuse.observation.usage_details"]))
        for span in spans.get_finished_spans()
    ]
    said = [Charge(each["prompt_tokens"], each["completion_tokens"]) for each in told]
    assert audit.charges == [("alice", charge) for charge in said]
    traces.shutdown()
    client.close()
