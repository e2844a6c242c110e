"""Whose turn it is in line: priorities, fair shares, slots of calls in flight; on every backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quotaguard.backends import Backend, open_backend
from quotaguard.backends.line import HEAD_START
from quotaguard.core.ops import (
    Adjust,
    Candidate,
    Change,
    Charge,
    Park,
    Queued,
    Release,
    Renew,
    Reservation,
    Reserve,
)
from quotaguard.core.plan import BEHIND_ALL
from quotaguard.identity import MOST_URGENT
from quotaguard.limits import Limit
from quotaguard.testing import FakeClock

from .crowd import PATIENT, Crowd

PLAIN = Limit.parse("60 tokens/minute")
FAIR = Limit.parse("6k tokens/minute per org shared fairly")
SLOTS = Limit.parse("2 concurrent per org")
USER, ACME = ("user", "acme", "ann"), ("org", "acme")


@pytest.fixture(params=["memory", "sqlite", "redis"])
def crowd(
    request: pytest.FixtureRequest, tmp_path: Path, open_redis: Callable[..., Any]
) -> Iterator[Crowd]:
    """Nobody yet, before empty books."""
    clock = FakeClock()
    backend: Backend
    if request.param == "redis":
        backend = open_redis(request.getfixturevalue("server").url, clock=clock)
    else:
        url = f"sqlite:///{tmp_path}/q.db" if request.param == "sqlite" else "memory://"
        backend = open_backend(url, clock)
    yield Crowd(backend, clock)
    backend.close()


def tokens(amount: float, limit: Limit = PLAIN) -> Charge:
    """A charge of so many tokens."""
    return Charge(USER if limit.scope == "user" else ACME, limit, amount, amount, 0.0)


def slot() -> Charge:
    """A charge of one slot."""
    return Charge(ACME, SLOTS, 1.0, 1.0, 0.0)


def test_who_is_urgent_goes_first(crowd: Crowd) -> None:
    """A person who waits for an answer is served before a job that came earlier."""
    crowd.come(tokens(60))
    for name, priority in (("job", -1), ("plain", 0), ("person", 1), ("fraction", 0.5)):
        crowd.come(tokens(10), name=name, priority=priority)
    crowd.wait(60)
    assert crowd.order[1:] == ["person", "fraction", "plain", "job"]


def test_nobody_waits_for_ever_for_the_urgent(crowd: Crowd) -> None:
    """A unit of priority is a head start of half a minute, not a right to pass for ever."""
    crowd.come(tokens(60))
    crowd.come(tokens(60), name="job")
    crowd.wait(HEAD_START + 1)
    crowd.come(tokens(10), name="late", priority=1)
    crowd.wait(1000)
    assert crowd.order[1:] == ["job", "late"]


def test_who_lets_everybody_pass_is_served_last(crowd: Crowd) -> None:
    """`Wait(fair=False)` takes what those in line leave."""
    crowd.come(tokens(60))
    crowd.come(tokens(20), name="modest", priority=BEHIND_ALL)
    for number in range(4):
        crowd.wait(5)
        crowd.come(tokens(10), name=f"{number}")
    crowd.wait(200)
    assert crowd.order[1:] == ["0", "1", "2", "3", "modest"]


def saturate(crowd: Crowd, weights: dict[str, float], each: float, seconds: float) -> None:
    """Every flow has four calls in line at any time."""

    def again(op: Reserve) -> None:
        crowd.come(tokens(each, FAIR), flow=op.flow, weight=op.weight)

    for flow, weight in weights.items():
        for _ in range(4):
            crowd.come(tokens(each, FAIR), flow=flow, weight=weight)
    crowd.admitted = again
    crowd.wait(seconds)


def test_shares_are_in_proportion_to_weights(crowd: Crowd) -> None:
    """Three tenants of 1, 2 and 5 get as much of what all want, within a twentieth."""
    crowd.come(tokens(6000, FAIR))
    saturate(crowd, {"one": 1.0, "two": 2.0, "five": 5.0}, 50.0, 120.0)
    whole = sum(crowd.taken[flow] for flow in ("one", "two", "five"))
    assert whole == pytest.approx(12_000, rel=0.01)
    for flow, weight in (("one", 1), ("two", 2), ("five", 5)):
        assert crowd.taken[flow] == pytest.approx(whole * weight / 8, rel=0.05)


def test_a_newcomer_is_served_in_its_share_of_a_period(crowd: Crowd) -> None:
    """Those who have been many for long do not keep out who comes now."""
    crowd.come(tokens(6000, FAIR))
    saturate(crowd, {"one": 1.0, "two": 1.0}, 50.0, 60.0)
    began = crowd.clock.now()
    crowd.come(tokens(50, FAIR), name="new", flow="three")
    while "new" not in crowd.order:
        crowd.wait(0.1)
    assert crowd.clock.now() - began <= 3 * 50 / FAIR.rate + 0.2


@pytest.mark.parametrize("order", [1, -1])
def test_who_gives_up_does_not_pay(crowd: Crowd, order: int) -> None:
    """Calls of a flow that left the line do not count as its share, in whatever order they left."""
    crowd.come(tokens(6000, FAIR))
    for _ in range(6):
        crowd.come(tokens(100, FAIR), flow="one")
    left = [crowd.come(tokens(100, FAIR), flow="two") for _ in range(5)]
    for id in left[::order]:
        crowd.leave(id)
    crowd.come(tokens(100, FAIR), name="two's", flow="two")
    crowd.wait(60)
    assert crowd.order.index("two's") <= 2


@pytest.mark.parametrize("url", ["memory://", "sqlite:///q.db"])
def test_what_comes_back_reaches_past_who_waits_for_another_bucket(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first in line cannot use it yet; those behind it need not sleep until it can."""
    monkeypatch.chdir(tmp_path)
    clock = FakeClock()
    backend = open_backend(url, clock)

    def come(name: str, patience: float, *charges: Charge) -> object:
        return backend.execute(Reserve(name, (Candidate(None, charges),), 1e7, patience))

    one = Charge(USER, Limit.parse("1 requests/minute"), 1.0, 1.0, 0.0)
    come("taken", 0.0, tokens(60), one)
    assert isinstance(come("both", 100.0, tokens(30), one), Queued)  # 30 s, and 60 s
    answer = come("next", 100.0, tokens(10))
    assert isinstance(answer, Queued)
    assert answer.wait == pytest.approx(40)
    began = clock.now()
    backend.execute(Adjust("gift", (Change(USER, PLAIN, 20.0),)))
    backend.execute(Park("next", answer.wait))
    assert clock.now() - began == pytest.approx(20)
    assert isinstance(come("next", 80.0, tokens(10)), Reservation)
    backend.close()


@pytest.mark.parametrize("url", ["memory://", "sqlite:///q.db"])
def test_who_is_let_in_by_its_own_question_asks_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks leaves the line for a moment, and then those before it may turn out to wait for
    another bucket: it is rung for before it lies down, and must not sleep through that.
    """
    monkeypatch.chdir(tmp_path)
    clock = FakeClock()
    backend = open_backend(url, clock)

    def come(name: str, patience: float, *charges: Charge) -> object:
        return backend.execute(Reserve(name, (Candidate(None, charges),), 1e7, patience))

    slow = Limit.parse("3 requests/minute")
    one = Charge(USER, slow, 1.0, 1.0, 0.0)
    come("taken", 0.0, tokens(10), one._replace(amount=3.0, least=3.0))
    assert isinstance(come("both", 100.0, tokens(55), one), Queued)  # 5 s, and 20 s
    assert isinstance(come("next", 100.0, tokens(8)), Queued)  # 13 s: both would be there
    clock.advance(13)
    answer = come("next", 87.0, tokens(8))
    began = clock.now()
    if isinstance(answer, Queued):
        backend.execute(Park("next", answer.wait))
        answer = come("next", 87.0, tokens(8))
    assert isinstance(answer, Reservation)
    assert clock.now() == began
    backend.close()


def test_repeating_what_was_admitted_costs_no_share(crowd: Crowd) -> None:
    """A lost reply makes a caller repeat itself; its user's next call is not put back for that."""
    crowd.come(tokens(6000, FAIR))
    for _ in range(12):
        crowd.come(tokens(100, FAIR), flow="one")
    crowd.come(tokens(100, FAIR), name="two's", flow="two")
    while "two's" not in crowd.order:
        crowd.wait(0.5)
    candidate = Candidate(None, (tokens(100, FAIR),))
    for _ in range(20):
        crowd.backend.execute(Reserve("two's", (candidate,), 1e7, PATIENT, None, 0.0, "two", 1.0))
    before = len(crowd.order)
    crowd.come(tokens(100, FAIR), name="again", flow="two")
    crowd.wait(60)
    assert crowd.order.index("again") <= before + 1


@pytest.mark.parametrize("flow", ["", "\x1f\ud800\x00", "a" * 70_000])
def test_flows_have_any_name(crowd: Crowd, flow: str) -> None:
    """Whatever a user is called, it gets its share beside another."""
    crowd.come(tokens(6000, FAIR))
    saturate(crowd, {flow: 1.0, "other": 1.0}, 100.0, 60.0)
    crowd.taken[flow] -= 6000 if not flow else 0  # type: ignore[assignment]  # the first call's
    assert crowd.taken[flow] == pytest.approx(crowd.taken["other"], rel=0.05)


@pytest.mark.parametrize("limit", [PLAIN, FAIR])
def test_the_most_and_the_least_urgent_keep_their_order(crowd: Crowd, limit: Limit) -> None:
    """Doubles tell apart who came first, however early their turn comes."""
    crowd.come(tokens(limit.ceiling, limit))
    each = limit.ceiling / 10
    for name, priority in (("z", BEHIND_ALL), ("y", -MOST_URGENT), ("b", 0.0), ("a", MOST_URGENT)):
        for number in range(3):
            crowd.come(tokens(each, limit), name=f"{name}{number}", priority=priority)
    crowd.wait(200)
    assert crowd.order[1:] == [f"{name}{number}" for name in "abyz" for number in range(3)]


def test_an_urgent_call_goes_before_its_own_users_others(crowd: Crowd) -> None:
    """In a fair line, too, a user's person is served before the user's job."""
    crowd.come(tokens(6000, FAIR))
    for number in range(4):
        crowd.come(tokens(100, FAIR), name=f"job {number}", flow="one")
    crowd.come(tokens(100, FAIR), name="person", flow="one", priority=1)
    crowd.wait(60)
    assert crowd.order[1] == "person"


def test_no_more_are_in_flight_than_there_are_slots(crowd: Crowd) -> None:
    """Who ends lets the next in, whatever it used; those in line come in order."""
    for name in ("a", "b", "c", "d"):
        crowd.come(slot(), tokens(1), name=name)
    assert crowd.order == ["a", "b"]
    crowd.settle("b", 1.0, 40.0)
    assert crowd.order == ["a", "b", "c"]
    crowd.settle("a", 1.0, 0.0)
    assert crowd.order == ["a", "b", "c", "d"]


def test_a_dead_calls_slot_comes_back(crowd: Crowd) -> None:
    """Its lease ends; one that is renewed goes on."""
    crowd.come(slot(), name="a", lease=30.0)
    crowd.come(slot(), name="b", lease=30.0)
    crowd.come(slot(), name="c")
    crowd.wait(20)
    assert crowd.backend.execute(Renew("a", 30.0)) is True
    crowd.wait(11)
    assert crowd.order == ["a", "b", "c"]
    crowd.come(slot(), name="d")
    crowd.wait(18)
    assert crowd.order == ["a", "b", "c"]
    crowd.wait(2)
    assert crowd.order == ["a", "b", "c", "d"]


def test_a_slot_that_was_not_used_is_free(crowd: Crowd) -> None:
    """A released reservation leaves nothing behind."""
    crowd.come(slot(), name="a")
    crowd.come(slot(), name="b")
    crowd.backend.execute(Release("a"))
    crowd.come(slot(), name="c")
    assert crowd.order == ["a", "b", "c"]
