"""The quota stress test: 500 tokens a day for alice, and prompts that do not fit.

A prompt of 600 tokens never fits. Of two prompts of 300 tokens the first passes, the second fails.
Then the money question: 1,000 users are blocked like that every day; how much is saved?
"""

from __future__ import annotations

from quotaguard import Guard, GuardedOpenAI, QuotaExceeded, receipt
from quotaguard.testing import FakeClock, FakeProvider, Reply

QUOTA = 500
ANSWER = 100
"""Tokens of an answer, in the test and in the sum below: an assumption."""

BLOCKED_USERS = 1_000
INPUT_PRICE, OUTPUT_PRICE = 2.50, 10.00
"""US dollars for a million tokens of gpt-4o."""
SOURCE = "https://openai.com/api/pricing, as recorded in genai-prices 0.2.3, November 2026"


def prompt(tokens: int) -> str:
    """A prompt of so many tokens: each word of it is one, the chat format around it takes 7."""
    return "hello" + " hello" * (tokens - 8)


def dollars(input_tokens: int, output_tokens: int) -> float:
    """What these tokens cost."""
    return (input_tokens * INPUT_PRICE + output_tokens * OUTPUT_PRICE) / 1_000_000


def main() -> None:
    """Send the three prompts, then do the sum."""
    blocked: list[int] = []
    with FakeProvider(Reply(input_tokens=300, output_tokens=ANSWER)) as provider:
        guard = Guard(limits=[f"{QUOTA} tokens/day"], clock=FakeClock())
        client = GuardedOpenAI(
            guard=guard, user="alice", base_url=provider.openai_url, api_key="none needed"
        )
        print(f"alice has {QUOTA} tokens a day.")
        for tokens in (600, 300, 300):
            try:
                answer = client.chat.completions.create(
                    model="gpt-4o", messages=[{"role": "user", "content": prompt(tokens)}]
                )
            except QuotaExceeded as error:
                blocked.append(tokens)
                print(f"A prompt of {tokens} tokens is blocked: {error}.")
            else:
                used, left = receipt(answer).used, guard.peek(user="alice")[0].left
                assert used is not None
                print(
                    f"A prompt of {tokens} tokens passes: it used {used.input_tokens} and its "
                    f"answer {used.output_tokens}, {left:.0f} of {QUOTA} are left."
                )
        print(f"The provider saw {len(provider.requests)} request; what is blocked costs nothing.")

    each = dollars(sum(blocked), ANSWER * len(blocked))
    loop = dollars(600, ANSWER) * 24 * 60 * 60
    print(
        f"""
What is that in money? Assumed: gpt-4o at ${INPUT_PRICE:.2f} for a million tokens of input and
${OUTPUT_PRICE:.2f} for a million of output ({SOURCE}),
and {ANSWER} tokens for each answer that was never written.
  the blocked prompts of one user   {sum(blocked)} in, {ANSWER * len(blocked)} out   ${each:.5f}
  {BLOCKED_USERS:,} such users a day                          ${each * BLOCKED_USERS:,.2f} a day
                                                 ${each * BLOCKED_USERS * 365:,.2f} a year
Not much, while people type. A script that sends the 600-token prompt once a second, for one user,
would cost ${loop:,.2f} a day. The quota stops its every call."""
    )


if __name__ == "__main__":
    main()
