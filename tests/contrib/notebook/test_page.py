"""The how-to on notebooks: its cells run, and show what it says."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.contrib.notebook.conftest import Notebook
from tests.test_docs import ROOT, Block, blocks

PAGE = ROOT / "docs" / "how-to" / "notebooks.md"


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # pages do not close clients
def test_the_cells_of_the_page_show_what_it_says(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reader who copies a cell gets what stands below it."""
    compared = 0
    for block, below in pairwise([*blocks(PAGE), Block("", 0, "", "")]):
        if block.language != "ipython":
            continue
        value = notebook.run(block.text.replace("%load_ext quotaguard\n", ""))
        if below.language == "text":
            shown = notebook.shell.display_formatter.format(value)[0] if value else {}
            text = shown.get("text/plain") or notebook.text
            assert text == below.text.rstrip("\n"), f"line {block.line}"
            compared += 1
    assert compared == 3
    capsys.readouterr()
