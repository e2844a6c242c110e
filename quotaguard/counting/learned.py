"""How long answers really are: a quantile per user and model, learnt from what was used.

Constant memory per key and a bounded number of keys. Each key is a histogram of log-sized bins, so
states of several processes can be merged and stored as JSON.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigurationError
from .histogram import Histogram
from .models import family_name

QUANTILE = 0.95
ENOUGH = 20
"""Answers of a key after which it speaks for itself."""
MAX_KEYS = 10_000

_MOST_TOKENS = 1e12
_ALL = ""
Key = tuple[str, str]


class LearnedOutput:
    """Predicts an answer's tokens: of this user and model, else of the model, else the prior.

    Thread-safe. Needs no clock: old answers fade as new ones come.

    Args:
        quantile: share of answers that should fit into the prediction.
        enough: answers after which a key speaks for itself.
        max_keys: users and models remembered; the longest unused are forgotten.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    def __init__(
        self, quantile: float = QUANTILE, enough: int = ENOUGH, max_keys: int = MAX_KEYS
    ) -> None:
        if not 0 < quantile < 1:
            raise ConfigurationError(f"quantile must lie between 0 and 1, not {quantile!r}")
        if enough < 1 or max_keys < 1:
            raise ConfigurationError(
                f"enough and max_keys must be 1 or more, not {enough!r} and {max_keys!r}"
            )
        self._quantile = quantile
        self._enough = enough
        self._max_keys = max_keys
        self._seen: OrderedDict[Key, Histogram] = OrderedDict()
        self._lock = threading.Lock()

    def observe(self, user: str, model: str, output_tokens: float) -> None:
        """Learn from one answer; what can't be a real number of tokens is ignored.

        Args:
            user: whose answer it was.
            model: the model that gave it.
            output_tokens: tokens of one answer, reasoning included.
        """
        if isinstance(output_tokens, bool) or not isinstance(output_tokens, (int, float)):
            return
        if not 0 <= output_tokens < _MOST_TOKENS:
            return
        name = family_name(model)[0]
        with self._lock:
            for key in ((user, name), (_ALL, name)):
                self._histogram(key).add(max(1.0, output_tokens))

    def predict(self, user: str, model: str, prior: int) -> int:
        """Tokens to reserve for one answer of this user and model."""
        name = family_name(model)[0]
        with self._lock:
            for key in ((user, name), (_ALL, name)):
                seen = self._seen.get(key)
                if seen is not None and seen.weight >= self._enough:
                    return math.ceil(seen.steady_quantile(self._quantile))
        return prior

    def dump(self) -> list[dict[str, Any]]:
        """The state as JSON: users, models and the histograms of their answers."""
        with self._lock:
            return [
                {"user": user, "model": model, "answers": seen.dump()}
                for (user, model), seen in self._seen.items()
            ]

    def merge(self, dumped: list[Mapping[str, Any]]) -> None:
        """Add a dumped state to this one; entries that are none are left out."""
        for entry in dumped:
            if not isinstance(entry, Mapping):
                continue
            user, model, found = (entry.get(name) for name in ("user", "model", "answers"))
            if isinstance(user, str) and isinstance(model, str) and isinstance(found, Mapping):
                added = _lengths()
                added.load(found)
                with self._lock:
                    self._histogram((user, model)).merge(added)

    def __len__(self) -> int:
        return len(self._seen)

    def _histogram(self, key: Key) -> Histogram:
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = _lengths()
            while len(self._seen) > self._max_keys:
                self._seen.popitem(last=False)
        else:
            self._seen.move_to_end(key)
        return found


def _lengths() -> Histogram:
    return Histogram(growth=1.05, low=1.0, high=2_000_000.0)
