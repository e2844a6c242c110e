"""``report`` and ``top``: they say what `Guard.report` says."""

from __future__ import annotations

from contextlib import suppress
from datetime import date
from pathlib import Path

import pytest

from quotaguard import Guard, QuotaExceeded, load_guard
from tests.cli.kit import run, told


@pytest.fixture(params=["usage.jsonl", "sqlite:///usage.db"])
def guard(request: pytest.FixtureRequest, configured: Path) -> Guard:
    """One whose journal holds a few calls: bob's are dear, alice's are many."""
    configured.write_text(configured.read_text().replace("usage.jsonl", request.param))
    guard = load_guard(configured)
    for user, model, tokens in (
        *(("alice", "small", 200) for _ in range(4)),
        ("bob", "large", 700),
        ("bob", "large", 700),
    ):
        with (
            suppress(QuotaExceeded),
            guard.hold(user=user, model=model, input_tokens=tokens, output_tokens=0),
        ):
            pass
    guard.close()
    return guard


def test_report_is_that_of_the_guard(guard: Guard) -> None:
    """To the token and the nano-dollar."""
    said = told("report", "--by", "user,model", "--period", "all")
    assert said == guard.report("all", by=("user", "model")).as_dict()
    assert said["total"]["refused"] == 1
    assert said["total"]["cost"] == "0.0078"
    assert run("report", "--period", "all").stdout.rstrip("\n") == str(guard.report("all"))


def test_report_without_groups(guard: Guard) -> None:
    """The sums alone."""
    said = told("report", "--by", "")
    assert said["rows"] == [said["total"]]


def test_periods(guard: Guard) -> None:
    """Words, and dates with an end left out."""
    today = date.today().isoformat()  # noqa: DTZ011  # a day more or less does not matter here
    assert told("report", "--period", "2020-01-01..")["total"]["calls"] == 5
    assert told("report", "--period", "..2020-01-01")["total"]["calls"] == 0
    assert told("report", "--period", "2020-01-01..2100-01-01")["total"]["calls"] == 5
    assert told("report", "--period", f"{today}..2100-01-01", "--tz", "Asia/Tokyo")["tz"] == (
        "Asia/Tokyo"
    )


@pytest.mark.parametrize(
    ("order", "first"),
    [("cost", "bob"), ("tokens", "alice"), ("calls", "alice"), ("refused", "bob")],
)
def test_top_is_ordered_by_what_was_asked_for(order: str, first: str, guard: Guard) -> None:
    """The dearest are not always the busiest."""
    said = told("top", "--by", order, "--period", "all")
    assert (said["order"], said["rows"][0]["user"]) == (order, first)
    (only,) = told("top", "--by", order, "--most", "1", "--period", "all")["rows"]
    assert only["user"] == first


def test_top_of_models(guard: Guard) -> None:
    """Not only people can be listed."""
    assert [row["model"] for row in told("top", "--of", "model")["rows"]] == ["large", "small"]


def test_names_cannot_draw_on_the_terminal(configured: Path) -> None:
    """A user may call itself anything: markup and control characters are shown as they are."""
    guard = load_guard(configured)
    for user in ("[bold]eve[/bold]", "\x1b[31mred"):
        with guard.hold(user=user, input_tokens=1, output_tokens=0):
            pass
    guard.close()
    shown = run("report", "--by", "user").stdout
    assert "[bold]eve[/bold]" in shown
    assert "'\\x1b[31mred'" in shown
    assert "\x1b[31m" not in shown
