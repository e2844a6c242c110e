"""Anthropic: the same guard, the same errors, with the other SDK."""

from __future__ import annotations

import anthropic

from quotaguard import Guard, GuardedAnthropic, QuotaExceeded, receipt
from quotaguard.testing import FakeClock, FakeProvider, Reply


def main() -> None:
    """A message, a stream, and a refusal that code written for the SDK catches."""
    with FakeProvider(Reply(input_tokens=20, output_tokens=80)) as provider:
        guard = Guard(limits=["250 tokens/hour"], clock=FakeClock())
        client = GuardedAnthropic(
            guard=guard, user="alice", base_url=provider.anthropic_url, api_key="none needed"
        )
        print(f"It is an anthropic.Anthropic: {isinstance(client, anthropic.Anthropic)}.")

        def left() -> str:
            return f"{guard.peek(user='alice')[0].left:.0f} of 250 tokens are left"

        question: list[anthropic.types.MessageParam] = [
            {"role": "user", "content": "What is a token bucket?"}
        ]
        message = client.messages.create(model="claude-opus-5", max_tokens=100, messages=question)
        told = receipt(message)
        assert told.used is not None
        print(
            f"A message reserved {told.reserved.tokens} tokens and used {told.used.tokens};",
            end=" ",
        )
        print(f"{left()}.")

        with client.messages.stream(
            model="claude-opus-5", max_tokens=100, messages=question
        ) as stream:
            text = "".join(stream.text_stream)
        print(f"A stream of {len(text.split())} words was charged as reported; {left()}.")

        try:
            client.messages.create(model="claude-opus-5", max_tokens=100, messages=question)
        except anthropic.RateLimitError as error:
            print(f"The third call raises anthropic.RateLimitError, status {error.status_code}.")
            print(f"Retry-After says {error.response.headers['retry-after']} seconds.", end=" ")
            print(f"It is a QuotaExceeded too: {isinstance(error, QuotaExceeded)}.")


if __name__ == "__main__":
    main()
