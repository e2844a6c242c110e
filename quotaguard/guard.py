"""The guard: what people hold."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from . import errands
from .backends import Backend, open_backend
from .clock import Clock, SystemClock
from .core.drive import adrive, drive
from .core.lease import Demand, Lease, Outcome
from .core.ops import BucketState, Candidate, Op, Peek
from .core.plan import Ask, Option, Plan, admit, renew, settle
from .errors import BackendError, ConfigurationError, ModelNotAllowed
from .events import Hook, Refused, Teller
from .hold import Hold, enclosing
from .identity import Identity, current
from .limits import Limit
from .policies import Policy, policies
from .providers import usage_of
from .rules import Rules
from .tiers import Tier

if TYPE_CHECKING:  # counting is a third of what importing this package would take
    from .counting import Factor
    from .estimator import Estimation, ReserveOutput

Demands: TypeAlias = Callable[[str | None, Identity], Demand]
"""What a call of a model is estimated to use, for an identity."""
T = TypeVar("T")
C = TypeVar("C")

LEASE_SECONDS = 900.0
"""How long a reservation lives unless renewed: longer than the SDKs' default timeout of 600 s, so
that only a dead holder's expires. Streams renew it."""

OUTPUT_GUESS = 512
"""Tokens assumed for an answer of which nothing is known; soft, so that it refuses nothing."""

switched_on = True
"""False while `quotaguard.testing.disabled` lasts: then everything is admitted, uncounted."""

_prefix = secrets.token_hex(6)
_numbers = itertools.count(1)


def _new_prefix() -> None:
    global _prefix
    _prefix = secrets.token_hex(6)


os.register_at_fork(after_in_child=_new_prefix)


class _Settling(NamedTuple):
    """An errand: settle a lease."""

    lease: Lease
    outcome: Callable[[], Outcome]


class Guard:
    """Limits, tiers and the ledger that keeps them.

    Args:
        tiers: the plans that ``tier=`` names.
        limits: limits for everybody, on top of the tier's; the whole plan if there are no tiers.
        backend: ``"memory://"`` (this process) or a `quotaguard.backends.Backend`.
        default_tier: the tier of a caller for whom none is named (default: the only one).
        when_exceeded: policies of tiers that name none (default: refuse).
        anonymous: the user whose buckets callers without a user share; None: they are an error
            when a limit is per user.
        on_backend_error: ``"refuse"`` or ``"allow"`` calls while the ledger can't be reached.
        lease_seconds: seconds after which a reservation whose holder died is given back.
        hooks: called with every event (`quotaguard.events`).
        clock: where "now" comes from; a `quotaguard.testing.FakeClock` in tests.
        strict: refuse endpoints that spend without telling how much.
        count_unmetered: count calls to unmetered endpoints toward limits on requests.
        ask_for_usage: ask for a chat stream's usage (``stream_options.include_usage``) where the
            caller did not, and hide the extra chunk.
        reserve_output: what is reserved for an answer: ``"max"``: the maximum that the request
            states, else what this user and model have used before; ``"learned"``: that in any
            case; a number of tokens; or a callable of endpoint and body. What is not stated by the
            request is soft: reserved as far as the bucket holds it, never by itself a refusal.
        output_guess: tokens assumed for an answer as long as nothing is stated or learnt.
        count: ``"exact"``: every call is counted before it is admitted. ``"when_close"``: a call
            reserves a cheap upper bound (its bytes) if that fits, and is counted only if not; the
            real usage settles either way.

    Raises:
        ConfigurationError: an argument is wrong; the message names it and what would be right.
    """

    def __init__(
        self,
        *,
        tiers: Iterable[Tier] = (),
        limits: Iterable[str | Limit] = (),
        backend: str | Backend = "memory://",
        default_tier: str | None = None,
        when_exceeded: Iterable[Policy] | Policy = (),
        anonymous: str | None = None,
        on_backend_error: str = "refuse",
        lease_seconds: float = LEASE_SECONDS,
        hooks: Iterable[Hook] = (),
        clock: Clock | None = None,
        strict: bool = False,
        count_unmetered: bool = False,
        ask_for_usage: bool = True,
        reserve_output: ReserveOutput = "max",
        output_guess: int = OUTPUT_GUESS,
        count: str = "exact",
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.rules = Rules(tiers, limits, default_tier, anonymous)
        self._policies = policies(when_exceeded)
        if on_backend_error not in ("refuse", "allow"):
            raise ConfigurationError(
                f"on_backend_error is 'refuse' or 'allow', not {on_backend_error!r}"
            )
        self._on_backend_error = on_backend_error
        self._lease_seconds = _positive(lease_seconds, "lease_seconds")
        self.tell = Teller(hooks)
        """Tells the hooks of an event."""
        self.strict = strict
        self.count_unmetered = count_unmetered
        self.ask_for_usage = ask_for_usage
        if count not in ("exact", "when_close"):
            raise ConfigurationError(f"count is 'exact' or 'when_close', not {count!r}")
        self._rough = count == "when_close"
        self.output_guess = int(_positive(output_guess, "output_guess"))
        from .estimator import Estimator

        self.estimator = Estimator(reserve_output, self.output_guess)
        self.backend = open_backend(backend, self.clock)
        self._errands: SimpleQueue[_Settling | Op] = SimpleQueue()
        self.background: dict[str, Lease] = {}
        """Open leases of responses that run on the provider's side, by the response's id."""

    # -- reserving and settling ------------------------------------------------------------------

    def admission(
        self,
        who: Identity,
        model: str | None,
        demand: Demands,
        rough: Demands | None = None,
    ) -> Plan[Lease]:
        """The plan that reserves for a call; run it with `run` or `arun`.

        Args:
            who: what the caller says of itself; `acting_as` goes before it.
            model: the model that is asked for.
            demand: what a model (the one asked for, or a fallback) is estimated to use for an
                identity.
            rough: an upper bound of that which costs less to have, if there is one.

        Raises:
            ModelNotAllowed: the tier leaves the model out.
            ConfigurationError: the user or tier is missing or unknown.
        """
        id = f"{_prefix}-{next(_numbers)}"
        if not switched_on:
            identity = current().over(who)
            return _free(Lease(id, identity, model, model, demand(model, identity), (), (), ()))
        identity, tier = self.rules.resolve(who)
        if not tier.allows(model):
            error = ModelNotAllowed(model=model or "", tier=tier.name, allowed=tier.models)
            self.tell(Refused(id, identity, model, error))
            raise error
        outer = enclosing(self)
        replaces = outer is not None and outer.is_open and outer.identity == identity

        def option(model: str | None, demand: Demands = demand) -> Option:
            estimated = demand(model, identity)
            charges = self.rules.charges(tier, identity, model, estimated)
            return Option(estimated, Candidate(model, charges))

        ask = Ask(
            id,
            identity,
            model,
            option,
            tier.allows,
            self._policies if tier.when_exceeded is None else tier.when_exceeded,
            self._lease_seconds,
            self._on_backend_error,
            outer.id if replaces and outer is not None else None,
            partial(option, demand=rough) if rough is not None and self._rough else None,
        )
        return self._admitting(ask, outer)

    def _admitting(self, ask: Ask, outer: Lease | None) -> Plan[Lease]:
        lease = yield from admit(ask, self.clock.now, self.tell, self._later)
        lease.read = usage_of
        lease.renew_at = self.clock.now() + self._lease_seconds / 2
        if outer is not None:
            outer.spent_inside()
        return lease

    def settlement(self, lease: Lease, outcome: Outcome) -> Plan[None]:
        """The plan that charges what a call used; the caller holds the right (`Lease.close`)."""
        if outcome.reported and outcome.used is not None:
            self.estimator.learn(lease.identity.user, lease.model, lease.demand, outcome.used)
        return settle(lease, outcome, self.tell, self._later)

    def run(self, plan: Plan[T]) -> T:
        """Carry a plan out, blocking."""
        if not self._errands.empty():
            self.run_errands()
        return drive(plan, self.backend)

    async def arun(self, plan: Plan[T]) -> T:
        """Carry a plan out, awaiting."""
        if not self._errands.empty():
            await adrive(self._catching_up(), self.backend)
        return await adrive(plan, self.backend)

    def renewal(self, lease: Lease) -> Plan[None]:
        """The plan that lets a long call's lease go on."""
        lease.renew_at = self.clock.now() + self._lease_seconds / 2
        return renew(lease, self._lease_seconds)

    def hold(
        self,
        *,
        user: str | None = None,
        org: str | None = None,
        tier: str | None = None,
        model: str | None = None,
        input_tokens: int = 0,
        output_tokens: int | None = None,
    ) -> AbstractContextManager[Lease]:
        """Reserve around a block, for any provider: ``with guard.hold(...) as lease:``.

        The block says what it used with `Lease.record`; if it says nothing it is charged as
        reserved, and if it fails its input stays charged. Guarded clients of this guard inside the
        block draw from the same reservation and are charged once.

        Args:
            user, org, tier: whose call it is.
            model: the model to use; with a fallback ``lease.model`` is the one to use instead.
            input_tokens: tokens of the prompt.
            output_tokens: the most that the answer may have; None: a guess that never refuses.

        Raises:
            QuotaExceeded, RequestTooLarge, ModelNotAllowed, BackendError: on entering.
            ConfigurationError: an argument is wrong.
        """
        return Hold(self, Identity(user, org, tier), model, input_tokens, output_tokens)

    def ahold(
        self,
        *,
        user: str | None = None,
        org: str | None = None,
        tier: str | None = None,
        model: str | None = None,
        input_tokens: int = 0,
        output_tokens: int | None = None,
    ) -> AbstractAsyncContextManager[Lease]:
        """`hold` for ``async with``."""
        return Hold(self, Identity(user, org, tier), model, input_tokens, output_tokens)

    # -- looking ---------------------------------------------------------------------------------

    def peek(
        self,
        *,
        user: str | None = None,
        org: str | None = None,
        tier: str | None = None,
        model: str | None = None,
    ) -> tuple[BucketState, ...]:
        """The buckets that a call would draw from, without spending."""
        return self.run(self._looking(Identity(user, org, tier), model))

    async def apeek(
        self,
        *,
        user: str | None = None,
        org: str | None = None,
        tier: str | None = None,
        model: str | None = None,
    ) -> tuple[BucketState, ...]:
        """`peek`, awaiting."""
        return await self.arun(self._looking(Identity(user, org, tier), model))

    def _looking(self, who: Identity, model: str | None) -> Plan[tuple[BucketState, ...]]:
        identity, tier = self.rules.resolve(who)
        answer: tuple[BucketState, ...] = yield Peek(
            tuple(self.rules.buckets(tier, identity, model))
        )
        return answer

    def estimate(
        self, endpoint: str, request: Mapping[str, Any], *, user: str | None = None
    ) -> Estimation:
        """What a request would be estimated to use, by part, without sending or reserving anything.

        Args:
            endpoint: ``"chat"``, ``"responses"``, ``"messages"``, ``"embeddings"`` or
                ``"completions"``.
            request: the JSON body.
            user: whose answers to go by where the request states no maximum.

        Raises:
            ValueError: there is no such endpoint.
            TypeError: the request is no mapping.
        """
        model = request.get("model") if isinstance(request, Mapping) else None
        return self.estimator.estimate(endpoint, request, model=model, user=user)

    def calibration(self) -> list[Factor]:
        """By model and kind of request: what counts are multiplied by, learnt from bills."""
        return self.estimator.calibration()

    # -- clients ---------------------------------------------------------------------------------

    def wrap(self, client: C, *, user: Any = None, tier: Any = None, org: Any = None) -> C:
        """The guarded twin of a client that somebody else built.

        It is an instance of the client's own class and shares its connections and settings; the
        client itself stays as it was. Any client of the openai or anthropic SDK will do, also a
        subclass.

        Raises:
            ConfigurationError: the object is not a client of one of the SDKs.
        """
        from .clients import wrap

        return wrap(client, self, user=user, tier=tier, org=org)

    def close(self) -> None:
        """Settle what was left behind and close the backend."""
        self.run_errands()
        self.backend.close()

    async def aclose(self) -> None:
        """`close`, from a task."""
        await adrive(self._catching_up(), self.backend)
        closing = getattr(self.backend, "aclose", None)
        if closing is None:
            self.backend.close()
        else:
            await closing()

    def abandon(self, lease: Lease, outcome: Callable[[], Outcome]) -> None:
        """Settle a lease soon, from a finalizer; the caller holds the right (`Lease.close`).

        What it used is worked out then too: counting takes locks, which a finalizer may not.
        """
        self._errands.put(_Settling(lease, outcome))
        errands.ring(self)

    def _later(self, op: Op) -> None:
        self._errands.put(op)

    def run_errands(self) -> None:
        """Carry out what finalizers and failed sends left behind."""
        drive(self._catching_up(), self.backend)

    def _catching_up(self) -> Plan[None]:
        """Errands in order; what the backend fails at again stays, and what is behind it."""
        for _ in range(self._errands.qsize()):
            errand = errands.take(self._errands)
            if isinstance(errand, _Settling):
                yield from self.settlement(errand.lease, errand.outcome())
            elif errand is not None:
                try:
                    yield errand
                except BaseException as error:
                    self._later(errand)
                    if isinstance(error, BackendError):
                        return
                    raise

    def __repr__(self) -> str:
        return f"<Guard tiers={list(self.rules.tiers)} backend={type(self.backend).__name__}>"


def _free(lease: Lease) -> Plan[Lease]:
    """A plan that asks nobody."""
    yield from ()
    return lease


def _positive(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigurationError(f"{what} is a number > 0, not {value!r}")
    return value
