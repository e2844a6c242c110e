"""FastAPI: who calls, what is reserved around an endpoint, and how refusals are answered.

quotas = Quotas(guard, caller)
app = FastAPI(dependencies=[Depends(quotas.acting)])
quotas.install(app)

@app.post("/v1/chat")
async def chat(question: Question) -> Answer: ...  # guarded clients in here act for the caller
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from fastapi import Depends, FastAPI
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection  # noqa: TC002  # FastAPI reads the annotations

from ..core.lease import Lease
from ..errors import ConfigurationError
from ..guard import Guard
from .asgi import Caller, QuotaMiddleware, response_of

Dependency: TypeAlias = Callable[..., Any]

RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/problem+json": {}}}
    for status, text in {
        403: "The caller's tier does not include the model.",
        413: "The request is larger than the caller's quota can ever be.",
        429: "The caller's quota has no room now; Retry-After says when it will.",
        503: "Quotas cannot be checked at the moment.",
    }.items()
}
"""What refusals answer, for the ``responses`` of an app, a router or a route: OpenAPI shows it."""


class Quotas:
    """The quotas of a FastAPI app.

    Args:
        guard: whose ledger it is.
        caller: a dependency, sync or async, that says who calls: a user's name, a
            `quotaguard.Identity`, or None for nobody. It may ask for whatever a dependency may: a
            header, a session, the claims of a token.

    Attributes:
        acting: a dependency: guarded calls act for the caller, also in threads, in the body of a
            streamed response and in background tasks.
    """

    def __init__(self, guard: Guard, caller: Callable[..., Caller | Awaitable[Caller]]) -> None:
        self.guard = guard

        async def acting(
            connection: HTTPConnection,
            who: Any = Depends(caller),  # noqa: B008
        ) -> None:
            if who is not None:
                response_of(connection.scope).exchange.act(who)

        self.acting: Callable[..., Awaitable[None]] = acting

    def install(self, app: FastAPI) -> None:
        """Let the app's responses tell of quotas and answer refusals.

        The middleware becomes the app's innermost, whatever is added before or after.

        Raises:
            ConfigurationError: the app has already started.
        """
        if app.middleware_stack is not None:
            raise ConfigurationError("install quotas before the app starts, not while it serves")
        app.user_middleware.append(Middleware(QuotaMiddleware, guard=self.guard))

    def reserve(
        self,
        *,
        model: str | Dependency | None = None,
        input_tokens: int | Dependency = 0,
        output_tokens: int | Dependency | None = None,
    ) -> Callable[..., Awaitable[Lease]]:
        """A dependency that reserves for the caller before the endpoint runs, and settles when the
        response ends, as `quotaguard.Guard.hold` does around a block; it gives the lease.

        Each argument is a value, or a dependency that gives it.

        Raises:
            QuotaExceeded, RequestTooLarge, ModelNotAllowed, BackendError: from the dependency; the
                endpoint does not run.
        """
        given = [_given(value) for value in (model, input_tokens, output_tokens)]

        async def reserve(
            connection: HTTPConnection,
            _: None = Depends(self.acting),
            model: Any = given[0],
            input_tokens: Any = given[1],
            output_tokens: Any = given[2],
        ) -> Lease:
            return await response_of(connection.scope).reserve(model, input_tokens, output_tokens)

        return reserve


def _given(value: object) -> Any:
    """A dependency that gives the value, if it is not one."""
    if callable(value):
        return Depends(value)

    async def given() -> object:
        return value

    return Depends(given)
