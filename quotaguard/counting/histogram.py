"""A decaying histogram on a logarithmic scale: quantiles in constant memory, mergeable."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from ..core.summary import halved

MAX_WEIGHT = 400.0
"""Weight at which old observations are halved: what was seen long ago counts less and less."""
_MOVING = 1 / 8
"""The share of new weight from which on what was worked out of a histogram is out of date."""

_editions = itertools.count(1)


class Histogram:
    """Weights of positive numbers in bins of one relative width.

    Args:
        growth: ratio of one bin's edge to the next; 1.02 keeps numbers within 2 %.
        low: smallest number told apart; smaller ones count as this.
        high: largest number told apart.
        max_weight: weight at which all weights are halved.

    Attributes:
        edition: a number that no other histogram has, and that moves as soon as an eighth of the
            weight is new, so at each of the first observations and ever more seldom: what was
            worked out of one edition will do as long as it lasts.
    """

    __slots__ = (
        "_base",
        "_bottom",
        "_fresh",
        "_steady",
        "_top",
        "edition",
        "max_weight",
        "weight",
        "weights",
    )

    def __init__(
        self, growth: float, low: float, high: float, max_weight: float = MAX_WEIGHT
    ) -> None:
        self._base = math.log(growth)
        self._bottom = self._bin(low)
        self._top = self._bin(high)
        self.max_weight = max_weight
        self.weights: dict[int, float] = {}
        self.weight = 0.0
        self.edition = next(_editions)
        self._fresh = 0.0
        self._steady = (0, 0.0, 0.0)
        """An edition, a share, and its quantile then."""

    def _bin(self, number: float) -> int:
        return math.ceil(math.log(number) / self._base - 1e-9)

    def add(self, number: float, weight: float = 1.0) -> int:
        """Count a positive number; answers with its bin."""
        key = self._bin(number)
        if not self._bottom <= key <= self._top:
            key = self._bottom if key < self._bottom else self._top
        self.weights[key] = self.weights.get(key, 0.0) + weight
        self.weight += weight
        if self.weight > self.max_weight:
            self._halve()
        self._renew(weight)
        return key

    def _renew(self, weight: float) -> None:
        self._fresh += weight
        if self._fresh >= self.weight * _MOVING:
            self.edition = next(_editions)
            self._fresh = 0.0

    def merge(self, other: Histogram, weight: float | None = None) -> None:
        """Add another histogram of the same shape, scaled to a total weight if one is given."""
        if not other.weight:
            return
        scale = 1.0 if weight is None else weight / other.weight
        for key, value in other.weights.items():
            self.weights[key] = self.weights.get(key, 0.0) + value * scale
        self.weight += other.weight * scale
        while self.weight > self.max_weight:
            self._halve()
        self._renew(other.weight * scale)

    def quantile(self, share: float) -> float:
        """The number that ``share`` of the weight does not exceed, rounded up to a bin's edge."""
        reached = 0.0
        wanted = share * self.weight
        for key in sorted(self.weights):
            reached += self.weights[key]
            if reached >= wanted - 1e-9:
                return math.exp(key * self._base)
        raise ValueError("an empty histogram has no quantiles")

    def steady_quantile(self, share: float) -> float:
        """The quantile, worked out once an edition."""
        if self._steady[:2] != (self.edition, share):
            self._steady = (self.edition, share, self.quantile(share))
        return self._steady[2]

    def _halve(self) -> None:
        self.weights = halved(self.weights)
        self.weight = sum(self.weights.values())

    def load(self, weights: Mapping[int, float]) -> None:
        """Replace the weights by others; what is no bin or no weight is left out."""
        self.weights = {
            place: min(weight, self.max_weight)
            for place, weight in weights.items()
            if self._bottom <= place <= self._top and weight > 0.0
        }
        self.weight = sum(self.weights.values())
        while self.weight > self.max_weight:
            self._halve()
        self._renew(self.weight)
