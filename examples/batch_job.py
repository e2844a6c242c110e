"""A batch job: many prompts, as fast as the limits allow, and resumed where it was interrupted.

The clock is a fake one: the waits are real to the program, and take no time here.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from quotaguard import Guard, GuardedOpenAI
from quotaguard.testing import FakeClock, FakeProvider, Reply
from quotaguard.testing.provider import Seen

REVIEWS = [f"Review number {number}: the soup was cold." for number in range(1, 31)]


def answer(seen: Seen) -> Reply:
    """What the provider says of a review."""
    review = seen.body["messages"][-1]["content"].partition(":")[0]
    return Reply(text=f"{review}: not happy", input_tokens=20, output_tokens=5)


class Reviewing:
    """What a job is made of: a guard, a guarded client, and a function of one item."""

    def __init__(self, provider: FakeProvider) -> None:
        self.clock = FakeClock()
        self.guard = Guard(limits=["10 requests/minute", "2k tokens/minute"], clock=self.clock)
        self.client = GuardedOpenAI(
            guard=self.guard,
            user="batch",
            base_url=provider.openai_url,
            api_key="none needed",
            max_retries=0,  # the job tries again by itself
        )

    def mood(self, review: str) -> str:
        """How somebody felt who wrote that."""
        said = self.client.chat.completions.create(
            model="gpt-4o-mini",
            max_tokens=20,
            messages=[{"role": "user", "content": review}],
        )
        return said.choices[0].message.content or ""


def as_fast_as_allowed(provider: FakeProvider) -> None:
    """All items, in their order; the provider refuses one of them once."""
    provider.enqueue(Reply(status=429, headers={"retry-after": "20"}))
    job = Reviewing(provider)
    began = job.clock.now()
    moods = list(job.guard.map(job.mood, REVIEWS, concurrency=4))
    minutes = (job.clock.now() - began) / 60
    print(f"  {len(moods)} answers, in the order of the reviews. The last is {moods[-1]!r}.")
    print(f"  {len(provider.requests)} requests: the provider refused one, which", end=" ")
    print("came again after the 20 s it had asked for.")
    print(f"  10 could go at once, the others at 10 a minute: it took {minutes:.1f} minutes.")


def interrupted_and_resumed(provider: FakeProvider, file: Path) -> None:
    """The first run is left after ten results, the second one does the rest."""
    job = Reviewing(provider)
    for mood in job.guard.map(job.mood, REVIEWS, concurrency=4, resume=file, keep_results=True):
        if mood.startswith("Review number 10:"):
            break
    done = len(provider.requests)
    print("  The first run is left after 10 results; nothing of it goes on.", end=" ")
    print(f"It asked {done} times.")

    provider.clear()
    job = Reviewing(provider)
    moods = list(job.guard.map(job.mood, REVIEWS, concurrency=4, resume=file, keep_results=True))
    asked = len(provider.requests)
    print(f"  The second run has all {len(moods)} results, and asked for the missing {asked}.")
    print(f"  Together {done + asked}: no answer was paid for twice.")


def main() -> None:
    """Run a job whole, then one that is interrupted."""
    with FakeProvider(answer) as provider, tempfile.TemporaryDirectory() as folder:
        print("30 reviews, 10 requests a minute, 4 threads:")
        as_fast_as_allowed(provider)
        provider.clear()
        print("The same with a file of what is done:")
        interrupted_and_resumed(provider, Path(folder, "moods.jsonl"))


if __name__ == "__main__":
    main()
