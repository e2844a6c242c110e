"""Summaries that many processes add to: weights by bin, of which old ones fade.

Adding is commutative, and needs no clock: when there is more weight than a summary may have, all of
it is halved, so what was added long ago counts less and less.
"""

from __future__ import annotations

from collections.abc import Mapping

MOST_BINS = 1024
FORGOTTEN = 0.02
"""The weight below which a bin is dropped."""


def fold(known: Mapping[int, float], added: Mapping[int, float], most: float) -> dict[int, float]:
    """Two summaries as one whose weights come to ``most`` at most.

    What is no weight (below 0, or no number) is left out, what is too much counts as ``most``.
    """
    weights: dict[int, float] = {}
    for one in (known, added):
        for slot, weight in one.items():
            if weight > 0.0:
                weights[slot] = weights.get(slot, 0.0) + min(weight, most)
    while sum(weights.values()) > most or len(weights) > MOST_BINS:
        weights = halved(weights)
    return weights


def halved(weights: Mapping[int, float]) -> dict[int, float]:
    """Half the weights, without what is as good as forgotten."""
    return {slot: weight / 2 for slot, weight in weights.items() if weight / 2 >= FORGOTTEN}
