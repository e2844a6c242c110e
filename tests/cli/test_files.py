"""``init`` and ``check``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quotaguard import config
from tests.cli.kit import failure, run, told
from tests.test_bad_configuration import WRONG


def test_the_file_that_init_writes_is_right(here: Path) -> None:
    """It is found at once, and limits."""
    assert run("init").exit_code == 0
    assert told("check")["ok"]
    assert [each["tier"] for each in told("check")["tiers"]] == ["free", "pro", "enterprise"]
    assert told("status", "alice")["tier"] == "free"


def test_what_is_commented_out_is_right_too(here: Path) -> None:
    """A line whose comment is taken away must not break the file; and no key is left out."""
    run("init")
    text = (here / config.FILE).read_text(encoding="utf-8")
    for key in config._GUARD_KEYS:
        assert re.search(rf"^(# )?{key} = ", text, re.MULTILINE), key
    table = text.index("# [orgs.acme]")
    top = re.sub(r"^# (\w+ = )", r"\1", text[:table], flags=re.MULTILINE)
    end = re.sub(r"^# ?", "", text[table:], flags=re.MULTILINE)
    (here / config.FILE).write_text(top + end, encoding="utf-8")
    assert told("check")["ok"]


def test_a_file_that_is_there_is_not_overwritten(here: Path) -> None:
    """Unless one says so."""
    (here / config.FILE).write_text("limits = ['5 tokens/day']")
    assert failure("init")[0] == 1
    assert (here / config.FILE).read_text() == "limits = ['5 tokens/day']"
    assert run("init", "--force").exit_code == 0
    assert "[tiers.free]" in (here / config.FILE).read_text()


@pytest.mark.parametrize(("text", "words"), WRONG, ids=[text for text, _ in WRONG])
def test_check_says_what_is_wrong(text: str, words: str, here: Path) -> None:
    """In one line: the file, the key, the value, and what is right."""
    (here / "wrong.toml").write_text(text, encoding="utf-8")
    code, line = failure("check", "wrong.toml")
    assert code == 1
    assert line.startswith("quotaguard: wrong.toml")
    assert words in line


def test_check_in_json_says_it_too(here: Path) -> None:
    """A script has it on stdout as well."""
    (here / config.FILE).write_text("limits = ['plenty']")
    result = run("check", "--json")
    assert result.exit_code == 1
    assert '"ok": false' in result.stdout
    assert "cannot read the limit 'plenty'" in result.stdout


def test_check_without_a_file() -> None:
    """There is nothing to check."""
    assert "there is no quotaguard.toml here or above" in failure("check")[1]
