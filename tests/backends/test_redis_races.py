"""Many processes race for one user's buckets: never more than they hold, and all of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from quotaguard.backends import open_backend
from quotaguard.clock import SystemClock
from quotaguard.core.ops import Peek
from quotaguard.limits import Limit

from .racer import OWNER
from .redis_server import RedisCluster, RedisServer

PROCESSES, ATTEMPTS = 8, 200
SECONDS_TO_IMPORT = 1.5
ONE = [["100 tokens/rolling month"]]
FIVE = [
    [
        "900 requests/rolling month",
        "100 tokens/rolling month",
        "600 tokens/rolling month for *",
        "800 input_tokens/rolling month",
        "700 output_tokens/rolling month",
    ]
]
FALLBACK = [["100 tokens/rolling month"], ["300 requests/rolling month"]]
"""They refill by less than one in the time that a test takes."""


def race(url: str, limits: list[list[str]], mode: str = "alone", back: float = 0.0) -> Any:
    """Let the processes race; who was admitted by which candidate, and the least left ever."""
    if url.startswith("redis"):
        url += "?backend_timeout=20"  # eight processes on a small machine
    plan: dict[str, Any] = {"url": url, "limits": limits, "mode": mode, "back": back}
    plan |= {"amount": 1.0 + back, "attempts": ATTEMPTS, "at": time.time() + SECONDS_TO_IMPORT}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.backends.racer", json.dumps(plan | {"name": f"p{i}"})],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        for i in range(PROCESSES)
    ]
    choices: Counter[int] = Counter()
    lowest = float("inf")
    ended = [(process, *process.communicate(timeout=50)) for process in running]
    for process, out, err in ended:
        assert process.returncode == 0, err.decode()
        said = json.loads(out)
        choices.update(said["choices"])
        lowest = min(lowest, said["lowest"])
    return choices, lowest


def left(url: str, limit: str) -> float:
    """What the bucket has left afterwards."""
    backend = open_backend(url, SystemClock())
    try:
        (state,) = backend.execute(Peek(((OWNER, Limit.parse(limit)),)))  # type: ignore[misc]
        return float(state.left)
    finally:
        backend.close()


@pytest.mark.parametrize("mode", ["alone", "threads", "tasks"])
def test_all_of_a_bucket_and_no_more(server: RedisServer, mode: str) -> None:
    """8 processes, 200 attempts each, one user with 100 tokens: 100 are admitted."""
    choices, lowest = race(server.url, ONE, mode)
    assert choices == {0: 100}
    assert lowest >= -1e-6


def test_five_limits_in_one_step(server: RedisServer) -> None:
    """The tightest of five limits decides, and the others are charged for the admitted only."""
    choices, _ = race(server.url, FIVE, "threads")
    assert choices == {0: 100}
    assert [round(left(server.url, limit), 1) for limit in FIVE[0]] == [800, 0, 500, 700, 600]


def test_the_fallback_takes_what_does_not_fit(server: RedisServer) -> None:
    """When the first candidate's bucket is empty, all of the second's is used, and no more."""
    choices, lowest = race(server.url, FALLBACK, "tasks")
    assert choices == {0: 100, 1: 300}
    assert lowest >= -1e-6


def test_settling_at_the_same_time(server: RedisServer) -> None:
    """While surplus comes back, what is out never exceeds the bucket, and all of it is used."""
    choices, lowest = race(server.url, ONE, "threads", back=3.0)
    assert lowest >= -1e-6
    assert 97 <= choices[0] <= 100  # a call asks for 4 and uses 1: the last 3 may not fit
    assert left(server.url, ONE[0][0]) == pytest.approx(100 - choices[0], abs=0.1)


def test_on_a_cluster(cluster: RedisCluster) -> None:
    """The same on three nodes, with five limits and fallback."""
    choices, lowest = race(cluster.url, [FIVE[0], FALLBACK[1]], "tasks")
    assert choices == {0: 100, 1: 200}  # 100 of the 300 requests were the first candidate's
    assert lowest >= -1e-6


def test_on_sqlite(tmp_path: Path) -> None:
    """The same in a file, with surplus that comes back."""
    url = f"sqlite:///{tmp_path}/ledger.db?timeout=40"
    choices, lowest = race(url, [FIVE[0], FALLBACK[1]])
    assert choices == {0: 100, 1: 200}
    assert lowest >= -1e-6
