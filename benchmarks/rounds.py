"""Interleaved rounds: what is compared runs in turn, in one process, so that a noisy machine is
noisy for all of it. Ratios are what to read; absolute figures are this machine's, this minute.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple


class Timing(NamedTuple):
    """Of one subject, over all rounds."""

    wall: float
    """Median seconds of one operation."""
    cpu: float
    """Median, over the rounds, of this process's CPU seconds an operation."""


def compare(
    subjects: Mapping[str, Callable[[], object]], *, rounds: int, each: int
) -> dict[str, Timing]:
    """Run each subject ``each`` times a round, ``rounds`` times, in turn (the order rotates)."""
    walls: dict[str, list[float]] = {name: [] for name in subjects}
    cpus: dict[str, list[float]] = {name: [] for name in subjects}
    names = list(subjects)
    for subject in subjects.values():
        for _ in range(each):
            subject()  # imports, caches, connections
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            subject = subjects[name]
            gc.collect()
            cpu = time.process_time()
            for _ in range(each):
                began = time.perf_counter()
                subject()
                walls[name].append(time.perf_counter() - began)
            cpus[name].append((time.process_time() - cpu) / each)
    return {name: Timing(median(walls[name]), median(cpus[name])) for name in names}
