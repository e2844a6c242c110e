"""The example notebooks, in real kernels: what their outputs show, and what a restart keeps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[3]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))


@pytest.fixture(autouse=True)
def _a_place_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The kernels import what is tested, and keep their files here."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_DATA_HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.chdir(tmp_path)


def client_of(path: Path) -> Any:
    """What runs a notebook in a kernel."""
    from nbclient import NotebookClient  # it reads Jupyter's environment when it is imported

    notebook = nbformat.read(path, as_version=4)
    return NotebookClient(notebook, timeout=30, kernel_name="python3")


def shown(cell: Any) -> str:
    """The outputs of a cell, as text."""
    parts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        parts += [data.get("text/plain", ""), output.get("text", "")]
        parts += output.get("traceback", [])
    return "\n".join(parts)


def pages(notebook: Any) -> list[str]:
    """The HTML outputs of a notebook."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [page for output in outputs if (page := output.get("data", {}).get("text/html"))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    """Outputs in git are noise in every review, and go stale."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_tour_shows_what_its_text_says() -> None:
    """Each cell of the tour, in a kernel: costs, a receipt, await, a refusal, a wait, a report."""
    client = client_of(next(path for path in NOTEBOOKS if path.stem == "quotas"))
    notebook = client.execute()
    cells = [shown(cell) for cell in notebook.cells if cell.cell_type == "code"]
    _, _, alone, kept, several, refused, waited, line, later, reported = cells
    assert "This cell, for alice: 1 call, 300 input tokens, 120 output tokens" in alone
    assert "1,580 of 2,000 tokens left" in alone
    assert "Receipt of alice, gpt-4o-mini" in kept
    assert "This cell, for alice: 2 calls, 600 input tokens, 240 output tokens" in several
    assert "2 downgraded" in several
    assert "740 of 2,000 tokens left" in several
    assert "user alice is over the limit of 2k tokens/day" in refused
    assert "line 4: ask(question)" in refused
    assert len(refused.splitlines()) < 14
    assert "1 call waited in line" in waited
    assert "Quotas of alice:" in line
    assert "8 calls, 2,400 input tokens, 960 output tokens" in later
    assert re.search(r"^total +8 +2,400 +960", reported, re.MULTILINE)
    found = pages(notebook)
    assert len(found) >= 8
    assert any("<svg" in page for page in found)
    assert not any("<script" in page for page in found)


@pytest.mark.anyio
async def test_a_restarted_kernel_goes_on_where_the_day_is() -> None:
    """A day's quota that a restart resets is none: people restart kernels all the time."""
    client = client_of(next(path for path in NOTEBOOKS if path.stem == "the_day_goes_on"))
    code = [at for at, cell in enumerate(client.nb.cells) if cell.cell_type == "code"]
    lefts = []
    async with client.async_setup_kernel():
        for restarted in (False, True):
            if restarted:
                await client.km.restart_kernel(now=True)
                await client.kc.wait_for_ready(timeout=30)
            for at in code:
                await client.async_execute_cell(client.nb.cells[at], at)
            said = shown(client.nb.cells[code[-1]])
            lefts += re.findall(r"([\d,]+) of 10,000 tokens left", said)
    assert lefts == ["9,600", "9,200"]
