"""What is learnt here, told to others, and theirs taken over."""

from __future__ import annotations

import math
import threading

from hypothesis import given
from hypothesis import strategies as st

from quotaguard.core.summary import fold
from quotaguard.counting import Calibration, LearnedOutput
from quotaguard.counting.histogram import Histogram
from quotaguard.counting.pool import Key, Pool

ALICE, BOB = ("alice", "gpt-4o"), ("bob", "gpt-4o")


def new_pool(max_keys: int = 10) -> tuple[Pool, list[bool]]:
    """A pool that is shared, and how soon it wanted to be."""
    pool = Pool("answers", lambda: Histogram(2.0, 1.0, 1024.0, max_weight=16.0), max_keys)
    noted: list[bool] = []
    pool.noted = noted.append
    return pool, noted


def test_news_are_told_once() -> None:
    """What was taken is not taken again, unless it is given back."""
    pool, noted = new_pool()
    for number in (4, 4, 8):
        pool.add(ALICE, number)
    assert noted == [False] * 3
    news = pool.take(5)
    assert news == {ALICE: {2: 2.0, 3: 1.0}}
    assert pool.take(5) == {}
    pool.add(ALICE, 8)
    pool.give_back(news)
    assert pool.take(5) == {ALICE: {2: 2.0, 3: 2.0}}


def test_what_is_not_known_is_asked_for_once() -> None:
    """And not again once there was an answer, though it was empty."""
    pool, noted = new_pool()
    assert pool.find(ALICE, soon=True) is None
    assert pool.find(ALICE, soon=True) is None
    assert pool.find(BOB) is None
    assert noted == [True, False]
    assert pool.take(1) == {ALICE: {}}
    pool.put(ALICE, {})
    found = pool.find(ALICE, soon=True)
    assert found is not None
    assert found.weight == 0.0
    assert noted == [True, False]
    assert pool.weights() == []


def test_what_all_know_replaces_what_was_known_here() -> None:
    """With what was added meanwhile."""
    pool, _ = new_pool()
    pool.add(ALICE, 4)
    pool.take(5)
    pool.add(ALICE, 8)
    pool.put(ALICE, {2: 3.0, 5: 1.0})
    found = pool.find(ALICE)
    assert found is not None
    assert found.weights == {2: 3.0, 5: 1.0, 3: 1.0}
    assert found.weight == 5.0


def test_nobody_to_share_with_leaves_no_notes() -> None:
    """A guard whose ledger is its own pays nothing."""
    pool, _ = new_pool()
    pool.noted = None
    pool.add(ALICE, 4)
    assert pool.find(BOB, soon=True) is None
    assert pool.take(5) == {}


def test_memory_is_bounded() -> None:
    """Keys that were not used for long go, and so do notes that nobody takes."""
    pool, _ = new_pool(max_keys=4)
    for number in range(100):
        pool.add((f"user {number}", "m"), 4)
        pool.find((f"new {number}", "m"))
        pool.put((f"other {number}", "m"), {2: 1.0})
    assert len(pool) == 4
    assert len(pool.take(1000)) == 4


def test_a_child_does_not_tell_what_its_parent_saw() -> None:
    """It only keeps it."""
    pool, _ = new_pool()
    pool.add(ALICE, 4)
    pool.forget_news()
    assert pool.take(5) == {}
    assert pool.weights() == [(ALICE, 1.0)]


@given(
    st.dictionaries(st.integers(-(2**15), 2**15), st.floats() | st.integers(-5, 500), max_size=50)
)
def test_hostile_weights_do_no_harm(weights: dict[int, float]) -> None:
    """Whatever a shared store gives back: quantiles stay within the bins, weights within bounds."""
    pool, _ = new_pool()
    pool.add(ALICE, 4)
    pool.put(ALICE, weights)
    found = pool.find(ALICE)
    assert found is not None
    assert 0.0 < found.weight <= 16.0
    assert 1.0 <= found.quantile(0.95) <= 1024.0


def test_two_pools_that_exchange_agree() -> None:
    """Through one summary: each knows what both have seen."""
    one, two = LearnedOutput(), LearnedOutput()
    for learned in (one, two):
        learned.pool.noted = lambda soon: None
        for _ in range(15):
            learned.observe("alice", "gpt-4o", 100)
        assert learned.predict("alice", "gpt-4o", 512) == 512
    shared: dict[Key, dict[int, float]] = {}
    for learned in (one, two):
        for key, added in learned.pool.take(100).items():
            known = shared[key] = fold(shared.get(key, {}), added, 400.0)
            learned.pool.put(key, known)
    assert 100 <= two.predict("alice", "gpt-4o", 512) <= 105
    fresh = LearnedOutput()
    for key, weights in shared.items():
        fresh.pool.put(key, weights)
    assert fresh.predict("alice", "gpt-4o", 512) == two.predict("alice", "gpt-4o", 512)
    assert fresh.predict("carol", "gpt-4o", 512) == two.predict("carol", "gpt-4o", 512) <= 105


def test_calibration_takes_over_what_others_were_billed() -> None:
    """A factor, bounded as ever."""
    one, fresh = Calibration(), Calibration()
    one.pool.noted = lambda soon: None
    for _ in range(50):
        one.observe("claude-sonnet-4-5", "messages text", 1000, 1400)
    for key, weights in one.pool.take(10).items():
        fresh.pool.put(key, weights)
    factor = fresh.factor("claude-sonnet-4-5", "messages text")
    assert factor == one.factor("claude-sonnet-4-5", "messages text") > 1.3
    fresh.pool.put(("claude-sonnet-4-5", "messages text"), {139: math.inf, -301: math.nan})
    assert fresh.factor("claude-sonnet-4-5", "messages text") <= 2.0


def test_threads_lose_nothing() -> None:
    """Adding, taking and putting at once: every addition is told or still to be told, once."""
    pool, _ = new_pool()
    told: list[float] = []

    def add() -> None:
        for _ in range(2000):
            with pool.lock:
                pool.add(ALICE, 4)

    def tell() -> None:
        for _ in range(200):
            for weights in pool.take(5).values():
                told.append(sum(weights.values()))
                pool.put(ALICE, weights)

    threads = [threading.Thread(target=work) for work in (add, add, tell)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tell()
    assert sum(told) == 4000
