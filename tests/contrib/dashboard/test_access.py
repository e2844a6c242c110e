"""Who may see the dashboard, and which requests change something: over real sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("jinja2")
pytest.importorskip("uvicorn")

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from quotaguard import ConfigurationError, Guard
from quotaguard.contrib.dashboard import dashboard
from quotaguard.contrib.dashboard.gate import Seal

from .client import Client

Serve = Callable[..., Client]
PATHS = ("./", "users", "user?user=alice", "find?user=alice", "live", "dashboard.css", "live.js")


def by_header(connection: HTTPConnection) -> str | None:
    """Who the admin is: whoever the header says."""
    return connection.headers.get("x-admin")


def test_it_is_closed_unless_somebody_says_who_may_see_it(serve: Serve, guard: Guard) -> None:
    """Whoever mounts it and forgets the rest shows nothing to anybody."""
    client = serve(dashboard(guard))
    for path in (*PATHS, "nothing"):
        page = client.ask("GET", path)
        assert page.status == 403
        assert "made without authorize=" in page.text
        assert "alice" not in page.text


def test_nobody_else_gets_in(serve: Serve, guard: Guard) -> None:
    """Style sheets and pages that are not there included: outsiders learn nothing."""
    client = serve(dashboard(guard, authorize=by_header))
    for path in (*PATHS, "nothing"):
        assert client.ask("GET", path).status == 403
        assert client.ask("GET", path, x_admin="olga").status != 403


def test_no_method_gets_around_it(serve: Serve, guard: Guard) -> None:
    """Whatever is sent, it is asked first who sends it."""
    client = serve(dashboard(guard, authorize=by_header))
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        assert client.ask(method, "adjust").status == 403


def test_a_blocking_authorize_runs_in_a_thread(serve: Serve, guard: Guard) -> None:
    """A look into a database must not hold up the app that the dashboard is mounted in."""
    threads = []

    def slow(connection: Any) -> str:
        threads.append(threading.current_thread())
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return "olga"

    assert serve(dashboard(guard, authorize=slow)).get().status == 200
    assert threads


def test_authorize_may_await_and_send_people_elsewhere(serve: Serve, guard: Guard) -> None:
    """An app's own login goes on from here."""

    async def login(scope: Any) -> str:
        await asyncio.sleep(0)
        assert scope["type"] == "http"
        raise HTTPException(303, headers={"location": "/login"})

    page = serve(dashboard(guard, authorize=login)).ask("GET", "users")
    assert (page.status, page.fields["location"], page.html) == (303, "/login", "")
    assert "content-security-policy" in page.fields


@pytest.mark.parametrize("answer", [True, "", b"olga", 7])
def test_an_answer_that_is_no_name_lets_nobody_in(serve: Serve, guard: Guard, answer: Any) -> None:
    """``return user.is_admin`` is a likely slip: True is nobody that an audit could name."""
    page = serve(dashboard(guard, authorize=lambda _: answer)).ask("GET", "./")
    assert page.status == 500
    assert "alice" not in page.text


@pytest.mark.anyio
async def test_websockets_are_turned_away(guard: Guard) -> None:
    """There are none, so none needs to be let in."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    app: Any = dashboard(guard, authorize=lambda _: "olga")
    await app({"type": "websocket"}, None, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_every_answer_keeps_browsers_strict(serve: Serve, guard: Guard) -> None:
    """Nothing from elsewhere is loaded, nothing is framed, no inline script would run."""
    client = serve(dashboard(guard, authorize=by_header))
    for path in (*PATHS, "nothing", "user"):
        for admin in ("olga", None):
            page = client.ask("GET", path, x_admin=admin)
            policy = page.fields["content-security-policy"]
            assert policy.startswith("default-src 'none';")
            assert "unsafe" not in policy
            assert "http" not in policy
            assert "frame-ancestors 'none'" in policy
            assert page.fields["x-content-type-options"] == "nosniff"
            kept = admin is not None and path in PATHS[-2:]
            assert ("no-store" in page.fields["cache-control"]) != kept
            assert " style=" not in page.html
            assert " onclick=" not in page.html


# -- changes ---------------------------------------------------------------------------------------


@pytest.fixture
def client(serve: Serve, guard: Guard) -> Client:
    """An admin's browser."""
    return serve(
        dashboard(guard, authorize=lambda _: "olga", origins=["https://admin.example.com"])
    )


def left(guard: Guard) -> float:
    """What bob's own day has left."""
    return guard.peek(user="bob", org="acme", tier="free")[0].left


def forms(client: Client) -> tuple[str, dict[str, str]]:
    """A form of bob's page, filled in."""
    action, hidden = client.get("user", user="bob", org="acme", tier="free").form
    return action, {**hidden, "do": "grant", "amount": "50", "metric": "tokens"}


@pytest.mark.parametrize(
    "fields",
    [
        {"origin": "https://evil.example.com"},
        {"origin": "null"},
        {"origin": None},
        {"origin": "https://evil.example.com", "sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
    ],
)
def test_a_form_from_elsewhere_changes_nothing(
    client: Client, guard: Guard, fields: dict[str, str | None]
) -> None:
    """Even one that has the token: a page of another site must not spend an admin's rights."""
    action, form = forms(client)
    before = left(guard)
    page = client.post(action, form, **fields)
    assert page.status == 403
    assert "did not come from a page of this dashboard" in page.text
    assert left(guard) == before


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sec_fetch_site": "same-origin", "origin": "https://behind.a.proxy"},
        {"origin": "https://admin.example.com"},
    ],
)
def test_a_form_of_ours_is_heard(
    client: Client, guard: Guard, fields: dict[str, str | None]
) -> None:
    """The browser's own word counts, then the origin: the host's, or one that was named."""
    action, form = forms(client)
    before = left(guard)
    assert client.post(action, form, **fields).status == 303
    assert left(guard) == before + 50


@pytest.mark.parametrize("token", [None, "", "0" * 64, "é", "\ud800"])
def test_a_form_without_its_token_changes_nothing(
    client: Client, guard: Guard, token: str | None
) -> None:
    """The second lock, where a browser is too old for the first."""
    action, form = forms(client)
    form = {k: v for k, v in form.items() if k != "token"}
    if token is not None:
        form["token"] = token.encode("utf-8", "surrogatepass").decode("latin-1")
    before = left(guard)
    assert client.post(action, form).status == 403
    assert left(guard) == before


def test_a_token_is_of_one_browser_and_one_admin(serve: Serve, guard: Guard) -> None:
    """Somebody else's token, taken from their own page, opens nothing in yours."""
    who = ["olga"]
    client = serve(dashboard(guard, authorize=lambda _: who[0]))
    action, form = forms(client)
    who[0] = "oleg"
    assert client.post(action, form).status == 403
    who[0] = "olga"
    own, client.cookies = client.cookies, {}
    assert client.post(action, form).status == 403
    _, other = forms(client)
    assert client.cookies != own
    assert client.post(action, {**form, "token": other["token"]}).status == 303


def test_the_cookie_is_for_this_site_alone(client: Client) -> None:
    """Scripts do not see it, and other sites' requests do not bring it along."""
    cookie = client.ask("GET", "user?user=alice").fields["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path" not in cookie
    assert "set-cookie" not in client.ask("GET", "user?user=alice").fields


def test_only_adjust_takes_a_post(client: Client) -> None:
    """Pages are for reading."""
    for path in ("./", "users", "user?user=bob", "find?user=bob", "live"):
        assert client.post(path, {}).status == 405


def test_reading_changes_nothing(client: Client, guard: Guard) -> None:
    """A link can't grant, however it is made."""
    action, form = forms(client)
    before = left(guard)
    query = "&".join(f"{k}={v}" for k, v in form.items())
    assert client.ask("GET", f"{action}&{query}").status == 405
    assert client.ask("GET", f"user?user=bob&org=acme&{query}").status == 200
    assert left(guard) == before


def test_a_body_that_is_no_form_is_refused(client: Client) -> None:
    """Nor is one that never ends."""
    action, form = forms(client)
    assert client.post(action, form, content_type="application/json").status == 415
    assert client.post(action, {**form, "amount": "1" * 20_000}).status == 413
    assert client.post(action, {**form, "id": "../x"}).status == 400
    assert client.post(action, {f"f{i}": "" for i in range(30)}).status == 400


def test_workers_with_one_secret_take_each_others_forms(serve: Serve, guard: Guard) -> None:
    """And without it they say what is missing."""

    def worker(secret: bytes | None) -> Client:
        return serve(dashboard(guard, authorize=lambda _: "olga", secret=secret))

    first, second, other = worker(b"s" * 32), worker(b"s" * 32), worker(None)
    action, form = forms(first)
    second.cookies = other.cookies = first.cookies
    refused = other.post(action, form)
    assert refused.status == 403
    assert "the same secret=" in refused.text
    assert second.post(action, form).status == 303


def test_a_seal_keeps_texts_apart() -> None:
    """What ends one text can't begin the next."""
    seal = Seal(b"s" * 32)
    assert seal.of("a", "bc") != seal.of("ab", "c")
    assert seal.fits(seal.of("a", "\ud800"), "a", "\ud800")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"authorize": "olga"}, "authorize is a callable"),
        ({"secret": b"short"}, "secret is of 16 bytes"),
        ({"secret": "s" * 32}, "secret is of 16 bytes"),
        ({"origins": ["admin.example.com"]}, "an origin is such as"),
        ({"origins": "https://admin.example.com/"}, "an origin is such as"),
        ({"tz": "Mars/Base"}, "unknown time zone"),
    ],
)
def test_wrong_arguments_are_told_at_once(guard: Guard, wrong: Any, says: str) -> None:
    """Not when the first admin comes."""
    with pytest.raises(ConfigurationError, match=says):
        dashboard(guard, **wrong)
    with pytest.raises(ConfigurationError, match="of a Guard"):
        dashboard("redis://here")  # type: ignore[arg-type]
