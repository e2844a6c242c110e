"""One request: its reply is chosen, and what that comes to at the endpoint is answered."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .answers import Answer, Json, make_answer
from .delivery import Cut, Delivery
from .endpoints import (
    GENERATING,
    error_event,
    missing,
    model_entry,
    model_list,
    token_count,
)
from .errors import error_body
from .framing import to_json
from .ratelimits import RateLimits, limit_headers, refusal
from .record import Bill, Record, Seen, redact
from .replies import Reply
from .responses import response_body, response_events
from .routes import Flavour, find_route
from .stored import StoredResponses
from .wire import Connection, Gone, Request


@dataclass(frozen=True)
class Stage:
    """What all exchanges of a provider share."""

    next_reply: Callable[[Seen], Reply]
    record: Record
    limits: RateLimits
    stored: StoredResponses
    models: tuple[str, ...]
    closing: threading.Event


def answer(stage: Stage, connection: Connection, request: Request) -> bool:
    """Answers one request; returns whether the connection may carry another."""
    exchange = _Exchange(stage, connection, request)
    try:
        exchange.run()
    except Cut:
        return False
    except Gone:
        if not stage.closing.is_set():
            stage.record.note(exchange.serial, disconnected=True)
        return False
    return request.keep_alive


class _Exchange:
    def __init__(self, stage: Stage, connection: Connection, request: Request) -> None:
        self._stage = stage
        self._request = request
        self._route = find_route(request.method, request.path, _client(request))
        self._body = _parse(request.content)
        asked = self._body.get("model") if isinstance(self._body, dict) else None
        self._model = self._route.model or (asked if isinstance(asked, str) else None)
        seen = Seen(
            method=request.method,
            path=request.path,
            query=request.query,
            headers=redact(request.headers),
            body=self._body,
            model=self._model,
        )
        self.serial = stage.record.open(seen)
        self._reply = _choose(stage, seen)
        self._way = Delivery(
            connection,
            request,
            self._route.flavour,
            self._reply,
            stage.record,
            self.serial,
            stage.closing,
        )

    def run(self) -> None:
        """Answers, as the reply has it."""
        self._way.before_head()
        reply, route, body = self._reply, self._route, self._body
        if reply.body is not None:
            self._verbatim(reply.body)
        elif reply.status >= 400:
            self._error(reply.status, reply.text)
        elif route.endpoint is None:
            self._error(404, f"Invalid URL ({self._request.method} {self._request.path})")
        elif route.endpoint == "models":
            self._send(to_json(model_list(self._stage.models, route.flavour)))
        elif route.endpoint == "model":
            self._send(to_json(model_entry(route.model or "", route.flavour)))
        elif route.endpoint in ("retrieve", "cancel"):
            self._recall(route.endpoint, route.response_id)
        elif not isinstance(body, dict):
            self._error(400, "The body of the request is not a JSON object.")
        else:
            self._make(route.endpoint, body)

    def _make(self, name: str, body: Json) -> None:
        """Makes an answer, to give it or only to tell what it would cost."""
        try:
            made = make_answer(
                self._reply,
                body,
                serial=self.serial,
                flavour=self._route.flavour,
                model=self._model or self._stage.models[0],
            )
        except ValueError as why:
            self._error(400, str(why))
            return
        if name in GENERATING:
            self._generate(name, body, made)
        else:
            self._send(to_json(token_count(made, self._route.flavour)))

    def _generate(self, name: str, body: Json, made: Answer) -> None:
        """Gives an answer, unless the request lacks something or the limits are against it."""
        endpoint = GENERATING[name]
        lacking = missing(endpoint, body, self._model)
        if lacking is not None:
            self._error(400, f"Missing required parameter: '{lacking}'.")
            return
        tokens = made.input_tokens + (made.output_tokens if endpoint.speaks else 0)
        if not self._let_through(made, tokens):
            return
        bill = Bill(made.model)
        if name == "responses":
            self._stage.stored.keep(made, bill)
        streamed = self._route.streamed
        if streamed is None:
            streamed = body.get("stream") is True
        if streamed and endpoint.events is not None:
            self._way.stream(endpoint.events(made), error_event(name), bill)
        elif name == "responses" and body.get("background") is True:
            self._tell(response_body(made, "queued"), bill)
        else:
            self._tell(endpoint.body(made), bill)

    def _let_through(self, made: Answer, tokens: int) -> bool:
        """Whether the provider's limits have room; if not, the refusal is sent."""
        if not self._stage.limits:
            return True
        verdict = self._stage.limits.take(tokens)
        self._way.headers.update(limit_headers(verdict, self._route.flavour))
        if verdict.binding is None:
            return True
        self._error(429, refusal(verdict, made.model, tokens), kind=verdict.binding.name)
        return False

    def _recall(self, endpoint: str, response_id: str | None) -> None:
        """Answers with a response made earlier; its content is that of its own reply."""
        stored = self._stage.stored.find(response_id)
        if stored is None:
            self._error(404, f"Response with id '{response_id}' not found.")
            return
        made = stored.answer
        if self._reply.usage is not ...:
            made = replace(made, reply=replace(made.reply, usage=self._reply.usage))
        if endpoint == "cancel":
            self._tell(response_body(made, self._stage.stored.cancel(stored)), stored.bill)
        elif self._request.query.get("stream") == "true":
            after = self._request.query.get("starting_after", "")
            events = list(response_events(made))[int(after) + 1 if after.isdecimal() else 0 :]
            self._way.stream(events, error_event("responses"), stored.bill)
        else:
            self._tell(response_body(made, self._stage.stored.poll(stored)), stored.bill)

    def _verbatim(self, content: bytes) -> None:
        """Sends scripted bytes; a usage that they tell is one that was told."""
        told = _parse(content)
        usage = told.get("usage") if isinstance(told, dict) else None
        self._way.whole(content, self._reply.status, usage, Bill(self._model or ""))

    def _error(self, status: int, message: str | None, *, kind: str | None = None) -> None:
        body, headers = error_body(self._route.flavour, status, message, kind=kind)
        self._way.headers.update(headers)
        self._way.whole(to_json(body), status, None, None)

    def _tell(self, body: Json, bill: Bill) -> None:
        self._way.whole(to_json(body), self._reply.status, body.get("usage"), bill)

    def _send(self, content: bytes) -> None:
        self._way.whole(content, self._reply.status, None, None)


def _choose(stage: Stage, seen: Seen) -> Reply:
    try:
        return stage.next_reply(seen)
    except Exception as error:  # noqa: BLE001 -- the user's own function: it is for them to see
        text = f"The provider's reply function raised {type(error).__name__}: {error}"
        return Reply(status=500, text=text, headers={"x-should-retry": "false"})


def _client(request: Request) -> Flavour:
    """Whose client a request comes from, for the paths that providers have alike."""
    if "anthropic-version" in request.headers:
        return "anthropic"
    return "azure" if "api-version" in request.query else "openai"


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except (ValueError, RecursionError):
        return None
