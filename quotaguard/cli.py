"""The ``quotaguard`` command (extra ``quotaguard[cli]``)."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TextIO

import click

from . import counting
from .config import default_guard
from .contrib.dashboard.command import command as dashboard
from .counting.parts import NAMES
from .errors import PriceUnknown, QuotaguardError
from .guard import Guard
from .usage import Usage

_PACKAGES = ("quotaguard", "openai", "anthropic", "tiktoken", "splintr-rs", "redis", "genai-prices")


@click.group()
@click.version_option(package_name="quotaguard")
def main() -> None:
    """Token quotas for LLM clients."""


main.add_command(dashboard)


@main.command()
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--endpoint", type=click.Choice(counting.ENDPOINTS), help="default: by its keys")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def count(file: TextIO, endpoint: str | None, as_json: bool) -> None:
    """Count the tokens of a request body in FILE (JSON; - for standard input), by part."""
    try:
        request = json.load(file)
    except ValueError as error:
        raise click.ClickException(f"{file.name} is no JSON: {error}") from error
    if not isinstance(request, dict):
        raise click.ClickException(f"{file.name} holds no JSON object but {type(request).__name__}")
    endpoint = endpoint or _endpoint_of(request)
    guard = Guard()
    found = guard.estimate(endpoint, request)
    model = request.get("model")
    report: dict[str, Any] = {
        "endpoint": endpoint,
        "model": model,
        "input": {name: getattr(found.parts, name) for name in NAMES},
        "input_tokens": found.input_tokens,
        "output_tokens": found.output_tokens,
        "output_is": "stated" if found.output_hard else "guessed",
    }
    try:
        most = Usage(1, found.input_tokens, found.output_tokens)
        report["usd_at_most"] = float(guard.prices.priced(most, str(model)).usd or 0)
    except PriceUnknown as error:
        report["usd_at_most"] = None
        report["why_no_price"] = str(error)
    _show(report, as_json)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def doctor(as_json: bool) -> None:
    """Say what is installed, which guard clients would use, and how tokens are counted."""
    report: dict[str, Any] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            report[package] = version(package)
        except PackageNotFoundError:
            report[package] = "not installed"
    try:
        report["default guard"] = repr(default_guard())
    except QuotaguardError as error:
        report["default guard"] = f"wrong: {error}"
    report["counting"] = asdict(counting.engine())
    _show(report, as_json)
    if str(report["default guard"]).startswith("wrong"):
        sys.exit(1)


def _endpoint_of(request: dict[str, Any]) -> str:
    """Which endpoint a body is for, by its keys."""
    model = str(request.get("model", ""))
    if "messages" in request:
        claude = "claude" in model.lower() or "anthropic_version" in request
        return "messages" if claude else "chat"
    if "input" in request:
        return "embeddings" if "embedding" in model else "responses"
    if "prompt" in request:
        return "completions"
    raise click.ClickException(
        "the body has neither messages nor input nor prompt; say --endpoint if that is right"
    )


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    for key, value in report.items():
        if isinstance(value, dict):
            click.echo(f"{key}:")
            for name, part in value.items():
                if part or part is False:
                    click.echo(f"  {name:18s} {part}")
        elif value is not None:
            click.echo(f"{key:20s} {value}")
