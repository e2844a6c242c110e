"""The guard: what people hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from queue import SimpleQueue
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from .backends import Backend, open_backend
from .clock import Clock, SystemClock
from .core.lease import Lease
from .errors import ConfigurationError
from .events import Hook, Teller
from .hold import Hold
from .identity import Identity
from .jobs import Jobs
from .limits import Limit
from .policies import Policy, policies
from .pricing import Price, Prices
from .resolver import Resolver, TierOf
from .rules import Rules
from .tiers import Tier, thresholds

if TYPE_CHECKING:  # counting is a third of what importing this package would take
    from .counting import Factor
    from .estimator import Estimation, ReserveOutput
    from .journal import Journal, Place

C = TypeVar("C")

LEASE_SECONDS = 900.0
"""How long a reservation lives unless renewed: longer than the SDKs' default timeout of 600 s, so
that only a dead holder's expires. Streams renew it."""

OUTPUT_GUESS = 512
"""Tokens assumed for an answer of which nothing is known; soft, so that it refuses nothing."""


class Guard(Jobs):
    """Limits, tiers and the ledger that keeps them.

    Args:
        tiers: the plans that ``tier=`` names.
        limits: limits for everybody, on top of the tier's; the whole plan if there are no tiers.
        backend: the ledger's URL: ``"memory://"`` (this process), ``"sqlite:///quota.db"``,
            ``"redis://host:6379/0"``; or a client of redis-py, or a `quotaguard.backends.Backend`.
        default_tier: the tier of a caller for whom none is named (default: the only one).
        when_exceeded: policies of tiers that name none (default: refuse).
        anonymous: the user whose buckets callers without a user share; None: they are an error
            when a limit is per user.
        on_backend_error: ``"refuse"`` or ``"allow"`` calls while the ledger can't be reached, or
            ``"local"``: admit this worker's share, the limits divided by the number of workers.
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
        calibrate: whether the input that is billed corrects the counts that follow.
        count: ``"exact"``: every call is counted before it is admitted. ``"when_close"``: a call
            reserves a cheap upper bound (its bytes) if that fits, and is counted only if not; the
            real usage settles either way.
        prices: shell pattern of a model -> its `Price`, before what the list of genai-prices says.
        unknown_price: where a limit on money needs a price that nobody knows, ``"refuse"`` the call
            (`PriceUnknown`), or ``"warn"`` and take the dearest of the list.
        warn_at: shares of each limit, such as 0.8, that warn when a call takes a limit past them:
            by an `Approaching` event, the log, and a `QuotaWarning`.
        mode: ``"enforce"``, or ``"observe"``: decide and tell, and let every call go as it is.
        tier_of: which tier a caller has who names none: a callable, perhaps a coroutine function,
            of the `Identity`, that gives a tier's name, a `Tier` with limits of the caller's own,
            or None for the default tier. It sees the user's own name.
        tier_seconds: how long its answer holds.
        identity_hash: a secret (bytes) to hash users' names with (HMAC-SHA256), or a callable: then
            only the hash appears in keys, events, errors, logs and the journal.
        journal: where an entry for each call is kept, for `report`: a path of a file of JSON lines,
            ``"sqlite:///usage.db"``, ``"memory://"``, a callable, or a `quotaguard.Journal`.
        learn_provider_limits: read the provider's own limits from the headers of its answers, and
            hold guarded clients' calls back before it refuses them, at all workers of this ledger.

    Raises:
        ConfigurationError: an argument is wrong; the message names it and what would be right.
    """

    def __init__(
        self,
        *,
        tiers: Iterable[Tier] = (),
        limits: Iterable[str | Limit | Mapping[str, Any]] = (),
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
        calibrate: bool = True,
        count: str = "exact",
        prices: Mapping[str, Price | Mapping[str, Any]] = MappingProxyType({}),
        unknown_price: str = "refuse",
        warn_at: float | Iterable[float] = (),
        mode: str = "enforce",
        tier_of: TierOf | None = None,
        tier_seconds: float = 60.0,
        identity_hash: bytes | Callable[[str], str] | None = None,
        journal: Place | Journal | None = None,
        learn_provider_limits: bool = False,
    ) -> None:
        self.clock = _clock(clock)
        self.prices = Prices(prices, unknown_price, self.clock.now)
        self.rules = Rules(tiers, limits, default_tier, anonymous, self.prices)
        seconds = _positive(tier_seconds, "tier_seconds")
        self.resolver = Resolver(tier_of, seconds, self.clock.now)
        self._policies = policies(when_exceeded)
        self._on_backend_error = _one_of(
            on_backend_error, "on_backend_error", "refuse", "allow", "local"
        )
        self._lease_seconds = _positive(lease_seconds, "lease_seconds")
        self.tell = Teller(hooks)
        self.journal = self._journaling(journal)
        self.strict = _flag(strict, "strict")
        self.count_unmetered = _flag(count_unmetered, "count_unmetered")
        self.ask_for_usage = _flag(ask_for_usage, "ask_for_usage")
        self.rough = _one_of(count, "count", "exact", "when_close") == "when_close"
        self._observing = _one_of(mode, "mode", "enforce", "observe") == "observe"
        self._warn_at = thresholds(warn_at, "warn_at")
        if not (identity_hash is None or callable(identity_hash) or _is_secret(identity_hash)):
            raise ConfigurationError(
                f"identity_hash is a secret of bytes or a callable, not {type(identity_hash)}"
            )
        self._identity_hash = identity_hash
        self.output_guess = int(_positive(output_guess, "output_guess"))
        from .estimator import Estimator
        from .sharing import Sharing

        self.estimator = Estimator(reserve_output, self.output_guess, calibrate)
        self.upstream = None
        pools, known = [*self.estimator.pools], {*self.rules.known_limits}
        if _flag(learn_provider_limits, "learn_provider_limits"):
            from .upstream import PAUSE, Upstream

            self.upstream = Upstream(self.clock.now)
            pools.append(self.upstream.pool)
            known.add(PAUSE)
        self.backend = open_backend(backend, self.clock, known, on_backend_error)
        self._sharing = Sharing(pools, self.backend, self.clock.now)
        self._errands = SimpleQueue()
        self.background = {}

    def update(
        self,
        *,
        tiers: Iterable[Tier] | None = None,
        limits: Iterable[str | Limit | Mapping[str, Any]] | None = None,
        default_tier: str | None = None,
        tier_of: TierOf | None = None,
    ) -> None:
        """Change the plans while calls go on; what is left out stays.

        Levels carry over where a limit is about the same thing as before, whatever its amount.
        Calls that were admitted are settled by the limits that admitted them.

        Raises:
            ConfigurationError: an argument is wrong; then nothing changes.
        """
        self.rules = self.rules.changed(tiers, limits, default_tier)
        self.resolver = self.resolver.again(tier_of)

    # -- around a block --------------------------------------------------------------------------

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

    # -- estimates ------------------------------------------------------------------------------

    def estimate(
        self, endpoint: str, request: Mapping[str, Any], *, user: str | None = None
    ) -> Estimation:
        """What a request would be estimated to use and cost, by part; nothing is sent or reserved.

        Args:
            endpoint: ``"chat"``, ``"responses"``, ``"messages"``, ``"embeddings"`` or
                ``"completions"``.
            request: the JSON body.
            user: whose answers to go by where the request states no maximum.

        Raises:
            ValueError: there is no such endpoint.
            TypeError: the request is no mapping.
        """
        return self.estimator.estimate(endpoint, request, user=user, cost=self.prices.cost)

    def calibration(self) -> list[Factor]:
        """By model and kind of request: how counts are corrected, as bills have shown."""
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
        """Settle what was left behind, share what was learnt, close the backend and the journal."""
        self.run_errands()
        self._sharing.run_errands()
        self._close_journal()
        self.backend.close()

    async def aclose(self) -> None:
        """`close`, from a task."""
        await self.arun_errands()
        await self.arun(self._sharing.exchange())
        self._close_journal()
        closing = getattr(self.backend, "aclose", None)
        if closing is None:
            self.backend.close()
        else:
            await closing()

    def __repr__(self) -> str:
        return f"<Guard tiers={list(self.rules.tiers)} backend={type(self.backend).__name__}>"


def _positive(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        finite = " and finite" if value == math.inf else ""
        raise ConfigurationError(f"{what} is a number > 0{finite}, not {value!r}")
    return value


def _flag(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{what} is true or false, not {value!r}")
    return value


def _one_of(value: object, what: str, *choices: str) -> str:
    if value not in choices:
        *others, last = map(repr, choices)
        raise ConfigurationError(f"{what} is {', '.join(others)} or {last}, not {value!r}")
    return str(value)


def _is_secret(value: object) -> bool:
    return isinstance(value, bytes) and len(value) > 0


def _clock(given: Clock | None) -> Clock:
    if given is not None and not callable(getattr(given, "now", None)):
        raise ConfigurationError(f"clock is a quotaguard.clock.Clock, not {given!r}")
    return given or SystemClock()
