"""What the pages tell a reader to type into a shell: sessions are run, other commands looked up.

A line that begins with ``$ `` is run, in its order, in the page's folder; what stands below it must
be what it prints, up to a line ``...``. A fence without such lines is for a shell of the reader's
own: what it installs, makes and calls must exist.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from quotaguard.config import load_guard
from tests.cli.kit import run

ROOT = Path(__file__).parent.parent
VARIABLES = {"BACKEND", "CONFIG", "JOURNAL", "LIMITS", "TOKENIZER", "TOKENIZER_SECONDS"}
"""What may follow ``QUOTAGUARD_`` in the environment."""


def commands(session: str) -> Iterator[tuple[str, str]]:
    """The commands of a session, each with what is shown below it."""
    for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def play(session: str) -> None:
    """Run a session; what shows no output has to succeed."""
    for command, shown in commands(session):
        words = shlex.split(command, comments=True)
        code, said = _run(words)
        if shown:
            begin, cut, _ = shown.partition("...\n")
            assert said == shown or (cut and said.startswith(begin)), f"{command}: {said}"
        else:
            assert code == 0, f"{command}: {said}"


def _run(words: list[str]) -> tuple[int, str]:
    if words[0] == "quotaguard":
        result = run(*words[1:])
        return result.exit_code, result.stdout + result.stderr
    if words[0] == "export":
        os.environ.update(word.partition("=")[::2] for word in words[1:])
        return 0, ""
    assert words[0] == "python", f"{words[0]} is not run here: leave the '$ ' out"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    call = [sys.executable, *words[1:]]
    ended = subprocess.run(call, check=False, capture_output=True, text=True, timeout=60, env=env)
    return ended.returncode, ended.stdout + ended.stderr


def look_up(text: str) -> None:
    """Check that what a reader is to type exists: extras, targets, commands, variables."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.findall(r"^(\w+) = \[", project.partition("[project.scripts]")[0], re.MULTILINE)
    for extra in re.findall(r"(?:quotaguard|\.)\[([\w,]+)\]", text):
        assert set(extra.split(",")) <= set(extras), extra
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"^make ([\w-]+)", text, re.MULTILINE):
        assert target in targets, target
    for command in re.findall(r"\bquotaguard (\w+)", text):
        assert run(command, "--help").exit_code == 0, command
    for variable in re.findall(r"\bQUOTAGUARD_(\w+)", text):
        assert variable in VARIABLES, variable


def load(text: str) -> None:
    """Make a guard of a configuration file, as an application does."""
    file = Path("of-the-page.toml")
    file.write_text(text, encoding="utf-8")
    load_guard(file).close()
    file.unlink()
