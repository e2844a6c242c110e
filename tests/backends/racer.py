"""A process that races others for one user's buckets: ``python -m tests.backends.racer JSON``.

It prints what it was granted as JSON: for each admitted call the index of its candidate, and the
least that any of its buckets had left at any of its answers.
"""

# ruff: noqa: D102 - what a racer does is named after it

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from typing import Any

from quotaguard.backends import Backend, open_backend
from quotaguard.clock import SystemClock
from quotaguard.core.ops import Candidate, Charge, Reservation, Reserve, Settle, Settled
from quotaguard.limits import Limit

OWNER = ("user", "", "everybody's")


def candidates(texts: list[list[str]], amount: float) -> tuple[Candidate, ...]:
    """One candidate for each list of limits, each of which is charged the amount."""
    return tuple(
        Candidate(str(i), tuple(Charge(OWNER, Limit.parse(t), amount, amount, 0.0) for t in limits))
        for i, limits in enumerate(texts)
    )


class Racer:
    """Attempts to reserve; ``back`` of each amount is returned by a settle at once."""

    def __init__(self, backend: Backend, plan: dict[str, Any]) -> None:
        self.backend = backend
        self.name = plan["name"]
        self.attempts = plan["attempts"]
        self.candidates = candidates(plan["limits"], plan["amount"])
        self.used = plan["amount"] - plan["back"] if plan["back"] else None
        self.choices: list[int] = []
        self.lowest = float("inf")

    def reserve(self, number: object) -> Reserve:
        return Reserve(f"{self.name}-{number}", self.candidates, 600.0)

    def took(self, answer: object) -> Settle | None:
        """Note an answer; what to settle then."""
        if not isinstance(answer, Reservation):
            return None
        self.choices.append(answer.choice)
        self.lowest = min(self.lowest, *answer.left)
        if self.used is None:
            return None
        return Settle(answer.id, (self.used,) * len(answer.granted))

    def settled(self, answer: object) -> None:
        assert isinstance(answer, Settled)
        assert answer.first
        self.lowest = min(self.lowest, *answer.left)

    def attempt(self, number: object) -> None:
        settle = self.took(self.backend.execute(self.reserve(number)))
        if settle is not None:
            self.settled(self.backend.execute(settle))

    async def attempt_async(self, number: object) -> None:
        settle = self.took(await self.backend.aexecute(self.reserve(number)))
        if settle is not None:
            self.settled(await self.backend.aexecute(settle))

    def alone(self) -> None:
        for number in range(self.attempts):
            self.attempt(number)

    def threads(self) -> None:
        def run(part: int) -> None:
            for number in range(part, self.attempts, 8):
                self.attempt(number)

        running = [threading.Thread(target=run, args=(part,)) for part in range(8)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    def tasks(self) -> None:
        async def run() -> None:
            await asyncio.gather(*map(self.attempt_async, range(self.attempts)))
            if hasattr(self.backend, "aclose"):
                await self.backend.aclose()

        asyncio.run(run())


def main() -> None:
    """Race as the plan says, from the time it says."""
    plan = json.loads(sys.argv[1])
    backend = open_backend(plan["url"], SystemClock())
    racer = Racer(backend, plan)
    time.sleep(max(0.0, plan["at"] - time.time()))
    getattr(racer, plan["mode"])()
    backend.close()
    json.dump({"choices": racer.choices, "lowest": racer.lowest}, sys.stdout)


if __name__ == "__main__":
    main()
