"""ASGI middleware: quotas for Starlette, FastAPI, Litestar and whatever else speaks ASGI.

It knows who calls, turns refusals into responses, tells in every response's head what is left, and
settles what `Response.reserve` reserved, however the response ends.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from ..core.lease import Lease
from ..core.plan import renew
from ..errors import ConfigurationError
from ..guard import Guard
from ..hold import Hold
from ..identity import Identity
from .http import REFUSALS, Exchange, Problem

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Caller: TypeAlias = Identity | str | None

_KEY = "quotaguard"

ABANDONED = 30.0
"""Seconds for which calls stay reserved that a broken off response left open, unless somebody reads
on: the generator that reads them may lie in a reference cycle until the garbage is collected. What
they used is charged whenever they end."""

_closing: set[asyncio.Future[None]] = set()


class QuotaMiddleware:
    """The innermost middleware of an app, so that it sees sessions and logins, and so that what it
    answers passes the others (CORS).

    Args:
        app: the ASGI app.
        guard: whose ledger it is.
        identify: from a connection's scope, who calls: a user's name, an `Identity`, or None;
            blocking or not. Calls inside act for that caller. A response without a caller is
            passed on as it is.
    """

    def __init__(
        self,
        app: App,
        guard: Guard,
        identify: Callable[[Scope], Caller | Awaitable[Caller]] | None = None,
    ) -> None:
        self.app = app
        self.guard = guard
        self.identify = identify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        with Exchange(self.guard) as exchange:
            caller = self.identify(scope) if self.identify is not None else None
            if inspect.isawaitable(caller):
                caller = await caller
            if caller is not None:
                exchange.act(caller)
            response = scope[_KEY] = Response(exchange, send)
            try:
                await self.app(scope, receive, response.send)
            except REFUSALS as error:
                if response.started or scope["type"] == "websocket":
                    response.failed = True
                    raise
                await response.refuse(exchange.problem(error))
            except BaseException:
                response.failed = True
                raise
            finally:
                if not response.complete:
                    await response.break_off()


class Response:
    """A response on its way out.

    Its head waits for the first of its body, as ASGI lets servers wait too: so a stream that is
    refused before it says anything is still a 429, and the head can tell of what the stream called.
    """

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self.exchange = exchange
        self.started = False
        self.complete = False
        self.failed = False
        self._send = send
        self._head: Message | None = None
        self._reserved: list[Lease] = []

    async def reserve(
        self, model: str | None, input_tokens: int, output_tokens: int | None
    ) -> Lease:
        """`quotaguard.Guard.ahold` around the rest of the response.

        It is settled just before the last of the body is sent, so that who calls again at once
        finds what is left. A response with an error's status, or none, is charged its input if the
        lease was told nothing else; one whose client went away is charged as reserved.
        """
        exchange = self.exchange
        hold = Hold(exchange.guard, Identity(), model, input_tokens, output_tokens)
        lease = hold.begin(await exchange.guard.arun(hold.admission()))
        self._reserved.append(lease)
        exchange.enter_context(hold.inside())
        return lease

    async def send(self, message: Message) -> None:
        """Pass a message on, as the app's ``send``."""
        if message["type"] == "http.response.start":
            self.failed = message["status"] >= 400
            if self.exchange.caller is not None:
                self._head = message
                return
            self.started = True
        last = message["type"] == "http.response.body" and not message.get("more_body")
        if last:
            await self._settle()
        if self._head is not None:
            head, self._head = self._head, None
            told = [(name.encode(), value.encode()) for name, value in self.exchange.fields()]
            self.started = True
            await self._send({**head, "headers": [*head.get("headers", ()), *told]})
        await self._send(message)
        self.complete = self.complete or last

    async def refuse(self, problem: Problem) -> None:
        """Answer with a problem in the place of what was to be said."""
        body = json.dumps(problem.body).encode()
        fields = [("content-type", "application/problem+json"), ("content-length", str(len(body)))]
        headers = [(name.encode(), value.encode()) for name, value in fields + problem.fields]
        await self.send(
            {"type": "http.response.start", "status": problem.status, "headers": headers}
        )
        await self.send({"type": "http.response.body", "body": body})

    async def break_off(self) -> None:
        """Settle what the response leaves behind, also if its own task was cancelled."""
        closing = asyncio.ensure_future(self._close())
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)
        await asyncio.shield(closing)

    async def _close(self) -> None:
        guard = self.exchange.guard
        await self._settle()
        await guard.arun_errands()  # settles that were cancelled on the way
        for lease in self.exchange.leases:
            if lease.is_open and lease.charges:
                lease.renew_at = guard.clock.now() + ABANDONED / 2
                await guard.arun(renew(lease, ABANDONED))

    async def _settle(self) -> None:
        guard = self.exchange.guard
        while self._reserved:
            lease = self._reserved.pop()
            outcome = lease.outcome(None, self.failed)
            if lease.close():
                await guard.afinish(guard.settlement(lease, outcome))


def response_of(scope: Scope) -> Response:
    """The response that a connection's scope is answered with.

    Raises:
        ConfigurationError: the app lacks the middleware.
    """
    response = scope.get(_KEY)
    if not isinstance(response, Response):
        raise ConfigurationError(
            "this app lacks quotaguard.contrib.asgi.QuotaMiddleware; with FastAPI, "
            "Quotas.install(app) adds it"
        )
    return response
