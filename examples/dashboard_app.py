"""A dashboard for operators, mounted in an app: who used what, what is left, and grants.

In your browser: ``uvicorn --factory examples.dashboard_app:make_app``, then open
http://127.0.0.1:8000/quotas/ and sign in as ``operator`` with the password ``open sesame``. Run as
a script it asks itself.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import random
import re
import time

from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection  # noqa: TC002  # simpler to read

from quotaguard import Fallback, Guard, Journal, QuotaExceeded, Tier
from quotaguard.contrib.dashboard import dashboard
from quotaguard.testing import FakeClock

PASSWORDS = {"operator": "open sesame"}  # yours come from where your admins sign in
TIERS = [
    Tier("free", limits=["4k tokens/day", "20 requests/minute"]),
    Tier(
        "pro",
        limits=[
            "12k tokens/day for large",
            "60k tokens/day",
            "$5/month",
            "400k tokens/day per org",
        ],
        when_exceeded=Fallback("small"),
    ),
]
PRICES = {"large": {"input": 2.50, "output": 10}, "small": {"input": 0.15, "output": 0.60}}
PEOPLE = [
    ("alice", "acme", "pro", 20),
    ("bob", "acme", "pro", 11),
    ("carol", "umbrella", "pro", 7),
    ("dave", None, "free", 6),
    ("erin", None, "free", 3),
    ("<script>alert('mallory')</script>", None, "free", 2),
]
"""User, organisation, tier, calls a day."""
DAYS = 7


def new_guard(journal: Journal, now: float | None = None) -> Guard:
    """A guard of this service; with ``now`` one at another time."""
    clock = None if now is None else FakeClock(now)
    return Guard(tiers=TIERS, prices=PRICES, default_tier="free", journal=journal, clock=clock)


def call(guard: Guard, chance: random.Random, user: str, org: str | None, tier: str) -> None:
    """One call that stands for one to a provider."""
    asked, answered = chance.randint(200, 900), chance.randint(80, 700)
    model = "large" if tier == "pro" else "small"
    try:
        with guard.hold(
            user=user, org=org, tier=tier, model=model, input_tokens=asked, output_tokens=700
        ) as lease:
            lease.record(input_tokens=asked, output_tokens=answered)
    except QuotaExceeded:
        pass


def seed(journal: Journal, now: float, chance: random.Random) -> None:
    """A week of calls before ``now``."""
    guard = new_guard(journal, now - DAYS * 86_400)
    assert isinstance(guard.clock, FakeClock)
    for day in range(DAYS):
        calls = [who for *who, often in PEOPLE for _ in range(often + chance.randint(-1, day))]
        chance.shuffle(calls)
        for who in calls:
            call(guard, chance, *who)
            guard.clock.advance(86_000 / len(calls))
        guard.clock.advance(now - (DAYS - 1 - day) * 86_400 - guard.clock.now())


def admin(connection: HTTPConnection) -> str:
    """Who the admin is, by HTTP's basic authentication; a session or a proxy's header would do."""
    kind, _, told = connection.headers.get("authorization", "").partition(" ")
    try:
        name, _, password = (
            base64.b64decode(told if kind == "Basic" else "").decode().partition(":")
        )
    except (binascii.Error, UnicodeDecodeError):
        name = password = ""
    right = PASSWORDS.get(name, "")
    if not (right and hmac.compare_digest(password.encode(), right.encode())):
        raise HTTPException(401, "Sign in.", {"www-authenticate": 'Basic realm="quotas"'})
    return name


def make_app(now: float | None = None) -> FastAPI:
    """The app, with a week behind it and some calls today."""
    journal, chance = Journal("memory://"), random.Random(7)
    seed(journal, time.time() if now is None else now, chance)
    guard = new_guard(journal, now)
    for *who, often in PEOPLE:
        for _ in range(often // 2 + 2):
            call(guard, chance, *who)
    app = FastAPI()
    app.mount("/quotas", dashboard(guard, authorize=admin))
    return app


def main() -> None:
    """Look at the dashboard as an admin would, and give dave another 1,000 tokens."""
    with TestClient(make_app(FakeClock().now())) as web:

        def show(what: str, page: str) -> None:
            facts = " ".join(re.sub(r"<[^>]*>", " ", page).split())
            print(f"{what}: {facts}")

        print(f"Without a name: {web.get('/quotas/').status_code}")
        web.auth = ("operator", "open sesame")
        overview = web.get("/quotas/").text
        show("The week", overview[overview.index('<dl class="sums">') : overview.index("</dl>")])
        rows = re.findall(r'<th scope="row"><a href="find.*?</tr>', overview, re.DOTALL)
        show("First of the top users", rows[0])
        print(f"A hostile name is shown as text: {'&lt;script&gt;alert(' in overview}")

        page = web.get("/quotas/find", params={"user": "dave"}).text
        form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="(\w+)">', page))
        action = re.search(r'action="(adjust[^"]*)"', page)
        assert action is not None
        granted = web.post(
            f"/quotas/{action[1].replace('&amp;', '&')}",
            data={**form, "do": "grant", "amount": "1000", "metric": "tokens"},
            headers={"origin": "http://testserver"},
        )
        said = re.search(r'id="said"[^>]*>(.*?)</p>', granted.text)
        print(said[1] if said else granted.status_code)
        story = granted.text[granted.text.index('id="story"') :]
        show("The newest of dave's story", story.split("<tr>")[2])
        forged = web.post("/quotas/adjust?user=dave", data={"do": "reset"})
        print(f"The same from elsewhere, without the form's token: {forged.status_code}")


if __name__ == "__main__":
    main()
