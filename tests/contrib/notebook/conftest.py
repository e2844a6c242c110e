"""A shell with the extension loaded, and what it displays."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from quotaguard.contrib.notebook import NotebookGuard, extension
from quotaguard.testing import FakeClock, FakeProvider, Reply

SETUP = """
from quotaguard import AsyncGuardedOpenAI, Guard, GuardedOpenAI, receipt
client, async_client = GuardedOpenAI(), AsyncGuardedOpenAI()

def request(model="gpt-4o-mini", text="hello"):
    return {"model": model, "max_tokens": 200, "messages": [{"role": "user", "content": text}]}

def ask(model="gpt-4o-mini", text="hello"):
    return client.chat.completions.create(**request(model, text))

async def aask(model="gpt-4o-mini"):
    return await async_client.chat.completions.create(**request(model))
"""


class Notebook:
    """A shell in this process that runs cells as a kernel does."""

    def __init__(self, shell: InteractiveShell, guard: NotebookGuard) -> None:
        self.shell = shell
        self.guard = guard

    def run(self, cell: str) -> Any:
        """Run a cell that works; its value."""
        result = self.fail(cell, None)
        return result.result

    def fail(self, cell: str, error: type[BaseException] | None) -> Any:
        """Run a cell that ends in that error; its result, as IPython has it."""
        self.shell.display_pub.outputs.clear()
        result = self.shell.run_cell(cell)
        found = result.error_before_exec or result.error_in_exec
        if error is None:
            result.raise_error()
        else:
            assert isinstance(found, error), found
        return result

    @property
    def outputs(self) -> list[dict[str, str]]:
        """What the last cell displayed, by MIME type."""
        return [output["data"] for output in self.shell.display_pub.outputs]

    @property
    def text(self) -> str:
        """The last thing that it displayed, as text."""
        return self.outputs[-1]["text/plain"]


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeProvider]:
    """A provider, to which clients without a base URL go."""
    with FakeProvider(reply=Reply(text="Yes.", input_tokens=300, output_tokens=100)) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "none needed")
        yield provider


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[InteractiveShell]:
    """IPython without a terminal, and without its user's profile and history."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # it puts its own there
    for name in ("displayhook", "excepthook"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    config = Config({"HistoryManager": {"enabled": False}})
    shell = InteractiveShell.instance(display_pub_class=CapturingDisplayPublisher, config=config)
    yield shell
    InteractiveShell.clear_instance()


@pytest.fixture
def notebook(shell: InteractiveShell, provider: FakeProvider) -> Iterator[Notebook]:
    """A notebook whose guard has a clock of the test's; clients are made before any cell."""
    guard = NotebookGuard(clock=FakeClock(), anonymous="anonymous", journal="memory://")
    loaded = extension.Extension(shell, guard)
    notebook = Notebook(shell, guard)
    notebook.run(SETUP)
    yield notebook
    shell.run_cell("client.close(); await async_client.close()")
    with suppress(ValueError):  # a test may have unloaded it
        loaded.unload()
