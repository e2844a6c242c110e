"""Draws the pictures of the documentation; levels are those of a real guard, run on a fake clock.

python tools/pictures.py           write them to docs/pictures
python tools/pictures.py --check   exit 1 if one is not what this draws
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from quotaguard import Guard, QuotaExceeded
from quotaguard.testing import FakeClock

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"
STYLE = """
svg { --back: #ffffff; --edge: #d0d7de; --ink: #1f2328; --soft: #59636e; --fill: #eef4fb;
  --main: #0a63c4; --held: #9ec5f0; --bad: #b42318 }
@media (prefers-color-scheme: dark) {
  svg { --back: #15191f; --edge: #3a424c; --ink: #e6edf3; --soft: #9aa5b1; --fill: #1d2733;
    --main: #6cb0ff; --held: #2c4d75; --bad: #ff8f80 } }
text { font: 14px system-ui, sans-serif; fill: var(--ink) }
.soft { font-size: 12px; fill: var(--soft) }
.bold { font-weight: 600 }
.bad { fill: var(--bad) }
.middle { text-anchor: middle }
.end { text-anchor: end }
.card { fill: var(--back); stroke: var(--edge) }
.box { fill: var(--fill); stroke: var(--main); stroke-width: 1.5 }
.box.no { stroke: var(--bad) }
.way { fill: none; stroke: var(--main); stroke-width: 2 }
.way.no { stroke: var(--bad) }
.level { fill: none; stroke: var(--main); stroke-width: 2 }
.held { fill: var(--held) }
.debt { fill: var(--bad); opacity: 0.3 }
.axis { stroke: var(--edge) }
.dash { stroke: var(--soft); stroke-dasharray: 3 4 }
.tip { fill: var(--main) }
.tip.no { fill: var(--bad) }
"""


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """A line of text."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>'


def line(x: float, y: float, to_x: float, to_y: float, kind: str = "axis") -> str:
    """A straight line."""
    return f'<line x1="{x:g}" y1="{y:g}" x2="{to_x:g}" y2="{to_y:g}" class="{kind}"/>'


def box(x: float, y: float, width: float, head: str, *more: str, kind: str = "") -> str:
    """A step: what it is called, and what happens there."""
    size = f'width="{width:g}" height="{34 + 17 * len(more)}" rx="8"'
    parts = [
        f'<rect x="{x:g}" y="{y:g}" {size} class="box {kind}"/>',
        text(x + width / 2, y + 22, head, f"bold middle {'bad' if kind else ''}"),
    ]
    parts += [
        text(x + width / 2, y + 41 + 17 * n, said, "soft middle") for n, said in enumerate(more)
    ]
    return "".join(parts)


def way(points: str, kind: str = "") -> str:
    """An arrow along points."""
    tip = "no" if kind else "tip"
    return f'<polyline points="{points}" class="way {kind}" marker-end="url(#{tip})"/>'


def picture(width: int, height: int, title: str, about: str, parts: Iterable[str]) -> str:
    """A whole SVG file, on a card of its own, so that it can be read on any page."""
    tips = "".join(
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0 10 5 0 10z" class="tip {kind}"/></marker>'
        for name, kind in (("tip", ""), ("no", "no"))
    )
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-labelledby="t d">\n'
        f'<title id="t">{escape(title)}</title>\n<desc id="d">{escape(about)}</desc>\n'
        f"<style>{STYLE}</style>\n<defs>{tips}</defs>\n"
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="10" class="card"/>\n'
        f"{body}\n</svg>\n"
    )


def call() -> str:
    """The path of a call."""
    parts = [
        box(20, 20, 170, "count", "the prompt's tokens,", "the most of the answer"),
        box(240, 20, 170, "reserve", "all limits of the call", "in one step"),
        box(460, 20, 170, "call", "the SDK, its answer", "as it comes"),
        box(680, 20, 170, "settle", "what was really used;", "the rest goes back"),
        way("190,54 238,54"),
        way("410,54 458,54"),
        way("630,54 678,54"),
        text(434, 46, "room", "soft middle"),
        way("325,88 325,128 130,128 130,150", "no"),
        way("325,88 325,150", "no"),
        way("325,88 325,128 545,128 545,150", "no"),
        text(333, 112, "no room: what the tier says", "soft"),
        box(50, 152, 160, "refuse", "429, Retry-After: 17", kind="no"),
        box(245, 152, 160, "wait", "in line, first come"),
        box(465, 152, 160, "fall back", "to a smaller model"),
        way("245,178 222,178 222,72 238,72"),
        way("605,152 605,90"),
        text(680, 120, "The ledger: memory,", "soft"),
        text(680, 137, "SQLite, or Redis. Many", "soft"),
        text(680, 154, "processes, one quota.", "soft"),
    ]
    about = (
        "Count the tokens, reserve them from all limits in one step, call, settle with what was "
        "used. If a limit has no room: refuse with a time to come back, wait in line and reserve "
        "again, or call a smaller model."
    )
    return picture(870, 222, "The path of a call", about, parts)


class Moment(NamedTuple):
    """A bucket at a time, in seconds from the beginning."""

    at: float
    level: float
    held: float


def straight(before: Moment, between: Moment, after: Moment) -> bool:
    """Whether the moment between is what the other two say of it."""
    whole, part = after.at - before.at, between.at - before.at
    if whole <= 0.0 or before.held != between.held or between.held != after.held:
        return False
    return abs(before.level + (after.level - before.level) * part / whole - between.level) < 0.01


class Plot:
    """A chart of a level over time, in a frame of a picture.

    Args:
        frame: left, top, right and bottom of the drawing area.
        until: the time at its right.
        low, high: levels at its bottom and top.
    """

    def __init__(
        self, frame: tuple[float, float, float, float], until: float, low: float, high: float
    ) -> None:
        self.left, self.top, self.right, self.bottom = frame
        self._until, self._low, self._high = until, low, high

    def x(self, at: float) -> float:
        """Where a time is."""
        return round(self.left + at / self._until * (self.right - self.left), 1)

    def y(self, level: float) -> float:
        """Where a level is."""
        share = (level - self._low) / (self._high - self._low)
        return round(self.bottom - share * (self.bottom - self.top), 1)

    def axes(self, levels: Iterable[float], times: Iterable[tuple[float, str]]) -> Iterator[str]:
        """Lines and figures at levels, figures at times."""
        for level in levels:
            yield line(self.left, self.y(level), self.right, self.y(level))
            yield text(self.left - 8, self.y(level) + 4, f"{level:,.0f}", "soft end")
        for at, said in times:
            yield text(self.x(at), self.bottom + 18, said, "soft middle")

    def levels(self, moments: list[Moment]) -> Iterator[str]:
        """The level, what is held above it, and what is owed."""

        def area(edge: Iterable[tuple[float, float]], back: Iterable[tuple[float, float]]) -> str:
            points = [*edge, *reversed(list(back))]
            return " ".join(f"{self.x(at):g},{self.y(level):g}" for at, level in points)

        level = [(moment.at, moment.level) for moment in moments]
        full = [(moment.at, moment.level + moment.held) for moment in moments]
        nought = self.y(0)
        below = f'x="{self.left}" y="{nought}" width="100%" height="{self.bottom - nought:g}"'
        yield f'<polygon points="{area(full, level)}" class="held"/>'
        if self._low < 0:
            owed = area(level, [(at, 0.0) for at, _ in level])
            yield f'<clipPath id="below"><rect {below}/></clipPath>'
            yield f'<polygon points="{owed}" class="debt" clip-path="url(#below)"/>'
        yield f'<polyline points="{area(level, ())}" class="level"/>'


class Watched:
    """A guard with one limit and one user, and what its bucket was at each time."""

    def __init__(self, limit: str, step: float, **options: float) -> None:
        self._clock = FakeClock()
        self._began = self._clock.now()
        self._step = step
        self.guard = Guard(limits=[limit], clock=self._clock, **options)  # type: ignore[arg-type]
        self.moments: list[Moment] = []
        self.look()

    @property
    def now(self) -> float:
        """Seconds from the beginning."""
        return self._clock.now() - self._began

    def look(self) -> None:
        """Note what the bucket is now; what lies on a straight line is noted once."""
        (bucket,) = self.guard.peek(user="alice")
        seen = self.moments
        seen.append(Moment(self.now, bucket.left, bucket.held))
        if len(seen) > 2 and straight(*seen[-3:]):
            del seen[-2]

    def until(self, at: float) -> None:
        """Let time pass, and look on the way: right before each step, and at it."""
        while self.now < at - 1e-6:
            step = min(self._step, at - self.now)
            for part in (step - 1e-3, 1e-3):
                self._clock.advance(part)
                self.look()

    def spend(self, tokens: int) -> float | None:
        """A call of so many tokens; the seconds to come back if it is refused."""
        try:
            with self.guard.hold(user="alice", input_tokens=tokens, output_tokens=0):
                pass
        except QuotaExceeded as error:
            return error.retry_after
        self.look()
        return None


def timeline() -> str:
    """The timeline of docs/explanation/buckets.md."""
    seen = Watched("10 tokens/second burst 1k", 1.0, output_guess=500, lease_seconds=20)

    def hold(tokens: int, answer: int | None, seconds: float, used: int) -> None:
        with seen.guard.hold(user="alice", input_tokens=tokens, output_tokens=answer) as lease:
            seen.look()
            seen.until(seen.now + seconds)
            lease.record(input_tokens=tokens, output_tokens=used)
        seen.look()

    hold(200, 400, 10, 50)
    hold(600, None, 0, 900)
    wait = seen.spend(100)
    seen.until(seen.now + (wait or 0.0) + 100)
    hold(300, 500, 20, 200)
    seen.until(230)
    plot = Plot((70, 20, 850, 270), 230, -650, 1200)
    parts = [
        *plot.axes((-500, 0, 500, 1000), ((at, f"{at} s") for at in range(0, 231, 20))),
        *plot.levels(seen.moments),
    ]
    for at, level, said in (
        (0, 620, "A reserves 600 …"),
        (10, 830, "… used 250: 350 go back"),
        (38, -590, "B used more than was there: a debt of 650, which the refill pays first"),
        (85, 20, "C, refused at 10 s for 75 s, has room here"),
        (185, 520, "D reserves 800;"),
        (205, 400, "its lease ends"),
    ):
        parts.append(text(plot.x(at) + 6, plot.y(level), said, "soft"))
    parts += [line(plot.x(85), plot.y(100), plot.x(85), plot.y(-80), "dash")]
    about = (
        "The level of a bucket of 1,000 tokens that refills 10 a second: a reservation that is "
        "partly given back, a debt of 650 that the refill pays off until second 75, and a "
        "reservation whose lease ends."
    )
    return picture(880, 305, "A bucket over time", about, parts)


def kinds() -> str:
    """The same calls against a window and against a bucket."""
    parts: list[str] = []
    for top, limit, what in (
        (20, "2400 tokens/day", "A window: full again at midnight"),
        (225, "2400 tokens/rolling day", "A bucket: 100 come back each hour"),
    ):
        seen = Watched(limit, 1800.0)
        plot = Plot((70, top + 30, 850, top + 150), 36 * 3600, 0, 2400)
        calls: list[str] = []
        for hour, tokens in ((6, 1500), (12, 700), (18, 800), (26, 1500)):
            seen.until(hour * 3600)
            wait = seen.spend(tokens)
            said = f"{tokens:,}" if wait is None else f"{tokens:,}: refused for {wait / 3600:.0f} h"
            kind = "soft" if wait is None else "soft bad"
            calls += [
                line(plot.x(hour * 3600), plot.top, plot.x(hour * 3600), plot.bottom, "dash"),
                text(plot.x(hour * 3600) + 4, plot.top - 6, said, kind),
            ]
        seen.until(36 * 3600)
        hours = ((at * 3600, f"{at % 24}:00") for at in range(0, 37, 6))
        parts += [text(70, top + 4, f"{limit}. {what}", "bold"), *plot.axes((0, 1200, 2400), hours)]
        parts += [*calls, *plot.levels(seen.moments)]
    about = (
        "Four calls against 2,400 tokens a day. As a window the limit refuses the third at 18:00 "
        "until midnight, when it is full again. As a bucket it has refilled 100 tokens an hour by "
        "then, and admits it."
    )
    return picture(880, 420, "A window and a bucket", about, parts)


PICTURES = {"call.svg": call, "timeline.svg": timeline, "kinds.svg": kinds}


def main(arguments: list[str]) -> int:
    """Draw the pictures, or check them."""
    stale = []
    for name, draw in PICTURES.items():
        file, drawn = FOLDER / name, draw()
        if arguments != ["--check"]:
            file.write_text(drawn, encoding="utf-8")
        elif not file.exists() or file.read_text(encoding="utf-8") != drawn:
            stale.append(name)
    if stale:
        print(f"not what tools/pictures.py draws: {', '.join(stale)}", file=sys.stderr)
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
