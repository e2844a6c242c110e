"""Guards from a file or the environment."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from quotaguard import ConfigurationError, Fallback, Guard, Limit, Refuse, Wait, config
from quotaguard.testing import FakeClock

GOOD = """
backend = "memory://"
default_tier = "free"
anonymous = "visitor"
on_backend_error = "allow"
limits = ["1M tokens/day per org", "60 requests/minute"]
when_exceeded = [{ wait = 2.5, fair = false }, "refuse"]

[tiers.free]
limits = ["10k tokens/day in Europe/Paris"]
models = ["gpt-4o-mini", "claude-*"]
when_exceeded = [{ fallback = "small" }, { fallback = ["tiny", "tinier"] }]

[tiers.pro]
limits = ["1M tokens/month"]
"""

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working directory, and a process that has no default guard yet."""
    monkeypatch.chdir(tmp_path)
    config._default.cache_clear()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a quotaguard.toml into the working directory."""

    def written(text: str) -> Path:
        file = tmp_path / config.FILE
        file.write_text(text, encoding="utf-8")
        return file

    return written


def texts(guard: Guard, **who: str) -> list[str]:
    """What limits a caller."""
    return [str(state.limit) for state in guard.peek(**who)]


def test_a_file_says_everything(write: Write) -> None:
    """Limits, tiers, the anonymous user and the default tier come from the file."""
    guard = config.load_guard(write(GOOD))
    states = guard.peek(org="acme", model="claude-x")
    assert [str(state.limit) for state in states] == [
        "10k tokens/day in Europe/Paris",
        "1M tokens/day per org",
        "60 requests/minute",
    ]
    assert states[0].owner == ("user", "acme", "visitor")
    assert texts(guard, tier="pro") == ["1M tokens/month", "60 requests/minute"]


def test_policies_of_a_file(write: Write) -> None:
    """The three kinds, for the guard and for a tier of its own; a tier may name none."""
    guard = config.load_guard(write(GOOD))
    free, pro = guard.rules.tier("free"), guard.rules.tier("pro")
    assert free.when_exceeded == (Fallback("small"), Fallback("tiny", "tinier"))
    assert free.models == ("gpt-4o-mini", "claude-*")
    assert pro.when_exceeded is None
    wait, refuse = guard._policies
    assert isinstance(wait, Wait)
    assert wait.fair is False
    assert wait.max_seconds == 2.5
    assert refuse == Refuse()


def test_an_empty_file_limits_nothing(write: Write) -> None:
    """A file that says nothing is no error."""
    assert config.load_guard(write("")).peek(user="alice") == ()


def test_arguments_beside_a_file(write: Write) -> None:
    """What is no text is given in Python, and goes before what the file says."""
    clock = FakeClock()
    guard = config.load_guard(write("mode = 'observe'\njournal = 'memory://'"), clock=clock)
    assert guard.clock is clock
    assert guard.journal is not None
    assert not config.load_guard(write("mode = 'observe'"), mode="enforce")._observing


def test_paths_in_a_file_are_meant_from_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write: Write
) -> None:
    """A worker that was started elsewhere would have a ledger of its own, and the limits twice."""
    write(
        "limits = ['9 tokens/day']\nbackend = 'sqlite:///q%20 1.db?timeout=9'\njournal = 'u.jsonl'"
    )
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    for folder in (tmp_path, deep):
        monkeypatch.chdir(folder)
        guard = config.load_guard(config.config_file() or "")
        with guard.hold(user="ann", input_tokens=2, output_tokens=0):
            pass
        guard.close()
    assert guard.peek(user="ann")[0].left == 5
    assert len(guard.report("all").rows) == 1
    assert {path.name for path in tmp_path.iterdir()} >= {"q  1.db", "u.jsonl"}
    assert list(deep.iterdir()) == []


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """One that is missing, one that is a directory, one that is not text."""
    missing, binary = tmp_path / "no.toml", tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=f"cannot read {re.escape(str(missing))}: No such"):
        config.load_guard(missing)
    with pytest.raises(ConfigurationError, match="cannot read"):
        config.load_guard(tmp_path)
    with pytest.raises(ConfigurationError, match=r"binary\.toml is not TOML"):
        config.load_guard(str(binary))


def test_quotaguard_config_names_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write: Write
) -> None:
    """It goes before a file in the working directory and before the environment's limits."""
    write("limits = ['1 token/day']")
    other = tmp_path / "other.toml"
    other.write_text("limits = ['2 tokens/day']", encoding="utf-8")
    monkeypatch.setenv("QUOTAGUARD_CONFIG", str(other))
    monkeypatch.setenv("QUOTAGUARD_LIMITS", "3 tokens/day")
    assert texts(config.default_guard(), user="alice") == ["2 tokens/day"]


def test_a_named_file_must_exist(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    """No other is taken in its place."""
    write("limits = ['1 token/day']")
    monkeypatch.setenv("QUOTAGUARD_CONFIG", "elsewhere.toml")
    with pytest.raises(ConfigurationError, match=r"elsewhere\.toml: No such file"):
        config.default_guard()


def test_a_file_is_found_upwards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write: Write
) -> None:
    """The nearest one above the working directory counts."""
    write("limits = ['1 token/day']")
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    outer = config.default_guard()
    assert texts(outer, user="alice") == ["1 tokens/day"]
    (tmp_path / "a" / config.FILE).write_text("limits = ['2 tokens/day']", encoding="utf-8")
    assert texts(config.default_guard(), user="alice") == ["2 tokens/day"]
    monkeypatch.chdir(tmp_path)
    assert config.default_guard() is outer


def test_a_directory_of_that_name_is_no_file(tmp_path: Path) -> None:
    """It is passed over."""
    (tmp_path / config.FILE).mkdir()
    assert config.default_guard().peek(user="alice") == ()


def test_limits_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Semicolons separate them; empty ones and white space are nothing."""
    monkeypatch.setenv("QUOTAGUARD_LIMITS", " 10k tokens/day ;; 5 requests/minute for a,b; ")
    monkeypatch.setenv("QUOTAGUARD_BACKEND", "memory://")
    guard = config.default_guard()
    (day, minute) = guard.peek(model="b")
    assert day.limit == Limit(10_000, "tokens", "day")
    assert minute.limit == Limit(5, "requests", 60, models=("a", "b"))
    assert day.owner == ("user", "", config.ANONYMOUS)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("QUOTAGUARD_LIMITS", "10k tokens/day, 5 requests/minute", "cannot read the limit"),
        ("QUOTAGUARD_LIMITS", "5 tokens/day; 6 tokens/day", "limit the same thing"),
        ("QUOTAGUARD_BACKEND", "mysql://host", "no backend for 'mysql://'"),
        ("QUOTAGUARD_JOURNAL", "mysql://host", "a journal goes to a file of JSON lines such as"),
    ],
)
def test_a_wrong_environment(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the variables."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=re.escape(words)) as refused:
        config.default_guard()
    assert str(refused.value).startswith(
        "QUOTAGUARD_LIMITS, QUOTAGUARD_BACKEND or QUOTAGUARD_JOURNAL: "
    )


def test_the_default_guard_is_one(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    """Clients that are given none share it; what says otherwise makes another."""
    bare = config.default_guard()
    assert config.default_guard() is bare
    monkeypatch.setenv("QUOTAGUARD_LIMITS", "5 tokens/day")
    limited = config.default_guard()
    assert limited is not bare
    assert config.default_guard() is limited
    write("limits = ['1 token/day']")
    of_file = config.default_guard()
    assert of_file not in (bare, limited)
    assert config.default_guard() is of_file


def test_another_guard_may_take_the_place_of_the_default() -> None:
    """A notebook's guard is that of clients without one, as long as its extension is loaded."""
    described, other = config.default_guard(), config.private_guard(["5 tokens/day"])
    config.set_default_guard(other)
    try:
        assert config.default_guard() is other
    finally:
        config.set_default_guard(None)
    assert config.default_guard() is described


def test_without_configuration_it_meters_and_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    """One warning, at the first call rather than when the client is made."""
    caplog.set_level(logging.WARNING, "quotaguard")
    guard = config.default_guard()
    assert caplog.records == []
    for _ in range(3):
        with guard.hold(input_tokens=10**9) as lease:
            lease.record(input_tokens=7)
        assert lease.used is not None
        assert lease.used.input_tokens == 7
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "meter without limiting" in record.getMessage()
    assert "QUOTAGUARD_LIMITS" in record.getMessage()
    assert config.FILE in record.getMessage()


def test_limits_warn_of_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who limits has nothing to be told."""
    monkeypatch.setenv("QUOTAGUARD_LIMITS", "5 requests/day")
    with config.default_guard().hold():
        pass
    assert caplog.records == []


def test_a_private_guard() -> None:
    """Limits given to a client make a guard of its own, for one anonymous user."""
    one, two = (config.private_guard(["5 tokens/day"]) for _ in range(2))
    with one.hold(input_tokens=3, output_tokens=0):
        pass
    assert one.peek()[0].left == pytest.approx(2)
    assert two.peek()[0].left == pytest.approx(5)
