"""Histograms by key, in bounded memory; what is learnt can be told to others, and theirs taken.

A pool whose owner shares it notes what was added since it last told. It keeps no text and no
numbers but the weights of bins.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping

from .histogram import Histogram

Key = tuple[str, str]
Weights = Mapping[int, float]


class Pool:
    """Histograms, the longest unused of which are forgotten.

    Args:
        kind: what they are of, and the shape of their bins: part of their names among all that
            processes share.
        make: a new one.
        max_keys: how many are kept.
    """

    def __init__(self, kind: str, make: Callable[[], Histogram], max_keys: int) -> None:
        self.kind = kind
        self.most = make().max_weight
        """The most weight that one may have."""
        self.lock = threading.Lock()
        """Hold it for `find` and `add`, and as long as what they gave is used."""
        self.noted: Callable[[bool], None] | None = None
        """Called when there is something to tell, or (True: as soon as can be) to ask for; None:
        nobody shares. It may take no lock of this pool."""
        self._make = make
        self._max_keys = max_keys
        self._known: OrderedDict[Key, Histogram] = OrderedDict()
        self._news: OrderedDict[Key, dict[int, float]] = OrderedDict()
        """Added and not told yet; empty: only asked for."""

    def __len__(self) -> int:
        return len(self._known)

    def weights(self) -> list[tuple[Key, float]]:
        """How much was seen of each, where anything was."""
        return [(key, seen.weight) for key, seen in self._known.items() if seen.weight]

    def find(self, key: Key, *, soon: bool = False) -> Histogram | None:
        """What is known; where nothing is, others are asked (``soon``: at once), for later."""
        found = self._known.get(key)
        if found is None and self.noted is not None and key not in self._news:
            self._note(key)
            self.noted(soon)
        return found

    def add(self, key: Key, number: float) -> None:
        """Count a positive number."""
        place = self._histogram(key).add(number)
        if self.noted is not None:
            news = self._note(key)
            news[place] = news.get(place, 0.0) + 1.0
            self.noted(False)

    # -- between processes -----------------------------------------------------------------------

    def take(self, most: int) -> dict[Key, Weights]:
        """What others are to be told or asked next, at most so many keys; it counts as told."""
        with self.lock:
            oldest = list(self._news)[:most]
            return {key: self._news.pop(key) for key in oldest}

    def give_back(self, untold: Mapping[Key, Weights]) -> None:
        """It could not be told after all."""
        with self.lock:
            for key, weights in untold.items():
                news = self._note(key)
                for place, weight in weights.items():
                    news[place] = news.get(place, 0.0) + weight

    def put(self, key: Key, weights: Weights) -> None:
        """What all together know of a key, in place of what was known here. What was added here
        and not told yet is added to it.
        """
        with self.lock:
            known, news = self._histogram(key), self._make()
            known.load(weights)
            news.load(self._news.get(key, {}))
            known.merge(news)

    def forget_news(self) -> None:
        """They are another process's to tell."""
        with self.lock:
            self._news.clear()

    def _note(self, key: Key) -> dict[int, float]:
        news = self._news.setdefault(key, {})
        if len(self._news) > self._max_keys:
            self._news.popitem(last=False)
        return news

    def _histogram(self, key: Key) -> Histogram:
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._make()
            if len(self._known) > self._max_keys:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return found
