"""The examples: each runs by itself and shows what it is for; `make demo` runs them all."""

from __future__ import annotations

import gc
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples import demo

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
"""Examples do not close their clients; the oldest SDKs leave sockets to the garbage collector."""

EXAMPLES = Path(demo.__file__).parent
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "demo")


@pytest.fixture(autouse=True)
def _collect_sockets() -> Iterator[None]:
    yield
    gc.collect()


def shown_by(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What an example prints when it is run as a script."""
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def test_the_demo_leaves_no_example_out() -> None:
    """An example that nobody runs rots."""
    assert sorted(part.example for part in demo.PARTS) == NAMES


@pytest.mark.parametrize("part", demo.PARTS, ids=lambda part: part.example)
def test_each_example_runs_by_itself(part: demo.Part, capsys: pytest.CaptureFixture[str]) -> None:
    """It needs no key, no server and no other example, and shows what the demo says of it."""
    shown = shown_by(part.example, capsys)
    assert demo.first_missing(part.shows, shown) is None


def test_the_stress_test_blocks_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """The lesson: 600 of 500 is blocked, of two times 300 the first passes and the second fails."""
    shown = shown_by("quota_stress_test", capsys)
    outcomes = re.findall(r"A prompt of (\d+) tokens (is blocked|passes)", shown)
    assert outcomes == [("600", "is blocked"), ("300", "passes"), ("300", "is blocked")]


def test_the_money_question_is_a_sum_that_can_be_checked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The prices that are printed, with their source, give the savings that are printed."""
    shown = shown_by("quota_stress_test", capsys)
    prices = re.findall(r"\$([\d.]+) for a million", shown)
    tokens = re.search(r"of one user: (\d+) input and (\d+) output tokens", shown)
    assert tokens is not None
    each = sum(int(n) * float(p) / 1e6 for n, p in zip(tokens.groups(), prices, strict=True))
    assert f"${each:.5f}".rstrip("0") in shown
    assert f"${1_000 * each:,.2f} a day" in shown
    assert f"${365_000 * each:,.2f} a year" in shown
    assert re.search(r"by genai-prices [\d.]+, recorded from https://\S+", shown)


def test_the_bucket_refills_at_its_rate(capsys: pytest.CaptureFixture[str]) -> None:
    """What is asked for, over 100 a second, is the time to come back."""
    shown = shown_by("refilling_bucket", capsys).replace(",", "")
    needs = re.search(r"needs (\d+)\. Refused: come back in (\d+) seconds", shown)
    assert needs is not None
    assert int(needs[2]) == round(int(needs[1]) / 100)
    assert f"{needs[1]} have come back" in shown


def test_the_waits_are_computed(capsys: pytest.CaptureFixture[str]) -> None:
    """A patient caller waits as long as an impatient one is told, to the tenth of a second."""
    shown = shown_by("waiting", capsys)
    waited = re.search(r"second call waited ([\d.]+) s", shown)
    told = re.search(r"would have to wait ([\d.]+) s", shown)
    assert waited is not None
    assert told is not None
    assert waited[1] == told[1]
    assert float(told[1]) >= 4.0


def test_broken_streams_are_charged_for_what_arrived(capsys: pytest.CaptureFixture[str]) -> None:
    """Less than was reserved, more than nothing, and no reservation stays open."""
    shown = shown_by("streaming", capsys)
    reserved = int(re.findall(r"(\d+) tokens are reserved", shown)[0])
    whole, left, lost = map(int, re.findall(r"is charged (\d+)", shown))
    assert whole == 52
    assert 0 < left < lost < whole < reserved


def test_a_downgrade_reaches_the_provider(capsys: pytest.CaptureFixture[str]) -> None:
    """The small model is really asked, and the large one again once it has room."""
    assert "asked for: gpt-4o, gpt-4o-mini, gpt-4o." in shown_by("downgrade", capsys)


def test_without_a_redis_server_a_file_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, and shows the same."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    shown = shown_by("many_processes", capsys)
    assert "There is no redis-server here; the ledger is a SQLite file." in shown
    assert "100 in all, 1,000 tokens" in shown
    assert "900 are left" in shown


def test_make_demo_tells_the_whole_story() -> None:
    """All parts show what they say; a log file gets plain text, without escape sequences."""
    root = EXAMPLES.parent
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py")],
        cwd=root,
        check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"All {len(demo.PARTS)} parts showed what they say" in run.stdout
    assert "\033" not in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 100
    assert run.stderr == ""


def test_the_demo_fails_when_an_example_shows_something_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A demo that could not fail would prove nothing."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    wrong = demo.PARTS[0]._replace(shows=("passes", "600 tokens is blocked"))
    absent = demo.PARTS[1]._replace(example="no_such_example")
    monkeypatch.setattr(demo, "PARTS", (wrong, absent))
    assert demo.main() == 2
    shown = capsys.readouterr().out
    assert "It was to show '600 tokens is blocked'" in shown
    assert "It failed: ModuleNotFoundError" in shown
