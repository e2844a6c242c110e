"""Names of models, and patterns that stand for many."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

_SNAPSHOT = re.compile(r"-\d{4}-?\d{2}-?\d{2}")


def undated(model: str) -> str:
    """The model of a dated snapshot; any other as it is."""
    found = _SNAPSHOT.search(model)
    return model[: found.start()] if found is not None and found.end() == len(model) else model


def matches(model: str, pattern: str) -> bool:
    """Whether a model name fits a shell pattern, or is a dated snapshot of the model it names."""
    return fnmatchcase(model, pattern) or (
        model.startswith(pattern) and _SNAPSHOT.fullmatch(model[len(pattern) :]) is not None
    )
