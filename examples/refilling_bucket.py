"""A bucket that refills: it holds 10,000 tokens, and 100 come back every second.

The clock is a fake one, so that half a minute passes at once.
"""

from __future__ import annotations

from quotaguard import Guard, GuardedOpenAI, QuotaExceeded
from quotaguard.testing import FakeClock, FakeProvider, Reply


def prompt(tokens: int) -> str:
    """A prompt of so many tokens: each word of it is one, the chat format around it takes 7."""
    return "hello" + " hello" * (tokens - 8)


def main() -> None:
    """Empty the bucket, be refused, come back when told to."""
    clock = FakeClock()
    guard = Guard(limits=["100 tokens/second burst 10k"], clock=clock)

    with FakeProvider() as provider:
        client = GuardedOpenAI(
            guard=guard, user="alice", base_url=provider.openai_url, api_key="none needed"
        )

        def ask(tokens: int) -> None:
            client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": prompt(tokens)}]
            )

        def level() -> str:
            return f"{guard.peek(user='alice')[0].left:,.0f}"

        print(f"The bucket begins full: {level()} tokens.")
        provider.enqueue(Reply(input_tokens=8_000, output_tokens=2_000))
        ask(8_000)
        print(f"A call uses 8,000 for its prompt and 2,000 for its answer: {level()} are left.")
        try:
            ask(2_500)
        except QuotaExceeded as error:
            print(f"The next one needs {error.asked:,.0f}. Refused: come back in", end=" ")
            print(f"{error.retry_after:.0f} seconds.")
            clock.advance(error.retry_after)
        print(f"Exactly then, {level()} have come back.")
        provider.enqueue(Reply(input_tokens=2_500, output_tokens=1_000))
        ask(2_500)
        print("The same call passes. Its answer took 1,000 tokens that were not there:")
        print(f"the bucket stands at {level()}. The refill pays that debt first.")
        clock.advance(3_600)
        print(f"An hour later it is full, and not fuller than full: {level()}.")


if __name__ == "__main__":
    main()
