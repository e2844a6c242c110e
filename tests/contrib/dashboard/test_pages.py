"""What the pages show, whoever the users are and wherever the dashboard is: over real sockets."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("jinja2")
pytest.importorskip("uvicorn")

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount

from quotaguard import Entry, Guard, Identity, Journal, Tier
from quotaguard.contrib.asgi import QuotaMiddleware
from quotaguard.contrib.dashboard import dashboard
from quotaguard.contrib.dashboard.pages import amount, duration
from quotaguard.testing import FakeClock
from quotaguard.wording import shown

from .client import Client
from .conftest import HOSTILE, call

Serve = Callable[..., Client]


def board(guard: Guard, **options: Any) -> Any:
    """A dashboard that is open to everybody."""
    return dashboard(guard, authorize=lambda _: "olga", **options)


def test_the_overview_adds_everybody_up(serve: Serve, guard: Guard) -> None:
    """Cost, what limits saved, refusals and downgrades, the top users and what they have left."""
    text = serve(board(guard)).get().text
    total = guard.report("all", by=()).total
    assert f"Cost ${total.cost}" in text
    assert "Saved by limits $0.0056 refused $0.002, downgraded $0.0036" in text
    assert "Calls 3" in text
    assert "Tokens 1,000 1,000 in, 0 out" in text
    assert "Refused 1" in text
    assert "Downgraded 1" in text
    assert "alice none pro 2 800 $0.0044 0 1 $0.0036" in text
    assert "bob acme team 1 200 $0.002 1 0 $0.002" in text
    assert "all of acme 300 tokens/day per org fine 100 300 0 11 h" in text
    assert "alice 500 tokens/day for large fine 100 500 0 11 h" in text
    assert "300 tokens/day per org quota exceeded 1 2026-01-01 13:00:00" in text
    assert "downgraded large → small 400 $0.0004 500 tokens/day for large" in text


@pytest.mark.parametrize(("span", "steps"), [("24h", 24), ("7d", 7), ("30d", 30), ("x", 7)])
def test_charts_have_a_table_with_their_values(
    serve: Serve, guard: Guard, span: str, steps: int
) -> None:
    """Who can't see a picture reads the same; steps without calls are there too."""
    page = serve(board(guard)).get(span=span)
    assert page.html.count('<rect class="hover"') == 2 * steps
    tables = page.html.split("as a table")[1:]
    assert [table.split("</table>")[0].count('<th scope="row">') for table in tables] == [steps] * 2
    at = "13:00" if span == "24h" else "01 Jan"
    calls = 1 if span == "24h" else 2
    assert f'<th scope="row">{at}</th><td class="number">{calls}</td>' in page.html


def test_a_user_has_a_story(serve: Serve, guard: Guard, clock: FakeClock) -> None:
    """The newest first: what each call was, what it cost, and why it went otherwise."""
    text = serve(board(guard)).get("find", user="alice").text
    story = text[text.index("Story, the newest first") :]
    assert story.index("2026-01-01 13:00:00 downgraded") < story.index("2026-01-01 12:00:00 served")
    assert "bob" not in text
    assert "tier pro" in text


def test_an_org_has_a_page(serve: Serve, guard: Guard) -> None:
    """Its users, and the buckets that they share; not anybody's own."""
    page = serve(board(guard)).get("find", org="acme")
    assert "300 tokens/day per org fine 100 300" in page.text
    assert "5k tokens/day" not in page.text
    assert "bob acme team 1 200" in page.text


def test_the_same_name_elsewhere_is_pointed_out(serve: Serve, guard: Guard) -> None:
    """Bob of acme and bob of nowhere are two: an admin who forgot the org finds the other."""
    client = serve(board(guard))
    page = client.get("find", user="bob")
    assert "That name has calls elsewhere" in page.text
    (link,) = {link for link in page.links if link.startswith("find?user=bob&org=acme")}
    assert "refused large" in client.get(link).text


def test_any_name_is_shown_as_text_and_found_by_its_link(serve: Serve, guard: Guard) -> None:
    """A user chooses the name; it becomes neither markup nor a path, nor a line of a header."""
    for number, user in enumerate(HOSTILE):
        call(guard, user, 900 + number, tier="free")
    client = serve(board(guard))
    overview = client.get("users")
    assert "<script>alert" not in overview.html
    assert "<img src=x" not in overview.html
    assert "\u202e" not in overview.html
    for number, user in enumerate(HOSTILE):
        client.at = "/"
        (row,) = [row for row in overview.html.split("<tr") if f">{900 + number}</td>" in row]
        link = row.split('href="')[1].split('"')[0].replace("&amp;", "&")
        assert link.isascii()
        page = client.get(link)
        assert page.status == 200
        assert f"served large {900 + number}" in page.text
        assert f"1k tokens/day low {100 - number} 1,000" in page.text
        assert " ".join(f"User {shown(user, 2_000)} tier free".split()) in page.text


def test_any_name_can_be_granted_to(serve: Serve, guard: Guard) -> None:
    """Exactly that one: browsers rewrite the ends of lines in fields, so names are in the URL."""
    client = serve(board(guard))
    for user in HOSTILE:
        call(guard, user, 900, tier="free")
        page = client.grant(client.get("user", user=user, tier="free"), "300")
        assert "Granted: 1k tokens/day got 300 and has 400 left." in page.text
        assert guard.peek(user=user, tier="free")[0].left == 400


def test_an_admin_may_have_any_name_too(serve: Serve, guard: Guard) -> None:
    """It comes from a login of somebody else's."""
    app = dashboard(guard, authorize=lambda _: "<b>olga</b>\r\nx: y\u202e")
    client = serve(app)
    page = client.grant(client.get("user", user="alice", tier="free"), "1")
    assert "<b>" not in page.html
    assert "by '<b>olga</b>\\r\\nx: y\\u202e'" in page.text


@pytest.mark.parametrize("query", ["user=%ff", "user=", "org=", "", "a&" * 50])
def test_a_query_that_says_nobody_is_told_so(serve: Serve, guard: Guard, query: str) -> None:
    """400, not a traceback."""
    client = serve(board(guard))
    for page in ("user", "find"):
        assert client.ask("GET", f"{page}?{query}").status == 400


def test_it_works_below_a_path_and_behind_a_proxy(serve: Serve, guard: Guard) -> None:
    """All links are relative, so neither the mount nor what a proxy strips matters."""
    deep = Starlette(routes=[Mount("/admin", Starlette(routes=[Mount("/quotas", board(guard))]))])
    for app, prefix in ((deep, "/admin/quotas"), (board(guard), "")):
        client = serve(app, prefix)
        page = client.grant(client.get("find", user="alice"), "10")
        assert "Granted" in page.text
        assert client.at.startswith(f"{prefix}/user?")
        assert not [link for link in page.links if link.startswith(("/", "http"))]
        assert client.get("dashboard.css").fields["content-type"].startswith("text/css")
    assert serve(deep).get("/admin/quotas").status == 200


def test_an_admin_who_is_a_user_too_sees_others(serve: Serve, guard: Guard) -> None:
    """Within an app under quotas the admin's own identity must not go before whom they look at."""
    app = Starlette(
        routes=[Mount("/quotas", board(guard))],
        middleware=[
            Middleware(
                QuotaMiddleware, guard=guard, identify=lambda _: Identity("olga", "staff", "free")
            )
        ],
    )
    client = serve(app, "/quotas")
    assert "500 tokens/day for large fine 100 500" in client.get("find", user="alice").text
    client.grant(client.get("find", user="alice"), "100")
    assert guard.peek(user="alice", tier="pro", everything=True)[0].left == 200


def test_without_a_journal_it_says_how_to_keep_one(serve: Serve) -> None:
    """Levels and grants work all the same."""
    guard = Guard(limits=["1000 tokens/day"])
    call(guard, "alice", 300)
    client = serve(board(guard))
    assert 'journal="sqlite:///usage.db"' in client.get().text
    assert 'journal="sqlite:///usage.db"' in client.get("users").text
    page = client.get("find", user="alice")
    assert "keeps no journal" in page.text
    assert "1k tokens/day fine 700 1,000" in page.text
    assert "has 800 left" in client.grant(page, "100").text


def test_a_journal_that_cannot_be_read_back_is_as_good_as_none(serve: Serve) -> None:
    """One that goes to a callable."""
    kept: list[Entry] = []
    guard = Guard(limits=["1000 tokens/day"], journal=kept.append)
    assert "can't be read back" in serve(board(guard)).get().text


def test_a_journal_that_breaks_hides_no_levels(serve: Serve, tmp_path: Path) -> None:
    """What can be shown is shown, and what is wrong is said."""
    guard = Guard(limits=["1000 tokens/day"], journal=f"sqlite:///{tmp_path / 'usage.db'}")
    call(guard, "alice", 300)
    assert guard.journal is not None
    guard.journal.flush()
    guard.journal.close()
    (tmp_path / "usage.db").write_bytes(b"no database" * 1000)
    page = serve(board(guard)).get("user", user="alice")
    assert page.status == 200
    assert "The journal can't be read" in page.text
    assert "1k tokens/day fine 700 1,000" in page.text


@pytest.mark.parametrize("ledger", ["memory://", "sqlite:///{}/ledger.db"])
@pytest.mark.parametrize("kept", ["memory://", "sqlite:///{}/usage.db", "{}/usage.jsonl"])
def test_it_reads_every_ledger_and_journal(
    serve: Serve, tmp_path: Path, ledger: str, kept: str
) -> None:
    """And shows what another guard of the same places did."""
    where = ledger.format(tmp_path)
    journal = kept.format(tmp_path)
    guard = Guard(limits=["1000 tokens/day"], backend=where, journal=journal)
    call(guard, "alice", 250)
    text = serve(board(guard)).get().text
    assert "alice 1k tokens/day fine 750 1,000" in text
    assert "Tokens 250" in text
    guard.close()


def test_a_ledger_that_is_away_hides_no_history(serve: Serve, tmp_path: Path) -> None:
    """The page says so, and not where the ledger is."""
    guard = Guard(limits=["1000 tokens/day"], backend="redis://127.0.0.1:1/0", journal="memory://")
    assert guard.journal is not None
    guard.journal(_served("alice"))
    client = serve(board(guard))
    page = client.get("user", user="alice")
    assert "The ledger can't be reached" in page.text
    assert "127.0.0.1:1" not in page.text
    assert page.status == 200


def _served(user: str) -> Any:
    from quotaguard import Usage
    from quotaguard.events import Settled

    used = Usage(1, 100, 10, nano_usd=1)
    return Settled("1", Identity(user), "large", "large", used, used, False)


def test_hashed_names_are_found_by_their_own(serve: Serve) -> None:
    """Only hashes are kept: an admin enters the name, and it is hashed on the way to the page."""
    guard = Guard(
        tiers=[Tier("free", ["1000 tokens/day"]), Tier("pro", ["5k tokens/day"])],
        tier_of=lambda who: "pro" if who.user == "alice" else None,
        default_tier="free",
        identity_hash=b"secret",
        journal="memory://",
    )
    call(guard, "alice", 300)
    hashed = guard.known_as("alice")
    assert hashed is not None
    client = serve(board(guard))
    overview = client.get()
    assert "alice" not in overview.text
    assert f"{hashed} 5k tokens/day fine 4,700 5,000" in overview.text
    for name in ("alice", hashed):  # a hash from a log leads there, too
        page = client.get("find", user=name)
        assert "5k tokens/day fine 4,700 5,000" in page.text
        assert "alice" not in page.html + client.at
    client.grant(page, "200")
    assert guard.peek(user="alice")[0].left == 4900


def test_terms_of_ones_own_are_shown(serve: Serve, clock: FakeClock) -> None:
    """Where a callable gives the tier it is asked: the journal has but the tier's name."""
    pro = Tier("pro", ["5k tokens/day"])
    guard = Guard(
        tiers=[pro, Tier("free", ["1000 tokens/day"])],
        tier_of=lambda who: (
            pro.overridden(["7k tokens/day"], None) if who.user == "alice" else "free"
        ),
        journal="memory://",
        clock=clock,
    )
    call(guard, "alice", 300)
    assert "7k tokens/day fine 6,700 7,000" in serve(board(guard)).get("find", user="alice").text


def test_a_tier_that_is_missing_is_said(serve: Serve) -> None:
    """With several tiers and no default, an admin picks the one to look by."""
    guard = Guard(tiers=[Tier("a", ["10 requests/day"]), Tier("b", ["20 requests/day"])])
    client = serve(board(guard))
    page = client.get("find", user="alice")
    assert "no tier: say tier=" in page.text
    (link,) = [link for link in page.links if "tier=b" in link]
    assert "20 requests/day fine 20 20" in client.get(link).text


def test_everybody_is_on_a_page(serve: Serve, guard: Guard) -> None:
    """Sorted by what is asked for, fifty at a time."""
    for number in range(60):
        call(guard, f"user-{number:02}", 10 + number, tier="free")
    client = serve(board(guard))
    first = client.get("users", sort="tokens")
    assert "62 by tokens" in first.text
    assert "Page 1 of 2" in first.text
    assert first.text.index("alice") < first.text.index("user-59") < first.text.index("user-58")
    (following,) = {link for link in first.links if "page=2" in link}
    last = client.get(following)
    assert "user-00" in last.text
    assert "user-59" not in last.text
    assert "Page 2 of 2" in client.get("users", page="99").text
    assert client.get("users", page="x", sort="shoes").status == 200


def test_levels_are_told_as_numbers(serve: Serve, guard: Guard) -> None:
    """For the script that keeps them up to date: by the row's key, nobody's name in it."""
    client = serve(board(guard))
    page = client.get("find", user="alice")
    (key,) = [part.split('"')[0] for part in page.html.split('data-level="')[1:2]]
    (url,) = [part.split('"')[0] for part in page.html.split('data-live="')[1:]]
    guard.grant(150, user="alice", tier="pro")
    told = json.loads(client.get(url.replace("&amp;", "&")).html)
    assert told[key]["left"] == "250"
    assert told[key]["state"] == "fine"
    assert "alice" not in json.dumps(told)
    assert key in json.loads(client.get("live").html)


@pytest.mark.anyio
async def test_reading_the_journal_leaves_the_loop_free(guard: Guard) -> None:
    """A journal may be long and its disk slow; other requests of the app go on."""
    from starlette.testclient import TestClient

    reading, go_on = threading.Event(), threading.Event()

    class Slow:
        def write(self, pending: Any) -> None:
            pending.clear()

        def read(self, since: float, until: float) -> Iterator[Entry]:
            reading.set()
            assert go_on.wait(10)
            return iter(())

        def close(self) -> None: ...

    slow = Guard(limits=["10 tokens/day"], journal=Journal(Slow()))
    app = Starlette(routes=[Mount("/quotas", board(slow)), Mount("/other", board(Guard()))])
    with TestClient(app) as web:  # one event loop for both
        waiting = threading.Thread(target=web.get, args=("/quotas/",))
        waiting.start()
        assert await asyncio.to_thread(reading.wait, 10)
        answer = await asyncio.to_thread(web.get, "/other/")
        assert answer.status_code == 200
        assert not go_on.is_set()
        go_on.set()
        await asyncio.to_thread(waiting.join)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "now"),
        (0.2, "1 s"),
        (61, "1 min 1 s"),
        (3_600, "1 h"),
        (90_061, "1 d 1 h"),
        (86_400 + 61, "1 d"),
        (float("inf"), "never"),
    ],
)
def test_durations_are_told_in_two_units(seconds: float, text: str) -> None:
    """Nobody plans by the second for tomorrow."""
    assert duration(seconds) == text


def test_what_is_left_is_never_told_as_more() -> None:
    """A bucket with half a request has none to give."""
    assert amount(0.5, "requests") == "0"
    assert amount(-0.5, "tokens") == "-1"
    assert amount(1234.9999999, "tokens") == "1,235"
    assert amount(0.1 + 0.2, "usd") == "$0.30"
