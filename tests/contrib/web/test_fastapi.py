"""Who calls, and what a FastAPI app tells them, over real sockets."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import openai
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from fastapi import Depends, FastAPI, Header
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse

from quotaguard import (
    BackendError,
    ConfigurationError,
    Fallback,
    Guard,
    Identity,
    QuotaExceeded,
    Tier,
)
from quotaguard.contrib.fastapi import Quotas
from quotaguard.testing import FakeClock, FakeProvider

from .chat_app import chat_app
from .server import ask, serving, settled

COST = 19
"""What the provider says a call used."""
DAY = 86_400


def test_an_answer_tells_what_is_left(serve: Callable[..., int], guard: Guard) -> None:
    """The draft's two fields name each limit, its quota, what is left, and when it is full."""
    answer = ask(serve(), "/v1/chat")
    assert (answer.status, answer.json) == (200, {"answer": "a b c d"})
    assert answer.fields["ratelimit-policy"] == (
        '"100 tokens/day";q=100;qu="tokens";w=86400, "60 requests/minute";q=60;qu="requests";w=60'
    )
    assert answer.fields["ratelimit"] == (
        f'"100 tokens/day";r={100 - COST};t=86400, "60 requests/minute";r=59;t=1'
    )
    assert "quota-served-model" not in answer.fields
    assert settled(guard) == 100 - COST


def test_a_refusal_is_a_problem_that_says_when_to_come_back(
    serve: Callable[..., int], guard: Guard, provider: FakeProvider
) -> None:
    """429, whole seconds rounded up, and a body with the limit, what is left, and the reset."""
    assert isinstance(guard.clock, FakeClock)
    guard.clock.advance(0.25)
    with guard.hold(user="alice", input_tokens=95, output_tokens=0):
        answer = ask(serve(), "/v1/chat")
    assert answer.status == 429
    assert answer.fields["content-type"] == "application/problem+json"
    assert answer.fields["retry-after"] == str(DAY)
    assert answer.fields["ratelimit"] == f'"100 tokens/day";r=5;t={DAY}'
    said = answer.json
    assert said.pop("detail").startswith("user alice is over the limit of 100 tokens/day")
    assert said.pop("asked") > 5
    assert said == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "A quota is exceeded",
        "status": 429,
        "limit": "100 tokens/day",
        "metric": "tokens",
        "left": 5,
        "capacity": 100,
        "violated-policies": ["100 tokens/day"],
        "retry_after": DAY,
        "resets_in": DAY,
    }
    assert provider.requests == []


def test_a_request_that_never_fits_is_413(serve: Callable[..., int]) -> None:
    """429 would have clients try again; there is nothing to wait for."""
    answer = ask(serve(), "/v1/chat", body={"most": 1_000})
    assert (answer.status, answer.json["capacity"]) == (413, 100)
    assert "retry-after" not in answer.fields
    assert "retry_after" not in answer.json


def test_a_model_that_the_tier_leaves_out_is_403(provider: FakeProvider) -> None:
    """The body says which the tier includes."""
    guard = Guard(tiers=[Tier("free", models=["gpt-4o-mini"])], clock=FakeClock())
    with serving(chat_app(guard, provider)) as port:
        answer = ask(port, "/v1/chat", body={"model": "gpt-4o"})
    assert (answer.status, answer.json["title"]) == (403, "Forbidden")
    assert answer.json["allowed"] == ["gpt-4o-mini"]


def test_a_ledger_that_is_away_is_503(
    serve: Callable[..., int], guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a time to come back, and without the host's name."""

    async def away(op: Any) -> Any:
        raise BackendError("Redis at 10.0.0.1:6379: no answer")

    port = serve()
    monkeypatch.setattr(guard.backend, "aexecute", away)
    answer = ask(port, "/v1/chat")
    assert (answer.status, answer.fields["retry-after"]) == (503, "2")
    assert "10.0.0.1" not in answer.body


def test_a_mistake_of_the_app_stays_a_500(serve: Callable[..., int]) -> None:
    """Nobody was identified, and the limit is per user: that is no fault of the caller's."""
    answer = ask(serve(), "/v1/chat", user=None)
    assert (answer.status, answer.body) == (500, "Internal Server Error")


@pytest.mark.parametrize(
    "path",
    ["/v1/chat", "/in-a-thread", "/streamed", "/streamed-from-a-thread", "/in-the-background"],
)
def test_everybody_pays_for_themselves(
    path: str, serve: Callable[..., int], guard: Guard, provider: FakeProvider
) -> None:
    """Whoever else is being served, and whichever thread or task makes the call."""
    port, users = serve(), [f"user-{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda user: ask(port, path, user), users))
    assert {answer.status for answer in answers} == {200}
    deadline = time.monotonic() + 10
    while len(provider.requests) < len(users) and time.monotonic() < deadline:
        time.sleep(0.005)  # background tasks
    if path != "/in-the-background":
        rests = {f'"100 tokens/day";r={100 - COST}', '"100 tokens/day";r='}
        assert all(any(rest in a.fields["ratelimit"] for rest in rests) for a in answers)
    assert {settled(guard, user) for user in users} == {100 - COST}


def test_a_downgrade_is_disclosed(provider: FakeProvider) -> None:
    """The head names the model that was asked for and the one that served."""
    guard = Guard(
        limits=["30 tokens/day for gpt-4o", "1k tokens/day"],
        when_exceeded=Fallback("gpt-4o-mini"),
        clock=FakeClock(),
    )
    with serving(chat_app(guard, provider)) as port:
        answer = ask(port, "/v1/chat", body={"model": "gpt-4o", "most": 50})
        lease = ask(port, "/reserved", body={"most": 50})
    for each in (answer, lease):
        assert each.fields["quota-requested-model"] == '"gpt-4o"'
        assert each.fields["quota-served-model"] == '"gpt-4o-mini"'
    assert lease.json == {"served": "gpt-4o-mini"}


def test_nobody_hears_of_somebody_elses_quota(serve: Callable[..., int], guard: Guard) -> None:
    """Not when a call succeeds on another user's account, and not when it is refused there."""
    port = serve()
    passed = ask(port, "/for-bob")
    assert (passed.status, "ratelimit" in passed.fields) == (200, False)
    with guard.hold(user="bob", input_tokens=80, output_tokens=0):
        refused = ask(port, "/for-bob")
    assert (refused.status, refused.fields["retry-after"]) == (429, str(DAY))
    assert "ratelimit" not in refused.fields
    assert set(refused.json) == {"type", "title", "status", "detail", "retry_after"}
    assert "bob" not in refused.body


def test_an_organisation_is_told_of_its_own_and_nobody_of_everybodys(
    provider: FakeProvider,
) -> None:
    """What all users together have left would tell what the others use."""
    guard = Guard(limits=["100 tokens/day per org", "40 tokens/day per global"], clock=FakeClock())
    with serving(chat_app(guard, provider)) as port:
        passed = ask(port, "/v1/chat", **{"x-org": "acme"})
        refused = ask(port, "/v1/chat", **{"x-org": "acme"}, body={"most": 20})
    assert passed.fields["ratelimit"] == f'"100 tokens/day per org";r={100 - COST};t={DAY}'
    assert (refused.status, refused.json["limit"]) == (429, "40 tokens/day per global")
    assert "left" not in refused.json
    assert "21" not in refused.json["detail"]


def claims(authorization: Annotated[str, Header()]) -> dict[str, str]:
    """Stands for reading a token."""
    user, _, tier = authorization.removeprefix("Bearer ").partition("/")
    return {"sub": user, "plan": tier}


def by_claims(token: Annotated[dict[str, str], Depends(claims)]) -> Identity:
    """A dependency of a dependency."""
    return Identity(token["sub"], tier=token["plan"])


async def by_session(authorization: Annotated[str, Header()]) -> str:
    """An async one that gives a name."""
    return authorization.removeprefix("Bearer ").partition("/")[0]


@pytest.mark.parametrize(("caller", "left"), [(by_claims, 1_000), (by_session, 100)])
def test_the_caller_comes_from_any_dependency(
    caller: Callable[..., Any], left: int, provider: FakeProvider
) -> None:
    """Sync or async, with dependencies of its own, a name or a whole identity."""
    guard = Guard(
        tiers=[Tier("free", ["100 tokens/day"]), Tier("pro", ["1k tokens/day"])],
        default_tier="free",
        clock=FakeClock(),
    )
    with serving(chat_app(guard, provider, caller)) as port:
        answer = ask(port, "/v1/chat", user=None, authorization="Bearer carol/pro")
        assert (answer.status, f";r={left - COST};" in answer.fields["ratelimit"]) == (200, True)
        assert ask(port, "/v1/chat", user=None).status == 422


def test_the_apps_own_handler_goes_first(
    serve: Callable[..., int], guard: Guard, provider: FakeProvider
) -> None:
    """A refusal is a `QuotaExceeded` and the SDK's error; whoever handles either, may."""
    app = chat_app(guard, provider)
    for kind, status in ((QuotaExceeded, 420), (openai.PermissionDeniedError, 418)):

        @app.exception_handler(kind)
        async def own(request: Any, error: Any, status: int = status) -> JSONResponse:
            return JSONResponse({}, status)

    answer = ask(serve(app), "/v1/chat", body={"most": 99})
    assert (answer.status, answer.json) == (420, {})


def test_a_refusal_passes_the_other_middleware(
    serve: Callable[..., int], guard: Guard, provider: FakeProvider
) -> None:
    """A browser may read it: what CORS adds is there, whenever the middleware was added."""
    app = chat_app(guard, provider)
    app.add_middleware(CORSMiddleware, allow_origins=["*"], expose_headers=["RateLimit"])
    answer = ask(serve(app), "/v1/chat", body={"most": 200}, origin="https://app.example")
    assert answer.status == 413
    assert answer.fields["access-control-allow-origin"] == "*"


def test_openapi_tells_of_refusals(guard: Guard, provider: FakeProvider) -> None:
    """And of what the caller is identified by."""
    told = chat_app(guard, provider).openapi()["paths"]["/v1/chat"]["post"]
    assert {"403", "413", "429", "503"} <= set(told["responses"])
    assert "application/problem+json" in told["responses"]["429"]["content"]
    assert "x-user" in {parameter["name"] for parameter in told["parameters"]}


def test_an_app_without_the_middleware_is_told(serve: Callable[..., int], guard: Guard) -> None:
    """Not silently unmetered."""
    seen: list[Exception] = []
    app = FastAPI(dependencies=[Depends(Quotas(guard, lambda: "alice").acting)])

    @app.post("/")
    async def nothing() -> None:
        """Never reached."""

    @app.exception_handler(ConfigurationError)
    async def note(request: Any, error: ConfigurationError) -> JSONResponse:
        seen.append(error)
        return JSONResponse({}, 500)

    assert ask(serve(app), "/").status == 500
    assert "Quotas.install(app)" in str(seen[0])


def test_installing_too_late_is_told(serve: Callable[..., int], guard: Guard) -> None:
    """A middleware that is added later would never run."""
    app = FastAPI()
    assert ask(serve(app), "/").status == 404
    with pytest.raises(ConfigurationError, match="before the app starts"):
        Quotas(guard, lambda: "alice").install(app)


def test_no_more_is_admitted_than_there_is(
    serve: Callable[..., int], guard: Guard, provider: FakeProvider
) -> None:
    """Of many at once as many pass as fit, and each refusal says when to come back."""
    port = serve()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: ask(port, "/v1/chat", body={"most": 7}), range(40)))
    passed = [answer for answer in answers if answer.status == 200]
    assert {answer.status for answer in answers} == {200, 429}
    assert len(passed) == len(provider.requests) <= math.floor(100 / COST)
    assert settled(guard) == 100 - COST * len(passed)
    assert all(a.fields["retry-after"] == str(DAY) for a in answers if a.status == 429)
