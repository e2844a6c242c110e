"""The public names: ``quotaguard.__all__``, what stands behind it, and nothing beside it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import quotaguard

HOME = Path(quotaguard.__file__)
SDKS = ("OpenAI", "AzureOpenAI", "Anthropic")
CLIENTS = {f"{prefix}Guarded{sdk}" for prefix in ("", "Async") for sdk in SDKS}


def kinds_then_names(name: str) -> tuple[int, str]:
    """The order that ruff (RUF022) keeps: constants, then classes, then the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def imported_names() -> set[str]:
    """What ``quotaguard/__init__.py`` imports from its own modules, TYPE_CHECKING included."""
    return {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(HOME.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and (node.level or (node.module or "").startswith("quotaguard"))
        for alias in node.names
    }


def test_all_is_sorted_and_names_nothing_twice() -> None:
    """A reader finds a name where it belongs, once."""
    assert list(quotaguard.__all__) == sorted(set(quotaguard.__all__), key=kinds_then_names)


def test_all_is_complete() -> None:
    """Every public name that is imported is exported, and the other way round."""
    public = {name for name in imported_names() if not name.startswith("_")}
    assert public == set(quotaguard.__all__) - {"__version__"}


@pytest.mark.parametrize("name", sorted(quotaguard.__all__))
def test_every_name_can_be_had(name: str) -> None:
    """Eager or lazy, each exported name is there, and ``dir`` lists it."""
    assert getattr(quotaguard, name) is not None
    assert name in dir(quotaguard)


def test_the_client_classes_are_exported() -> None:
    """All six guarded clients are public, and each is called what it is exported as."""
    assert set(quotaguard.__all__) >= CLIENTS
    assert {getattr(quotaguard, name).__name__ for name in CLIENTS} == CLIENTS


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy lookup answers a misspelt name as any module does."""
    with pytest.raises(AttributeError, match="GuardedOpenAi"):
        _ = quotaguard.GuardedOpenAi


def test_the_types_are_shipped() -> None:
    """Type checkers of users read our annotations."""
    assert (HOME.parent / "py.typed").is_file()
