"""The documentation: its code runs and prints what it says, its links lead somewhere, and what it
says of the code is so.

A fence of Python is run with those above it on the page. One that is followed by a fence named
``output`` must print that. `provider` is a `FakeProvider`, and the SDKs' environment variables
point to it. A fence whose first line names a file (``# worker.py``) is written there instead.
Sessions of a shell are run (`tests.shell`), TOML is loaded as a configuration, and where a page
names a Redis on localhost, one that is started here takes its place. What can't be run here has
``<!-- not run: the reason -->`` before it.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pytest

import quotaguard
import quotaguard.events
import quotaguard.testing
from quotaguard.cli.app import cli
from quotaguard.testing import FakeProvider
from tests import shell
from tests.backends.redis_server import RedisServer, binary

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOORS = [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
LANGUAGES = {"python", "output", "console", "toml", "ipython", "text"}
"""What fences hold; ``tests/contrib/notebook`` runs the cells of notebooks, text is only shown."""
REDIS = "redis://localhost:6379"
_FENCE = re.compile(r"(?P<indent>\s*)(?P<fence>`{3,})(?P<language>[^\s`]*)[^`]*$")
_NOT_RUN = re.compile(r"<!-- not run: \S.* -->")
_FILE = re.compile(r"# ([\w-]+\.(?:py|toml))\n")
_PATH = re.compile(r"`((?:docs|examples|benchmarks|tests|tools|quotaguard)/[\w./-]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)


class Block(NamedTuple):
    """A fence of code: where its first line is, and what stands before it."""

    language: str
    line: int
    text: str
    before: str


def page_id(page: Path) -> str:
    """A page's name in test ids."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """The fences of a page, in their order."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    before, at = "", 0
    while at < len(lines):
        opened = _FENCE.match(lines[at])
        if opened is None:
            before = lines[at].strip() or before
            at += 1
            continue
        end = at + 1
        while lines[end].strip() != opened["fence"]:
            end += 1
        text = [line.removeprefix(opened["indent"]) for line in lines[at + 1 : end]]
        found.append(Block(opened["language"], at + 1, "\n".join(text) + "\n", before))
        before, at = "", end + 1
    return found


def prose(page: Path) -> str:
    """A page without its code, fenced or in the line."""
    text = re.sub(r"^(\s*)(`{3,}).*?^\s*\2$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may say behind its #, by GitHub's rule."""
    headings = _HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeProvider]:
    """The provider that the pages' code meets, and a folder of its own for that code."""
    with FakeProvider() as provider, patch.dict(os.environ):  # a page may set variables
        monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "none needed")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", provider.anthropic_url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "none needed")
        monkeypatch.chdir(tmp_path)
        yield provider


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A Redis of the page's own."""
    if binary() is None:
        pytest.skip("the page needs a redis-server, and there is none here")
    server = RedisServer()
    yield f"redis://127.0.0.1:{server.port}"
    server.stop()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # pages do not close clients
@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_code_of_a_page_runs(
    page: Path, provider: FakeProvider, request: pytest.FixtureRequest
) -> None:
    """A reader who copies a page's examples gets what the page says they give."""
    names: dict[str, object] = {"__name__": "page", "provider": provider}
    found = [block for block in blocks(page) if not _NOT_RUN.fullmatch(block.before)]
    needs_redis = any(REDIS in block.text for block in found if block.language in LANGUAGES)
    redis_url = request.getfixturevalue("redis_url") if needs_redis else REDIS
    for block, following in zip_longest(found, found[1:]):
        text = block.text.replace(REDIS, redis_url)
        if named := _FILE.match(text):
            Path(named[1]).write_text(text, encoding="utf-8")
        elif block.language == "toml":
            shell.load(text)
        elif block.language == "console":
            (shell.play if text.startswith("$ ") else shell.look_up)(text)
        elif block.language == "python":
            printed = io.StringIO()
            code = compile("\n" * block.line + text, str(page), "exec")
            with contextlib.redirect_stdout(printed):
                exec(code, names)
            if following is not None and following.language == "output":
                assert printed.getvalue() == following.text, f"line {block.line}"
    names.clear()
    gc.collect()  # the sockets of the oldest SDKs' clients, while it is no error


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_an_output_belongs_to_code_that_is_run(page: Path) -> None:
    """What is shown as output was printed by the fence right before it."""
    found = blocks(page)
    for block, following in pairwise(found):
        if following.language == "output":
            assert block.language == "python", f"line {following.line}"
            assert not _NOT_RUN.fullmatch(block.before), f"line {following.line}"


def test_the_tutorial_can_be_pasted_into_a_prompt() -> None:
    """A prompt wants an empty line behind a block and none inside it."""
    for block in blocks(ROOT / "docs" / "tutorial.md"):
        statements = ast.parse(block.text).body if block.language == "python" else []
        for one, following in pairwise([*statements, ast.Pass(lineno=10_000)]):
            if hasattr(one, "body"):
                inside = block.text.splitlines()[one.lineno - 1 : one.end_lineno]
                assert all(inside), f"line {block.line + one.lineno}"
                assert following.lineno > (one.end_lineno or 0) + 1, f"line {block.line}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_no_code_goes_unrun(page: Path) -> None:
    """A fence in a language that no test knows would be an example that nobody ran."""
    for block in blocks(page):
        known = block.language in LANGUAGES or block.language.startswith("{")
        assert known, f"line {block.line}: {block.language or 'no language'}"


@pytest.mark.parametrize("page", [*PAGES, *DOORS], ids=page_id)
def test_files_that_are_named_are_there(page: Path) -> None:
    """Who is sent to a file finds it."""
    for named in _PATH.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / named).exists(), named


@pytest.mark.parametrize("page", [*PAGES, *DOORS], ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    """Files and headings that a page links to are there."""
    for target in _LINK.findall(prose(page)):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} is not there"
        if anchor:
            assert anchor in anchors(there), f"{target}: no such heading"


def test_the_readme_is_a_front_door() -> None:
    """One or two screens; all else is behind links."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110


def test_the_front_door_leads_to_every_page() -> None:
    """A page that nobody links to is not found."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [
        page for part in ("how-to", "explanation") for page in (ROOT / "docs" / part).iterdir()
    ]
    assert [page_id(page) for page in pages if f"({page_id(page)})" not in text] == []


@pytest.mark.parametrize("name", ["metered", "pictures"])
def test_what_tools_make_is_that_of_the_code(name: str) -> None:
    """Nobody has to read the source to know what is metered; pictures show what a guard does."""
    tool = [sys.executable, str(ROOT / "tools" / f"{name}.py"), "--check"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    checked = subprocess.run(tool, check=False, capture_output=True, text=True, timeout=60, env=env)
    assert checked.returncode == 0, checked.stderr


CONTRIB = ("asgi", "dashboard", "fastapi", "http", "logs", "notebook", "opentelemetry")
"""The modules of `quotaguard.contrib` that applications import."""


def integrations() -> set[str]:
    """What applications import from `quotaguard.contrib`."""
    found: set[str] = set()
    for name in CONTRIB:
        module = import_module(f"quotaguard.contrib.{name}")
        own = [
            each
            for each, value in vars(module).items()
            if callable(value) and value.__module__ == module.__name__ and each[0] != "_"
        ]
        found |= {f"{module.__name__}.{each}" for each in getattr(module, "__all__", own)}
    return found


def events() -> list[str]:
    """The names of all events."""
    return [event.__name__ for event in quotaguard.events.Event.__subclasses__()]


def documented() -> list[str]:
    """The names that the reference pages have Sphinx write about."""
    pattern = re.compile(r"^\.\. auto\w+:: ([\w.]+)", re.MULTILINE)
    pages = sorted((ROOT / "docs" / "reference").glob("*.md"))
    return [name for page in pages for name in pattern.findall(page.read_text())]


def test_the_reference_leaves_no_public_name_out() -> None:
    """What can be imported from the public modules has a place in the reference, and only one."""
    public = {f"quotaguard.{name}" for name in quotaguard.__all__ if name != "__version__"}
    public |= {f"quotaguard.testing.{name}" for name in quotaguard.testing.__all__}
    public |= {f"quotaguard.events.{name}" for name in (*events(), "Event", "Hook")}
    public |= integrations()
    found = documented()
    assert sorted(found) == sorted(set(found))
    assert public - set(found) == set()


def test_the_reference_has_every_command() -> None:
    """Who reads the page instead of `quotaguard --help` misses nothing."""
    page = (ROOT / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `quotaguard (\w+)", page, re.MULTILINE)
    assert sorted(listed) == sorted(cli.commands)


def test_the_reference_names_what_there_is() -> None:
    """A page about a name that is gone would break the build of the documentation."""
    for name in documented():
        module, _, attribute = name.rpartition(".")
        if name in sys.modules:
            continue
        assert hasattr(import_module(module), attribute), name
