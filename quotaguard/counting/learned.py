"""How long answers really are: a quantile per user and model, learnt from what was used.

Constant memory per key and a bounded number of keys. Each key is a histogram of log-sized bins, so
what several processes learn can be added up (`quotaguard.sharing`).
"""

from __future__ import annotations

import math

from ..errors import ConfigurationError
from .histogram import Histogram
from .models import family_name
from .pool import Pool

QUANTILE = 0.95
ENOUGH = 20
"""Answers of a key after which it speaks for itself."""
MAX_KEYS = 10_000

_MOST_TOKENS = 1e12
_ALL = ""
_GROWTH = 1.05


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
        self.pool = Pool(f"answers {_GROWTH}", _lengths, max_keys)

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
        with self.pool.lock:
            self.pool.add((_ALL, name), max(1.0, output_tokens))
            if user != _ALL:
                self.pool.add((user, name), max(1.0, output_tokens))

    def predict(self, user: str, model: str, prior: int) -> int:
        """Tokens to reserve for one answer of this user and model."""
        name = family_name(model)[0]
        with self.pool.lock:
            for key in ((user, name), (_ALL, name)):
                seen = self.pool.find(key, soon=key[0] == _ALL)
                if seen is not None and seen.weight >= self._enough:
                    return math.ceil(seen.steady_quantile(self._quantile))
        return prior

    def __len__(self) -> int:
        return len(self.pool)


def _lengths() -> Histogram:
    return Histogram(growth=_GROWTH, low=1.0, high=2_000_000.0)
