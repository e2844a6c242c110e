"""``count``, ``doctor`` and ``completion``: requests, and this installation."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TextIO

import click
from click.shell_completion import get_completion_class

from .. import counting
from ..config import default_guard
from ..core.ops import Peek
from ..counting.parts import NAMES
from ..errors import BackendError, ConfigurationError, PriceUnknown
from ..guard import Guard
from ..limits import Limit
from ..usage import Usage
from .frame import AWAY, NO, Answer, answers
from .setup import Setup

_PACKAGES = ("quotaguard", "openai", "anthropic", "tiktoken", "splintr-rs", "redis", "genai-prices")


@click.command()
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--endpoint", type=click.Choice(counting.ENDPOINTS), help="default: by its keys")
@answers
def count(file: TextIO, endpoint: str | None) -> Answer:
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
    return Answer(report, _lines(report))


@click.command()
@click.pass_obj
@answers
def doctor(setup: Setup) -> Answer:
    """Say what is installed, which guard clients would use, whether its ledger can be reached, and
    how tokens are counted.
    """
    report: dict[str, Any] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            report[package] = version(package)
        except PackageNotFoundError:
            report[package] = "not installed"
    code = 0
    report["file"] = str(setup.file) if setup.file is not None else None
    try:
        guard = setup.guard() if setup.file or setup.app else default_guard()
        report["default guard"] = repr(guard)
        report["ledger"] = _reached(guard)
    except ConfigurationError as error:
        report["default guard"], code = f"wrong: {error}", NO
    except BackendError as error:
        report["ledger"], code = f"away: {error}", AWAY
    report["counting"] = asdict(counting.engine())
    return Answer(report, _lines(report), code)


def _reached(guard: Guard) -> str:
    """Ask the ledger for a bucket that nobody has."""
    probe = Limit(1, "requests", 1, scope="global")
    guard.backend.execute(Peek(((("global",), probe),)))
    shared = getattr(guard.backend, "shared", False)
    return "reached" if shared else "in the process that makes the calls"


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
@answers
def completion(context: click.Context, shell: str) -> Answer:
    """Print what makes SHELL complete quotaguard's commands and options."""
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(context.find_root().command, {}, "quotaguard", "_QUOTAGUARD_COMPLETE").source()
    return Answer({"shell": shell, "script": script}, [script])


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


def _lines(report: dict[str, Any]) -> list[str]:
    """Facts for people, those that say nothing left out."""
    lines = []
    for key, value in report.items():
        if isinstance(value, dict):
            lines.append(f"{key}:")
            lines += [f"  {k:18s} {part}" for k, part in value.items() if part or part is False]
        elif value is not None:
            lines.append(f"{key:20s} {value}")
    return lines
