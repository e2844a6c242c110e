"""The pieces that HTML is made of: a card, tiles, tables, bars. All text is escaped.

Colours are for light and dark pages alike: text is the page's own colour, lines and tracks are half
transparent grey, and fills are of middle brightness.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NewType

from ..wording import shown

Html = NewType("Html", str)
"""Markup; a plain ``str`` is text that has to be escaped first."""

BLUE, TEAL, AMBER, RED = "#4c8dff", "#1fa99a", "#d98a00", "#e5484d"

_SHORT = 24
"""Characters of a name that stays on one line of a table."""
_STYLE = Html(f"""<style>
.quotaguard {{ font: 13px/1.5 system-ui, sans-serif; max-width: 62em; margin: .4em 0;
  padding: .7em 1em .8em; border: 1px solid rgba(127,127,127,.35); border-radius: 8px }}
.quotaguard .qg-title {{ font-weight: 600; overflow-wrap: anywhere }}
.quotaguard .qg-note {{ opacity: .75; overflow-wrap: anywhere }}
.quotaguard .qg-tiles {{ display: flex; flex-wrap: wrap; gap: .3em 1.6em; margin: .5em 0 }}
.quotaguard .qg-tile b {{ display: block; font-size: 1.25em; line-height: 1.3;
  font-variant-numeric: tabular-nums }}
.quotaguard .qg-tile span {{ opacity: .75 }}
.quotaguard .qg-level {{ margin: .55em 0 0 }}
.quotaguard .qg-words {{ display: flex; flex-wrap: wrap; justify-content: space-between;
  gap: 0 1em; overflow-wrap: anywhere; font-variant-numeric: tabular-nums }}
.quotaguard .qg-track {{ display: flex; height: .5em; margin-top: .15em; border-radius: .25em;
  overflow: hidden; background: rgba(127,127,127,.25) }}
.quotaguard .qg-track i {{ display: block; height: 100% }}
.quotaguard .qg-track i.qg-held {{ opacity: .45 }}
.quotaguard .qg-wide {{ overflow-x: auto }}
.quotaguard table {{ border-collapse: collapse; margin: .5em 0 0; font-size: 1em; width: 100%;
  table-layout: auto !important }} /* Jupyter has its own rules for all tables */
.quotaguard tr {{ background: none !important }}
.quotaguard th, .quotaguard td {{ padding: .15em .45em; text-align: right; white-space: nowrap;
  border: 0; border-bottom: 1px solid rgba(127,127,127,.25); font-variant-numeric: tabular-nums }}
.quotaguard th {{ font-weight: 600 }}
.quotaguard .qg-name {{ text-align: left !important }}
.quotaguard .qg-long {{ white-space: normal; overflow-wrap: break-word }}
.quotaguard tfoot td {{ border-bottom: 0; font-weight: 600 }}
.quotaguard svg {{ display: block; width: 100%; height: auto; margin-top: .6em }}
.quotaguard .qg-warn, .quotaguard .qg-bad {{ padding-left: .6em; margin: .2em 0;
  border-left: 3px solid {AMBER}; overflow-wrap: anywhere }}
.quotaguard .qg-bad {{ border-color: {RED} }}
.quotaguard .qg-foot {{ margin-top: .7em; font-size: .92em; opacity: .75; overflow-wrap: anywhere }}
</style>""")


def text(value: object) -> Html:
    """Text on one line, escaped; what is not printable is spelled out."""
    return Html(escape(shown(str(value))))


def words(value: str) -> Html:
    """A sentence of ours, of any length, escaped."""
    return Html(escape(value if value.isprintable() else repr(value)))


def join(parts: Iterable[Html]) -> Html:
    """Pieces, one after the other."""
    return Html("".join(parts))


def card(title: str, *parts: Html) -> Html:
    """One thing that is shown, with its style: outputs of a notebook stand alone."""
    head = f'<div class="qg-title">{words(title)}</div>' if title else ""
    return Html(f'<div class="quotaguard">{_STYLE}{head}{join(parts)}</div>')


def note(sentence: str, kind: str = "note") -> Html:
    """A line of its own; its kind is note, warn, bad, or foot for the last one of a card."""
    return Html(f'<div class="qg-{kind}">{words(sentence)}</div>') if sentence else Html("")


def tiles(facts: Iterable[tuple[str, str]]) -> Html:
    """Numbers side by side, each with what it is."""
    each = (
        f'<div class="qg-tile"><b>{text(number)}</b><span>{text(what)}</span></div>'
        for number, what in facts
    )
    return Html(f'<div class="qg-tiles">{"".join(each)}</div>')


def bar(label: str, said: str, share: float, held: float, colour: str) -> Html:
    """A bar with words above it.

    Args:
        label, said: what stands at its left and right end.
        share: how much of it is filled, 0 to 1; what is beyond is cut off.
        held: how much more is filled half.
        colour: of the filling.
    """
    full = min(1.0, max(0.0, share))
    more = min(1.0 - full, max(0.0, held))
    return Html(
        f'<div class="qg-level"><div class="qg-words"><span>{words(label)}</span>'
        f'<span>{words(said)}</span></div><div class="qg-track" role="meter" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{full * 100:.0f}" aria-label="{words(label)}">'
        f'<i style="width:{full * 100:.2f}%;background:{colour}"></i>'
        f'<i class="qg-held" style="width:{more * 100:.2f}%;background:{colour}"></i></div></div>'
    )


def table(
    head: Sequence[str], lines: Iterable[Sequence[str]], last: Sequence[str] = (), *, names: int = 1
) -> Html:
    """A table; its first ``names`` columns are names, the others numbers."""

    def cell(at: int, said: str, tag: str) -> str:
        kind = "" if at >= names else "qg-name qg-long" if len(said) > _SHORT else "qg-name"
        return f'<{tag} class="{kind}">{words(said)}</{tag}>'

    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(cell(at, said, tag) for at, said in enumerate(cells))}</tr>"

    body = "".join(line(cells, "td") for cells in lines)
    foot = f"<tfoot>{line(last, 'td')}</tfoot>" if last else ""
    return Html(
        f'<div class="qg-wide"><table><thead>{line(head, "th")}</thead>'
        f"<tbody>{body}</tbody>{foot}</table></div>"
    )
