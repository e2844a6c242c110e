"""What a job tells of an item that is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Done(Generic[T, R]):
    """An item of a job and what became of it.

    Attributes:
        index: the item's place among the items, from 0.
        item: the item.
        result: what the function returned for it; None if it failed.
        error: what it raised; None if it did not.
        resumed: whether the result comes from the file of an earlier run.
    """

    index: int
    item: T
    result: R | None = None
    error: Exception | None = None
    resumed: bool = False
