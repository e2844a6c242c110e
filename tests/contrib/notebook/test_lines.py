"""``%quota`` as a line, and what loading and unloading the extension changes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import openai
import pytest
from IPython.core.interactiveshell import InteractiveShell

import quotaguard
from quotaguard import ConfigurationError, GuardedOpenAI, QuotaExceeded, receipt
from quotaguard.config import default_guard
from quotaguard.contrib.notebook import NotebookGuard, ledger
from quotaguard.contrib.notebook.extension import transformed
from quotaguard.testing import FakeProvider
from tests.contrib.notebook.conftest import Notebook


def test_the_line_shows_the_levels(notebook: Notebook) -> None:
    """Whoever wonders what is left asks, and spends nothing by it."""
    notebook.run('%quota "1k tokens/day" --user alice')
    notebook.run("ask()")
    notebook.run("%quota")
    assert "Quotas of alice:" in notebook.text
    assert "600 of 1,000 tokens left" in notebook.text
    assert "Today (UTC), all users in this journal: 1 call" in notebook.text
    assert "<svg" in notebook.outputs[-1]["text/html"]
    notebook.run("%quota --user bob")
    assert "Quotas of bob:" in notebook.text
    assert "1,000 of 1,000 tokens left" in notebook.text


def test_a_line_holds_for_all_cells_until_it_is_cleared(notebook: Notebook) -> None:
    """One line at the top governs a notebook."""
    notebook.run('%quota "900 tokens/day" --user alice')
    notebook.run("ask(); ask()")
    notebook.fail("ask()", openai.RateLimitError)
    notebook.fail("await aask()", openai.RateLimitError)
    notebook.run("%quota --clear")
    assert "no limits: calls are metered only" in notebook.text
    assert notebook.run("receipt(ask()).identity.user") == "anonymous"


def test_a_cells_terms_stand_over_the_lines(notebook: Notebook) -> None:
    """A cell may have more, or less, of the same, and keeps what it does not name."""
    notebook.run('%quota "900 tokens/day" "2 requests/minute" --user alice')
    notebook.run('%%quota "5k tokens/day"\nask(); ask()')
    assert "4,200 of 5,000 tokens left" in notebook.text
    error = notebook.fail('%%quota "5k tokens/day"\nask()', QuotaExceeded).error_in_exec
    assert error.limit == "2 requests/minute"


def test_without_limits_it_says_so(notebook: Notebook) -> None:
    """An empty card would look like a fault."""
    notebook.run("%quota")
    assert "no limits: calls are metered only" in notebook.text


def test_a_cell_that_is_not_for_us_stays_as_it_is() -> None:
    """The transformer sees every cell of the notebook."""
    for lines in (["x = 1\n"], ["%%time\n", "x\n"], ["%%quotas\n"], [" %%quota\n"], []):
        assert transformed(lines) == lines
    begin = "get_ipython().run_line_magic('quota_begin', '')\n"
    assert transformed(["%%quota\n", "x\n"]) == [begin, "x\n"]


def test_unloading_leaves_nothing(
    shell: InteractiveShell, provider: FakeProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    """``%unload_ext`` gives back the shell, the default guard and the errors as they were."""
    before = list(shell.input_transformers_cleanup), default_guard()
    shell.run_cell("%load_ext quotaguard").raise_error()
    assert isinstance(default_guard(), NotebookGuard)
    shell.run_cell("%load_ext quotaguard").raise_error()  # again: it says so, and does nothing
    shell.run_cell("%unload_ext quotaguard").raise_error()
    assert (list(shell.input_transformers_cleanup), default_guard()) == before
    assert not hasattr(QuotaExceeded, "_render_traceback_")
    assert shell.find_line_magic("quota") is None
    assert shell.find_cell_magic("quota") is None
    shell.run_cell("%load_ext quotaguard").raise_error()
    shell.run_cell("%unload_ext quotaguard").raise_error()


def test_the_ledger_is_a_file_of_the_users(shell: InteractiveShell, provider: FakeProvider) -> None:
    """Another kernel goes on where this one is: the file says so, and its folder is the user's."""
    for left in ("9,600", "9,200"):
        shell.run_cell("%load_ext quotaguard").raise_error()
        shell.run_cell(
            '%%quota "10k tokens/day" --user alice\nfrom quotaguard import GuardedOpenAI\n'
            "with GuardedOpenAI() as client:\n"
            '    client.chat.completions.create(model="gpt-4o", max_tokens=100, messages=[])'
        ).raise_error()
        shown = shell.display_pub.outputs[-1]["data"]["text/plain"]
        assert f"{left} of 10,000 tokens left" in shown
        shell.run_cell("%unload_ext quotaguard").raise_error()
    assert ledger().is_file()
    if os.name == "posix":
        assert ledger().parent.stat().st_mode & 0o077 == 0


def test_the_place_of_the_ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where each system keeps what is a user's own."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    places = {
        "linux": tmp_path / ".local" / "share",
        "darwin": tmp_path / "Library" / "Application Support",
        "win32": tmp_path / "AppData" / "Local",
    }
    for system, folder in places.items():
        monkeypatch.setattr(sys, "platform", system)
        assert ledger() == folder / "quotaguard" / "notebooks.db"


def test_a_file_goes_before_the_notebooks_defaults(
    shell: InteractiveShell, provider: FakeProvider, tmp_path: Path
) -> None:
    """Who has a quotaguard.toml gets its tiers and its ledger; a cell's limits stand over them."""
    (tmp_path / "quotaguard.toml").write_text(
        'backend = "memory://"\n[tiers.team]\nlimits = ["1k tokens/day", "9 requests/day"]\n'
    )
    shell.run_cell("%load_ext quotaguard").raise_error()
    try:
        with GuardedOpenAI(user="alice") as client:
            answer = client.chat.completions.create(model="gpt-4o", max_tokens=9, messages=[])
        assert receipt(answer).identity.tier == "team"
        shell.run_cell('%quota "5k tokens/day" --user bob').raise_error()
        shown = shell.display_pub.outputs[-1]["data"]["text/plain"]
        assert "5,000 of 5,000 tokens left" in shown
        assert "9 of 9 requests left" in shown
        assert "ledger: MemoryBackend" in shown
    finally:
        shell.run_cell("%unload_ext quotaguard").raise_error()
    assert not ledger().exists()


def test_a_wrong_file_is_named(shell: InteractiveShell, tmp_path: Path) -> None:
    """Loading fails with the place and the reason, and leaves nothing half loaded."""
    (tmp_path / "quotaguard.toml").write_text('limits = ["10k bananas/day"]\n')
    with pytest.raises(ConfigurationError, match=r"quotaguard.toml: .*bananas"):
        quotaguard.load_ipython_extension(shell)
    assert shell.find_line_magic("quota") is None


def test_a_folder_that_cannot_be_made_is_named(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A read-only home is no mystery: the message says which file, and the way out."""
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(ConfigurationError, match="QUOTAGUARD_BACKEND"):
        quotaguard.load_ipython_extension(shell)
