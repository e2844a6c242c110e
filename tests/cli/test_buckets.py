"""``status``, ``grant`` and ``reset``, over ledgers that processes share."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from quotaguard import Guard, load_guard
from tests.backends.conftest import one_server, server  # noqa: F401
from tests.backends.redis_server import RedisServer
from tests.cli.conftest import SHARED
from tests.cli.kit import failure, run, told


@pytest.fixture(params=["sqlite", "redis"])
def file(request: pytest.FixtureRequest, configured: Path) -> Path:
    """A configuration of either kind of ledger."""
    if request.param == "redis":
        found: RedisServer = request.getfixturevalue("server")
        text = configured.read_text().replace("sqlite:///quota.db", found.url)
        configured.write_text(text)
    return configured


def spend(guard: Guard, tokens: int, user: str = "alice", org: str | None = None) -> None:
    """A call that uses what it reserves."""
    with guard.hold(user=user, org=org, model="large", input_tokens=tokens, output_tokens=0):
        pass


def lefts(*more: str) -> list[float]:
    """What alice has left: tokens, requests, and the org's tokens where one is named."""
    return [each["left"] for each in told("status", "alice", *more)["limits"]]


def test_status_sees_what_others_spent(file: Path) -> None:
    """And what calls under way hold."""
    guard = load_guard(file)
    spend(guard, 300)
    assert lefts() == pytest.approx([700, 4])
    with guard.hold(user="alice", model="large", input_tokens=200, output_tokens=0):
        tokens, requests = told("status", "alice")["limits"]
        assert (tokens["left"], tokens["held"], tokens["capacity"]) == (500, 200, 1000)
        assert requests["held"] == 1
        assert 0 < tokens["full_in"] <= 86_400
    shown = run("status", "alice").stdout
    assert shown.splitlines()[0] == "alice, tier free"
    assert "1k tokens/day" in shown
    guard.close()


def test_status_of_a_user_in_an_org_and_of_another_tier(file: Path) -> None:
    """The org's bucket is shown where there is one, and the limits of the tier that is meant."""
    guard = load_guard(file)
    spend(guard, 300, org="acme")
    guard.close()
    assert lefts() == [1000, 5]
    assert lefts("--org", "acme") == [700, 4, 1700]
    assert [each["limit"] for each in told("status", "alice", "--tier", "pro")["limits"]] == [
        "1k tokens/day for large",
        "9k tokens/day for small",
    ]


def test_a_user_whom_nothing_limits(here: Path) -> None:
    """It says so."""
    (here / "quotaguard.toml").write_text("backend = 'sqlite:///quota.db'")
    assert "Nothing limits this user." in run("status", "alice").stdout


def test_grant_gives_and_takes(file: Path) -> None:
    """Never more than makes the bucket full, and into debt if need be."""
    guard = load_guard(file)
    spend(guard, 600)
    (given,) = told("grant", "alice", "0.5k")["changes"]
    assert (given["given"], given["left"], given["metric"]) == (500, 900, "tokens")
    assert told("grant", "alice", "5k")["changes"][0]["given"] == 100
    assert told("grant", "alice", "1.2k", "--take")["changes"][0]["left"] == -200
    assert told("grant", "alice", "1", "--metric", "requests")["changes"][0]["left"] == 5
    guard.close()


def test_the_same_id_counts_once(file: Path) -> None:
    """A script that is run again after a lost connection gives nothing twice."""
    for _ in range(2):
        said = told("grant", "alice", "300", "--take", "--id", "ticket 7")
    assert said["id"] == "ticket 7"
    assert lefts()[0] == 700


def test_reset_makes_full_again(file: Path) -> None:
    """All limits, or those of one metric; an org's by its own name."""
    guard = load_guard(file)
    spend(guard, 600, org="acme")
    told("reset", "alice", "--org", "acme", "--metric", "requests")
    assert lefts("--org", "acme") == [400, 5, 1400]
    told("reset", "alice", "--org", "acme")
    assert lefts("--org", "acme") == [1000, 5, 1400]
    told("grant", "acme", "100", "--whole-org")
    assert lefts("--org", "acme")[2] == 1500
    assert told("reset", "acme", "--whole-org")["changes"][0]["whose"] == "org acme"
    assert lefts("--org", "acme")[2] == 2000
    guard.close()


def test_what_is_done_by_hand_is_on_record(configured: Path, here: Path) -> None:
    """Who, when, to whom, how much, and what was left: in the journal, beside the calls."""
    said = told("grant", "alice", "300", "--take", "--by", "ops on call", "--id", "ticket 7")
    assert (said["by"], said["audited"]) == ("ops on call", True)
    told("reset", "alice", "--metric", "tokens")
    grant, reset = map(json.loads, (here / "usage.jsonl").read_text().splitlines())
    assert (grant["outcome"], grant["by"], grant["id"]) == ("adjusted", "ops on call", "ticket 7")
    assert (grant["user"], grant["changes"]) == ("alice", [["1k tokens/day", -300.0, 700.0]])
    assert "@" in reset["by"]
    assert reset["changes"] == [["1k tokens/day", 300.0, 1000.0]]


def test_without_a_journal_it_says_that_there_is_no_record(configured: Path) -> None:
    """Nobody must believe that there is."""
    configured.write_text(configured.read_text().replace('journal = "usage.jsonl"', ""))
    assert told("grant", "alice", "5")["audited"] is False
    assert "no journal keeps a record" in run("grant", "alice", "5").stdout


def test_a_record_that_cannot_be_written_is_an_error(configured: Path) -> None:
    """The grant is done, and whoever did it learns that it is not on record."""
    configured.write_text(configured.read_text().replace("usage.jsonl", "no/folder/usage.jsonl"))
    result = run("grant", "alice", "300", "--take")
    assert result.exit_code == 3
    assert "it is done, but <Journal JsonLines " in result.stderr
    assert "no/folder/usage.jsonl> could not be written: no record of it" in result.stderr
    assert lefts()[0] == 700


def test_operators_do_not_lose_one_anothers_grants(configured: Path) -> None:
    """Each is one step in the ledger, so a sum of them is a sum."""
    told("grant", "alice", "900", "--take")
    results: list[Any] = []

    def give() -> None:
        guard = load_guard(configured)
        results.extend(guard.grant(20, user="alice", by="ops") for _ in range(5))
        guard.close()

    threads = [threading.Thread(target=give) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 30
    assert lefts()[0] == 100 + 600


def test_a_tier_must_be_named_where_there_is_no_default(here: Path) -> None:
    """As for calls."""
    (here / "quotaguard.toml").write_text(SHARED)
    assert "no tier: say tier=" in failure("status", "alice")[1]
    assert told("status", "alice", "--tier", "pro")["tier"] == "pro"
