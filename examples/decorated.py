"""`token_limited`: a quota around any function that calls an LLM."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from quotaguard import Guard, GuardedOpenAI, Lease, QuotaExceeded, token_limited
from quotaguard.testing import FakeProvider, Reply

guard = Guard(limits=["1k tokens/day"])


@token_limited(
    guard,
    user=lambda user_id, **_: user_id,
    input_tokens=lambda text, **_: len(text.split()),
    output_tokens=lambda most, **_: most,
)
def greet(user_id: str, text: str, most: int = 100, lease: Lease | None = None) -> str:
    """A function with an LLM of its own; it says to its lease what it used."""
    answer = [*text.upper().split(), user_id.upper()][:most]
    if lease is not None:
        lease.record(input_tokens=len(text.split()), output_tokens=len(answer))
    return " ".join(answer)


@token_limited(guard, user="bob", input_tokens=10, output_tokens=50)
async def answer_of_an_sdk() -> dict[str, object]:
    """A coroutine that returns an answer with its usage: that is read from it."""
    return {"text": "Yes.", "usage": {"prompt_tokens": 9, "completion_tokens": 2}}


@token_limited(guard, user="carol", input_tokens=10, output_tokens=50)
def count_to(number: int, lease: Lease) -> Iterator[str]:
    """A generator: its lease is open from the first item to the last."""
    for each in range(1, number + 1):
        lease.record(output_tokens=1)
        yield str(each)


def main() -> None:
    """Call functions of four kinds, and look at what each was charged."""

    def used(user: str) -> str:
        return f"{1_000 - guard.peek(user=user)[0].left:.0f} tokens"

    print(f"greet() gives {greet('alice', 'good morning')!r}.", end=" ")
    print(f"Its user, from its argument, is alice: charged {used('alice')}.")
    try:
        greet("alice", "good night", most=2_000)
    except QuotaExceeded as error:
        print(f"Refused before it runs: {error}.")

    asyncio.run(answer_of_an_sdk())
    print(f"A coroutine's usage is read from what it returns: bob is charged {used('bob')}.")
    spoken = " ".join(count_to(3))  # type: ignore[call-arg]  # the lease is given by the decorator
    print(f"A generator says {spoken!r} and is charged as it runs: carol, {used('carol')}.")

    with FakeProvider(Reply(input_tokens=30, output_tokens=12)) as provider:
        client = GuardedOpenAI(guard=guard, base_url=provider.openai_url, api_key="none needed")

        @token_limited(guard, user="dave", output_tokens=500)
        def research(question: str) -> str | None:
            for text in (question, "And in one sentence?"):
                answer = client.chat.completions.create(
                    model="gpt-4o", messages=[{"role": "user", "content": text}]
                )
            return answer.choices[0].message.content

        research("What is a token bucket?")
        print(f"Two calls of a guarded client inside are charged once: dave, {used('dave')}.")


if __name__ == "__main__":
    main()
