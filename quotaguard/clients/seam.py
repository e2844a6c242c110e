"""The seam: where a guarded client meets its SDK, whichever it is.

Every HTTP call of both SDKs ends in ``client.request(cast_to, options, ...)``. `SyncSeam` and
`AsyncSeam` stand first in a guarded class's bases and override it: reserve, make the call, settle
with what came back. Everything else of the client stays the SDK's.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..config import default_guard, private_guard
from ..core.lease import Lease
from ..errors import ConfigurationError, ModelNotAllowed, QuotaExceeded, UnmeteredEndpoint
from ..guard import Guard
from ..identity import Identity, Who, name, urgency
from .call import Call, Sdk, intercept

QUOTA_ARGUMENTS = ("guard", "limits", "user", "tier", "org", "fallback", "priority")
"""What a guarded client's constructor, ``copy`` and ``with_options`` take besides the SDK's own."""


class Binding(NamedTuple):
    """What makes a client guarded: its guard, and whom it acts for."""

    guard: Guard
    user: Who = None
    tier: Who = None
    org: Who = None
    fallback: bool = True
    """Whether another model may serve its calls."""
    priority: float | None = None
    """How early the turn of its calls comes in line."""
    fixed: Identity | None = None
    """Whom it acts for, unless a callable has to be asked."""

    def identity(self) -> Identity:
        """Whom it acts for now."""
        if self.fixed is not None:
            return self.fixed
        return Identity(name(self.user, "user"), name(self.org, "org"), name(self.tier, "tier"))


def bind(arguments: Mapping[str, Any], inherited: Binding | None = None) -> Binding:
    """The binding that some of `QUOTA_ARGUMENTS` ask for; what they leave out is inherited, or the
    default guard's.

    Raises:
        ConfigurationError: an argument is wrong, or ``guard`` and ``limits`` are both given.
    """
    given = {key: value for key, value in arguments.items() if value is not None}
    for key in ("user", "tier", "org"):
        if not callable(given.get(key)):
            name(given.get(key), key)
    urgency(given.get("priority"))
    if not isinstance(given.get("fallback", True), bool):
        raise ConfigurationError(f"fallback= is True or False, not {given['fallback']!r}")
    if "limits" in given:
        if "guard" in given:
            raise ConfigurationError("pass guard= or limits=, not both")
        given["guard"] = private_guard(given.pop("limits"))
    if "guard" in given and not isinstance(given["guard"], Guard):
        raise ConfigurationError(f"guard= is a quotaguard.Guard, not {given['guard']!r}")
    if inherited is None:
        inherited = Binding(given.get("guard") or default_guard())
    binding = inherited._replace(**given)
    asked = any(callable(who) for who in (binding.user, binding.tier, binding.org))
    return binding._replace(fixed=None if asked else binding._replace(fixed=None).identity())


_in_flight: ContextVar[Lease | None] = ContextVar("quotaguard_in_flight", default=None)
"""The lease of the request that is being made, for counting the SDK's own retries."""


def _stands_for(cls: type) -> type | None:
    return cls.__dict__.get("_quotaguard_stands_for")


def _plain(client: Any, base: type) -> Any:
    """The same client, state and all, as the SDK's own class: the SDKs ask for their exact class,
    for example before they look for credentials or copy them.
    """
    plain: Any = object.__new__(base)
    plain.__dict__ = client.__dict__
    return plain


def _count_attempt() -> None:
    lease = _in_flight.get()
    if lease is not None:
        lease.attempts += 1


def _hear(response: Any) -> None:
    lease = _in_flight.get()
    if lease is not None and lease.listener is not None:
        lease.listener.hear(lease, response)


def _signed(ours: Any, theirs: Any) -> Any:
    """Our function with the SDK's signature and documentation: the stubs tell of our arguments, and
    who compares signatures (the SDKs' own tests do) finds the SDK's.
    """

    @functools.wraps(theirs)
    def function(*args: Any, **kwargs: Any) -> Any:
        return ours(*args, **kwargs)

    return function


def _take_over(client: Any, former: Any, binding: Binding) -> None:
    """Make a client, built by the SDK's own class as ``former``, a guarded one."""
    client._quotaguard = binding
    _rebuild_resources(client, former)
    if hasattr(client, "_build_middleware_chain"):  # its closures hold the one that built it
        client._middleware_chain = client._build_middleware_chain()
    if binding.guard.strict:
        _close_sockets(client)


def _rebuild_resources(client: Any, former: Any) -> None:
    """Resources hold the client they were made by. Recent SDKs make them when they are asked for,
    older ones at once.
    """
    if client is former:
        return
    cached = {
        key
        for each in type(client).__mro__
        for key, value in vars(each).items()
        if isinstance(value, functools.cached_property)
    }
    wrappers = {}
    for key, value in list(vars(client).items()):
        if key in cached and _holds(value, former):
            del client.__dict__[key]
        elif type(value).__name__.endswith(("WithRawResponse", "WithStreamedResponse")):
            wrappers[key] = type(value)
        elif hasattr(value, "_client") and hasattr(value, "_get_api_list"):
            setattr(client, key, type(value)(client))
    for key, wrapper in wrappers.items():  # they hold resources
        setattr(client, key, wrapper(client))


def _holds(value: object, client: object) -> bool:
    return any(part is client for part in getattr(value, "__dict__", {}).values())


def no_socket(*_: Any, **__: Any) -> Any:
    """What a strict guard has in the place of ``connect``.

    Raises:
        UnmeteredEndpoint: always.
    """
    raise UnmeteredEndpoint("what a web socket spends cannot be metered; the guard is strict")


def sockets(client: Any, sdk: Sdk) -> Iterator[Any]:
    """The resources of a client that open web sockets, as far as its version has them."""
    for path in sdk.provider.sockets:
        with suppress(AttributeError):
            resource = attrgetter(path)(client)
            if hasattr(resource, "connect"):
                yield resource


def _close_sockets(client: Any) -> None:
    """Strict: what a web socket spends cannot be metered, so it may not be opened."""
    for resource in sockets(client, client._quotaguard_sdk):
        resource.connect = no_socket


class _Seam:
    """What both kinds of client share."""

    __slots__ = ()  # the layout stays the SDK class's, see __init__

    _quotaguard: Binding
    _quotaguard_sdk: ClassVar[Sdk]
    _quotaguard_stands_for: ClassVar[type]
    """The SDK class whose place the class takes; subclasses of users have none of their own."""

    if not TYPE_CHECKING:  # for type checkers these are the SDK's

        def __init__(self, *args, **kwargs):
            quota = {key: kwargs.pop(key, None) for key in QUOTA_ARGUMENTS}
            binding = bind(quota)
            base = _stands_for(type(self))
            former = self
            if base is None:
                super().__init__(*args, **kwargs)
            else:
                former = _plain(self, base)
                base.__init__(former, *args, **kwargs)
            _take_over(self, former, binding)

        def copy(self, *args, **kwargs):
            """The SDK's ``copy``: a new client with the same options, but for those given here.

            The guard and the identity are options too.
            """
            quota = {key: kwargs.pop(key, None) for key in QUOTA_ARGUMENTS}
            binding = bind(quota, self._quotaguard)
            base = _stands_for(type(self))
            if base is not None:
                return twin(_plain(self, base).copy(*args, **kwargs), type(self), binding)
            copied = super().copy(*args, **kwargs)
            _take_over(copied, copied, binding)
            return copied

        with_options = copy

        def acting_as(self, user=None, *, org=None, tier=None, priority=None):
            """The same client acting for another user (org, tier, priority), as ``with_options``
            makes it.

            The `quotaguard.acting_as` block goes before it.
            """
            return self.copy(user=user, org=org, tier=tier, priority=priority)

        @property
        def user_agent(self):
            """The SDK class's own name: gateways know that one."""
            base = _stands_for(type(self))
            text = super().user_agent
            if base is None:
                return text
            return base.__name__ + text.removeprefix(type(self).__name__)

        def _process_response(self, *args, response, **kwargs):
            _hear(response)
            return super()._process_response(*args, response=response, **kwargs)

        def _should_retry(self, response):
            _hear(response)
            return super()._should_retry(response)

        def __init_subclass__(cls, **kwargs):
            super().__init_subclass__(**kwargs)
            base = _stands_for(cls)
            if base is not None:
                cls.__init__ = _signed(_Seam.__init__, base.__init__)
                cls.copy = cls.with_options = _signed(_Seam.copy, base.copy)

    def _quotaguard_call(self, options: Any) -> Call | None:
        binding = self._quotaguard
        call = intercept(binding.guard, binding.identity, self._quotaguard_sdk, self, options)
        if call is None or (binding.fallback and binding.priority is None):
            return call
        return call._replace(fallback=binding.fallback, priority=binding.priority)


class SyncSeam(_Seam):
    """The seam of blocking clients."""

    __slots__ = ()

    if not TYPE_CHECKING:

        def request(self, cast_to, options, *args, **kwargs):
            """Reserve, make the SDK's request with its retries, settle."""
            call = self._quotaguard_call(options)
            if call is None:
                return super().request(cast_to, options, *args, **kwargs)
            guard = call.guard
            try:
                lease = call.resumed or guard.run(call.admission())
            except (QuotaExceeded, ModelNotAllowed) as error:
                raise call.refusal(error) from error
            before = _in_flight.get()
            _in_flight.set(None if call.resumed else lease)
            try:
                result = super().request(cast_to, call.admitted(lease), *args, **kwargs)
            except BaseException as error:
                if call.resumed is None and lease.close():
                    guard.finish(guard.settlement(lease, call.failed(lease, error)))
                raise
            finally:
                _in_flight.set(before)
            outcome = call.finished(lease, result)
            if outcome is not None and lease.close():
                guard.finish(guard.settlement(lease, outcome))
            return result

        def _prepare_request(self, request):
            _count_attempt()
            return super()._prepare_request(request)


class AsyncSeam(_Seam):
    """The seam of asyncio clients."""

    __slots__ = ()

    if not TYPE_CHECKING:

        async def request(self, cast_to, options, *args, **kwargs):
            """Reserve, make the SDK's request with its retries, settle."""
            call = self._quotaguard_call(options)
            if call is None:
                return await super().request(cast_to, options, *args, **kwargs)
            guard = call.guard
            if call.may_stall():
                call = await asyncio.to_thread(call.counted_ahead)
            try:
                lease = call.resumed or await guard.arun(call.admission())
            except (QuotaExceeded, ModelNotAllowed) as error:
                raise call.refusal(error) from error
            before = _in_flight.get()
            _in_flight.set(None if call.resumed else lease)
            try:
                result = await super().request(cast_to, call.admitted(lease), *args, **kwargs)
            except GeneratorExit as error:  # perhaps in a finalizer, which may not take locks
                if call.resumed is None and lease.close():
                    guard.abandon(lease, partial(call.failed, lease, error))
                raise
            except BaseException as error:
                if call.resumed is None and lease.close():
                    await guard.afinish(guard.settlement(lease, call.failed(lease, error)))
                raise
            finally:
                _in_flight.set(before)  # no reset: a finalizer runs in another context
            outcome = call.finished(lease, result)
            if outcome is not None and lease.close():
                await guard.afinish(guard.settlement(lease, outcome))
            return result

        async def _prepare_request(self, request):
            _count_attempt()
            return await super()._prepare_request(request)


_twins: dict[type, type] = {}


def guarded_class(base: type, sdk: Sdk, seam: type) -> type:
    """The guarded class of a client's class: itself if it is one."""
    if issubclass(base, _Seam):
        return base
    return _twins.get(base) or _twins.setdefault(base, derived(base, sdk, seam))


def derived(base: type, sdk: Sdk, *before: type) -> type:
    """A new guarded class in the place of an SDK's: ``before``, a seam first, and ``base``."""
    names = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "_quotaguard_stands_for": base,
        "_quotaguard_sdk": sdk,
    }
    return type(base.__name__, (*before, base), names)


def twin(client: Any, cls: type, binding: Binding) -> Any:
    """An instance of a guarded class with the settings and connections of ``client``."""
    made: Any = object.__new__(cls)
    made.__dict__.update(vars(client))
    _take_over(made, client, binding)
    return made
