"""A folder with a configuration, for the command to find."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = """
backend = "sqlite:///quota.db"
journal = "usage.jsonl"
anonymous = "visitor"
prices = { large = { input = 10, output = 20 }, small = { input = 1, output = 2 } }

[tiers.free]
limits = ["1k tokens/day", "5 requests/day", "2k tokens/day per org"]

[tiers.pro]
limits = ["1k tokens/day for large", "9k tokens/day for small"]
when_exceeded = [{ fallback = "small" }]
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("CONFIG", "LIMITS", "BACKEND", "JOURNAL"):
        monkeypatch.delenv(f"QUOTAGUARD_{name}", raising=False)
    return tmp_path


@pytest.fixture
def configured(here: Path) -> Path:
    """One with a quotaguard.toml, whose default tier is free."""
    file = here / "quotaguard.toml"
    file.write_text(f'default_tier = "free"\n{SHARED}', encoding="utf-8")
    return file
