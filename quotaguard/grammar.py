"""The text form of a limit: reading it, and writing it so that it reads the same again."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError
from .windows import UNITS as WINDOW_UNITS

if TYPE_CHECKING:
    from .limits import Limit

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800, "month": 2592000}
SCOPES = {"user": "user", "org": "org", "global": "global"}
_MULTIPLIERS = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}
_EXAMPLES = (
    "'10k tokens/day', '90k tokens/minute', '20 requests/minute', '100 tokens/second burst 10k', "
    "'10k tokens/rolling day', '1M tokens/day per org', '5k tokens/hour for gpt-4o*', "
    "'10k tokens/day in Europe/Paris', '$5/day', '5 concurrent', "
    "'9M tokens/minute per global drawing 1%', '90k tokens/minute per org shared fairly'"
)
_NUMBER = r"(?:\d{1,3}(?:[,_]\d{3})+|\d+|(?=\.\d))(?:\.\d+)?\s*(?:[kmb]\b)?"
_TEXT = rf"""\s*(?:(?P<calls>{_NUMBER})\s*concurrent(?:\s+(?:calls|requests))?|(?:
    \$\s*(?P<dollars>{_NUMBER})|(?P<amount>{_NUMBER})\s*(?P<metric>[a-z_]+(?:\s+tokens)?))
    \s*(?:/|\bper\b)\s*(?P<rolling>rolling\s+)?(?P<count>\d+(?:\.\d+)?)?\s*
    (?P<unit>seconds?|sec|s|minutes?|min|hours?|h|days?|d|weeks?|w|months?)
    (?:\s+burst\s+(?P<burst>{_NUMBER}))?)
    (?:\s+per\s+(?P<scope>user|org|global))?
    (?:\s+for\s+(?P<models>[^\s,]+(?:\s*,\s*[^\s,]+)*))?
    (?:\s+in\s+(?P<tz>\S+))?
    (?:\s+drawing\s+(?P<draw>{_NUMBER}|\d+(?:\.\d+)?\s*%))?
    (?:\s+(?P<fair>shared\s+fairly))?\s*"""
_UNIT_NAMES = {
    "sec": "second",
    "s": "second",
    "min": "minute",
    "h": "hour",
    "d": "day",
    "w": "week",
}


def read(text: object) -> dict[str, Any]:
    """What a text says, as the arguments of a `quotaguard.Limit`.

    Raises:
        ConfigurationError: it is not of that form; the message gives examples.
    """
    # Compiled by the first limit, and kept by re: importing this package need not wait for it.
    flags = re.VERBOSE | re.IGNORECASE
    found = re.fullmatch(_TEXT, text, flags) if isinstance(text, str) else None
    if found is None:
        raise ConfigurationError(f"cannot read the limit {text!r}; examples: {_EXAMPLES}")
    said: dict[str, Any] = {"scope": SCOPES[(found["scope"] or "user").lower()]}
    if found["models"]:
        said["models"] = tuple(re.split(r"\s*,\s*", found["models"]))
    if found["draw"]:
        said["draw_ahead"] = _share(found["draw"])
    if found["fair"]:
        said["fair"] = True
    unit = (found["unit"] or "").lower()
    unit = _UNIT_NAMES.get(unit, unit.removesuffix("s"))
    rolling = found["rolling"] or found["count"] or unit not in WINDOW_UNITS
    if found["tz"]:
        if rolling:
            raise ConfigurationError(f"only calendar windows have a time zone, not {text!r}")
        said["tz"] = found["tz"]
    if found["calls"]:
        return said | {"amount": _number(found["calls"]), "metric": "concurrent"}
    metric = re.sub(r"\s+", "_", (found["metric"] or "usd").lower())
    if found["burst"]:
        said["burst"] = _number(found["burst"])
    return said | {
        "amount": _number(found["dollars"] or found["amount"]),
        "metric": f"{metric}s" if metric in ("request", "token") else metric,
        "period": float(found["count"] or 1) * _SECONDS[unit] if rolling else unit,
    }


def quantity(text: str) -> float:
    """A number as limits have it: ``"5000"``, ``"5k"``, ``"1.5M"``.

    Raises:
        ConfigurationError: it is none.
    """
    if not re.fullmatch(rf"\s*{_NUMBER}\s*", text, re.IGNORECASE):
        raise ConfigurationError(f"an amount is a number such as 5000, 5k or 1.5M, not {text!r}")
    return _number(text.strip())


def written(limit: Limit) -> str:
    """A limit's text."""
    if limit.metric == "usd":
        text = f"${digits(limit.amount)}/{_period(limit.period)}"
    elif limit.period == math.inf:
        text = f"{_short(limit.amount)} concurrent"
    else:
        what = limit.metric.replace("_", " ")
        text = f"{_short(limit.amount)} {what}/{_period(limit.period)}"
    if limit.burst is not None:
        text += f" burst {_short(limit.burst)}"
    if limit.scope != "user":
        text += f" per {limit.scope}"
    if limit.models:
        text += f" for {','.join(limit.models)}"
    if limit.is_window and limit.tz != "UTC":
        text += f" in {limit.tz}"
    if limit.draw_ahead:
        ahead = limit.draw_ahead
        percent = f"{(Decimal(repr(ahead)) * 100).normalize():f}%"
        text += f" drawing {_short(ahead) if ahead >= 1 else percent}"
    if limit.fair:
        text += " shared fairly"
    return text


def _period(period: float | str) -> str:
    if isinstance(period, str):
        return period
    for unit, seconds in reversed(_SECONDS.items()):
        if period % seconds == 0:
            count = period / seconds
            if count > 1:
                return f"{digits(count)} {unit}s"
            return f"rolling {unit}" if unit in WINDOW_UNITS else unit
    return f"{digits(period)} seconds"


def _number(text: str) -> float:
    text = text.replace("_", "").replace(",", "").replace(" ", "").lower()
    bare = text.rstrip("kmb")
    return float(bare) * _MULTIPLIERS[text[len(bare) :]]


def _share(text: str) -> float:
    """A number, or a percentage as a fraction."""
    return float(Decimal(text[:-1].strip()) / 100) if text.endswith("%") else _number(text)


def _short(value: float) -> str:
    """A round thousand or million with its letter, anything else as it is."""
    for letter in ("b", "m", "k"):
        size = _MULTIPLIERS[letter]
        if value >= size and value % (size / 10) == 0:
            return digits(value / size) + (letter if letter == "k" else letter.upper())
    return digits(value)


def digits(value: float) -> str:
    """A number in full, without an exponent."""
    return f"{Decimal(repr(value)).normalize():f}"
