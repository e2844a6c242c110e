"""Reserve and settle in memory, beside the floor: a dictionary, a lock and three token buckets.

    python -m benchmarks.memory [--rounds N]

Target (the issue's): at least 50,000 reserve + settle a second with 3 limits, in one thread.
"""

from __future__ import annotations

import argparse
import itertools
import threading
import time

from benchmarks.rounds import compare
from quotaguard import Guard, Limit
from quotaguard.backends.memory import MemoryBackend
from quotaguard.core.ops import Candidate, Charge, Reserve, Settle

USERS = 10_000
CYCLES = 2_000
LIMITS = [Limit.parse(text) for text in ("1b tokens/day", "1b tokens/minute", "1m requests/minute")]


class Floor:
    """The least that CPython can do: no ids, no leases, no fallback, no windows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._levels: dict[tuple[str, int], tuple[float, float]] = {}

    def move(self, user: str, amounts: tuple[float, ...]) -> bool:
        """Take the amounts from the user's buckets (give back, if negative), all or none."""
        with self._lock:
            now = time.time()
            after = []
            for number, amount in enumerate(amounts):
                level, at = self._levels.get((user, number), (1e9, now))
                level = min(1e9, level + (now - at) * 1e6) - amount
                if level < 0:
                    return False
                after.append(level)
            for number, level in enumerate(after):
                self._levels[user, number] = level, now
            return True


def main() -> None:
    """Run all three, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    users = itertools.cycle([f"user {number}" for number in range(USERS)])
    numbers = itertools.count()
    floor, backend, guard = Floor(), MemoryBackend(), Guard(limits=LIMITS)

    def on_the_floor() -> None:
        for _ in range(CYCLES):
            user = next(users)
            floor.move(user, (500.0, 500.0, 1.0))
            floor.move(user, (-200.0, -200.0, 0.0))

    def on_the_backend() -> None:
        for _ in range(CYCLES):
            id, owner = f"id {next(numbers)}", ("user", "", next(users))
            charges = tuple(Charge(owner, limit, 500.0, 100.0, 100.0) for limit in LIMITS)
            backend.execute(Reserve(id, (Candidate("m", charges),), 900.0))
            backend.execute(Settle(id, (300.0, 300.0, 1.0)))

    def on_the_guard() -> None:
        for _ in range(CYCLES):
            with guard.hold(user=next(users), input_tokens=100, output_tokens=400) as lease:
                lease.record(input_tokens=100, output_tokens=200)

    subjects = {"floor": on_the_floor, "backend": on_the_backend, "guard.hold": on_the_guard}
    timed = compare(subjects, rounds=rounds, each=1)
    for name, timing in timed.items():
        print(
            f"{name:12s} {CYCLES / timing.wall:10,.0f} reserve + settle a second   "
            f"{1e6 * timing.cpu / CYCLES:6.1f} µs CPU   x {timing.cpu / timed['floor'].cpu:5.2f}"
        )


if __name__ == "__main__":
    main()
