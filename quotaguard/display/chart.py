"""A chart of use over time: inline SVG, without a script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..wording import amount
from .page import BLUE, TEAL, Html, text

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 640, 170, 56, 24, 20
_LABELS = 12
"""Most labels under the columns."""


class Column(NamedTuple):
    """One stretch of time."""

    label: str
    input_tokens: int
    output_tokens: int


def columns(title: str, given: Sequence[Column]) -> Html:
    """Tokens, input and output stacked, for each stretch of time; nothing where there is none."""
    most = max((each.input_tokens + each.output_tokens for each in given), default=0)
    if not most:
        return Html("")
    high = _HEIGHT - _TOP - _BOTTOM
    step = (_WIDTH - _LEFT) / len(given)
    wide = min(step * 0.7, 40.0)
    every = -(-len(given) // _LABELS)
    drawn = [_grid(_TOP, amount(most)), _grid(_TOP + high / 2, ""), _grid(_TOP + high, "0")]
    for at, each in enumerate(given):
        left = _LEFT + step * at + (step - wide) / 2
        low = float(_TOP + high)
        boxes = ""
        for tokens, colour in ((each.input_tokens, BLUE), (each.output_tokens, TEAL)):
            tall = high * tokens / most
            low -= tall
            boxes += _box(left, low, wide, tall, colour)
        said = f"{each.label}: {each.input_tokens:,} in, {each.output_tokens:,} out"
        drawn.append(f"<g><title>{text(said)}</title>{boxes}</g>")
        if at % every == 0:
            middle = f'x="{left + wide / 2:.1f}" y="{_HEIGHT - 5}" text-anchor="middle"'
            drawn.append(f"<text {middle}>{text(each.label)}</text>")
    return Html(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{text(title)}" '
        'font-size="11" font-family="system-ui, sans-serif" fill="currentColor">'
        f"<title>{text(title)}</title>{_legend()}{''.join(drawn)}</svg>"
    )


def _box(left: float, top: float, wide: float, tall: float, colour: str) -> str:
    size = f'width="{wide:.1f}" height="{tall:.1f}"'
    return f'<rect x="{left:.1f}" y="{top:.1f}" {size} fill="{colour}"/>'


def _grid(y: float, label: str) -> str:
    """A line across, and what it stands for."""
    line = f'x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor"'
    said = f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text(label)}</text>'
    return f'<line {line} stroke-opacity=".2"/>{said}'


def _legend() -> str:
    parts = ((_LEFT, BLUE, "input tokens"), (_LEFT + 100, TEAL, "output tokens"))
    return "".join(
        f'{_box(x, 3, 10, 10, colour)}<text x="{x + 15}" y="12">{what}</text>'
        for x, colour, what in parts
    )
