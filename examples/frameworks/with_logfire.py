"""logfire: instrument the guarded client itself, or the SDK's class."""

from __future__ import annotations

import logfire
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from quotaguard import Guard, GuardedAnthropic, GuardedOpenAI, acting_as
from quotaguard.testing import FakeProvider

ASK = [{"role": "user", "content": "What is a token bucket?"}]


def main(provider: FakeProvider, guard: Guard) -> None:
    """Alice asks both, and bob has an answer streamed."""
    spans = InMemorySpanExporter()
    logfire.configure(
        send_to_logfire=False,
        console=False,
        additional_span_processors=[SimpleSpanProcessor(spans)],
    )
    openai = GuardedOpenAI(
        guard=guard, user="alice", base_url=provider.openai_url, api_key="none needed"
    )
    anthropic = GuardedAnthropic(
        guard=guard, user="alice", base_url=provider.anthropic_url, api_key="none needed"
    )
    logfire.instrument_openai(openai)
    logfire.instrument_anthropic(anthropic)
    openai.chat.completions.create(model="gpt-4o-mini", messages=ASK)
    anthropic.messages.create(model="claude-opus-5", max_tokens=100, messages=ASK)
    with acting_as("bob"):
        for _ in openai.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=True):
            pass
    for span in spans.get_finished_spans():
        print(f"{span.name}: {span.attributes.get('gen_ai.usage.output_tokens')} output tokens")


if __name__ == "__main__":
    with FakeProvider() as provider:
        guard = Guard(limits=["10k tokens/day"])
        main(provider, guard)
        print(
            *(f"{user} has {guard.peek(user=user)[0].left:.0f} left" for user in ("alice", "bob"))
        )
