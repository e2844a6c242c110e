"""The pages of the dashboard, and what each needs."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request  # noqa: TC002  # stands beside its like
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...admin import Adjustment
from ...errors import BackendError, ConfigurationError
from ...guard import Guard
from ...identity import NOBODY, Identity
from ..asgi import App
from . import pages
from .books import RANKS, SPANS, Account, Books, Span, Summary, ranked
from .charts import Chart, over_time
from .gate import Form, Gate, Seal, admin_of, refusal
from .levels import hashes_names, identity_of, levels, tier_of
from .query import Query, body_of

if TYPE_CHECKING:
    from . import Authorize

TOP = 10
"""Users on the first page."""
PAGE = 50
"""Users on one page of all."""
_ID = re.compile(r"[0-9a-f]{24}")
_STATIC = {"dashboard.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}


def make_app(
    guard: Guard,
    authorize: Authorize | None,
    tz: str,
    secret: bytes | None,
    origins: frozenset[str],
) -> App:
    """The app, behind its gate."""
    board = Board(guard, tz, Seal(secret))
    routes = [
        Route("/", board.overview),
        Route("/users", board.users),
        Route("/user", board.user),
        Route("/find", board.find),
        Route("/adjust", board.adjust, methods=["POST"]),
        Route("/live", board.live),
        *(Route(f"/{name}", _static(name, kind)) for name, kind in _STATIC.items()),
    ]
    return Gate(
        Starlette(routes=routes, exception_handlers={HTTPException: _refuse}), authorize, origins
    )


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(error)


def _static(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = (files("quotaguard.contrib.dashboard") / "static" / name).read_bytes()

    async def static(_: Request) -> Response:
        return Response(content, media_type=kind, headers={"cache-control": "private, max-age=60"})

    return static


class Board:
    """The pages of one guard."""

    def __init__(self, guard: Guard, tz: str, seal: Seal) -> None:
        self._guard = guard
        self._tz = tz
        self._seal = seal
        journal = guard.journal
        self._books = None
        if journal is not None and journal.readable:
            self._books = Books(journal, guard.clock.now, tz)

    # -- looking --------------------------------------------------------------------------------

    async def overview(self, request: Request) -> Response:
        """Sums over everybody, and the levels of those who spend most."""
        query = Query.of(request)
        summary, problems = await self._summary(query.span)
        top = [] if summary is None else ranked(summary.people, "cost")[:TOP]
        found = await levels(self._guard, self._identities(top, summary))
        return self._page(
            request,
            "overview.html",
            query=query,
            summary=summary,
            charts=self._charts(query.span, summary),
            top=top,
            levels=found.rows,
            problems=(*problems, *found.problems),
            live=pages.link("live", span=query.span.key),
        )

    async def users(self, request: Request) -> Response:
        """Everybody."""
        query = Query.of(request)
        summary, problems = await self._summary(query.span)
        rank = query.choice("sort", RANKS)
        everybody = [] if summary is None else ranked(summary.people, rank)
        last = max(1, -(-len(everybody) // PAGE))
        number = min(query.number, last)
        some = everybody[(number - 1) * PAGE : number * PAGE]
        return self._page(
            request,
            "users.html",
            query=query,
            summary=summary,
            rank=rank,
            ranks=tuple(RANKS),
            people=some,
            count=len(everybody),
            number=number,
            last=last,
            problems=problems,
        )

    async def user(self, request: Request) -> Response:
        """One user's story, or an org's; and the forms that give and reset."""
        return await self._user(request)

    async def _user(
        self, request: Request, entered: str = "", chosen: str | None = None, error: str = ""
    ) -> Response:
        query = Query.of(request)
        account = query.account
        summary, problems = await self._summary(query.span, account)
        tier = query.text("tier")
        found = await levels(self._guard, [identity_of(account, tier)])
        said = query.text("said")
        if said is not None and not self._seal.fits(query.text("seal") or "", *query.sealed(said)):
            said = None
        scope = "org" if account.user is None else "user"
        form = Form(request, self._seal)
        response = self._page(
            request,
            "user.html",
            422 if error else 200,
            query=query,
            account=account,
            tier=tier,
            tiers=tuple(self._guard.rules.tiers),
            summary=summary,
            charts=self._charts(query.span, summary),
            people=[] if summary is None else ranked(summary.people, "cost")[:TOP],
            levels=found.rows,
            metrics=[
                *dict.fromkeys(
                    level.metric
                    for level in found.rows
                    if level.owner[0] == scope and level.metric != "concurrent"
                )
            ],
            problems=(*problems, *found.problems),
            live=pages.link("live", **query.who),
            action=pages.link("adjust", **query.who),
            said=said,
            token=form.token,
            id=secrets.token_hex(12),
            other_id=secrets.token_hex(12),
            entered=entered,
            chosen=chosen,
            error=error,
        )
        form.remember(response)
        return response

    async def find(self, request: Request) -> Response:
        """To the page of whoever was looked for by name."""
        query = Query.of(request)
        user, org, tier = (query.text(key) for key in ("user", "org", "tier"))
        if user is None and org is None:
            raise HTTPException(400, "Whose page? Say a user, an organisation, or both.")
        account = Account(user, org)
        if user is not None and hashes_names(self._guard):
            summary, _ = await self._summary(query.span, account)
            if summary is None or not (summary.recent or summary.orgs):  # it is no hash
                tier = tier or await self._tier(Identity(user, org))
                account = Account(self._guard.known_as(user), org)
        if tier is None:
            summary, _ = await self._summary(query.span, account)
            tier = tier_of(self._guard, account, summary)
        return _see(pages.link("user", user=account.user, org=org, tier=tier, span=query.span.key))

    async def live(self, request: Request) -> Response:
        """What the script of the pages asks for: the levels of a page as they are now."""
        query = Query.of(request)
        if query.who:
            who = [identity_of(query.account, query.text("tier"))]
        else:
            summary, _ = await self._summary(query.span)
            top = [] if summary is None else ranked(summary.people, "cost")[:TOP]
            who = self._identities(top, summary)
        found = await levels(self._guard, who)
        return JSONResponse(
            {
                level.key: {
                    "left": pages.amount(level.left, level.metric),
                    "held": pages.amount(level.held, level.metric),
                    "full": pages.duration(level.full_in),
                    "state": level.state,
                    "share": round(level.share, 4),
                }
                for level in found.rows
            }
        )

    # -- changing -------------------------------------------------------------------------------

    async def adjust(self, request: Request) -> Response:
        """Give to somebody's buckets or make them full, once for each form."""
        query = Query.of(request)
        form = Query(await body_of(request))
        Form(request, self._seal).check(form.text("token") or "")
        id = form.text("id") or ""
        if _ID.fullmatch(id) is None:
            raise HTTPException(400, "The form lacks its id.")
        user, org, tier = identity_of(query.account, query.text("tier"))
        who = {"user": user, "org": org, "tier": tier}
        metric, by, entered = form.text("metric"), admin_of(request), form.text("amount") or ""
        try:
            if form.choice("do", ("grant", "reset")) == "grant":
                amount, verb = _amount(entered), "Granted"
                done = await self._guard.agrant(
                    amount, **who, metric=metric or "tokens", by=by, id=f"dashboard-{id}"
                )
            else:
                verb = "Reset"
                done = await self._guard.areset(**who, metric=metric, by=by, id=f"dashboard-{id}")
        except ConfigurationError as error:
            return await self._user(request, entered, metric, str(error))
        except BackendError as error:
            raise HTTPException(
                503,
                "The ledger can't be reached; whether it was done is not known. Repeat it: "
                "with the same form it is done once.",
            ) from error
        if self._books is not None:
            self._books.forget()
        said = f"{verb}: {'; '.join(map(_told, done))}."
        return _see(
            pages.link("user", **query.who, said=said, seal=self._seal.of(*query.sealed(said)))
            + "#said"
        )

    # -- what pages share -----------------------------------------------------------------------

    async def _summary(
        self, span: Span, account: Account | None = None
    ) -> tuple[Summary | None, tuple[str, ...]]:
        if self._books is None:
            return None, ()
        try:
            return await self._books.summary(span, account), ()
        except BackendError as error:
            return None, (f"The journal can't be read: {error}",)

    async def _tier(self, who: Identity) -> str | None:
        """The tier of somebody whose own name we have this once."""
        try:
            caller = await self._guard.arun(self._guard.caller(who, NOBODY))
        except ConfigurationError:
            return None
        return caller.tier.name if caller.tier.name in self._guard.rules.tiers else None

    def _identities(
        self, people: list[tuple[Account, Any]], summary: Summary | None
    ) -> list[Identity]:
        return [
            identity_of(account, tier_of(self._guard, account, summary))
            for account, _ in people
            if account.user is not None
        ]

    def _charts(self, span: Span, summary: Summary | None) -> list[Chart]:
        if summary is None:
            return []
        style = "%H:%M" if span.step == "hour" else "%d %b"
        return over_time(
            summary.steps, [pages.moment(step.start, self._tz, style) for step in summary.steps]
        )

    def _page(self, request: Request, template: str, status: int = 200, **said: Any) -> Response:
        return pages.page(
            template,
            status,
            admin=admin_of(request),
            tz=self._tz,
            spans=SPANS,
            journal=self._guard.journal,
            readable=self._books is not None,
            now=self._guard.clock.now(),
            **said,
        )


def _amount(text: str) -> float:
    try:
        return float(text.replace(",", "").replace(" ", ""))
    except ValueError:
        raise ConfigurationError(f"an amount is a number, not {text!r}") from None


def _told(done: Adjustment) -> str:
    metric = done.limit.metric
    given, left = pages.amount(done.given, metric), pages.amount(done.left, metric)
    return f"{done.limit.text} got {given} and has {left} left"


def _see(url: str) -> Response:
    """To another page of ours. `url` is ASCII."""
    return Response(status_code=303, headers={"location": url})
