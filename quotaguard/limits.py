"""Limits: how much of a metric, in what time, for whom.

Two kinds. A *bucket* refills continuously at ``amount / period`` and holds up to ``burst``
(default: the amount). A *window* holds the amount and is filled up again at each calendar
boundary of a time zone. Seconds, minutes and hours make buckets, days, weeks and months windows,
unless the text says otherwise (``"10k tokens/rolling day"`` is a bucket). A limit on calls in
flight (``"5 concurrent"``) has no period: what a call takes comes back when it ends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal

from .errors import ConfigurationError
from .models import matches
from .usage import NANO, Usage
from .weights import Measure, Weights
from .windows import UNITS as WINDOW_UNITS
from .windows import zone

Scope = Literal["user", "org", "global"]
OnExpire = Literal["keep_input", "keep_all", "return_all"]


def _requests(usage: Usage, _: str | None) -> float:
    return usage.requests


def _tokens(usage: Usage, _: str | None) -> float:
    return usage.input_tokens + usage.output_tokens


def _input_tokens(usage: Usage, _: str | None) -> float:
    return usage.input_tokens


def _output_tokens(usage: Usage, _: str | None) -> float:
    return usage.output_tokens


def _usd(usage: Usage, _: str | None) -> float:
    if usage.nano_usd is None:
        raise ValueError(f"the cost of {usage!r} was not asked for")
    return usage.nano_usd


def _concurrent(_: Usage, __: str | None) -> float:
    return 0.0  # of a call that ended; one in flight takes 1 (`quotaguard.rules`)


METRICS: Mapping[str, Measure] = MappingProxyType(
    {
        "requests": _requests,
        "tokens": _tokens,
        "input_tokens": _input_tokens,
        "output_tokens": _output_tokens,
        "usd": _usd,
        "concurrent": _concurrent,
    }
)
"""Metric name -> how to measure a call. A new metric is one entry here."""

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800, "month": 2592000}
_SCOPES: dict[str, Scope] = {"user": "user", "org": "org", "global": "global"}
_MULTIPLIERS = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}
_EXAMPLES = (
    "'10k tokens/day', '90k tokens/minute', '20 requests/minute', '100 tokens/second burst 10k', "
    "'10k tokens/rolling day', '1M tokens/day per org', '5k tokens/hour for gpt-4o*', "
    "'10k tokens/day in Europe/Paris', '$5/day', '5 concurrent', "
    "'9M tokens/minute per global drawing 1%'"
)
_NUMBER = r"(?:\d{1,3}(?:[,_]\d{3})+|\d+|(?=\.\d))(?:\.\d+)?\s*(?:[kmb]\b)?"
_TEXT = re.compile(
    rf"""\s*(?:(?P<calls>{_NUMBER})\s*concurrent(?:\s+(?:calls|requests))?|(?:
    \$\s*(?P<dollars>{_NUMBER})|(?P<amount>{_NUMBER})\s*(?P<metric>[a-z_]+(?:\s+tokens)?))
    \s*(?:/|\bper\b)\s*(?P<rolling>rolling\s+)?(?P<count>\d+(?:\.\d+)?)?\s*
    (?P<unit>seconds?|sec|s|minutes?|min|hours?|h|days?|d|weeks?|w|months?)
    (?:\s+burst\s+(?P<burst>{_NUMBER}))?)
    (?:\s+per\s+(?P<scope>user|org|global))?
    (?:\s+for\s+(?P<models>[^\s,]+(?:\s*,\s*[^\s,]+)*))?
    (?:\s+in\s+(?P<tz>\S+))?
    (?:\s+drawing\s+(?P<draw>{_NUMBER}|\d+(?:\.\d+)?\s*%))?\s*""",
    re.VERBOSE | re.IGNORECASE,
)
_UNIT_NAMES = {
    "sec": "second",
    "s": "second",
    "min": "minute",
    "h": "hour",
    "d": "day",
    "w": "week",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``amount`` of ``metric`` per ``period``.

    Attributes:
        amount: how much, in units of the metric (``usd``: US dollars); 0 blocks.
        metric: a key of `METRICS`.
        period: seconds for a bucket; ``"day"``, ``"week"`` or ``"month"`` for a calendar window;
            infinite for ``concurrent``, and only there.
        burst: the most that a bucket holds (default: ``amount``); windows have none.
        scope: whose bucket: each ``"user"``, each ``"org"``, or one ``"global"`` bucket.
        models: only calls to models that match one of these shell patterns count; empty: all.
        tz: the IANA time zone of a window's boundaries.
        on_expire: what a reservation whose holder died leaves charged: its input
            (``"keep_input"``), everything (``"keep_all"``) or nothing (``"return_all"``).
        weights: what counts toward a limit on tokens, and how much; None: every token counts 1.
        draw_ahead: for hot org and global limits: how much a worker draws from the shared bucket
            at a time, to serve calls from without asking; below 1 that share of what the bucket can
            hold; 0: each call asks.

    Raises:
        ConfigurationError: a value is out of range or unknown; the message says which.
    """

    amount: float
    metric: str
    period: float | str = math.inf
    burst: float | None = None
    scope: Scope = "user"
    models: tuple[str, ...] = ()
    tz: str = "UTC"
    on_expire: OnExpire = "keep_input"
    weights: Weights | None = None
    draw_ahead: float = 0.0
    id: str = field(init=False, repr=False, compare=False)
    """Names the bucket among its owner's. It leaves the amount out, so that changing a limit's
    amount (or a user's tier) carries over what was used."""
    is_window: bool = field(init=False, repr=False, compare=False)
    """Whether it is filled up at calendar boundaries rather than continuously."""
    in_flight: bool = field(init=False, repr=False, compare=False)
    """Whether it counts calls in flight: what a call takes comes back when it is settled or its
    lease ends, whatever was used."""
    rate: float = field(init=False, repr=False, compare=False)
    """Units that come back per second; 0.0 for a window, and for calls in flight."""
    ceiling: float = field(init=False, repr=False, compare=False)
    """The most that the bucket can hold."""
    slack: float = field(init=False, repr=False, compare=False)
    """Units by which the bucket may be short because doubles round: a millionth, or what refills
    between two instants that a double tells apart. Who comes back after exactly the computed wait
    must find room."""
    scale: float = field(init=False, repr=False, compare=False)
    """Ledger units in a unit of the metric: the ledger counts money in nano-dollars, so that sums
    are exact. ``rate``, ``ceiling`` and ``slack`` are in ledger units."""
    text: str = field(init=False, repr=False, compare=False)
    """The limit as it is written, for people."""
    measure: Measure = field(init=False, repr=False, compare=False)
    """How much a usage of a model counts toward it, in ledger units."""

    def __post_init__(self) -> None:
        self._validate()
        self._validate_burst()
        self._validate_draw()
        window = isinstance(self.period, str)
        scale = NANO if self.metric == "usd" else 1.0
        rate = 0.0 if window else self.amount * scale / float(self.period)
        ceiling = float(self.amount if self.burst is None else self.burst) * scale
        parts = [self.metric]
        if self.period != math.inf:
            parts.append(str(self.period) if window else f"{_digits(float(self.period))}s")
        if window and self.tz != "UTC":
            parts.append(self.tz)
        parts += sorted(self.models)
        object.__setattr__(self, "id", "|".join(parts))
        object.__setattr__(self, "is_window", window)
        object.__setattr__(self, "in_flight", self.metric == "concurrent")
        object.__setattr__(self, "rate", rate)
        object.__setattr__(self, "ceiling", ceiling)
        object.__setattr__(self, "slack", max(1e-6, ceiling * 1e-12, rate * _GRAIN))
        object.__setattr__(self, "scale", scale)
        plain = METRICS[self.metric]
        measure = plain if self.weights is None else self.weights.measure(self.metric)
        object.__setattr__(self, "measure", measure)
        object.__setattr__(self, "text", self._written())

    def _validate(self) -> None:
        if self.metric not in METRICS:
            raise ConfigurationError(f"unknown metric {self.metric!r}; known: {', '.join(METRICS)}")
        if not _is_number(self.amount) or self.amount < 0:
            raise ConfigurationError(f"a limit's amount is a number >= 0, not {self.amount!r}")
        if self.metric == "concurrent":
            self._validate_in_flight()
        else:
            self._validate_period()
        if self.scope not in _SCOPES:
            raise ConfigurationError(f"a scope is user, org or global, not {self.scope!r}")
        if not isinstance(self.models, tuple) or not all(
            isinstance(m, str) and m for m in self.models
        ):
            raise ConfigurationError(
                f"models is a tuple of patterns such as 'gpt-4o*', not {self.models!r}"
            )
        if self.on_expire not in ("keep_input", "keep_all", "return_all"):
            raise ConfigurationError(
                f"on_expire is keep_input, keep_all or return_all, not {self.on_expire!r}"
            )
        if self.weights is not None:
            if not self.metric.endswith("tokens"):
                raise ConfigurationError(
                    f"weights are for limits on tokens; a limit on {self.metric} has none"
                )
            object.__setattr__(self, "weights", Weights.of(self.weights))

    def _validate_period(self) -> None:
        if isinstance(self.period, str):
            if self.period not in WINDOW_UNITS:
                raise ConfigurationError(
                    f"a window is one of {', '.join(WINDOW_UNITS)}, not {self.period!r}; "
                    "give seconds for a bucket"
                )
            if self.burst is not None:
                raise ConfigurationError(
                    f"a calendar window ({self.period}) has no burst; "
                    f"'rolling {self.period}' makes it a bucket"
                )
            zone(self.tz)
        elif not _is_number(self.period) or self.period <= 0:
            raise ConfigurationError(f"a period is a number of seconds > 0, not {self.period!r}")

    def _validate_in_flight(self) -> None:
        if self.period != math.inf or self.burst is not None:
            raise ConfigurationError(
                "calls in flight are counted, not refilled: '5 concurrent' has no period and no "
                f"burst, not {self.period!r} and {self.burst!r}"
            )
        if self.on_expire == "keep_all":
            raise ConfigurationError(
                "the slot of a call whose holder died always comes back; on_expire='keep_all' is "
                "for what it may have used"
            )

    def _validate_burst(self) -> None:
        if self.burst is not None and (not _is_number(self.burst) or self.burst < 0):
            raise ConfigurationError(f"a burst is a number >= 0, not {self.burst!r}")
        if self.burst and not self.amount:
            raise ConfigurationError(
                f"a limit of 0 blocks, so its burst of {self.burst!r} would never come back; "
                "leave the burst out"
            )

    def _validate_draw(self) -> None:
        if not _is_number(self.draw_ahead) or self.draw_ahead < 0:
            raise ConfigurationError(f"draw_ahead is a number >= 0, not {self.draw_ahead!r}")
        if self.draw_ahead and self.scope == "user":
            raise ConfigurationError(
                f"a user's own limit has no draw_ahead ({self.draw_ahead!r}): what one worker has "
                "drawn, the user's next call may miss at another; it is for org and global limits"
            )

    def covers(self, model: str | None) -> bool:
        """Whether a call to ``model`` counts toward this limit."""
        return not self.models or (
            model is not None and any(matches(model, pattern) for pattern in self.models)
        )

    @classmethod
    def parse(cls, text: str | Limit | Mapping[str, Any]) -> Limit:
        """Reads the string form, for example ``"10k tokens/day"``; a Limit is returned as it is.

        A mapping, as a file has, holds the string as ``limit`` and beside it what strings cannot
        say: ``{"limit": "10k tokens/day", "weights": {"cached": 0}}``.

        Raises:
            ConfigurationError: the text is not of that form; the message gives examples.
        """
        if isinstance(text, Limit):
            return text
        if isinstance(text, Mapping):
            return cls._from_mapping(text)
        found = _TEXT.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise ConfigurationError(f"cannot read the limit {text!r}; examples: {_EXAMPLES}")
        scope = _SCOPES[(found["scope"] or "user").lower()]
        models = tuple(re.split(r"\s*,\s*", found["models"])) if found["models"] else ()
        if found["calls"]:
            if found["tz"]:
                raise ConfigurationError(f"only calendar windows have a time zone, not {text!r}")
            return cls(_number(found["calls"]), "concurrent", scope=scope, models=models)
        unit = found["unit"].lower()
        unit = _UNIT_NAMES.get(unit, unit.removesuffix("s"))
        metric = re.sub(r"\s+", "_", (found["metric"] or "usd").lower())
        if metric in ("request", "token"):
            metric += "s"
        rolling = found["rolling"] or found["count"] or unit not in WINDOW_UNITS
        if found["tz"] and rolling:
            raise ConfigurationError(f"only calendar windows have a time zone, not {text!r}")
        return cls(
            amount=_number(found["dollars"] or found["amount"]),
            metric=metric,
            period=float(found["count"] or 1) * _SECONDS[unit] if rolling else unit,
            burst=_number(found["burst"]) if found["burst"] else None,
            scope=scope,
            models=models,
            tz=found["tz"] or "UTC",
            draw_ahead=_share(found["draw"]) if found["draw"] else 0.0,
        )

    @classmethod
    def _from_mapping(cls, said: Mapping[str, Any]) -> Limit:
        more = {key: value for key, value in said.items() if key != "limit"}
        if "limit" not in said or not more.keys() <= _BESIDE:
            raise ConfigurationError(
                f"a limit is a text or a table with limit and any of {', '.join(sorted(_BESIDE))}, "
                f"not {dict(said)!r}"
            )
        return replace(cls.parse(said["limit"]), **more)

    def __str__(self) -> str:
        return self.text

    def _written(self) -> str:
        if self.metric == "usd":
            text = f"${_digits(self.amount)}/{self._period_text()}"
        elif self.period == math.inf:
            text = f"{_short(self.amount)} concurrent"
        else:
            what = self.metric.replace("_", " ")
            text = f"{_short(self.amount)} {what}/{self._period_text()}"
        if self.burst is not None:
            text += f" burst {_short(self.burst)}"
        if self.scope != "user":
            text += f" per {self.scope}"
        if self.models:
            text += f" for {','.join(self.models)}"
        if self.is_window and self.tz != "UTC":
            text += f" in {self.tz}"
        if self.draw_ahead:
            ahead = self.draw_ahead
            percent = f"{(Decimal(repr(ahead)) * 100).normalize():f}%"
            text += f" drawing {_short(ahead) if ahead >= 1 else percent}"
        return text

    def _period_text(self) -> str:
        if isinstance(self.period, str):
            return self.period
        for unit, seconds in reversed(_SECONDS.items()):
            if self.period % seconds == 0:
                count = self.period / seconds
                if count > 1:
                    return f"{_digits(count)} {unit}s"
                return f"rolling {unit}" if unit in WINDOW_UNITS else unit
        return f"{_digits(self.period)} seconds"


_GRAIN = 2.0**-22  # seconds between two doubles near today's time since the epoch
_BESIDE = frozenset({"on_expire", "weights"})  # what the string form has no words for


def _is_number(value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and value == value
        and value != float("inf")
    )


def _number(text: str) -> float:
    text = text.replace("_", "").replace(",", "").replace(" ", "").lower()
    digits = text.rstrip("kmb")
    return float(digits) * _MULTIPLIERS[text[len(digits) :]]


def _share(text: str) -> float:
    """A number, or a percentage as a fraction."""
    return float(Decimal(text[:-1].strip()) / 100) if text.endswith("%") else _number(text)


def _short(value: float) -> str:
    """A round thousand or million with its letter, anything else as it is."""
    for letter in ("b", "m", "k"):
        size = _MULTIPLIERS[letter]
        if value >= size and value % (size / 10) == 0:
            return _digits(value / size) + (letter if letter == "k" else letter.upper())
    return _digits(value)


def _digits(value: float) -> str:
    """A number in full, without an exponent."""
    return f"{Decimal(repr(value)).normalize():f}"
