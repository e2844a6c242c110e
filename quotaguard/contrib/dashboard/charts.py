"""Bars over time: where each stands in an SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple

from ...wording import money
from .books import Step

WIDTH, HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 8, 10, 24
_STEPS = 4
_MARKS = 8
"""Labels below the bars, at most."""


class Series(NamedTuple):
    """What one colour stands for."""

    name: str
    style: str
    """A class of the style sheet."""
    values: Sequence[float]


class Bar(NamedTuple):
    """A part of a stack."""

    style: str
    x: float
    y: float
    width: float
    height: float


class Stack(NamedTuple):
    """One step of time: its parts, and what hovering over it says."""

    x: float
    width: float
    says: str
    bars: tuple[Bar, ...]


class Chart(NamedTuple):
    """Stacks, lines across with their values, and labels below."""

    title: str
    series: tuple[Series, ...]
    labels: tuple[str, ...]
    stacks: tuple[Stack, ...]
    lines: tuple[tuple[float, str], ...]
    marks: tuple[tuple[float, str], ...]
    texts: tuple[tuple[str, ...], ...]
    """For each step what each series says, as text."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    bottom: int = HEIGHT - _BOTTOM


def over_time(steps: Sequence[Step], labels: Sequence[str]) -> list[Chart]:
    """What was spent and saved, and what became of calls."""

    def series(name: str, style: str, of: Callable[[Step], float]) -> Series:
        return Series(name, style, [of(step) for step in steps])

    spent = series("cost", "cost", lambda step: float(step.row.cost))
    saved = series("saved", "saved", lambda step: float(step.row.saved))
    calls = (
        series("as asked", "served", lambda step: step.row.calls - step.row.downgraded),
        series("downgraded", "downgraded", lambda step: step.row.downgraded),
        series("refused", "refused", lambda step: step.row.refused),
    )
    return [
        chart("Cost and savings", labels, (spent, saved), _dollars, least=0.0004),
        chart("Calls", labels, calls, lambda value: f"{value:,.0f}", least=4),
    ]


def _dollars(value: float) -> str:
    return money(Decimal(str(round(value, 9))))


def chart(
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    text: Callable[[float], str],
    least: float,
) -> Chart:
    """Stacked bars.

    Args:
        title: what is shown.
        labels: of each step.
        series: from the bottom up; negative values are drawn as nothing.
        text: how a value is written.
        least: what the scale reaches at least.
    """
    sums = [sum(max(0.0, each.values[i]) for each in series) for i in range(len(labels))]
    top = _round(max([least, *sums]))
    inside, tall = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    slot = inside / len(labels)
    stacks, texts = [], []
    for i, label in enumerate(labels):
        x, y, bars = _LEFT + slot * i, float(HEIGHT - _BOTTOM), []
        for each in series:
            height = tall * max(0.0, each.values[i]) / top
            if height > 0.0:
                y -= height
                bars.append(
                    Bar(
                        each.style,
                        round(x + slot * 0.15, 2),
                        round(y, 2),
                        round(slot * 0.7, 2),
                        round(height, 2),
                    )
                )
        said = tuple(text(each.values[i]) for each in series)
        parts = (f"{each.name} {value}" for each, value in zip(series, said, strict=True))
        stacks.append(
            Stack(round(x, 2), round(slot, 2), f"{label}: {', '.join(parts)}", tuple(bars))
        )
        texts.append(said)
    every = math.ceil(len(labels) / _MARKS)
    lines = [
        (HEIGHT - _BOTTOM - tall * i / _STEPS, text(top * i / _STEPS)) for i in range(_STEPS + 1)
    ]
    marks = [
        (round(_LEFT + slot * (i + 0.5), 2), label)
        for i, label in enumerate(labels)
        if (len(labels) - 1 - i) % every == 0
    ]
    return Chart(
        title,
        tuple(series),
        tuple(labels),
        tuple(stacks),
        tuple(lines),
        tuple(marks),
        tuple(texts),
    )


def _round(most: float) -> float:
    """The next of 4, 8, 12, 20, 40, 80, 120 and so on: quarters of it read well."""
    power = 10.0 ** math.floor(math.log10(most))
    return next(
        power * factor for factor in (1.2, 2.0, 4.0, 8.0, 12.0) if power * factor >= most * 0.999999
    )
