"""``simulate`` and ``stress``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from quotaguard import load_guard
from quotaguard.testing.clock import START
from tests.cli.kit import cli, run, told

LOG = [
    {"time": START + at, "user": user, "tier": "pro", "model": "large", "input_tokens": tokens}
    for at, user, tokens in ((0, "ann", 900), (1, "ann", 900), (2, "bob", 100))
]


@pytest.fixture
def log(here: Path) -> Path:
    """Calls in plain words."""
    file = here / "calls.jsonl"
    file.write_text("\n".join(map(json.dumps, LOG)))
    return file


def test_simulate_says_what_the_policy_would_do(log: Path, configured: Path) -> None:
    """The same as `Guard.simulate`, and nothing is spent."""
    said = told("simulate", log)
    guard = load_guard(configured)
    assert said == guard.simulate(log).as_dict()
    guard.close()
    ann, bob = said["rows"]
    assert (ann["user"], ann["would"]["downgraded"], bob["would"]["downgraded"]) == ("ann", 1, 0)
    assert said["total"]["difference"] == "-0.0081"
    assert told("status", "ann", "--tier", "pro")["limits"][0]["left"] == 1000


def test_simulate_tries_another_policy_on_the_journal(configured: Path, here: Path) -> None:
    """Without a log it is the guard's own journal: the way to choose numbers."""
    guard = load_guard(configured)
    for _ in range(2):
        with guard.hold(user="ann", model="large", input_tokens=400, output_tokens=0):
            pass
    guard.close()
    assert told("simulate")["turned_away"] == 0
    policy = here / "policy.toml"
    policy.write_text("limits = ['500 tokens/day']")
    said = told("simulate", "--policy", policy)
    assert (said["turned_away"], said["limits"][0]["limit"]) == (1, "500 tokens/day")


def test_strict_is_for_scripts(configured: Path, log: Path, here: Path) -> None:
    """A policy file can be checked against last month before it goes live."""
    assert run("simulate", log, "--strict").exit_code == 0
    policy = here / "policy.toml"
    policy.write_text("limits = ['500 tokens/day']")
    result = run("simulate", log, "--policy", policy, "--strict")
    assert result.exit_code == 1
    assert "refused     2, 2 of them had been served" in result.stdout


def test_a_long_table_is_cut(configured: Path, here: Path) -> None:
    """What is hidden is said; JSON has it all."""
    log = here / "many.jsonl"
    log.write_text("\n".join(json.dumps({**LOG[0], "user": f"u{n}"}) for n in range(30)))
    assert "10 more" in run("simulate", log).stdout
    assert len(told("simulate", log)["rows"]) == 30


def test_stress_is_the_lesson() -> None:
    """600 of 500 is blocked, of two times 300 the first passes and the second fails; the sum can be
    checked by the prices that are printed.
    """
    said = told("stress")
    assert [each["passed"] for each in said["attempts"]] == [False, True, False]
    assert [each["tokens"] for each in said["attempts"]] == [600, 300, 300]
    assert (said["requests_seen"], said["users"], said["blocked_each"]) == (1, 1000, 2)
    priced = told("stress", "--input-price", "2.5", "--output-price", "10", "--users", "2000")
    assert float(priced["usd_each"]) == pytest.approx((900 * 2.5 + 200 * 10) / 1e6)
    assert float(priced["usd_per_day"]) == pytest.approx(2000 * float(priced["usd_each"]))
    assert "as given" in priced["assumptions"][0]


def test_stress_takes_any_numbers() -> None:
    """Quota, prompts, answers, users, model."""
    said = told("stress", "--quota", "2k", "-p", "1000", "-p", "800", "--answer", "150")
    passed = [(each["passed"], each["left"]) for each in said["attempts"]]
    assert passed == [(True, 850), (True, -100)]  # an answer longer than what was left is owed
    shown = run("stress", "-p", "100", "--model", "gpt-4o-mini").stdout
    assert "A prompt of 100 tokens passes" in shown
    assert "gpt-4o-mini costs" in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed calls back, and that answers with commands."""
    script = run("completion", shell).stdout
    assert f"_QUOTAGUARD_COMPLETE={shell}_complete" in script
    from click.testing import CliRunner

    words = {"COMP_WORDS": "quotaguard s", "COMP_CWORD": "s" if shell == "fish" else "1"}
    variable = {"_QUOTAGUARD_COMPLETE": f"{shell}_complete"}
    monkeypatch.setattr(sys, "argv", ["quotaguard"])
    asked = CliRunner().invoke(cli, env=words | variable, prog_name="quotaguard")
    for command in ("status", "simulate", "stress"):
        assert command in asked.output
    assert "grant" not in asked.output
