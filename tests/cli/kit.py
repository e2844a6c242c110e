"""Running the command as a user does."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

pytest.importorskip("click", reason="the cli extra is not installed")

from click.testing import CliRunner, Result

from quotaguard.cli.app import cli

_APART: dict[str, Any] = (
    {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
)
"""What has stdout and stderr kept apart; since click 8.2 they are."""


def run(*arguments: object, text: str | None = None) -> Result:
    """One run of the command."""
    words = [str(each) for each in arguments]
    return CliRunner(**_APART).invoke(cli, words, input=text, prog_name="quotaguard")


def told(*arguments: object, text: str | None = None) -> Any:
    """What a command that must succeed says as JSON."""
    result = run(*arguments, "--json", text=text)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def failure(*arguments: object) -> tuple[int, str]:
    """The exit code of a command that must fail, and its one line on stderr."""
    result = run(*arguments)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return result.exit_code, line
