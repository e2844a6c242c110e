"""Who may see the dashboard, and which requests may change something.

Closed unless ``authorize`` names an admin. A change has to be a POST that a page of ours sent. The
browser says so (``Sec-Fetch-Site``, else ``Origin``), and the form carries a token that is sealed
for this admin and this browser, which has a cookie that other sites' requests don't bring along.
"""

from __future__ import annotations

import hashlib
import hmac
import inspect
import re
import secrets
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from ...identity import name, nobody_acting
from ..asgi import App, Message, Receive, Scope, Send
from .pages import problem

if TYPE_CHECKING:
    from . import Authorize

COOKIE = "quotaguard_form"
_ADMIN = "quotaguard.admin"
_NONCE = re.compile(r"[A-Za-z0-9_-]{43}")

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",  # with no-referrer, forms would come with "Origin: null"
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
CLOSED = (
    "This dashboard is closed: it was made without authorize=, the callable that says who may see "
    "it."
)
NOT_YOURS = "You are not signed in as somebody who may see this dashboard."
FOREIGN = "The request did not come from a page of this dashboard, so nothing was changed."
STALE = (
    "The form is out of date or was made for somebody else, so nothing was changed. Load the page "
    "again and repeat. Where several workers serve the dashboard, each must be given the same "
    "secret=."
)


class Seal:
    """Says of texts that they come from us."""

    def __init__(self, secret: bytes | None) -> None:
        self._secret = secret or secrets.token_bytes(32)

    def of(self, *texts: str) -> str:
        """The seal of some texts, in this order."""
        message = b"".join(
            b"%d:%b" % (len(raw), raw)
            for raw in (text.encode("utf-8", "surrogatepass") for text in texts)
        )
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()

    def fits(self, seal: str, *texts: str) -> bool:
        """Whether it is that of these texts."""
        return hmac.compare_digest(seal.encode("utf-8", "surrogatepass"), self.of(*texts).encode())


class Form:
    """What a page needs in order to send a form of its own."""

    def __init__(self, request: Request, seal: Seal) -> None:
        given = request.cookies.get(COOKIE, "")
        self._fresh = _NONCE.fullmatch(given) is None
        self._nonce = secrets.token_urlsafe(32) if self._fresh else given
        self._secure = request.url.scheme == "https"
        self._seal = seal
        self.token = seal.of("form", admin_of(request), self._nonce)

    def check(self, token: str) -> None:
        """Let a form pass that one of our pages sent for this admin.

        Raises:
            HTTPException: 403, it is none.
        """
        if self._fresh or not hmac.compare_digest(
            token.encode("utf-8", "surrogatepass"), self.token.encode()
        ):
            raise HTTPException(403, STALE)

    def remember(self, response: Response) -> None:
        """Give the browser its half, if it has none. Without a path the cookie is for the folder
        that the browser sees, whatever a proxy makes of it.
        """
        if self._fresh:
            response.set_cookie(
                COOKIE,
                self._nonce,
                path=None,
                secure=self._secure,
                httponly=True,
                samesite="strict",
            )


class Gate:
    """Lets admins through to an app, and strips nobody of the headers that keep browsers strict.

    Args:
        app: the app within.
        authorize, origins: as `quotaguard.contrib.dashboard.dashboard` takes them.
    """

    def __init__(self, app: App, authorize: Authorize | None, origins: frozenset[str]) -> None:
        self._app = app
        self._authorize = authorize
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            scope[_ADMIN] = await self._admin(HTTPConnection(scope))
            if scope["method"] not in ("GET", "HEAD"):
                self._check_origin(HTTPConnection(scope))
        except HTTPException as error:
            await refusal(error)(scope, receive, strict)
            return
        with nobody_acting():  # an app's middleware may have it that the admin calls
            await self._app(scope, receive, strict)

    async def _admin(self, connection: HTTPConnection) -> str:
        if self._authorize is None:
            raise HTTPException(403, CLOSED)
        answer = await run_in_threadpool(self._authorize, connection)
        if inspect.isawaitable(answer):
            answer = await answer
        admin = name(answer, "what authorize answers")
        if admin is None:
            raise HTTPException(403, NOT_YOURS)
        return admin

    def _check_origin(self, connection: HTTPConnection) -> None:
        headers = connection.headers
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site is not None:  # not sent over plain HTTP from another machine
            ours = site == "same-origin"
        else:
            ours = origin is not None and (
                origin in self._origins or urlsplit(origin).netloc == headers.get("host")
            )
        if not ours:
            raise HTTPException(403, FOREIGN)


def admin_of(request: Request) -> str:
    """Who was let through."""
    admin: str = request.scope[_ADMIN]
    return admin


def refusal(error: HTTPException) -> Response:
    """What an error is answered with: a page, or where it sends somebody elsewhere just that."""
    if error.status_code < 400:
        return Response(status_code=error.status_code, headers=error.headers)
    return problem(error.status_code, error.detail, error.headers)
