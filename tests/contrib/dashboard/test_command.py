"""``quotaguard dashboard``, run as a user runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread

import pytest

pytest.importorskip("click", reason="the cli extra is not installed")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from click.testing import CliRunner

from quotaguard import Guard, load_guard
from quotaguard.cli.app import cli
from tests.backends.redis_server import free_port

from .client import Client, Page
from .conftest import call

ROOT = Path(__file__).parents[3]
CONFIG = """
limits = ["1000 tokens/day"]
backend = "sqlite:///ledger.db"
journal = "usage.jsonl"
"""


class Running:
    """The command, what it prints, and a client of it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.lines: Queue[str] = Queue()
        self.client = Client(port)
        assert process.stdout is not None
        self._reader = Thread(
            target=lambda: [self.lines.put(line) for line in process.stdout or ()]
        )
        self._reader.start()

    def link(self) -> str:
        """The next one that it prints, without the host."""
        found = re.search(r"http://127\.0\.0\.1:\d+(/\S*)", self.lines.get(timeout=20))
        assert found is not None
        return found[1]

    def ask(self, url: str) -> Page:
        """An answer, once it serves."""
        deadline = time.monotonic() + 20
        while True:
            try:
                return self.client.ask("GET", url)
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def join(self) -> None:
        """It has ended."""
        self._reader.join()


@contextmanager
def running(directory: Path, *options: str) -> Iterator[Running]:
    """The command until the block ends, by Ctrl-C."""
    port = free_port()
    command = [sys.executable, "-c", "from quotaguard.cli import main; main()", "dashboard"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, "--port", str(port), *options],
        cwd=directory,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        found = Running(process, port)
        try:
            yield found
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
            found.join()
        assert "Traceback" not in errors
        assert "token=" not in errors


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guard]:
    """The guard of another process, whose file the command finds."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quotaguard.toml").write_text(CONFIG)
    guard = load_guard(tmp_path / "quotaguard.toml")
    call(guard, "alice", 300)
    assert guard.journal is not None
    guard.journal.flush()
    yield guard
    guard.close()


def test_the_link_that_is_printed_opens_it_once(guard: Guard, tmp_path: Path) -> None:
    """As notebooks do: a random token, traded for a cookie, so that no history keeps the key."""
    with running(tmp_path, "--by", "olga") as command:
        link = command.link()
        assert command.ask("/").status == 403
        assert command.ask("/?token=wrong").status == 403
        page = command.ask(link)
        assert (page.status, page.fields["location"]) == (303, "./")
        cookie = page.fields["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        overview = command.client.get()
        assert "Tokens 300" in overview.text
        assert "alice 1k tokens/day fine 700 1,000" in overview.text
        granted = command.client.grant(command.client.get("find", user="alice"), "100")
        assert "Granted" in granted.text
        assert "by olga" in granted.text
        own, command.client.cookies = command.client.cookies, {}
        assert "used before" in command.ask(link).text
        assert command.ask(command.link()).status == 303  # another browser
        assert command.client.cookies.keys() < own.keys()
    assert guard.peek(user="alice")[0].left == 800


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--config", "missing.toml"), "cannot read missing.toml"),
        (("--journal", "other.jsonl"), "keeps a journal already"),
        (("--tz", "Mars/Base"), "unknown time zone 'Mars/Base'"),
        (("--port", "0"), "0 is not in the range"),
    ],
)
def test_a_wrong_option_is_a_sentence(guard: Guard, options: tuple[str, str], says: str) -> None:
    """And an exit code, not a traceback."""
    result = CliRunner().invoke(cli, ["dashboard", *options])
    assert result.exit_code != 0
    assert says in result.output


def test_a_ledger_in_memory_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its levels are nobody's: the app has another memory."""
    served = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("uvicorn.run", lambda app, **options: served.append(options))
    result = CliRunner().invoke(cli, ["dashboard", "--journal", "usage.jsonl"])
    assert result.exit_code == 0, result.output
    assert "the levels are not those of your app" in result.output
    assert served[0]["host"] == "127.0.0.1"
    assert served[0]["access_log"] is False
