"""Waiting: a call that finds no room stands in line instead of failing.

The clock is a fake one: the waits are real to the program, and take no time here.
"""

from __future__ import annotations

import asyncio

from quotaguard import AsyncGuardedOpenAI, Guard, GuardedOpenAI, QuotaExceeded, Wait, receipt
from quotaguard.events import Event, Waiting
from quotaguard.testing import FakeClock, FakeProvider, Reply


def prompt(tokens: int) -> str:
    """A prompt of so many tokens: each word of it is one, the chat format around it takes 7."""
    return "hello" + " hello" * (tokens - 8)


def wait_for_the_refill(patience: float) -> None:
    """Empty a bucket, then ask again at once."""
    with FakeProvider(Reply(input_tokens=400, output_tokens=100)) as provider:
        guard = Guard(
            limits=["100 tokens/second burst 500"],
            when_exceeded=[Wait(max_seconds=patience, backoff=None)],
            clock=FakeClock(),
        )
        client = GuardedOpenAI(
            guard=guard, user="alice", base_url=provider.openai_url, api_key="none needed"
        )
        for attempt in ("first", "second"):
            try:
                answer = client.chat.completions.create(
                    model="gpt-4o", messages=[{"role": "user", "content": prompt(400)}]
                )
            except QuotaExceeded as error:
                print(f"  The {attempt} call is refused at once: it would have to wait", end=" ")
                print(f"{error.retry_after:.1f} s.")
            else:
                print(f"  The {attempt} call waited {receipt(answer).waited:.1f} s.")


async def woken_by_a_refund() -> None:
    """A stream ends and gives back what it did not use; that ends the wait of another call."""
    in_line = asyncio.Event()

    def hook(event: Event) -> None:
        if isinstance(event, Waiting):
            print(
                f"  Another call needs 400. It stands in line, for {event.seconds:.0f} s at most."
            )
            in_line.set()

    guard = Guard(
        limits=["1k tokens/10 minutes"],
        when_exceeded=[Wait(max_seconds=600)],
        hooks=[hook],
        clock=FakeClock(auto_advance=False),  # and nobody advances it: only a refund can help
    )
    with FakeProvider(Reply(input_tokens=100, output_tokens=50)) as provider:
        client = AsyncGuardedOpenAI(
            guard=guard, user="alice", base_url=provider.openai_url, api_key="none needed"
        )
        stream = await client.chat.completions.create(
            model="gpt-4o",
            max_tokens=800,
            stream=True,
            messages=[{"role": "user", "content": prompt(100)}],
        )
        print("  A stream has reserved 100 tokens for its prompt and 800 for its answer.")
        asking = asyncio.create_task(
            client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": prompt(400)}]
            )
        )
        await in_line.wait()
        async for _ in stream:
            pass
        print("  The stream ends: its answer had 50 tokens. 750 go back into the bucket.")
        waited = receipt(await asking).waited
        print(f"  The other call is let in at once: it waited {waited:.1f} s.")
        await client.close()


def main() -> None:
    """Wait for the refill, refuse to wait too long, be woken early."""
    print("100 tokens come back a second. Two calls of 500 each; the user is patient (30 s):")
    wait_for_the_refill(patience=30)
    print("The same, but the user would wait for 2 s at most:")
    wait_for_the_refill(patience=2)
    print("1,000 tokens in 10 minutes, and a call that need not wait for the refill:")
    asyncio.run(woken_by_a_refund())


if __name__ == "__main__":
    main()
