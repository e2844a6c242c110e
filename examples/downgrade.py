"""A downgrade: when the large model's limit has no room, a small model answers, and says so."""

from __future__ import annotations

from quotaguard import Fallback, Guard, GuardedOpenAI, Refuse, Tier, receipt
from quotaguard.testing import FakeClock, FakeProvider, Reply

PRO = Tier(
    "pro",
    limits=["1k tokens/minute for gpt-4o", "50k tokens/minute for gpt-4o-mini"],
    when_exceeded=[Fallback("gpt-4o-mini"), Refuse()],
)


def main() -> None:
    """Ask for gpt-4o three times: before, at and after the limit."""
    clock = FakeClock()
    with FakeProvider(Reply(input_tokens=20, output_tokens=780)) as provider:
        client = GuardedOpenAI(
            guard=Guard(tiers=[PRO], clock=clock),
            user="alice",
            base_url=provider.openai_url,
            api_key="none needed",
        )

        def ask() -> None:
            answer = client.chat.completions.create(
                model="gpt-4o",
                max_tokens=780,
                messages=[{"role": "user", "content": "Tell me about token buckets."}],
            )
            told = receipt(answer)
            because = f" because of the limit {told.because}" if told.because else ""
            print(f"Asked for {told.requested_model}, served by {told.served_model}{because}.")

        print("Pro users have 1,000 tokens of gpt-4o a minute; each of these calls takes 800.")
        ask()
        ask()
        clock.advance(60)
        print("A minute later:")
        ask()
        print(f"The provider was asked for: {', '.join(str(r.model) for r in provider.requests)}.")


if __name__ == "__main__":
    main()
