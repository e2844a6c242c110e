"""A decaying histogram on a logarithmic scale: quantiles in constant memory, mergeable."""

from __future__ import annotations

import math
from collections.abc import Mapping

MAX_WEIGHT = 400.0
"""Weight at which old observations are halved: what was seen long ago counts less and less."""
_FORGOTTEN = 0.02


class Histogram:
    """Weights of positive numbers in bins of one relative width.

    Args:
        growth: ratio of one bin's edge to the next; 1.02 keeps numbers within 2 %.
        low: smallest number told apart; smaller ones count as this.
        high: largest number told apart.
        max_weight: weight at which all weights are halved.
    """

    __slots__ = ("_base", "_bottom", "_max_weight", "_top", "weight", "weights")

    def __init__(
        self, growth: float, low: float, high: float, max_weight: float = MAX_WEIGHT
    ) -> None:
        self._base = math.log(growth)
        self._bottom = self._bin(low)
        self._top = self._bin(high)
        self._max_weight = max_weight
        self.weights: dict[int, float] = {}
        self.weight = 0.0

    def _bin(self, number: float) -> int:
        return math.ceil(math.log(number) / self._base - 1e-9)

    def add(self, number: float, weight: float = 1.0) -> None:
        """Count a positive number."""
        key = min(self._top, max(self._bottom, self._bin(number)))
        self.weights[key] = self.weights.get(key, 0.0) + weight
        self.weight += weight
        if self.weight > self._max_weight:
            self._halve()

    def merge(self, other: Histogram, weight: float | None = None) -> None:
        """Add another histogram of the same shape, scaled to a total weight if one is given."""
        if not other.weight:
            return
        scale = 1.0 if weight is None else weight / other.weight
        for key, value in other.weights.items():
            self.weights[key] = self.weights.get(key, 0.0) + value * scale
        self.weight += other.weight * scale
        while self.weight > self._max_weight:
            self._halve()

    def quantile(self, share: float) -> float:
        """The number that ``share`` of the weight does not exceed, rounded up to a bin's edge."""
        reached = 0.0
        wanted = share * self.weight
        for key in sorted(self.weights):
            reached += self.weights[key]
            if reached >= wanted - 1e-9:
                return math.exp(key * self._base)
        raise ValueError("an empty histogram has no quantiles")

    def _halve(self) -> None:
        halved = {key: value / 2 for key, value in self.weights.items()}
        self.weights = {key: value for key, value in halved.items() if value >= _FORGOTTEN}
        self.weight = sum(self.weights.values())

    def dump(self) -> dict[str, float]:
        """The weights as a JSON object."""
        return {str(key): round(value, 4) for key, value in self.weights.items()}

    def load(self, dumped: Mapping[str, float]) -> None:
        """Replace the weights by dumped ones; what is no bin or no weight is left out."""
        self.weights = {}
        for key, value in dumped.items():
            try:
                place, weight = int(key), float(value)
            except (TypeError, ValueError):
                continue
            if self._bottom <= place <= self._top and 0 < weight <= self._max_weight:
                self.weights[place] = weight
        self.weight = sum(self.weights.values())
