"""Limits: how much of a metric, in what time, for whom.

Two kinds. A *bucket* refills continuously at ``amount / period`` and holds up to ``burst``
(default: the amount). A *window* holds the amount and is filled up again at each calendar
boundary of a time zone. Seconds, minutes and hours make buckets, days, weeks and months windows,
unless the text says otherwise (``"10k tokens/rolling day"`` is a bucket). A limit on calls in
flight (``"5 concurrent"``) has no period: what a call takes comes back when it ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .errors import ConfigurationError
from .grammar import SCOPES, digits, read, written
from .metrics import METRICS
from .models import matches
from .usage import NANO
from .weights import Measure, Weights
from .windows import UNITS as WINDOW_UNITS
from .windows import zone

Scope = Literal["user", "org", "global"]
OnExpire = Literal["keep_input", "keep_all", "return_all"]


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
        fair: of org and global limits, whose turn is first when calls wait for it: who came first,
            or, if it is shared fairly, the user who had least of it (by `quotaguard.Tier.weight`).

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
    fair: bool = False
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
        self._validate_fair()
        window = isinstance(self.period, str)
        scale = NANO if self.metric == "usd" else 1.0
        rate = 0.0 if window else self.amount * scale / float(self.period)
        ceiling = float(self.amount if self.burst is None else self.burst) * scale
        parts = [self.metric]
        if self.period != math.inf:
            parts.append(str(self.period) if window else f"{digits(float(self.period))}s")
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
        object.__setattr__(self, "text", written(self))

    def _validate(self) -> None:
        if not isinstance(self.metric, str) or self.metric not in METRICS:
            raise ConfigurationError(f"unknown metric {self.metric!r}; known: {', '.join(METRICS)}")
        if not _is_number(self.amount) or self.amount < 0:
            raise ConfigurationError(f"a limit's amount is a number >= 0, not {self.amount!r}")
        if self.metric == "concurrent":
            self._validate_in_flight()
        else:
            self._validate_period()
        if self.scope not in SCOPES:
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
        if self.draw_ahead and self.metric == "concurrent":
            raise ConfigurationError(
                f"calls in flight are not drawn ahead (draw_ahead={self.draw_ahead!r}): a worker "
                "would keep the slots that come back from who waits at another"
            )

    def _validate_fair(self) -> None:
        if not isinstance(self.fair, bool):
            raise ConfigurationError(f"fair is True or False, not {self.fair!r}")
        if self.fair and (self.scope == "user" or self.draw_ahead):
            raise ConfigurationError(
                "only org and global limits are shared fairly, and only where each call asks: not "
                f"with scope={self.scope!r} and draw_ahead={self.draw_ahead!r}"
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
        return cls(**read(text))

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


_GRAIN = 2.0**-22  # seconds between two doubles near today's time since the epoch
_BESIDE = frozenset({"on_expire", "weights"})  # what the string form has no words for


def _is_number(value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and value == value
        and value != float("inf")
    )
