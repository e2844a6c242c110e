"""One admitted call: what it is charged, once."""

from __future__ import annotations

import gc
import threading
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from quotaguard import ConfigurationError, Guard, Identity, Lease, Limit, Usage
from quotaguard.core.lease import AS_RESERVED, Demand, Outcome
from quotaguard.core.ops import Charge
from quotaguard.providers import usage_of

OWNER = ("global",)
LIMITS = [Limit(10, metric, 60) for metric in ("requests", "tokens", "input_tokens")]


@pytest.fixture
def lease() -> Lease:
    """A call of 20 tokens in and at most 30 out."""
    demand = Demand(20, 30, hard=False)
    charges = tuple(
        Charge(OWNER, limit, limit.measure(demand.high, "m"), 1.0, limit.measure(demand.keep, "m"))
        for limit in LIMITS
    )
    made = Lease("id", Identity("u"), "m", "m", demand, charges, (1.0, 40.0, 20.0), (9, 8, 7))
    made.read = usage_of
    return made


def test_only_one_may_close(lease: Lease) -> None:
    """However many threads try, one gets the right to settle."""
    won: list[bool] = []
    start = threading.Barrier(16)

    def race() -> None:
        start.wait()
        won.append(lease.close())

    threads = [threading.Thread(target=race) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 15 + [True]
    assert not lease.is_open


def test_what_is_charged_by_metric(lease: Lease) -> None:
    """Each limit reads its own metric from the usage."""
    assert lease.amounts(Outcome(Usage(1, 5, 7))) == (1, 12, 5)
    assert lease.amounts(Outcome(Usage())) == (0, 0, 0)
    assert lease.amounts(AS_RESERVED) == (1.0, 40.0, 20.0)


def test_attempts_are_requests(lease: Lease) -> None:
    """The SDK's own retries count, where nothing else is known."""
    lease.attempts = 3
    assert lease.amounts(AS_RESERVED) == (3.0, 40.0, 20.0)


def test_outcomes(lease: Lease) -> None:
    """Without a word: as reserved; failed: the input; found in the result: that."""
    assert lease.outcome(None, failed=False) == AS_RESERVED
    assert lease.outcome(None, failed=True).used == Usage(1, 20, 0)
    assert lease.outcome(Usage(0, 3, 4), failed=False).used == Usage(1, 3, 4)
    lease.spent_inside()
    assert lease.outcome(Usage(1, 3, 4), failed=True).used == Usage()
    lease.record(input_tokens=0)
    assert lease.outcome(Usage(1, 3, 4), failed=True).used == Usage(1)


def test_what_is_recorded_adds_up(lease: Lease) -> None:
    """Counts, usages and responses, in any mixture."""
    lease.record(input_tokens=1, output_tokens=2, cached_tokens=1, reasoning_tokens=2)
    lease.record(Usage(2, 10, 20))
    lease.record({"usage": {"prompt_tokens": 100, "completion_tokens": 200}})
    lease.record(SimpleNamespace(usage=SimpleNamespace(input_tokens=1000, output_tokens=2000)))
    used = lease.outcome(None, failed=False).used
    assert used is not None
    assert (used.input_tokens, used.output_tokens) == (1111, 2222)
    assert (used.requests, used.cached_tokens, used.reasoning_tokens) == (4, 1, 2)


@pytest.mark.parametrize(
    ("said", "counts", "message"),
    [
        ("some text", {}, "no usage can be read from str"),
        ({"usage": None}, {}, "no usage can be read from dict"),
        ({"usage": {"prompt_tokens": "12", "completion_tokens": 3}}, {}, "no usage can be read"),
        (None, {"input_tokens": -1}, "counts are >= 0"),
        (Usage(1, 5, -5), {}, "counts are >= 0"),
    ],
)
def test_what_cannot_be_recorded(
    lease: Lease, said: Any, counts: dict[str, int], message: str
) -> None:
    """It is an error that says what would be right, and changes nothing."""
    with pytest.raises(ConfigurationError, match=message):
        lease.record(said, **counts)
    assert lease.outcome(None, failed=False) == AS_RESERVED


def test_a_lease_can_be_watched_and_goes() -> None:
    """Weak references to it work, and nothing keeps it once it is settled."""
    guard = Guard(limits=["10 requests/minute"])
    with guard.hold(user="u") as lease:
        pass
    ref = weakref.ref(lease)
    del lease
    gc.collect()
    assert ref() is None


def test_repr(lease: Lease) -> None:
    """It says whether it is open, and what it holds, and nothing of a prompt."""
    assert repr(lease) == "<Lease id open m reserved=(1.0, 40.0, 20.0)>"
    lease.close()
    assert "settled" in repr(lease)
