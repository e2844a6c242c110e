"""The line among processes, in real time: nobody starves, everybody is woken, nothing is lost."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from quotaguard.backends import Backend, open_backend
from quotaguard.clock import SystemClock
from quotaguard.core.ops import Peek, Reservation, Settle
from quotaguard.limits import Limit

from .switch import until
from .waiter import BOOKS, OWNER, call

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(600)


class Process:
    """A `tests.backends.waiter`."""

    def __init__(self, url: str, does: str, name: str, **plan: Any) -> None:
        told = json.dumps({"url": url, "does": does, "name": name, **plan})
        self.running = subprocess.Popen(
            [sys.executable, "-m", "tests.backends.waiter", told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self.hear()["what"] == "ready"

    def _read(self) -> None:
        """Take what it says, so that it never waits for us."""
        assert self.running.stdout is not None
        for line in self.running.stdout:
            self._lines.put(line)

    def say(self, line: str) -> None:
        """Tell it something."""
        assert self.running.stdin is not None
        self.running.stdin.write(line + "\n")
        self.running.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The next that it says."""
        return dict(json.loads(self._lines.get(timeout=60)))

    def end(self, *, kill: bool = False) -> list[dict[str, Any]]:
        """Wait for its end; what it said."""
        assert self.running.stdin is not None
        if kill:
            self.running.send_signal(signal.SIGKILL)
        self.running.stdin.close()
        code = self.running.wait(timeout=300)
        self._reader.join(60)
        assert self.running.stdout is not None
        self.running.stdout.close()
        assert kill or code == 0
        lines = [self._lines.get() for _ in range(self._lines.qsize())]
        return [json.loads(line) for line in lines if line.endswith("}\n")]


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the processes meet."""
    if request.param == "redis":
        return str(request.getfixturevalue("server").url)
    return f"sqlite:///{tmp_path}/q.db?timeout=30"


@pytest.fixture
def backend(url: str) -> Iterator[Backend]:
    """The same, for this process."""
    found = open_backend(url, SystemClock())
    yield found
    found.close()


def test_a_large_call_does_not_starve(url: str, backend: Backend, soak: bool) -> None:
    """It waits for nine tenths of the bucket while three processes ask for hundredths; first come,
    first served lets it in when so much has come back.
    """
    period = 5 if soak else 2
    limit = Limit.parse(f"1000 tokens/{period} seconds per org")
    plan = {"limit": limit.text, "patience": 60.0}
    small = [
        Process(url, "flood", f"small {n}", amount=10, seconds=1.5 * period, threads=8, **plan)
        for n in range(3)
    ]
    time.sleep(0.3)  # until they have used it up
    large = Process(url, "one", "large", amount=900, **plan).end()
    for each in small:
        each.end()
    (came,) = [said for said in large if said["what"] == "admitted"]
    ideal = next(said["told"] for said in large if said["what"] == "waits")
    assert ideal > 0.85 * period
    assert came["waited"] <= 1.2 * ideal
    report(f"waited {came['waited']:.3f} s, the ideal is {ideal:.3f} s")


def test_a_refund_wakes_another_process(url: str, backend: Backend, soak: bool) -> None:
    """At once, not when it would have looked by itself."""
    limit = Limit.parse("100 tokens/5 minutes per org")
    other = Process(url, "echo", "echo", limit=limit.text, amount=100)
    late = []
    for number in range(500 if soak else 60):
        held = backend.execute(call(limit, f"held {number}", 100.0, 0.0))
        assert isinstance(held, Reservation)
        other.say(f"call {number}")
        assert other.hear()["what"] == "waits"
        time.sleep(0.002)
        began = time.time()
        backend.execute(Settle(f"held {number}", (0.0, 0.0)))
        late.append(other.hear()["at"] - began)
        assert [other.hear()["what"], other.hear()["what"]] == ["settling", "settled"]
    other.end()
    late.sort()
    median, p99 = (1e3 * late[len(late) * share // 100] for share in (50, 99))
    report(f"median {median:.1f} ms, p99 {p99:.1f} ms")
    assert median < 50  # where it looks by itself it takes a second or more


def test_a_thousand_in_line_cost_few_calls(server: Any, soak: bool) -> None:
    """They come in order, and are served in it; the server is asked once to join and once to be
    let in, not by everybody whenever anything happens.
    """
    count = 1000 if soak else 300
    limit = Limit.parse(f"{count * 2} tokens/second per org")
    counted = Counted(server.client())
    said = Process(server.url, "line_up", "all", limit=limit.text, amount=10, calls=count).end()
    joined = [each["id"] for each in said if each["what"] == "waits"]
    admitted = [each["id"] for each in said if each["what"] == "admitted"]
    assert len(admitted) == count
    assert joined == sorted(joined)
    waited = [id for id in admitted if id in set(joined)]
    inversions = sum(one > then for one, then in itertools.pairwise(waited))
    late = [
        each["waited"] - each["told"]
        for each in said
        if each.get("told") is not None and "waited" in each
    ]
    assert max(late) < 1.0  # who wakes late may find that the next one fitted beside it, no more
    operations = counted.operations() / count
    report(f"{operations:.2f} calls of the server for each admission, {inversions} inversions")
    assert operations <= 3


def report(text: str) -> None:
    """A figure for who runs the test with ``-s``."""
    sys.stdout.write(f"\n{text}\n")


class Counted:
    """How often the script ran."""

    def __init__(self, client: Any) -> None:
        self._client = client
        client.config_resetstat()

    def operations(self) -> int:
        """Since then."""
        stats = self._client.info("commandstats")
        return sum(
            stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha")
        )


def test_nothing_is_lost_among_the_dying(url: str, backend: Backend, soak: bool) -> None:
    """Processes are killed, calls cancelled, timed out and forgotten. Everybody else is let in when
    it was told to be; at the end no token is lost or made, and nobody stands in line.
    """
    limit = Limit.parse("2000 tokens/second burst 200 per org")
    seconds, crowds, calls = (60.0, 10, 50) if soak else (4.0, 4, 20)
    chance = random.Random(7)
    plan = {"limit": limit.text, "seconds": seconds, "calls": calls, "lease": 3.0}
    began = time.time()
    running = [Process(url, "crowd", f"p{n}", **plan) for n in range(crowds)]
    said: list[dict[str, Any]] = []
    killed = 0
    while time.time() < began + seconds - 1.0:
        time.sleep(seconds / 20)
        victim = chance.randrange(crowds)
        said += running[victim].end(kill=True)
        killed += 1
        plan["seconds"] = began + seconds - time.time()
        running[victim] = Process(url, "crowd", f"p{victim} {killed}", **plan)
    for each in running:
        said += each.end()
    late = sorted(
        each["waited"] - each["told"]
        for each in said
        if each["what"] == "admitted" and each["told"]
    )
    report(f"{killed} killed, {len(late)} waited; at most {late[-1] * 1e3:.0f} ms too long")
    assert len(late) > 20
    settled = sum(each["amount"] for each in said if each["what"] == "settled")
    done = {each["id"] for each in said if each["what"] == "settled"}
    perhaps = sum(e["amount"] for e in said if e["what"] == "settling" and e["id"] not in done)
    until(lambda: books(backend, limit)[1] == 0.0, 20.0)
    spent, _ = books(backend, limit)
    assert settled <= spent <= settled + perhaps
    until(lambda: nobody_waits(backend, limit), 20.0)
    assert late[-1] < 1.0  # they go in as they were told; on a busy machine a little later


def books(backend: Backend, limit: Limit) -> tuple[float, float]:
    """What was charged in all, and what is still held."""
    answer: Any = backend.execute(Peek(((OWNER, BOOKS), (OWNER, limit))))
    return BOOKS.ceiling - answer[0].left, answer[0].held + answer[1].held


def nobody_waits(backend: Backend, limit: Limit) -> bool:
    """Whether a call that takes the whole bucket finds nobody before it."""
    whole = call(limit, f"whole {time.time()}", limit.ceiling, 0.0)
    return isinstance(backend.execute(whole), Reservation)
