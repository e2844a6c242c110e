"""``init`` and ``check``: the configuration file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from ..config import FILE, load_guard
from ..errors import ConfigurationError
from ..guard import Guard
from ..tiers import Tier
from .frame import NO, Answer, answers
from .output import Table
from .setup import Setup


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=FILE)
@click.option("--force", is_flag=True, help="overwrite a file that is there")
@answers
def init(file: Path, force: bool) -> Answer:
    """Write a commented quotaguard.toml, to change to your needs."""
    text = files("quotaguard.cli").joinpath("template.toml").read_text(encoding="utf-8")
    try:
        with file.open("w" if force else "x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError as error:
        message = f"{file} is there already; --force overwrites it"
        raise click.ClickException(message) from error
    except OSError as error:
        raise click.ClickException(f"cannot write {file}: {error.strerror}") from error
    shown = f"{file} is written. 'quotaguard check' validates it; clients find it by themselves."
    return Answer({"file": str(file)}, [shown])


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.pass_obj
@answers
def check(setup: Setup, file: Path | None) -> Answer:
    """Validate FILE (default: the one that guarded clients would use)."""
    file = file or setup.file
    if file is None:
        raise click.UsageError(f"there is no {FILE} here or above; name a file.")
    try:
        guard = load_guard(file)
    except ConfigurationError as error:
        wrong = {"file": str(file), "ok": False, "error": str(error), "tiers": []}
        return Answer(wrong, [], NO, str(error))
    tiers = [_facts(guard, tier) for tier in guard.rules.tiers.values()]
    guard.close()
    lines = [["tier", "limits", "models"]]
    lines += [
        [each["tier"], "; ".join(each["limits"]), ", ".join(each["models"]) or "all"]
        for each in tiers
    ]
    shown = (f"{file} is right.", Table(lines, names=3))
    return Answer({"file": str(file), "ok": True, "error": None, "tiers": tiers}, shown)


def _facts(guard: Guard, tier: Tier) -> dict[str, Any]:
    return {
        "tier": tier.name,
        "default": tier.name == guard.rules.default,
        "limits": [limit.text for limit in (*tier.limits, *guard.rules.limits)],
        "models": list(tier.models),
    }
