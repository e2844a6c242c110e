"""The decisions of a call's life, step by step, with answers made up."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import pytest

from quotaguard import (
    BackendError,
    Fallback,
    Identity,
    Limit,
    QuotaExceeded,
    Refuse,
    RequestTooLarge,
    Usage,
    Wait,
)
from quotaguard.core.ask import Ask, Option
from quotaguard.core.drive import adrive, drive
from quotaguard.core.lease import AS_RESERVED, Demand, Lease, Outcome
from quotaguard.core.ops import (
    Candidate,
    Charge,
    Op,
    Park,
    Queued,
    Refusal,
    Release,
    Renew,
    Reservation,
    Reserve,
    Settle,
    Settled,
    Shortfall,
)
from quotaguard.core.plan import SHORTEST_PARK, Plan, admit, renew, settle, whose
from quotaguard.events import BackendFailed, Event, FellBack, Teller, Waited
from quotaguard.policies import Policy
from quotaguard.testing import FakeClock

ALICE = Identity("alice", None, "free")
OWNER = ("user", "", "alice")
LIMIT = Limit(100, "tokens", 60)
CHARGE = Charge(OWNER, LIMIT, 30.0, 20.0, 20.0)


class Call:
    """One call's plan, and what comes of it."""

    def __init__(self, *policies: Policy, on_backend_error: str = "refuse") -> None:
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.left_over: list[Op] = []
        self.counted: list[str | None] = []
        ask = Ask(
            "id",
            ALICE,
            "large",
            self.option,
            lambda model: model != "forbidden",
            policies,
            900.0,
            on_backend_error,
        )
        self.plan: Plan[Lease] = admit(
            ask, self.clock.now, Teller([self.events.append]), self.left_over.append
        )

    def option(self, model: str | None, via: Fallback | None, untouched: float) -> Option:
        """How a model would serve it."""
        self.counted.append(model)
        return Option(Demand(20, 10, hard=False), Candidate(model, (CHARGE,)))

    def steps(self, *answers: Any) -> list[Op]:
        """The operations, each answered by the next answer (an exception: thrown in)."""
        ops = [next(self.plan)]
        for answer in answers:
            if isinstance(answer, BaseException):
                ops.append(self.plan.throw(answer))
            else:
                ops.append(self.plan.send(answer))
        return ops

    def result(self, answer: Any) -> Lease:
        """What the plan comes to with its last answer."""
        with pytest.raises(StopIteration) as stop:
            self.plan.send(answer)
        assert isinstance(stop.value.value, Lease)
        return stop.value.value


def refusal(*waits: float) -> Refusal:
    """One candidate for each wait."""
    return Refusal(tuple((Shortfall(CHARGE, 5.0, wait),) for wait in waits))


def made(choice: int = 0) -> Reservation:
    """An admission of that candidate."""
    passed = ((Shortfall(CHARGE, 5.0, 9.0),),) * choice
    return Reservation("id", choice, (30.0,), (70.0,), passed)


def models(op: Op) -> list[str | None]:
    """Which candidates go along."""
    assert isinstance(op, Reserve)
    return [candidate.model for candidate in op.candidates]


# -- policies --------------------------------------------------------------------------------------


def test_admitted_at_once() -> None:
    """One operation, and the lease knows what it holds."""
    call = Call()
    (op,) = call.steps()
    assert op == Reserve("id", (Candidate("large", (CHARGE,)),), 900.0, 0.0, None)
    lease = call.result(made())
    assert (lease.id, lease.model, lease.requested, lease.because) == ("id", "large", "large", None)
    assert (lease.granted, lease.left, lease.waited) == ((30.0,), {"100 tokens/minute": 70.0}, 0)


@pytest.mark.parametrize("policies", [(), (Refuse(),)])
def test_refused(policies: tuple[Policy, ...]) -> None:
    """The error says all: who, which limit, how much, when."""
    call = Call(*policies)
    call.steps()
    with pytest.raises(QuotaExceeded) as caught:
        call.plan.send(refusal(12.0))
    error = caught.value
    assert not isinstance(error, RequestTooLarge)
    assert error.as_dict() == {
        "who": "user alice",
        "limit": "100 tokens/minute",
        "metric": "tokens",
        "asked": 20.0,
        "left": 5.0,
        "capacity": 100.0,
        "retry_after": 12.0,
        "model": "large",
    }
    assert call.left_over == []


def test_refused_for_good() -> None:
    """What can never fit is another error."""
    call = Call(Wait(100))
    call.steps()
    with pytest.raises(RequestTooLarge) as caught:
        call.plan.send(refusal(math.inf))
    assert caught.value.retry_after == math.inf


def test_fallbacks_go_along() -> None:
    """All candidates are in one operation; the model asked for and those not allowed are not
    candidates again.
    """
    call = Call(Fallback("small", "large", "forbidden"), Fallback("tiny"))
    (op,) = call.steps()
    assert models(op) == ["large", "small", "tiny"]
    lease = call.result(made(2))
    assert (lease.model, lease.requested, lease.because) == ("tiny", "large", "100 tokens/minute")
    (told,) = [event for event in call.events if isinstance(event, FellBack)]
    assert (told.served, told.limit) == ("tiny", "100 tokens/minute")


def test_policies_in_order() -> None:
    """A wait before a fallback waits for the first model alone; after it, for either."""
    call = Call(Wait(10, backoff=None), Fallback("small"), Wait(30, backoff=None), Refuse())
    ops = call.steps(refusal(20.0), Queued(refusal(25.0, 12.0), 12.0), None)
    assert [models(op) for op in (ops[0], ops[1], ops[3])] == [["large"], *[["large", "small"]] * 2]
    assert [op.patience for op in ops if isinstance(op, Reserve)] == [10.0, 30.0, 30.0]
    assert ops[2] == Park("id", 12.0)
    assert call.counted == ["large", "small"]
    with pytest.raises(QuotaExceeded):  # no third question: the last one was asked in line
        call.plan.send(refusal(40.0))


def test_patience_shrinks_while_one_waits() -> None:
    """Each question says how much longer the caller would wait, and no pause is longer."""
    call = Call(Wait(30, backoff=None))
    ops = call.steps(Queued(refusal(20.0), 20.0))
    call.clock.advance(18)
    ops.append(call.plan.send(None))
    ops.append(call.plan.send(Queued(refusal(50.0), 50.0)))
    call.clock.advance(13)
    ops.append(call.plan.send(None))
    assert [op.patience for op in ops if isinstance(op, Reserve)] == [30.0, 12.0, 0.0]
    assert [op.seconds for op in ops if isinstance(op, Park)] == [20.0, 12.0]
    lease = call.result(made())
    assert lease.waited == 31


def test_nobody_spins() -> None:
    """Told to come back at once, a caller still takes a moment."""
    call = Call(Wait(30, backoff=None))
    ops = call.steps(Queued(refusal(0.0), 0.0))
    assert ops[-1] == Park("id", SHORTEST_PARK)


# -- what goes wrong -------------------------------------------------------------------------------


def test_the_backend_is_away() -> None:
    """By default the call is refused; that the lost reply was an admission is made good later."""
    call = Call()
    call.steps()
    with pytest.raises(BackendError, match="gone"):
        call.plan.throw(BackendError("gone"))
    (event,) = call.events
    assert isinstance(event, BackendFailed)
    assert event.outcome == "refused"
    assert call.left_over == [Release("id")]


def test_the_backend_is_away_and_calls_are_allowed() -> None:
    """Then the call goes uncounted, and has nothing to settle."""
    call = Call(on_backend_error="allow")
    call.steps()
    with pytest.raises(StopIteration) as stop:
        call.plan.throw(BackendError("gone"))
    lease = stop.value.value
    assert (lease.model, lease.charges, lease.demand.input_tokens) == ("large", (), 20)
    with pytest.raises(StopIteration):
        next(settle(lease, AS_RESERVED, Teller([]), call.left_over.append))


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), ValueError("x")])
def test_interrupted_between_send_and_reply(error: BaseException) -> None:
    """Nobody will use the answer, so it is given back, and the error goes on."""
    call = Call()
    assert call.steps(error)[-1] == Release("id")
    with pytest.raises(type(error)):
        call.plan.send(None)
    assert call.left_over == []


def test_interrupted_in_line() -> None:
    """The place in line is given up, and hooks learn how long it was held."""
    call = Call(Wait(30))
    call.steps(Queued(refusal(20.0), 20.0))
    call.clock.advance(5)
    assert call.plan.throw(asyncio.CancelledError()) == Release("id")
    with pytest.raises(asyncio.CancelledError):
        call.plan.send(None)
    told = call.events[-1]
    assert isinstance(told, Waited)
    assert (told.seconds, told.admitted) == (5, False)


@pytest.mark.parametrize(
    ("first", "second", "raised"),
    [
        (asyncio.CancelledError(), BackendError("gone"), asyncio.CancelledError),
        (ValueError("x"), BackendError("gone"), ValueError),
        (ValueError("x"), asyncio.CancelledError(), asyncio.CancelledError),
        (asyncio.CancelledError(), KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_interrupted_twice(
    first: BaseException, second: BaseException, raised: type[BaseException]
) -> None:
    """What cannot be given back now is later; a backend that is away hides no cancellation."""
    call = Call()
    call.steps(first)
    with pytest.raises(raised):
        call.plan.throw(second)
    assert call.left_over == [Release("id")]


def test_thrown_away() -> None:
    """A plan that is closed where it stands leaves an errand, and asks for nothing more."""
    call = Call(Wait(30))
    call.steps(Queued(refusal(20.0), 20.0))
    call.plan.close()
    assert call.left_over == [Release("id")]


# -- settling --------------------------------------------------------------------------------------


@pytest.fixture
def lease() -> Iterator[Lease]:
    """An admitted call."""
    call = Call()
    call.steps()
    return call.result(made())


def test_settling(lease: Lease) -> None:
    """What was used is charged, and the lease knows what was left then."""
    plan = settle(lease, Outcome(Usage(1, 5, 7)), Teller([]), [].append)
    assert next(plan) == Settle("id", (12.0,))
    with pytest.raises(StopIteration):
        plan.send(Settled(True, False, (88.0,)))
    assert (lease.used, lease.left) == (Usage(1, 5, 7), {"100 tokens/minute": 88.0})


@pytest.mark.parametrize("error", [BackendError("gone"), asyncio.CancelledError()])
def test_a_settle_that_did_not_arrive_is_sent_again(lease: Lease, error: BaseException) -> None:
    """The user has its answer: a backend that is away now is told later."""
    left_over: list[Op] = []
    plan = settle(lease, AS_RESERVED, Teller([]), left_over.append)
    op = next(plan)
    expected = StopIteration if isinstance(error, BackendError) else type(error)
    with pytest.raises(expected):
        plan.throw(error)
    assert left_over == [op]


def test_renewing_without_a_backend(lease: Lease) -> None:
    """A stream goes on; at worst its lease ends."""
    plan = renew(lease, 60.0)
    assert next(plan) == Renew("id", 60.0)
    with pytest.raises(StopIteration):
        plan.throw(BackendError("gone"))


def test_owners_for_people() -> None:
    """Errors name whose bucket it is."""
    assert whose(("user", "", "alice")) == "user alice"
    assert whose(("user", "acme", "alice")) == "user alice of org acme"
    assert whose(("org", "acme")) == "org acme"
    assert whose(("global",)) == "everyone together"


# -- drivers ---------------------------------------------------------------------------------------


class Echo:
    """An executor that answers an operation with itself, or fails."""

    def __init__(self, fail_on: object = None) -> None:
        self.fail_on = fail_on
        self.done: list[Any] = []

    def execute(self, op: Any) -> Any:
        """Answer, blocking."""
        self.done.append(op)
        if op == self.fail_on:
            raise BackendError(str(op))
        return op

    async def aexecute(self, op: Any) -> Any:
        """Answer, awaiting."""
        await asyncio.sleep(0)
        return self.execute(op)


def carry_out(mode: str, plan: Plan[Any], echo: Echo) -> Any:
    """By either driver."""
    return drive(plan, echo) if mode == "sync" else asyncio.run(adrive(plan, echo))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_drivers(mode: str) -> None:
    """Answers are sent in and errors thrown in where the operation was yielded."""

    def plan() -> Plan[Any]:
        answers: list[Any] = [(yield Release("a"))]
        try:
            yield Release("b")
        except BackendError:
            answers.append((yield Release("c")))
        return answers

    echo = Echo(fail_on=Release("b"))
    assert carry_out(mode, plan(), echo) == [Release("a"), Release("c")]
    assert echo.done == [Release("a"), Release("b"), Release("c")]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_drivers_let_errors_through(mode: str) -> None:
    """What a plan does not handle reaches the caller; a plan may have no operation at all."""

    def failing() -> Plan[Any]:
        yield Release("a")

    def empty() -> Plan[str]:
        yield from ()
        return "done"

    with pytest.raises(BackendError):
        carry_out(mode, failing(), Echo(fail_on=Release("a")))
    assert carry_out(mode, empty(), Echo()) == "done"
