"""What one process learns of answers and bills, others know."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quotaguard import BackendError, Guard, Usage, errands
from quotaguard.backends.memory import MemoryBackend
from quotaguard.backends.sqlite import SQLiteBackend
from quotaguard.core.ops import Answer, Merge, Merged, Op, Summary
from quotaguard.core.summary import fold
from quotaguard.counting.learned import LearnedOutput
from quotaguard.estimator import Estimator
from quotaguard.sharing import AT_ONCE, ENOUGH, INTERVAL, KEPT, Sharing
from quotaguard.testing import FakeClock

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "How full is my bucket?"}]}
CLAUDE = {**CHAT, "model": "claude-sonnet-4-5", "max_tokens": 10}
GUESS = 77
LONG = 30.0
"""Seconds after which something that should have happened never will."""


class Board:
    """The part of a shared backend that summaries need; it can be away."""

    shared = True

    def __init__(self) -> None:
        self.away: BaseException | None = None
        self.asked: list[Merge] = []
        self.known: dict[tuple[str, ...], dict[int, float]] = {}

    def execute(self, op: Op) -> Answer:
        """Carry it out, unless away."""
        assert isinstance(op, Merge)
        if self.away is not None:
            raise self.away
        self.asked.append(op)
        for name, added, most in op.summaries:
            self.known[name] = fold(self.known.get(name, {}), added, most)
        return Merged(tuple(self.known[summary.name] for summary in op.summaries))

    async def aexecute(self, op: Op) -> Answer:
        """The same for a task."""
        return self.execute(op)

    def close(self) -> None:
        """Nothing to give back."""


class Rings(list[Any]):
    """Who asked for the helper thread; the test carries out what it would."""

    def run(self) -> int:
        """Run the errands that wait; how many there were."""
        waiting = list(self)
        self.clear()
        for runner in waiting:
            runner.run_errands()
        return len(waiting)


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> Rings:
    """In place of the helper thread."""
    found = Rings()
    monkeypatch.setattr(errands, "soon", found.append)
    return found


def worker(board: Any, clock: FakeClock, chance: float = 0.5) -> Estimator:
    """A process of which only the estimator is looked at."""
    estimator = Estimator("max", GUESS)
    estimator.sharing = Sharing(  # type: ignore[attr-defined]  # kept as long as the estimator
        estimator.pools, board, clock.now, lambda: chance
    )
    return estimator


def ask(estimator: Estimator, user: str = "alice", body: dict[str, Any] = CHAT) -> int:
    """The tokens that would be reserved for an answer."""
    endpoint = "chat" if body is CHAT else "messages"
    return estimator.estimate(endpoint, body, user=user).output_tokens


def answered(estimator: Estimator, times: int, tokens: int = 300, user: str = "alice") -> None:
    """So many answers of a length."""
    for _ in range(times):
        demand = estimator.demand("chat", CHAT, model="gpt-4o", user=user, most=1e6)
        estimator.learn(user, "gpt-4o", demand, Usage(1, demand.counted, tokens))
    estimator.calibration()  # for which it takes in all that it heard


def test_a_new_process_begins_with_what_others_know(rings: Rings) -> None:
    """Its first call asks, and goes by the guess; the next goes by what came back."""
    board, clock = Board(), FakeClock()
    old = worker(board, clock)
    answered(old, 40)
    clock.advance(2 * INTERVAL)
    answered(old, 1)
    rings.run()
    new = worker(board, clock)
    assert ask(new) == GUESS
    assert rings.run() == 1
    assert 300 <= ask(new) <= 330
    assert 300 <= ask(new, "somebody new") <= 330
    assert not rings


def test_workers_add_up(rings: Rings) -> None:
    """Twelve answers each are not enough alone."""
    board, clock = Board(), FakeClock()
    workers = [worker(board, clock) for _ in range(2)]
    for each in workers:
        answered(each, 12)
        assert ask(each) == GUESS
    clock.advance(2 * INTERVAL)
    for each in workers:
        answered(each, 1)
    rings.run()
    assert [300 <= ask(each) <= 330 for each in workers] == [False, True]
    clock.advance(2 * INTERVAL)
    answered(workers[0], 1)
    rings.run()
    assert 300 <= ask(workers[0]) <= 330


def test_calibration_is_shared_too(rings: Rings) -> None:
    """What one was billed for Claude, another reserves."""
    board, clock = Board(), FakeClock()
    old, new = worker(board, clock), worker(board, clock)
    for _ in range(50):
        demand = old.demand("messages", CLAUDE, model=CLAUDE["model"], user="a", most=1e6)
        old.learn("a", CLAUDE["model"], demand, Usage(1, round(demand.counted * 1.5), 5))
    clock.advance(2 * INTERVAL)
    ask(old, "b", CLAUDE)
    rings.run()
    assert new.estimate("messages", CLAUDE, user="a").factor == 1.0
    rings.run()
    assert new.estimate("messages", CLAUDE, user="a").factor > 1.3


def test_exchanges_are_rare_and_spread(rings: Rings) -> None:
    """After about ten seconds or a hundred things to tell, not at the same moment everywhere."""
    for chance in (0.0, 1.0):
        board, clock = Board(), FakeClock()
        early = worker(board, clock, chance)
        ask(early)
        rings.run()
        told = len(board.asked)
        answered(early, 1)
        assert not rings
        clock.advance(INTERVAL * (0.75 + chance / 2) - 0.1)
        answered(early, 1)
        assert not rings
        clock.advance(0.2)
        answered(early, 1)
        assert rings.run() == 1
        noted = 0
        while not rings:
            answered(early, 1)
            noted += 3  # the user's, the model's, and the bill
        assert noted == pytest.approx(ENOUGH * (0.75 + chance / 2), abs=3)
        rings.run()
        assert len(board.asked) == told + 4  # two pools each time


def test_what_nobody_needs_is_not_told(rings: Rings) -> None:
    """Without news nothing is sent; with many, not too much at once, and all of it."""
    board, clock = Board(), FakeClock()
    one = worker(board, clock)
    one.sharing.run_errands()  # type: ignore[attr-defined]
    assert board.asked == []
    for number in range(AT_ONCE * 2):
        answered(one, 1, user=f"user {number}")
    one.sharing.run_errands()  # type: ignore[attr-defined]
    sizes = [len(op.summaries) for op in board.asked]
    assert sizes == [1, AT_ONCE, AT_ONCE, 1]
    assert all(op.kept == KEPT for op in board.asked)


@pytest.mark.parametrize("error", [BackendError("no route"), TypeError("a bug")])
def test_a_ledger_that_is_away_costs_nothing(
    rings: Rings, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls go on as in a process of its own; later everything is told, once."""
    board, clock = Board(), FakeClock()
    board.away = error
    one = worker(board, clock)
    with caplog.at_level(logging.ERROR):
        answered(one, 40)
        rings.run()
    assert bool(caplog.records) is isinstance(error, TypeError)
    assert 300 <= ask(one) <= 330
    board.away = None
    clock.advance(2 * INTERVAL)
    answered(one, 1)
    rings.run()
    weights = [sum(weights.values()) for weights in board.known.values()]
    assert weights == [41.0] * 3
    assert 300 <= ask(one) <= 330


def test_a_ledger_of_this_process_is_left_alone(rings: Rings) -> None:
    """There is nobody to share with."""
    one = worker(MemoryBackend(FakeClock()), FakeClock())
    answered(one, 2 * ENOUGH)
    one.sharing.run_errands()  # type: ignore[attr-defined]
    assert not rings


def test_a_forked_child_tells_only_what_it_saw(rings: Rings) -> None:
    """What the parent noted, the parent tells."""
    board, clock = Board(), FakeClock()
    one = worker(board, clock)
    answered(one, 5)
    one.sharing._process = os.getppid()  # type: ignore[attr-defined]  # as if forked since
    one.sharing.run_errands()  # type: ignore[attr-defined]
    assert board.known == {}
    assert LearnedOutput(enough=5).predict("alice", "gpt-4o", 300) >= 300
    answered(one, 1)
    one.sharing.run_errands()  # type: ignore[attr-defined]
    assert {sum(weights.values()) for weights in board.known.values()} == {1.0}


def test_old_habits_fade(rings: Rings) -> None:
    """Of all workers together as of one."""
    board, clock = Board(), FakeClock()
    workers = [worker(board, clock) for _ in range(2)]
    for tokens, rounds in ((4000, 4), (50, 40)):
        for _ in range(rounds):
            for each in workers:
                answered(each, 50, tokens)
                each.sharing.run_errands()  # type: ignore[attr-defined]
    assert 50 <= ask(workers[1]) <= 53
    assert max(sum(weights.values()) for weights in board.known.values()) <= 400.0


# -- real processes over real stores -------------------------------------------------------------

PROCESS = """
import sys
from quotaguard import Guard, Usage
from quotaguard.core.lease import Demand
url, times = sys.argv[1], int(sys.argv[2])
guard = Guard(limits=["1M tokens/day"], backend=url, output_guess=77)
for _ in range(times):
    guard.estimator.learn("alice", "gpt-4o", Demand(10, 77, False), Usage(1, 10, 300))
if sys.argv[3] == "close":
    guard.close()
"""


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where processes meet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/quota.db"
    server: Any = request.getfixturevalue("server")
    return str(server.url)


@pytest.fixture
def opened() -> Iterator[Callable[[str], Guard]]:
    """Guards that are closed when the test ends."""
    guards: list[Guard] = []

    def opener(url: str) -> Guard:
        guards.append(Guard(limits=["1M tokens/day"], backend=url, output_guess=GUESS))
        return guards[-1]

    yield opener
    for guard in guards:
        guard.close()


@pytest.mark.parametrize("ending", ["close", "exit"])
def test_two_processes(url: str, opened: Callable[[str], Guard], ending: str) -> None:
    """What one learnt and told when it ended, the other knows right after its first call."""
    for _ in range(2):
        command = [sys.executable, "-c", PROCESS, url, "15", ending]
        subprocess.run(command, check=True, timeout=LONG)
    guard = opened(url)
    assert guard.estimate("chat", CHAT, user="alice").output_tokens == GUESS
    deadline = time.monotonic() + LONG
    while guard.estimate("chat", CHAT, user="alice").output_tokens == GUESS:
        assert time.monotonic() < deadline, "nobody told"
        threading.Event().wait(0.005)
    assert 300 <= guard.estimate("chat", CHAT, user="alice").output_tokens <= 330
    assert 300 <= guard.estimate("chat", CHAT, user="bob").output_tokens <= 330


def test_what_is_stored_names_nobody_in_redis(server: Any, open_redis: Any) -> None:
    """Keys are digests, values numbers, and every key ends."""
    backend = open_redis(server.url)
    name = ("answers", "alice@example.com", "gpt-4o")
    backend.execute(Merge((Summary(name, {3: 2.0}, 100.0),), KEPT))
    with server.client() as client:
        (key,) = client.keys()
        assert b"alice" not in key + client.get(key)
        assert KEPT * 1000 - 60_000 < client.pttl(key) <= KEPT * 1000


@pytest.mark.parametrize(
    "value",
    [b"", b"x", b"\xff" * 10, b"\x00" * 10, os.urandom(10_240), os.urandom(100_000), ["a", "list"]],
)
def test_hostile_values_in_redis(server: Any, open_redis: Any, value: Any) -> None:
    """Whatever somebody put under the key costs that summary at most, and no call."""
    backend = open_redis(server.url)
    ask = Merge((Summary(("answers", "a", "m"), {3: 2.0}, 100.0),), KEPT)
    backend.execute(ask)
    with server.client() as client:
        (key,) = client.keys()
        client.delete(key)
        if isinstance(value, bytes):
            client.set(key, value)
        else:
            client.rpush(key, *value)
        (weights,) = backend.execute(ask).weights
        assert sum(weights.values()) <= 100.0
        assert all(weight > 0.0 for weight in weights.values())
        pool = LearnedOutput(enough=1).pool
        pool.put(("a", "m"), weights)
        found = pool.find(("a", "m"))
        assert found is not None
        assert 0.0 <= found.weight <= 400.0
        assert client.strlen(key) <= 10_240


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nonsense",
        "[1, 2]",
        "null",
        '{"3": "x", "y": 1.0, "-": 1.0, "4": NaN, "99999999": 1.0, "5": -1.0, "6": 1e999}',
        "[" * 100_000,
        b"\xff\x00",
        3.5,
    ],
)
def test_hostile_values_in_sqlite(tmp_path: Path, value: object) -> None:
    """The same in a file."""
    backend = SQLiteBackend(tmp_path / "quota.db", clock=FakeClock())
    ask = Merge((Summary(("answers", "a", "m"), {3: 2.0}, 100.0),), KEPT)
    backend.execute(ask)
    with backend._transaction() as connection:
        connection.execute("UPDATE summary SET weights = ?", (value,))
    answer = backend.execute(ask)
    assert isinstance(answer, Merged)
    (weights,) = answer.weights
    assert {3, 6} >= weights.keys() >= {3}
    assert sum(weights.values()) <= 100.0
    backend.close()


def test_summaries_end_in_sqlite(tmp_path: Path) -> None:
    """Those that nobody adds to are forgotten after a while."""
    clock = FakeClock()
    backend = SQLiteBackend(tmp_path / "quota.db", clock=clock)
    first, second = (
        Merge((Summary(("answers", user, "m"), {3: 2.0}, 100.0),), KEPT) for user in ("a", "b")
    )
    backend.execute(first)
    clock.advance(KEPT - 1)
    backend.execute(second)
    backend.execute(first._replace(summaries=(first.summaries[0]._replace(added={}),)))
    clock.advance(1)
    backend.execute(second)
    with backend._transaction() as connection:
        assert connection.execute("SELECT count(*) FROM summary").fetchone() == (1,)
    backend.close()
