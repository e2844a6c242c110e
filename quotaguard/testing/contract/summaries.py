"""What processes add up together."""

from __future__ import annotations

import math

from ...core.ops import Merge, Merged, Summary
from ...core.plan import Plan
from .base import Contract, both, same

KEPT = 1e6


def merge(added: dict[int, float], name: str = "a", most: float = 100.0) -> Merge:
    """An addition to one summary."""
    return Merge((Summary(("kind", name), added, most),), KEPT)


def known(name: str = "a") -> Plan[dict[int, float]]:
    """What a summary holds."""
    answer: Merged = yield merge({}, name)
    return dict(answer.weights[0])


class Summaries(Contract):
    """Summaries add up, fade, and take no harm; in backends with ``shared = True``."""

    @both
    def test_summaries_add_up(self) -> Plan[None]:
        """Each answer is what all have added; those of other names stay as they are."""
        if not self.shared:
            return
        same((yield merge({3: 2.0, -300: 0.5})), Merged(({3: 2.0, -300: 0.5},)))
        same((yield merge({3: 1.0, 4: 1.0})), Merged(({3: 3.0, -300: 0.5, 4: 1.0},)))
        same((yield from known()), {3: 3.0, -300: 0.5, 4: 1.0})
        same((yield from known("b")), {})
        names = ("kind", "a"), ("kin", "da"), ("kind", "a\ud800'")
        several = Merge(tuple(Summary(name, {1: 1.0}, 100.0) for name in names), KEPT)
        answer: Merged = yield several
        same([len(weights) for weights in answer.weights], [4, 1, 1])
        same((yield Merge((), KEPT)), Merged(()))

    @both
    def test_old_weights_fade(self) -> Plan[None]:
        """Beyond the most that a summary may weigh all of it is halved, and small weights go."""
        if not self.shared:
            return
        yield merge({1: 99.0, 2: 0.03})
        same((yield merge({3: 3.0})), Merged(({1: 49.5, 3: 1.5},)))
        same((yield merge({4: 1000.0})), Merged(({1: 24.75, 3: 0.75, 4: 50.0},)))

    @both
    def test_what_is_no_weight_is_left_out(self) -> Plan[None]:
        """It spoils nothing for the others."""
        if not self.shared:
            return
        yield merge({1: 1.0})
        bad = {1: math.nan, 2: -1.0, 3: 0.0, 5: 1.0}
        same((yield merge(bad)), Merged(({1: 1.0, 5: 1.0},)))
        same((yield merge({6: math.inf}, "b")), Merged(({6: 100.0},)))
        many = dict.fromkeys(range(1500), 1.0)
        same((yield merge(many, "c", 1e9)), Merged(({},)))
