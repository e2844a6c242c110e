"""One request of a guarded client, before and after: what it may use, and what it used."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from .. import receipts
from ..core.lease import AS_RESERVED, Demand, Lease, Outcome
from ..core.plan import Plan
from ..counting.body import absent
from ..engine import Caller
from ..errors import ModelNotAllowed, QuotaExceeded, UnmeteredEndpoint
from ..guard import Guard
from ..identity import Identity
from ..policies import Fallback
from ..providers import Provider, Route, field, usage_of
from ..providers.adapting import adapted
from ..usage import Usage
from .frames import parsed
from .listening import Listener, account_of
from .streams import Meter, look_later, metered_body, unreadable

log = logging.getLogger("quotaguard")


class Sdk(Protocol):
    """What must be known of an SDK."""

    provider: Provider

    def refusal(self, error: QuotaExceeded | ModelNotAllowed, client: Any, url: str) -> Exception:
        """The refusal as an error of the SDK's own kind too."""
        ...

    def timeout(self, client: Any, options: Any) -> float | None:
        """Seconds that a request may wait before it is sent, if the caller said; else None."""
        ...

    def is_timeout(self, error: BaseException) -> bool:
        """Whether the SDK gave up waiting: the provider may have done the work."""
        ...

    def is_clean(self, error: BaseException) -> bool:
        """Whether the provider surely did no work: an error status, or no connection."""
        ...


class Call(NamedTuple):
    """A request that goes through the ledger."""

    guard: Guard
    sdk: Sdk
    client: Any
    who: Identity
    options: Any
    """The SDK's FinalRequestOptions; the caller's, never changed."""
    route: Route
    body: Mapping[str, Any] = {}  # never changed
    model: str | None = None
    streaming: bool = False
    changes: Mapping[str, Any] = {}
    """What is put into the body: lists for one-shot iterators, which counting has used up, and what
    makes a stream say its usage."""
    hiding: bool = False
    """Whether the caller did not ask for the usage, so that it is to be kept from its stream."""
    resumed: Lease | None = None
    """The lease of a background response that this request looks at."""
    fallback: bool = True
    """Whether another model may serve it."""
    priority: float | None = None
    """How early its turn comes in line."""
    counted: tuple[Caller, Demand] | None = None
    """What it was counted to use, for whom, where that was done ahead."""
    account: str | None = None
    """Names the provider's account, if its limits are learnt."""

    def admission(self) -> Plan[Lease]:
        """The plan that reserves for it."""
        rough = partial(self._demand, rough=True) if self.route.kind == "metered" else None
        return self.guard.admission(
            self.who,
            self.model,
            self._demand,
            rough,
            fallback=self.fallback,
            timeout=partial(self.sdk.timeout, self.client, self.options),
            priority=self.priority,
            account=self.account,
        )

    def may_stall(self) -> bool:
        """Whether counting it could stall an event loop."""
        if self.route.kind != "metered":
            return False
        return self.guard.estimator.may_stall(self.route.endpoint, self.body)

    def counted_ahead(self) -> Call:
        """The call with what admission would count: for another thread."""
        caller = self.guard.known_caller(self.who)
        if caller is None:
            return self
        if self.guard.rough:  # so that what takes long in that is remembered
            self._demand(self.model, caller, None, rough=True)
        return self._replace(counted=(caller, self._demand(self.model, caller, None)))

    def _demand(
        self, model: str | None, caller: Caller, via: Fallback | None, rough: bool = False
    ) -> Demand:
        if self.route.kind != "metered":
            return Demand(0, 0, hard=True)
        ahead = None if rough or via is not None or model != self.model else self.counted
        if ahead is not None and ahead[0] == caller:
            return ahead[1]
        identity, tier = caller
        most = self.guard.rules.most_input(tier, identity, model)
        upstream = self.guard.upstream
        if most is None and upstream is not None and self.account is not None:
            most = upstream.most_input(self.account, model)
        demand = self.guard.estimator.demand(
            self.route.endpoint,
            self._body_for(model, via),
            model=model,
            user=identity.user,
            most=most,
            rough=rough,
        )
        service = self.body.get("service_tier")
        return demand._replace(service=service) if service in _PRICED_TIERS else demand

    def _body_for(self, model: str | None, via: Fallback | None) -> Mapping[str, Any]:
        """The body that another model is sent, by the policy that has it serve the call."""
        if via is None or model is None:
            return self.body
        return via.adapted(adapted(self.route.endpoint, self.body, model), model)

    def refusal(self, error: QuotaExceeded | ModelNotAllowed) -> Exception:
        """The error that code written for the SDK expects."""
        url = self.options.url
        if "://" not in url:
            url = f"{str(self.client.base_url).rstrip('/')}/{url.lstrip('/')}"
        return self.sdk.refusal(error, self.client, url)

    def admitted(self, lease: Lease) -> Any:
        """The SDK's options for what was admitted."""
        if self.account is not None and self.guard.upstream is not None:
            lease.listener = Listener(
                self.guard, self.guard.upstream, self.sdk.provider, self.account
            )
        changes = dict(self.changes)
        served, options = lease.model or "", self.options
        if self.resumed is not None or (lease.model == self.model and not changes):
            return options
        options = options.model_copy()
        if lease.model != self.model:
            changes = {**self._body_for(served, lease.via), **changes}
            if self.route.model is None or "model" in self.body:
                changes["model"] = served
            else:
                changes.pop("model", None)
            base = str(self.client.base_url)
            if self.route.model is not None:
                old, new = quote(self.route.model, safe=""), quote(served, safe="")
                options.url = options.url.replace(old, new).replace(self.route.model, new)
            elif (deployed := _DEPLOYED.search(base)) is not None:
                # Azure with a deployment in its base URL: only a whole URL leads elsewhere.
                there = f"{base[: deployed.start(1)]}{quote(served, safe='')}"
                options.url = there + "/" + options.url.lstrip("/")
        _put(options, changes, whole=lease.model != self.model)
        return options

    def failed(self, lease: Lease, error: BaseException) -> Outcome:
        """What a call is charged that ended in an exception.

        An answer that the SDK could not parse still says its usage. Else nothing was used if the
        provider surely did no work, and the input if nobody can tell.
        """
        if lease.listener is not None and (response := field(error, "response")) is not None:
            lease.listener.hear(lease, response, error)
        for answer in (field(error, "completion"), field(error, "body")):
            used = usage_of(answer) if answer is not None else None
            if used is not None:
                return lease.charged(used, reported=True)
        if lease.attempts == 0 or (self.sdk.is_clean(error) and not self.sdk.is_timeout(error)):
            return Outcome(Usage(lease.attempts))
        return lease.charged(lease.demand.keep)

    def finished(self, lease: Lease, result: Any) -> Outcome | None:
        """What a call is charged that gave ``result``; None: that is not known yet.

        Whatever is wrong with an answer's usage, the answer reaches the caller as it came.
        """
        try:
            return self._finished(lease, result)
        except Exception:
            log.exception("the usage of a %s answer could not be read", self.route.endpoint)
            return AS_RESERVED

    def _finished(self, lease: Lease, result: Any) -> Outcome | None:
        receipts.enter(result, lease)
        if self.route.kind not in ("metered", "later"):
            return lease.charged(Usage())
        http = _http_response(result)
        if http is None:
            return self._answered(lease, result)
        receipts.enter(http, lease)
        body = _already_read(http)
        if body is not None and not self.streaming:
            return self._answered(lease, parsed(body))
        meter = Meter(
            self.guard,
            lease,
            self.sdk.provider,
            self.route.endpoint,
            http,
            partial(self._answered, lease),
            streaming=self.streaming,
            hiding=self.hiding,
            response=self.route.response,
        )
        if body is None:
            http.stream = metered_body(http.stream, meter)
            return None
        shown = meter.take(body) + meter.rest()
        if shown != body:
            http._content = shown
        return meter.ending(complete=True)

    def _answered(self, lease: Lease, answer: Any) -> Outcome | None:
        """The outcome of a whole answer."""
        used = usage_of(answer)
        if used is not None:
            return lease.charged(used, reported=True)
        status, id = field(answer, "status"), field(answer, "id")
        if self.route.endpoint == "responses" and status in ("queued", "in_progress"):
            # It runs in the background: a later look at it will say what it used.
            look_later(self.guard, str(id), lease)
            return None
        if self.route.endpoint == "responses" and status in ("cancelled", "failed"):
            return lease.charged(lease.demand.keep)
        return unreadable(self.guard, lease, self.route.endpoint)


def intercept(
    guard: Guard, who: Callable[[], Identity], sdk: Sdk, client: Any, options: Any
) -> Call | None:
    """The call that a request is, if it has to go through the ledger.

    Raises:
        UnmeteredEndpoint: the guard is strict and the endpoint cannot be metered.
    """
    route = sdk.provider.route(options.method, options.url)
    if route.kind == "unmetered" and guard.strict:
        raise UnmeteredEndpoint(
            f"{options.method.upper()} {options.url}: what this endpoint spends cannot be metered, "
            "and the guard is strict; Guard(strict=False) lets it pass"
        )
    lease = guard.background.get(route.response or "")
    if lease is not None and lease.is_open:
        call = Call(guard, sdk, client, lease.identity, options, route, model=lease.model)
        asked = str(field(options.params, "stream")).lower() == "true"
        return call._replace(streaming=asked, resumed=lease)
    if route.kind != "metered":
        if not guard.count_unmetered:
            return None
        return Call(guard, sdk, client, who(), options, route)
    body = _body(options)
    changes = {
        key: list(value)
        for key, value in body.items()
        if not isinstance(value, _PLAIN) and hasattr(type(value), "__next__")
    }
    body.update(changes)
    named = body.get("model")
    model = named if isinstance(named, str) else route.model
    streaming = bool(body.get("stream")) or "stream" in options.url.rpartition("/")[2].lower()
    asking = None
    if streaming and guard.ask_for_usage:
        asking = sdk.provider.asks_for_usage(route.endpoint, body)
        changes.update(asking or {})
    hiding = asking is not None
    call = Call(guard, sdk, client, who(), options, route, body, model, streaming, changes, hiding)
    return call if guard.upstream is None else call._replace(account=account_of(client, options))


_PRICED_TIERS = ("flex", "priority")
"""Service tiers of OpenAI with prices of their own (https://platform.openai.com/docs/pricing)."""
_PLAIN = (str, int, float, list, dict)
_DEPLOYED = re.compile(r"/deployments/([^/]+)/?$")


def _body(options: Any) -> dict[str, Any]:
    """The JSON body that will be sent, as far as it can be told; empty if it can't."""
    for raw in (getattr(options, "content", None), options.json_data):
        if isinstance(raw, (bytes, bytearray)):
            found = parsed(bytes(raw))
            return found if isinstance(found, dict) else {}
    body: dict[str, Any] = {}
    for given in (options.json_data, options.extra_json):
        if isinstance(given, (dict, Mapping)):  # the first is told at once
            body.update(given)
    return {key: value for key, value in body.items() if value is None or not absent(value)}


def _put(options: Any, changes: Mapping[str, Any], *, whole: bool) -> None:
    """Change the body of options that are ours; ``whole``: to nothing but the changes."""
    for place in ("content", "json_data"):
        raw = getattr(options, place, None)
        if isinstance(raw, (bytes, bytearray)):
            found = parsed(bytes(raw))
            if isinstance(found, dict):
                kept = {} if whole else found
                setattr(options, place, json.dumps({**kept, **changes}).encode())
            return
    if whole:
        options.json_data, options.extra_json = dict(changes), None
        return
    if isinstance(options.json_data, Mapping):
        options.json_data = {**options.json_data, **changes}
    if isinstance(options.extra_json, Mapping):  # it is merged over the body
        options.extra_json = {**options.extra_json, **changes}


def _http_response(result: Any) -> Any:
    """The HTTP response in what ``request`` returned, by its shape; None if it is the answer."""
    # Not by hasattr: asking a pydantic model for what it lacks is slow.
    parts = getattr(result, "__dict__", {})
    if "is_stream_consumed" in parts:
        return result
    if "response" in parts and hasattr(result, "__stream__"):
        return parts["response"]
    return parts.get("http_response")


def _already_read(http: Any) -> bytes | None:
    """The body if it was read, None if it is still to come."""
    try:
        return bytes(http.content)
    except Exception:  # noqa: BLE001 -- httpx.ResponseNotRead, of whichever httpx the SDK uses
        return None
