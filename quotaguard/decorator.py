"""`token_limited`: a quota around any function that calls an LLM."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar

import wrapt

from .core.lease import Lease
from .core.plan import Plan
from .engine import Engine
from .errors import ConfigurationError
from .guard import Guard
from .hold import Hold
from .identity import Identity, name
from .providers import usage_of
from .usage import Usage

P = ParamSpec("P")
R = TypeVar("R")

Who: TypeAlias = "str | Callable[..., str | None] | None"
Count: TypeAlias = "int | Callable[..., int | None] | None"


def token_limited(
    guard: Guard,
    *,
    user: Who = None,
    tier: Who = None,
    org: Who = None,
    model: Who = None,
    input_tokens: Count = 0,
    output_tokens: Count = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Reserve before each call of the function, settle after it.

    It works on functions, coroutine functions, generators, async generators, methods and class
    methods, and keeps their signature, documentation and kind. Each argument is a value, or a
    callable that is given the call's arguments by name: ``user=lambda user_id, **_: user_id``.

    What the function spends through clients of the same guard is charged once, by them. Else the
    usage is read from what it returns (a provider's response), or from what it says to its lease,
    which it gets if it has a parameter named ``lease`` that the caller leaves out; else it is
    charged as reserved.

    Args:
        guard: whose limits hold.
        user, tier, org: whom a call is charged to.
        model: the model it will use, for limits and tiers by model; with a fallback,
            ``lease.model`` is the one to use instead.
        input_tokens: estimate of its input, in tokens.
        output_tokens: the most that its output may have; None: a guess that never refuses.

    Raises:
        QuotaExceeded, RequestTooLarge, ModelNotAllowed, BackendError: from the decorated function,
            before it runs.
        ConfigurationError: an argument is wrong.
    """
    if not isinstance(guard, Guard):
        raise ConfigurationError(
            f"token_limited takes a Guard first, as in @token_limited(guard), not {guard!r}"
        )
    asked = {
        "user": user,
        "org": org,
        "tier": tier,
        "model": model,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
    }

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        return _decorated(function, guard, asked)

    return decorate


def _decorated(function: Callable[P, R], guard: Guard, asked: dict[str, Any]) -> Callable[P, R]:
    plain = function.__func__ if isinstance(function, (classmethod, staticmethod)) else function
    parameters = inspect.signature(plain).parameters
    for what, value in asked.items():
        if isinstance(value, str) and value in parameters:
            raise ConfigurationError(
                f"{what}={value!r} is the name of a parameter of {plain.__qualname__}; to take "
                f"its value write {what}=lambda {value}, **_: {value}"
            )
    readers = {what: _reader(value) for what, value in asked.items()}
    wants_lease = "lease" in parameters

    def prepare(call: Callable[..., Any], instance: object, args: Any, kwargs: Any) -> _Prepared:
        lend = wants_lease and not _gives_lease(call, args, kwargs)
        given = {**kwargs, "lease": None} if lend else kwargs  # lent once there is one
        arguments = _by_name(call, instance, args, given)  # a wrong call reserves nothing
        told = {what: read(arguments) for what, read in readers.items()}
        who = Identity(
            name(told["user"], "user"), name(told["org"], "org"), name(told["tier"], "tier")
        )
        hold = Hold(
            guard,
            who,
            name(told["model"], "model"),
            told["input_tokens"] or 0,
            told["output_tokens"],
        )
        return _Prepared(
            hold,
            lambda lease: call(*args, **kwargs, lease=lease) if lend else call(*args, **kwargs),
        )

    run: Callable[[_Prepared], Any] = _call
    if inspect.isasyncgenfunction(plain):
        run = _agenerate
    elif inspect.isgeneratorfunction(plain):
        run = _generate
    elif inspect.iscoroutinefunction(plain):
        run = _acall

    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return run(prepare(wrapped, instance, args, kwargs))

    decorated: Any = function
    return wrapt.decorator(wrapper)(decorated)


class _Prepared(NamedTuple):
    """One call of a decorated function."""

    hold: Hold
    start: Callable[[Lease], Any]


def _call(call: _Prepared) -> Any:
    hold, guard = call.hold, call.hold.guard
    lease = hold.begin(guard.run(hold.admission()))
    try:
        with hold.inside():
            result = call.start(lease)
    except BaseException as error:
        _run(guard, hold.ending(error))
        raise
    _run(guard, hold.ending(None, usage_of(result)))
    return result


async def _acall(call: _Prepared) -> Any:
    hold, guard = call.hold, call.hold.guard
    lease = hold.begin(await guard.arun(hold.admission()))
    try:
        with hold.inside():
            result = await call.start(lease)
    except BaseException as error:
        await _arun(guard, hold.ending(error))
        raise
    await _arun(guard, hold.ending(None, usage_of(result)))
    return result


def _run(guard: Engine, plan: Plan[None] | None) -> None:
    if plan is not None:
        guard.finish(plan)


async def _arun(guard: Engine, plan: Plan[None] | None) -> None:
    if plan is not None:
        await guard.afinish(plan)


def _generate(call: _Prepared) -> Generator[Any, Any, Any]:
    """A generator whose every step runs inside the hold, and nothing of its consumer does."""
    hold = call.hold
    found: Usage | None = None
    generator = call.start(hold.begin(hold.guard.run(hold.admission())))
    step: Callable[[], Any] = functools.partial(next, generator)
    try:
        while True:
            try:
                with hold.inside():
                    item = step()
            except StopIteration as stop:
                found = usage_of(stop.value) or found
                _run(hold.guard, hold.ending(None, found))
                return stop.value
            found = usage_of(item) or found
            try:
                sent = yield item
            except GeneratorExit:
                with hold.inside():
                    generator.close()
                raise
            except BaseException as thrown:  # noqa: BLE001  # the generator's to handle
                step = functools.partial(generator.throw, thrown)
            else:
                step = functools.partial(generator.send, sent)
    except BaseException as error:
        _run(hold.guard, hold.ending(error, found))
        raise


async def _agenerate(call: _Prepared) -> AsyncGenerator[Any, Any]:
    """The same for an async generator."""
    hold = call.hold
    found: Usage | None = None
    generator = call.start(hold.begin(await hold.guard.arun(hold.admission())))
    step: Callable[[], Any] = functools.partial(generator.asend, None)
    try:
        while True:
            try:
                with hold.inside():
                    item = await step()
            except StopAsyncIteration:
                await _arun(hold.guard, hold.ending(None, found))
                return
            found = usage_of(item) or found
            try:
                sent = yield item
            except GeneratorExit:
                with hold.inside():
                    await generator.aclose()
                raise
            except BaseException as thrown:  # noqa: BLE001  # the generator's to handle
                step = functools.partial(generator.athrow, thrown)
            else:
                step = functools.partial(generator.asend, sent)
    except BaseException as error:
        await _arun(hold.guard, hold.ending(error, found))
        raise


def _reader(value: object) -> Callable[[dict[str, Any]], Any]:
    """How to get an argument's value for a call whose arguments are given by name."""
    if not callable(value):
        return lambda _: value
    takes = inspect.signature(value).parameters
    if any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        return lambda arguments: value(**arguments)
    return lambda arguments: value(**{key: arguments[key] for key in takes if key in arguments})


def _gives_lease(call: Callable[..., Any], args: Any, kwargs: Any) -> bool:
    return "lease" in inspect.signature(call).bind_partial(*args, **kwargs).arguments


def _by_name(call: Callable[..., Any], instance: object, args: Any, kwargs: Any) -> dict[str, Any]:
    """A call's arguments by the names of the parameters, defaults included; ``self`` (or ``cls``)
    too for methods.
    """
    bound = inspect.signature(call).bind(*args, **kwargs)
    bound.apply_defaults()
    arguments: dict[str, Any] = {}
    for key, value in bound.arguments.items():
        if bound.signature.parameters[key].kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(value)
        else:
            arguments[key] = value
    if instance is not None:
        arguments.setdefault("cls" if isinstance(instance, type) else "self", instance)
    return arguments
