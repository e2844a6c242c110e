"""What all commands have in common: exit codes, errors of one line, JSON with documented keys."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quotaguard import Guard, load_guard
from tests.cli.kit import cli, failure, run, told

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "command-line.md"
BODY = {"model": "gpt-4o", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}

EXAMPLES: dict[str, tuple[str, ...]] = {
    "init": ("other.toml",),
    "check": (),
    "status": ("alice",),
    "grant": ("alice", "5k"),
    "reset": ("alice",),
    "report": ("--by", "user"),
    "top": (),
    "simulate": ("--policy", "strict.toml"),
    "stress": ("-p", "20", "-p", "600", "--input-price", "1", "--output-price", "2"),
    "count": ("-",),
    "doctor": (),
    "completion": ("bash",),
}


def use(file: Path) -> None:
    """A few calls that leave entries in the journal."""
    guard = load_guard(file)
    for user in ("alice", "bob"):
        with guard.hold(user=user, model="large", input_tokens=100, output_tokens=0):
            pass
    guard.close()


def section(title: str) -> str:
    """A section of the reference page."""
    text = PAGE.read_text(encoding="utf-8")
    sections = re.split(r"^#+ (.+)$", text, flags=re.MULTILINE)
    (found,) = (
        body
        for head, body in zip(sections[1::2], sections[2::2], strict=True)
        if title in head.split(", ")
    )
    return found


def documented(title: str) -> set[str]:
    """The keys that a section's table has in its first column."""
    cells = re.findall(r"^\| (`.*?) \|", section(title), re.MULTILINE)
    return {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)}


def keys(value: Any, path: str = "") -> Iterator[str]:
    """The paths of all values."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from keys(each, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        yield from keys(value[0], f"{path}[]") if value else ()
    else:
        yield path


def matches(key: str, patterns: set[str]) -> bool:
    """Whether a key is one of the documented ones, some of which stand for a group."""
    return any(
        key == pattern or (pattern.endswith("*") and key.startswith(pattern[:-1]))
        for pattern in patterns
    )


def test_each_command_has_an_example_here() -> None:
    """So that none is left out below."""
    assert set(cli.commands) - {"dashboard"} == set(EXAMPLES)  # which serves, and answers nothing


@pytest.mark.parametrize("command", EXAMPLES)
def test_json_has_the_keys_that_are_documented(command: str, configured: Path) -> None:
    """Scripts rely on them."""
    use(configured)
    Path("strict.toml").write_text("limits = ['50 tokens/day']")
    said = told(command, *EXAMPLES[command], text=json.dumps(BODY))
    patterns = documented(command) | (documented("report") if command == "top" else set())
    found = set(keys(said))
    groups = {f"rows[].{name}" for name in said.get("by", ())}
    unsaid = {key for key in found - groups if not matches(key, patterns)}
    assert unsaid == set()
    absent = {p for p in patterns if not any(matches(key, {p}) for key in found)}
    assert absent <= {"why_no_price", "tiers[].models[]"}


def test_the_sums_are_documented(configured: Path) -> None:
    """They are the same in three commands."""
    use(configured)
    assert set(told("report")["total"]) == documented("Sums")
    assert set(told("simulate")["total"]["would"]) == documented("Sums")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("frobnicate",), 2, "No such command 'frobnicate'. See 'quotaguard --help'."),
        (("status",), 2, "Missing argument 'USER'. See 'quotaguard status --help'."),
        (("status", "alice", "--tier", "gold"), 2, "unknown tier 'gold'; known: free, pro"),
        (("grant", "alice", "much"), 2, "an amount is a number such as 5000, 5k or 1.5M"),
        (("grant", "alice", "0"), 2, "an amount is a finite number other than 0, not 0"),
        (("grant", "alice", "5", "--metric", "words"), 2, "'words' is not one of 'requests'"),
        (("grant", "alice", "5", "--metric", "concurrent"), 2, "they are not granted"),
        (("grant", "acme", "5", "--whole-org", "--org", "b"), 2, "leave --org out"),
        (("reset", "alice", "--metric", "usd"), 2, "tier 'free' has no limit on usd per user"),
        (("report", "--period", "yesterday"), 2, "a period is 'day', 'week', 'month', 'all'"),
        (("report", "--period", "2026..x"), 2, "a period is like 2026-01-01..2026-02-01"),
        (("report", "--tz", "Mars"), 2, "unknown time zone 'Mars'"),
        (("report", "--by", "team"), 2, "'team' is none of user, org, tier, model"),
        (("top", "--by", "age"), 2, "'age' is not one of 'cost', 'tokens'"),
        (("simulate", "no.jsonl"), 3, "cannot read the usage log no.jsonl: No such file"),
        (("simulate", "--policy", "no.toml"), 2, "cannot read no.toml: No such file"),
        (("stress", "-p", "3"), 2, "a prompt is a whole number of tokens >= 8, not 3"),
        (("stress", "--users", "-1"), 2, "users is a whole number of people >= 0, not -1"),
        (("stress", "--input-price", "1"), 2, "--input-price and --output-price go together"),
        (("stress", "--model", "text-homemade"), 1, "no price is known for the model"),
        (("--config", "no.toml", "status", "alice"), 2, "cannot read no.toml: No such file"),
        (("--guard", "nowhere:guard", "status", "alice"), 2, "No module named 'nowhere'"),
        (("--guard", "os:path", "status", "alice"), 2, "'os:path' is no Guard but module"),
        (("check", "no.toml"), 1, "cannot read no.toml: No such file"),
        (("init",), 1, "quotaguard.toml is there already; --force overwrites it"),
        (("init", "no/folder.toml"), 1, "cannot write no/folder.toml: No such file"),
        (("count", "no.json"), 2, "'no.json': No such file"),
        (("completion", "tcsh"), 2, "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_error_is_one_line_and_an_exit_code(
    arguments: tuple[str, ...], code: int, words: str, configured: Path
) -> None:
    """What is wrong, what would be right, no traceback, nothing on stdout."""
    found, line = failure(*arguments)
    assert found == code
    assert line.startswith("quotaguard: ")
    assert words in line


def test_without_a_configuration_it_says_how_to_get_one() -> None:
    """A guard without limits would only mislead."""
    code, line = failure("status", "alice")
    assert code == 2
    assert "'quotaguard init' writes a quotaguard.toml" in line


def test_a_ledger_in_memory_cannot_be_seen(here: Path) -> None:
    """It would show full buckets, whatever was spent."""
    (here / "quotaguard.toml").write_text("limits = ['5 tokens/day']\njournal = 'memory://'")
    assert "backend = 'sqlite:///quota.db' and Redis can be shared" in failure("status", "a")[1]
    assert "there is no journal that can be read from here" in failure("report")[1]


@pytest.mark.parametrize(
    ("policy", "command"),
    [("refuse", "status alice"), ("allow", "grant alice 5"), ("local", "status alice")],
)
def test_a_ledger_that_is_away(policy: str, command: str, here: Path) -> None:
    """Nothing stands in for it here, whatever calls do then; the file alone can be checked."""
    pytest.importorskip("redis")
    (here / "quotaguard.toml").write_text(
        "backend = 'redis://127.0.0.1:1/0'\nlimits = ['5 tokens/day']\n"
        f"on_backend_error = '{policy}'"
    )
    code, line = failure(*command.split())
    assert code == 3
    assert "127.0.0.1:1" in line
    assert run("check").exit_code == 0


def test_doctor_sees_that_the_ledger_is_away(here: Path) -> None:
    """It is what one runs when something is wrong."""
    pytest.importorskip("redis")
    (here / "quotaguard.toml").write_text("backend = 'redis://127.0.0.1:1/0'")
    result = run("doctor", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["ledger"].startswith("away: ")


def test_the_environment_says_which_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for clients."""
    monkeypatch.setenv("QUOTAGUARD_LIMITS", "7 tokens/day")
    monkeypatch.setenv("QUOTAGUARD_BACKEND", "sqlite:///quota.db")
    assert told("status", "alice")["limits"][0]["capacity"] == 7


def test_a_guard_of_python(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no file can say, such as hashed names, is as the application has it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (here / "quotas_of_app.py").write_text(
        "from quotaguard import Guard\n"
        "guard = Guard(limits=['9 tokens/day'], backend='sqlite:///q.db', identity_hash=b'secret')"
    )
    said = told("--guard", "quotas_of_app:guard", "status", "alice")
    assert said["limits"][0]["left"] == 9
    assert re.fullmatch("[0-9a-f]{32}", said["user"])


def test_a_fault_of_ours_is_told_in_a_line(
    configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where it is, to who asks."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr(Guard, "peek", broken)
    code, line = failure("status", "alice")
    assert code == 70
    assert "a fault of quotaguard: ZeroDivisionError: nobody foresaw this" in line
    monkeypatch.setenv("QUOTAGUARD_TRACEBACK", "1")
    assert isinstance(run("status", "alice").exception, ZeroDivisionError)


def process(*words: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """One run in a process of its own."""
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def test_it_is_a_module_too() -> None:
    """For environments whose scripts are not on the PATH."""
    assert process("-m", "quotaguard.cli", "--version").stdout.startswith("quotaguard, version ")


def test_without_its_packages_it_says_what_to_install() -> None:
    """The extra may be missing where the library is installed."""
    hidden = "import sys; sys.modules['rich'] = None; import quotaguard.cli as c; c.main()"
    bare = process("-c", hidden)
    assert bare.returncode == 2
    assert bare.stderr.startswith("quotaguard: it needs rich: pip install")


def test_a_reader_that_has_seen_enough_is_no_fault(configured: Path) -> None:
    """As in ``quotaguard report | head``."""
    closed, end = os.pipe()
    os.close(closed)
    cut = process("-m", "quotaguard.cli", "doctor", stdout=end)
    os.close(end)
    assert (cut.returncode, cut.stderr) == (1, "")
