"""Carrying plans out: the only loops that block or await."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from ..errors import ConfigurationError
from .ops import Answer, Consult, Op
from .plan import Plan

T = TypeVar("T")


class Executor(Protocol):
    """The half of a backend that a driver needs."""

    def execute(self, op: Op) -> Answer: ...

    async def aexecute(self, op: Op) -> Answer: ...


def drive(plan: Plan[T], backend: Executor) -> T:
    """Carry a plan out, blocking; an error of an operation is the plan's to handle."""
    try:
        op = next(plan)
        while True:
            answer: Any
            try:
                answer = consulted(op) if isinstance(op, Consult) else backend.execute(op)
            except BaseException as error:  # noqa: BLE001  # the plan decides about it
                op = plan.throw(error)
            else:
                op = plan.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def adrive(plan: Plan[T], backend: Executor) -> T:
    """The same, awaiting."""
    try:
        op = next(plan)
        while True:
            answer: Any
            try:
                if isinstance(op, Consult):
                    answer = op.function(*op.args)
                    if hasattr(answer, "__await__"):
                        answer = await answer
                else:
                    answer = await backend.aexecute(op)
            except BaseException as error:  # noqa: BLE001  # the plan decides about it
                op = plan.throw(error)
            else:
                op = plan.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


def consulted(op: Consult) -> Any:
    """What somebody else says to a question, where nobody can await it.

    Raises:
        ConfigurationError: it would have to be awaited.
    """
    answer = op.function(*op.args)
    if hasattr(answer, "__await__"):
        if hasattr(answer, "close"):
            answer.close()
        raise ConfigurationError(
            f"{op.function!r} is a coroutine function, which a blocking call cannot await: "
            "use an async client, or pass a plain function"
        )
    return answer
