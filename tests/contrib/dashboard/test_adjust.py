"""Grants and resets by the dashboard's forms, and the entries that they leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("jinja2")
pytest.importorskip("uvicorn")

from quotaguard import Entry, Guard
from quotaguard.contrib.dashboard import dashboard
from quotaguard.testing import FakeClock

from .client import Client
from .conftest import call

Serve = Callable[..., Client]


@pytest.fixture
def client(serve: Serve, guard: Guard) -> Client:
    """An admin's browser."""
    return serve(dashboard(guard, authorize=lambda _: "olga"))


def adjustments(guard: Guard) -> list[Entry]:
    """The audit entries so far."""
    assert guard.journal is not None
    return [entry for entry in guard.journal.entries() if entry.outcome == "adjusted"]


def test_a_grant_gives_and_says_who_gave(client: Client, guard: Guard) -> None:
    """The bucket has more, the page says how much, and the journal who did it."""
    page = client.grant(client.get("find", user="alice"), "1,00")
    assert "Granted: 500 tokens/day for large got 100 and has 200 left; 2k tokens/day got 100" in (
        page.text
    )
    (entry,) = adjustments(guard)
    assert (entry.user, entry.by) == ("alice", "olga")
    assert entry.changes[0] == ("500 tokens/day for large", 100, 200)
    assert "adjusted by olga: 500 tokens/day for large got 100, has 200" in page.text


def test_what_is_given_may_be_taken_too(client: Client, guard: Guard) -> None:
    """If need be into debt, which the page shows."""
    page = client.grant(client.get("find", user="alice"), "-150")
    assert "500 tokens/day for large in debt -50 500" in page.text


def test_a_reset_forgives_all(client: Client, guard: Guard) -> None:
    """Every limit, or those on one metric."""
    page = client.get("find", user="alice")
    page = client.grant(page, "", metric="", do="reset")
    assert "Reset: 500 tokens/day for large got 400 and has 500 left" in page.text
    assert [state.left for state in guard.peek(user="alice", tier="pro", everything=True)] == [
        500,
        2000,
    ]
    (entry,) = adjustments(guard)
    assert entry.by == "olga"


def test_an_orgs_shared_buckets_are_granted_to(client: Client, guard: Guard) -> None:
    """From its own page; nobody's own buckets change."""
    page = client.grant(client.get("find", org="acme"), "40")
    assert "Granted: 300 tokens/day per org got 40 and has 140 left." in page.text
    own, shared = guard.peek(user="bob", org="acme", tier="team")
    assert (own.left, shared.left) == (4800, 140)


def test_a_form_that_is_sent_twice_gives_once(client: Client, guard: Guard) -> None:
    """A double click, or a browser that repeats what got no answer."""
    action, hidden = client.get("find", user="alice").form
    form = {**hidden, "do": "grant", "amount": "100", "metric": "tokens"}
    first, again = client.post(action, form), client.post(action, form)
    assert first.status == again.status == 303
    assert first.fields["location"] == again.fields["location"]
    assert guard.peek(user="alice", tier="pro", everything=True)[0].left == 200


@pytest.mark.parametrize(
    ("amount", "metric", "says"),
    [
        ("", "tokens", "an amount is a number, not ''"),
        ("lots <b>", "tokens", "an amount is a number, not 'lots <b>'"),
        ("0", "tokens", "an amount is a finite number other than 0"),
        ("nan", "tokens", "an amount is a finite number other than 0"),
        ("1e999", "tokens", "an amount is a finite number other than 0"),
        ("5", "shoes", "unknown metric 'shoes'"),
        ("5", "concurrent", "slots of calls in flight come back"),
        ("5", "usd", "tier 'pro' has no limit on usd per user"),
    ],
)
def test_a_wrong_form_comes_back_with_the_reason(
    client: Client, guard: Guard, amount: str, metric: str, says: str
) -> None:
    """With what was entered, at the field that is meant, for those who hear pages too."""
    page = client.grant(client.get("find", user="alice"), amount, metric)
    assert page.status == 422
    assert f"Nothing was changed: {says}" in page.text
    assert 'aria-invalid="true"' in page.html
    assert "<b>" not in page.html
    assert page.html.split("<title>")[1].startswith("Error: alice")
    assert adjustments(guard) == []
    assert "Granted" in client.grant(page, "10").text  # what came back can be sent


def test_what_was_done_is_only_told_if_it_was(client: Client) -> None:
    """A link with words of somebody else's shows none of them."""
    page = client.grant(client.get("find", user="alice"), "10")
    url = client.at
    assert 'role="status"' in page.html
    assert 'role="status"' not in client.get(url.replace("Granted", "Stolen")).html
    assert 'role="status"' not in client.get(url.replace("user=alice", "user=bob")).html


def test_a_ledger_that_is_away_is_told(serve: Serve, tmp_path: Path) -> None:
    """Whether it was done is not known; the same form may be sent again."""
    guard = Guard(limits=["1000 tokens/day"], backend="redis://127.0.0.1:1/0")
    client = serve(dashboard(guard, authorize=lambda _: "olga"))
    page = client.get("user", user="alice")
    assert "No limit here has room to give." in page.text
    client.get("user", user="alice")
    working = Guard(limits=["1000 tokens/day"])
    other = serve(dashboard(working, authorize=lambda _: "olga", secret=b"s" * 32))
    action, form = other.get("user", user="alice").form
    client = serve(dashboard(guard, authorize=lambda _: "olga", secret=b"s" * 32))
    client.cookies = other.cookies
    answer = client.post(action, {**form, "do": "grant", "amount": "1", "metric": "tokens"})
    assert answer.status == 503
    assert "whether it was done is not known" in answer.text
    assert "127.0.0.1:1" not in answer.text


def test_the_ledger_in_a_file_and_money(serve: Serve, tmp_path: Path, clock: FakeClock) -> None:
    """Dollars are granted in dollars, whatever the ledger counts in."""
    guard = Guard(
        limits=["$1/day"],
        prices={"large": {"input": 1000, "output": 1000}},
        backend=f"sqlite:///{tmp_path / 'ledger.db'}",
        journal="memory://",
        clock=clock,
    )
    call(guard, "alice", 900)
    client = serve(dashboard(guard, authorize=lambda _: "olga"))
    page = client.grant(client.get("find", user="alice"), "0.25", "usd")
    assert "Granted: $1/day got $0.25 and has $0.35 left." in page.text
    assert "$1/day fine $0.35 $1.00" in page.text
    guard.close()
