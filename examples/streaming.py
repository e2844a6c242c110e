"""Streams: charged what was really used, also when they break off."""

from __future__ import annotations

import threading

from quotaguard import Guard, GuardedOpenAI, receipt
from quotaguard.testing import FakeProvider, Reply

ANSWER = " ".join(["token"] * 40)


def main() -> None:
    """Read one stream to its end, leave one, and lose one."""
    reader_left = threading.Event()
    with FakeProvider() as provider:
        guard = Guard(limits=["10k tokens/day"])
        client = GuardedOpenAI(
            guard=guard,
            user="alice",
            base_url=provider.openai_url,
            api_key="none needed",
            max_retries=0,
        )

        def left() -> float:
            return guard.peek(user="alice")[0].left

        def ask():
            return client.chat.completions.create(
                model="gpt-4o",
                max_tokens=200,
                stream=True,
                messages=[{"role": "user", "content": "Say token forty times."}],
            )

        before = left()
        provider.enqueue(Reply(text=ANSWER, input_tokens=12, output_tokens=40))
        stream = ask()
        held = before - left()
        print(f"While the first stream runs, {held:.0f} tokens are reserved for it.")
        for chunk in stream:
            assert chunk.choices  # the chunk with the usage, which we asked for, is not shown
        print(f"Read to its end it is charged {before - left():.0f}, as the provider reported.")
        assert receipt(stream).settled

        before = left()
        # The provider stops after five words until the reader has left: a slow model.
        provider.enqueue(Reply(text=ANSWER, input_tokens=12, hold_after=(5, reader_left)))
        words = 0
        with ask() as stream:
            for chunk in stream:
                words += bool(chunk.choices[0].delta.content)
                if words == 5:
                    break
        reader_left.set()
        print(f"The reader of the second stream leaves after {words} words. It is charged", end=" ")
        print(f"{before - left():.0f}: the prompt, and what had arrived.")

        before = left()
        provider.enqueue(Reply(text=ANSWER, input_tokens=12, disconnect_after=10))
        words = 0
        try:
            for chunk in ask():
                words += bool(chunk.choices[0].delta.content)
        except Exception as error:  # noqa: BLE001  # whatever it is without quotaguard
            print(f"The third is cut off after {words} words ({type(error).__name__}).", end=" ")
        print(f"It is charged {before - left():.0f}.")
        print(f"Still reserved for any of them: {guard.peek(user='alice')[0].held:.0f}.")


if __name__ == "__main__":
    main()
