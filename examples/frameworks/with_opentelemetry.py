"""OpenTelemetry: the instrumentation of the SDKs sees guarded clients as any other."""

from __future__ import annotations

from openinference.instrumentation.openai import OpenAIInstrumentor as OpenInference
from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor
from opentelemetry.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from quotaguard import Guard, GuardedAnthropic, GuardedOpenAI, acting_as
from quotaguard.testing import FakeProvider

ASK = [{"role": "user", "content": "What is a token bucket?"}]
TOTALS = ("llm.token_count.total", "gen_ai.usage.total_tokens", "llm.usage.total_tokens")


def main(provider: FakeProvider, guard: Guard) -> None:
    """Alice asks, and bob has an answer streamed, with each instrumentation in turn."""
    openai = GuardedOpenAI(
        guard=guard, user="alice", base_url=provider.openai_url, api_key="none needed"
    )
    anthropic = GuardedAnthropic(
        guard=guard, user="alice", base_url=provider.anthropic_url, api_key="none needed"
    )
    for instrumentor in (OpenInference(), OpenAIInstrumentor(), AnthropicInstrumentor()):
        spans = InMemorySpanExporter()
        tracing = TracerProvider()
        tracing.add_span_processor(SimpleSpanProcessor(spans))
        instrumentor.instrument(tracer_provider=tracing)
        if isinstance(instrumentor, AnthropicInstrumentor):
            create, model = anthropic.messages.create, "claude-opus-5"
        else:
            create, model = openai.chat.completions.create, "gpt-4o-mini"
        try:
            create(model=model, max_tokens=100, messages=ASK)
            with acting_as("bob"):
                for _ in create(model=model, max_tokens=100, messages=ASK, stream=True):
                    pass
        finally:
            instrumentor.uninstrument()
        for span in spans.get_finished_spans():
            tokens = [span.attributes[name] for name in TOTALS if name in span.attributes]
            print(f"{span.name}: {tokens or 'no'} tokens")


if __name__ == "__main__":
    with FakeProvider() as provider:
        guard = Guard(limits=["10k tokens/day"])
        main(provider, guard)
        print(
            *(f"{user} has {guard.peek(user=user)[0].left:.0f} left" for user in ("alice", "bob"))
        )
