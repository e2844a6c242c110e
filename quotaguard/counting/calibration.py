"""Correcting estimates by what was billed: a bounded factor per model and kind of request."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from ..errors import ConfigurationError
from .histogram import Histogram
from .models import family_name
from .parts import Parts
from .pool import Key, Pool

QUANTILE = 0.95
"""The share of requests whose estimate should not fall short."""
TOLERANCE = 0.02
"""How far short, as a fraction, an estimate may fall and still count as right."""
BOUNDS = (0.2, 2.0)
"""The least and the greatest factor, whatever was observed."""

_RELATED = "claude"
"""The family whose models miss alike; elsewhere each speaks for itself."""
_DOUBTFUL = frozenset({"unseen", "file", "audio"})
"""Kinds of requests whose formulas are no identities, whatever the model."""
_TRUST, _DOUBT = 16.0, 2.0
"""Observations of a ratio of 1 that a formula is given in advance: for an identity, for a model."""
_PARENT_WEIGHT = 16.0
_BELIEVABLE = 20.0
_MOST_TOKENS = 1e12
_MAX_KEYS = 2_000
_GROWTH = 1.01
_HIDDEN = (8, 1_000)
"""The least and the most tokens that are taken for a hidden prompt."""
_ALIKE = 4
"""How far two bills of one hidden prompt may lie apart, in tokens."""


@dataclass(frozen=True, slots=True)
class Factor:
    """What calibration knows of one model and kind of request."""

    model: str
    features: str
    factor: float
    observations: float
    hidden: int = 0
    """Tokens of a hidden prompt, which are added before."""


def feature_class(endpoint: str, parts: Parts) -> str:
    """The kind of a request: its endpoint, and the part of its count that is least certain."""
    kind = "text"
    if parts.files:
        kind = "file"
    elif parts.audio:
        kind = "audio"
    elif parts.images:
        kind = "image"
    elif parts.other:
        kind = "other"
    elif parts.schema:
        kind = "schema"
    elif parts.tools:
        kind = "tools"
    return f"{endpoint} {'unseen ' if parts.guessed else ''}{kind}"


class Calibration:
    """Factors from estimated to billed tokens, learnt from the usage that comes back.

    A factor is taken from billed / estimated over what was seen of this model and kind of request:
    the least that leaves the chosen share of requests no more than ``tolerance`` short, and never
    below the median. A tail far beyond what most requests show is an accident of a few (a hidden
    prompt, a cut recording) and is not followed. What is known of Claude's other models fills in
    until there is enough of one. Old observations fade; a single one, however wrong, moves nothing
    beyond ``bounds``.

    Where a formula is an identity, what a request is billed beyond it is a hidden prompt, of one
    length for all requests of a kind. As soon as two bills in a row show the same, it is added to
    the counts that follow, and no longer as soon as a bill does not show it. Each process notices
    that by itself.

    Thread-safe. Needs no clock: observations age by those that follow.

    Args:
        quantile: share of requests whose estimate should not fall short.
        tolerance: how far short, as a fraction, an estimate may fall and still be right.
        bounds: least and greatest factor.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    def __init__(
        self,
        quantile: float = QUANTILE,
        tolerance: float = TOLERANCE,
        bounds: tuple[float, float] = BOUNDS,
    ) -> None:
        if not 0.6 <= quantile < 1:
            raise ConfigurationError(f"quantile must be from 0.6 to below 1, not {quantile!r}")
        if not 0 <= tolerance < 1:
            raise ConfigurationError(f"tolerance must be from 0 to below 1, not {tolerance!r}")
        if not 0 < bounds[0] <= 1 <= bounds[1]:
            raise ConfigurationError(f"bounds must be positive and enclose 1, not {bounds!r}")
        self._quantile = quantile
        self._tolerance = tolerance
        self._bounds = bounds
        self.pool = Pool(f"bills {_GROWTH}", _ratios, _MAX_KEYS)
        self._factors: dict[Key, tuple[tuple[int, int], float]] = {}
        """Factors worked out, with the editions of the histograms they come from."""
        self._hidden: dict[Key, tuple[float, int]] = {}
        """What the last bill showed beyond the count, and how much of that is taken for hidden."""

    def observe(self, model: str, features: str, estimated: float, billed: float) -> None:
        """Learn from one answer. What can't be real usage is ignored.

        Args:
            model: the model's name, as in the request.
            features: the kind of request (``feature_class``).
            estimated: tokens counted before the call, without this calibration.
            billed: input tokens the provider reported.
        """
        if not (_real(estimated) and _real(billed)):
            return
        ratio = billed / estimated
        if not 1 / _BELIEVABLE <= ratio <= _BELIEVABLE:
            return
        name, family = family_name(model)
        with self.pool.lock:
            if _identity(family, features):
                ratio = billed / (estimated + self._notice((name, features), billed - estimated))
            self.pool.add((name, features), ratio)
            if family == _RELATED != name:
                self.pool.add((family, features), ratio)

    def _notice(self, key: Key, beyond: float) -> int:
        """Note what a bill showed beyond the count; answers with what was expected."""
        least, most = _HIDDEN
        before, expected = self._hidden.get(key, (0.0, 0))
        hidden = 0
        if least <= beyond and least <= before and abs(before - beyond) <= _ALIKE:
            hidden = round(max(before, beyond))
        if len(self._hidden) >= _MAX_KEYS:
            self._hidden.clear()
        self._hidden[key] = beyond, hidden if hidden <= most else 0
        return expected

    def hidden(self, model: str, features: str) -> int:
        """Tokens of a hidden prompt, to be added to an estimate; 0 where there seems to be none."""
        known = self._hidden.get((family_name(model)[0], features))
        return 0 if known is None else known[1]

    def factor(self, model: str, features: str) -> float:
        """What to multiply an estimate by, `hidden` added; 1.0 where nothing is known."""
        name, family = family_name(model)
        with self.pool.lock:
            return self._factor(name, family, features)

    def apply(self, model: str, features: str, estimated: int) -> int:
        """An estimate, corrected and rounded up."""
        name, family = family_name(model)
        hidden = self._hidden.get((name, features))
        counted = estimated if hidden is None else estimated + hidden[1]
        with self.pool.lock:
            factor = self._factor(name, family, features)
        return math.ceil(counted * factor - 1e-6)

    def snapshot(self) -> list[Factor]:
        """All that is known, the most observed first."""
        with self.pool.lock:
            known = [
                Factor(
                    model,
                    features,
                    self._factor(*family_name(model), features),
                    weight,
                    self.hidden(model, features),
                )
                for (model, features), weight in self.pool.weights()
            ]
        return sorted(known, key=lambda item: -item.observations)

    def _factor(self, name: str, family: str, features: str) -> float:
        find = self.pool.find
        relatives = find((family, features), soon=True) if family == _RELATED else None
        own = find((name, features), soon=True) if name != family else None
        if own is None:
            return self._worked_out(family, features, relatives, own)
        editions = own.edition, relatives.edition if relatives is not None else 0
        known = self._factors.get((name, features))
        if known is None or known[0] != editions:
            factor = self._worked_out(family, features, relatives, own)
            if len(self._factors) >= _MAX_KEYS:
                self._factors.clear()
            known = self._factors[name, features] = editions, factor
        return known[1]

    def _worked_out(
        self, family: str, features: str, relatives: Histogram | None, own: Histogram | None
    ) -> float:
        pooled = _ratios()
        pooled.add(1.0, _TRUST if _identity(family, features) else _DOUBT)
        if relatives is not None:
            pooled.merge(relatives, min(_PARENT_WEIGHT, relatives.weight))
        if own is not None:
            pooled.merge(own)
        low, high = self._bounds
        middle, upper = pooled.quantile(0.5), pooled.quantile(self._quantile - 0.1)
        fence = upper * max(1.0, upper / middle)
        wanted = min(pooled.quantile(self._quantile), fence) / (1 + self._tolerance)
        return min(high, max(low, middle, wanted))


@lru_cache(maxsize=256)
def _identity(family: str, features: str) -> bool:
    """Whether the formula for a kind of request is meant to be exact."""
    return family != _RELATED and not _DOUBTFUL.intersection(features.split())


def _ratios() -> Histogram:
    return Histogram(growth=_GROWTH, low=0.05, high=4.0, max_weight=60.0)


def _real(tokens: object) -> bool:
    if isinstance(tokens, bool) or not isinstance(tokens, (int, float)):
        return False
    return 0 < tokens < _MOST_TOKENS
