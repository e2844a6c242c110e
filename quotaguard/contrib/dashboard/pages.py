"""Templates, and how they write names, numbers and times."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response

from ...entries import Entry
from ...windows import zone
from ...wording import money, shown

_LONGEST = 2_000
"""Characters of a name where it has a page of its own."""


def amount(value: float, metric: str) -> str:
    """So much of a metric. What is not whole is rounded down: a call needs a whole one."""
    if metric == "usd":
        return money(Decimal(str(round(value, 9))))
    return f"{math.floor(value + 1e-6):,}"


def duration(seconds: float) -> str:
    """Seconds, in its two largest units."""
    if math.isinf(seconds):
        return "never"
    left = math.ceil(seconds)
    counts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or counts:
            counts.append(f"{count} {unit}" if count else "")
    return " ".join(filter(None, counts[:2])) or "now"


def moment(time: float, tz: str, style: str = "%Y-%m-%d %H:%M:%S") -> str:
    """An instant, in a time zone."""
    return f"{datetime.fromtimestamp(time, zone(tz)):{style}}"


def link(page: str, /, **query: str | int | None) -> str:
    """A page of ours with a query, whatever stands in its values. It is relative, so that it holds
    wherever an app or a proxy has put the dashboard.
    """
    said = {key: value for key, value in query.items() if value is not None}
    return f"{page}?{urlencode(said, errors='surrogatepass')}" if said else page


def dollars(nano: int | None) -> str:
    """Nano-dollars as dollars."""
    return "unknown" if nano is None else money(Decimal(nano) / 10**9)


def what(entry: Entry) -> str:
    """What became of a call, in a word."""
    if entry.outcome == "adjusted":
        return "adjusted"
    if entry.observed is not None:
        return f"would be {entry.observed}"
    return "downgraded" if entry.because is not None else entry.outcome


def full(name: str | None) -> str:
    """A name, in full unless it is endless."""
    return shown(name, _LONGEST)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("quotaguard.contrib.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "amount": amount,
        "dollars": dollars,
        "duration": duration,
        "full": full,
        "moment": moment,
        "money": money,
        "shown": shown,
        "what": what,
    }
    environment.globals["link"] = link
    return environment


def page(template: str, status: int = 200, **said: Any) -> Response:
    """A page of HTML."""
    text = _environment().get_template(template).render(said)
    return Response(text.encode("utf-8", "replace"), status, media_type="text/html; charset=utf-8")


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """A page that says why there is none. Others than admins see it without the style sheet."""
    response = page("problem.html", status, title=HTTPStatus(status).phrase, detail=detail)
    response.headers.update(headers or {})
    return response
