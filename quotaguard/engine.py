"""What runs behind a guard: reserving and settling calls, for clients, decorators and holds."""

from __future__ import annotations

import itertools
import logging
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from . import errands, receipts
from .backends import Backend
from .clock import Clock
from .core.ask import Ask, Option
from .core.drive import adrive, drive
from .core.lease import AS_RESERVED, Demand, Lease, Outcome
from .core.ops import Candidate, Op
from .core.plan import Plan, admit, renew, settle
from .errors import BackendError, ModelNotAllowed, QuotaWarning
from .events import Approaching, Teller
from .hold import enclosing
from .identity import Identity, current, current_priority
from .patience import bounded
from .policies import Fallback, Policy
from .pricing import Prices, context_window
from .providers import usage_of
from .resolver import Resolver
from .rules import Rules
from .tiers import Tier

if TYPE_CHECKING:  # counting is a third of what importing this package would take
    from .estimator import Estimator
    from .upstream import Upstream

log = logging.getLogger("quotaguard")
T = TypeVar("T")

switched_on = True
"""False while `quotaguard.testing.disabled` lasts: then everything is admitted, uncounted."""


class Caller(NamedTuple):
    """Whose call it is, and under which tier."""

    identity: Identity
    tier: Tier


Demands: TypeAlias = Callable[["str | None", Caller, "Fallback | None"], Demand]
"""What a call of a model is estimated to use, for a caller, if a policy has that model serve it."""

_prefix = os.urandom(6).hex()
_numbers = itertools.count(1)


def _new_prefix() -> None:
    global _prefix
    _prefix = os.urandom(6).hex()


os.register_at_fork(after_in_child=_new_prefix)


class Hashed(str):
    """A user's name that was hashed already, so that nested calls do not do it again."""

    __slots__ = ()


class _Settling(NamedTuple):
    """An errand: settle a lease."""

    lease: Lease
    outcome: Callable[[], Outcome]


class Engine:
    """The half of a `quotaguard.Guard` that calls go through. Its attributes are what the guard's
    arguments of the same names say.
    """

    clock: Clock
    rules: Rules
    resolver: Resolver
    prices: Prices
    backend: Backend
    estimator: Estimator
    upstream: Upstream | None
    """What is known of the providers' own limits; None: it is not learnt."""
    tell: Teller
    """Tells the hooks of an event."""
    background: dict[str, Lease]
    """Open leases of responses that run on the provider's side, by the response's id."""
    strict: bool
    count_unmetered: bool
    ask_for_usage: bool
    output_guess: int
    rough: bool
    """Whether a bound is reserved where it fits (``count="when_close"``)."""
    _policies: tuple[Policy, ...]
    _on_backend_error: str
    _lease_seconds: float
    _observing: bool
    _warn_at: tuple[float, ...]
    _identity_hash: bytes | Callable[[str], str] | None
    _errands: SimpleQueue[_Settling | Op | Callable[[], Plan[bool]]]

    # -- who ------------------------------------------------------------------------------------

    def caller(self, said: Identity, acting: Identity | None = None) -> Plan[Caller]:
        """The plan that tells who calls, under which tier.

        Args:
            said: what the caller says of itself.
            acting: what goes before it (default: what `acting_as` says).

        Raises:
            ConfigurationError: the tier is missing or unknown.
        """
        identity = self.rules.who((current() if acting is None else acting).over(said))
        tier = self.resolver.known(identity, self.rules)
        if tier is None:
            answer = yield self.resolver.question(identity)
            tier = self.resolver.learn(identity, answer, self.rules)
        return self._as(identity, tier)

    def known_caller(self, said: Identity) -> Caller | None:
        """The same without asking anybody; None if somebody has to be."""
        identity = self.rules.who(current().over(said))
        tier = self.resolver.known(identity, self.rules)
        return None if tier is None else self._as(identity, tier)

    def _as(self, identity: Identity, tier: Tier) -> Caller:
        user = self.known_as(identity.user)
        if user is not identity.user or tier.name != identity.tier:
            identity = Identity(user, identity.org, tier.name)
        return Caller(identity, tier)

    def known_as(self, user: str | None) -> str | None:
        """A user's name as the ledger, events and errors have it: hashed, if names are."""
        how = self._identity_hash
        if how is None or user is None or isinstance(user, Hashed):
            return user
        if callable(how):
            return Hashed(how(user))
        import hashlib  # OpenSSL takes its time to load, and most guards hash no names
        import hmac

        return Hashed(hmac.new(how, user.encode(), hashlib.sha256).hexdigest()[:32])

    # -- reserving and settling -----------------------------------------------------------------

    def admission(
        self,
        who: Identity,
        model: str | None,
        demand: Demands,
        rough: Demands | None = None,
        *,
        fallback: bool = True,
        timeout: Callable[[], float | None] | None = None,
        priority: float | None = None,
        account: str | None = None,
    ) -> Plan[Lease]:
        """The plan that reserves for a call; run it with `run` or `arun`.

        Args:
            who: what the caller says of itself; `acting_as` goes before it.
            model: the model that is asked for.
            demand: what a model (the one asked for, or a fallback) is estimated to use.
            rough: an upper bound of that which costs less to have, if there is one.
            fallback: whether another model may serve the call.
            timeout: tells the seconds that the call may wait in line at most, None: as long as the
                policies say.
            priority: how early its turn comes in line, by what the client says; `acting_as` goes
                before it, and the tier's is the default.
            account: names the provider's account, if its limits are learnt.

        Raises:
            ModelNotAllowed: the tier leaves the model out.
            ConfigurationError: the user or tier is missing or unknown.
            PriceUnknown: a limit on money applies, and the model has no price.
        """
        id = f"{_prefix}-{next(_numbers)}"
        known = self.known_caller(who)
        caller: Caller = (yield from self.caller(who)) if known is None else known
        identity, tier = caller
        if not switched_on:
            estimated = demand(model, caller, None)
            return Lease(id, identity, model, model, estimated, (), (), ())
        outer = enclosing(self)
        replaces = outer is not None and outer.is_open and outer.identity == identity

        def candidate(model: str | None, estimated: Demand, untouched: float = 0.0) -> Candidate:
            charges = self.rules.charges(tier, identity, model, estimated, untouched)
            if self.upstream is not None and account is not None and model is not None:
                charges += self.upstream.charges(account, model, estimated)
            return Candidate(model, charges)

        def option(model: str | None, via: Fallback | None, untouched: float) -> Option | None:
            estimated = demand(model, caller, via)
            if via is not None and not _fits(model, estimated):
                return None
            return Option(estimated, candidate(model, estimated, untouched), via)

        def by_bound(model: str | None) -> Option:
            assert rough is not None
            estimated = rough(model, caller, None)
            return Option(estimated, candidate(model, estimated))

        allowed = tier.allows(model)
        policies = self._policies if tier.when_exceeded is None else tier.when_exceeded
        policies = bounded(policies, timeout)
        instead = tier.when_not_allowed
        by_rough = rough is not None and self.rough and allowed
        if by_rough and any(isinstance(each, Fallback) and each.at < 1.0 for each in policies):
            by_rough = False  # a bound would not leave that share untouched
        acting = current_priority()
        urgent = priority if acting is None else acting
        ask = Ask(
            id,
            identity,
            model,
            option,
            tier.allows,
            policies if fallback else tuple(p for p in policies if not isinstance(p, Fallback)),
            self._lease_seconds,
            self._on_backend_error,
            outer.id if replaces and outer is not None else None,
            by_bound if by_rough else None,
            None if allowed else _denied(model, tier),
            instead if isinstance(instead, Fallback) and fallback else None,
            self._observing,
            self.prices.cost,
            tier.priority if urgent is None else urgent,
            f"{identity.org or ''}\x1f{identity.user or ''}",
            tier.weight,
        )
        lease = yield from admit(ask, self.clock.now, self.tell, self._later)
        lease.read = usage_of
        lease.cost = self.prices.cost
        lease.in_money = self.rules.in_money(tier)
        lease.began = self.clock.now()
        lease.renew_at = lease.began + self._lease_seconds / 2
        if outer is not None:
            outer.spent_inside()
        receipts.note(lease)
        shares = self._warn_at if tier.warn_at is None else tier.warn_at
        if shares:
            self._warn(lease, shares)
        return lease

    def _warn(self, lease: Lease, shares: tuple[float, ...]) -> None:
        """Warn of each limit that this call took past one of the shares."""
        for charge, granted, left in zip(lease.charges, lease.granted, lease.after, strict=True):
            limit = charge.limit
            if charge.owner[0] in ("provider", "pause"):
                continue  # used up is what these are for
            passed = [s for s in shares if left <= (1.0 - s) * limit.ceiling < left + granted]
            if not passed:
                continue
            user, org, _ = lease.identity
            remaining = left / limit.scale
            self.tell(
                Approaching(
                    lease.id, lease.identity, lease.requested, limit.text, passed[-1], remaining
                )
            )
            text = f"{passed[-1]:.0%} of {limit.text} are used up (user {user}, org {org})"
            log.warning("%s", text)
            with suppress(QuotaWarning):  # where warnings are errors, a call still goes
                warnings.warn(text, QuotaWarning, stacklevel=2)

    def settlement(self, lease: Lease, outcome: Outcome) -> Plan[None]:
        """The plan that charges what a call used; the caller holds the right (`Lease.close`)."""
        used = outcome.used
        if used is not None:
            if outcome.reported:
                self.estimator.learn(lease.identity.user, lease.model, lease.demand, used)
            if lease.in_money or self.tell:
                cost = self.prices.cost(used, lease.model, lease.demand.service)
                if cost is None and lease.in_money:
                    outcome = AS_RESERVED  # its price is gone since it was admitted
                else:
                    outcome = outcome._replace(used=used._replace(nano_usd=cost))
        return settle(lease, outcome, self.tell, self._later, self.prices.cost)

    def renewal(self, lease: Lease) -> Plan[None]:
        """The plan that lets a long call's lease go on."""
        lease.renew_at = self.clock.now() + self._lease_seconds / 2
        return renew(lease, self._lease_seconds)

    # -- carrying out ---------------------------------------------------------------------------

    def run(self, plan: Plan[T]) -> T:
        """Carry a plan out, blocking."""
        if not self._errands.empty():
            self.run_errands()
        return drive(plan, self.backend)

    async def arun(self, plan: Plan[T]) -> T:
        """Carry a plan out, awaiting."""
        if not self._errands.empty():
            await self.arun_errands()
        return await adrive(plan, self.backend)

    def finish(self, plan: Plan[None]) -> None:
        """Carry out a settlement, blocking. It does not stand behind errands: where these are
        interrupted it would be lost.
        """
        drive(plan, self.backend)

    async def afinish(self, plan: Plan[None]) -> None:
        """`finish`, awaiting."""
        try:
            await adrive(plan, self.backend)
        except BaseException:
            errands.ring(self)  # cancelled on the way, it is among the errands now
            raise

    def abandon(self, lease: Lease, outcome: Callable[[], Outcome]) -> None:
        """Settle a lease soon, from a finalizer; the caller holds the right (`Lease.close`).

        What it used is worked out then too: counting takes locks, which a finalizer may not.
        """
        self._errands.put(_Settling(lease, outcome))
        errands.ring(self)

    def after(self, plan: Callable[[], Plan[bool]], *, at_once: bool) -> None:
        """Have a plan carried out before the next call, or at once by the helper thread; if it
        gives True, once more later.
        """
        self._errands.put(plan)
        if at_once:
            errands.soon(self)

    def _later(self, op: Op) -> None:
        self._errands.put(op)

    def run_errands(self) -> None:
        """Carry out what finalizers and failed sends left behind."""
        drive(self._catching_up(), self.backend)

    async def arun_errands(self) -> None:
        """`run_errands`, awaiting."""
        await adrive(self._catching_up(), self.backend)

    def _catching_up(self) -> Plan[None]:
        """Errands in order; what the backend fails at again stays, and what is behind it."""
        for _ in range(self._errands.qsize()):
            errand = errands.take(self._errands)
            if isinstance(errand, _Settling):
                yield from self.settlement(errand.lease, errand.outcome())
            elif callable(errand):
                if (yield from errand()):
                    self._errands.put(errand)
            elif errand is not None:
                try:
                    yield errand
                except BaseException as error:
                    self._later(errand)
                    if isinstance(error, BackendError):
                        return
                    raise


def _denied(model: str | None, tier: Tier) -> ModelNotAllowed:
    return ModelNotAllowed(model=model or "", tier=tier.name, allowed=tier.models)


def _fits(model: str | None, demand: Demand) -> bool:
    """Whether a call fits into a model's context."""
    window = context_window(model) if model is not None else None
    needed = demand.input_tokens + (demand.output_tokens if demand.hard else 0)
    return window is None or needed <= window
