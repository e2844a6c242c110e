"""What usage costs, by the kept price list of ``genai-prices`` (extra ``quotaguard[prices]``).

That library was chosen because its prices are data, maintained in the open, carried in the package
(no download), with prices by date, for cached, long and prioritised requests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeAlias

from .errors import ConfigurationError, PriceUnknown
from .models import matches
from .usage import NANO, Usage

log = logging.getLogger("quotaguard")

FRESH = 60.0
"""Seconds that a price is kept before the list is asked again: some depend on the date."""
_MILLION = 1_000_000
_PLACES = (None, "openai", "anthropic", "aws", "azure", "google")
"""Whose names a model's name may be, in the order they are tried."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens.

    Attributes:
        input, output: of plain tokens.
        cached: of input read from the provider's cache (default: as plain input).
        cache_write, cache_write_1h: of input written to it, for minutes or for an hour (default: as
            plain input; as ``cache_write``).
        above, longer: requests with more than ``above`` input tokens cost ``longer``.

    Raises:
        ConfigurationError: a price is no number >= 0.
    """

    input: Decimal
    output: Decimal = Decimal(0)
    cached: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    above: int | None = None
    longer: Price | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached", "cache_write", "cache_write_1h"):
            value = getattr(self, name)
            if value is None and name not in ("input", "output"):
                continue
            try:
                exact = Decimal(str(value))
            except ArithmeticError:
                exact = Decimal("NaN")
            if not (isinstance(value, (int, float, Decimal)) and exact.is_finite() and exact >= 0):
                raise ConfigurationError(
                    f"a price is a number of dollars per million tokens, not {name}={value!r}"
                )
            object.__setattr__(self, name, exact)
        if (self.above is None) != (self.longer is None) or not (
            self.above is None or (type(self.above) is int and self.above >= 0)
        ):
            raise ConfigurationError(
                "above is a number of input tokens, and goes with longer, the price beyond it; "
                f"not above={self.above!r}, longer={self.longer!r}"
            )
        if self.longer is not None:
            object.__setattr__(self, "longer", Price.of(self.longer))

    @classmethod
    def of(cls, said: object) -> Price:
        """A price, or the mapping that a file has.

        Raises:
            ConfigurationError: it is something else.
        """
        if isinstance(said, Price):
            return said
        try:
            return cls(**said)  # type: ignore[arg-type]
        except TypeError as error:
            raise ConfigurationError(
                f"a price is like {{input = 0.15, output = 0.60}}, not {said!r}"
            ) from error

    def nano_usd(self, usage: Usage) -> int:
        """What the usage costs in nano-dollars, rounded to the nearest."""
        if self.above is not None and self.longer is not None and usage.input_tokens > self.above:
            return self.longer.nano_usd(usage)
        written = usage.cache_write_tokens - usage.cache_write_1h_tokens
        plain = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
        write = self.input if self.cache_write is None else self.cache_write
        write_1h = write if self.cache_write_1h is None else self.cache_write_1h
        cached = self.input if self.cached is None else self.cached
        per_million = (
            self.input * max(0, plain)
            + cached * usage.cached_tokens
            + write * written
            + write_1h * usage.cache_write_1h_tokens
            + self.output * usage.output_tokens
        )
        return int((per_million * (NANO // _MILLION)).to_integral_value())


Lookup: TypeAlias = Callable[[str, str, datetime], "Price | None"]
"""The price of a model at a service tier ("" is the standard one) and time; None: unknown."""


class Prices:
    """What a guard's calls cost.

    Args:
        overrides: shell pattern of a model -> its `Price`, before what the list says.
        unknown: ``"refuse"`` raises `PriceUnknown` where a price is needed and not known,
            ``"warn"`` takes the dearest of the list's prices for it, and says so once.
        now: seconds since the epoch; prices change with the date.
        lookup: the price list.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    def __init__(
        self,
        overrides: Mapping[str, Price | Mapping[str, Any]],
        unknown: str,
        now: Callable[[], float],
        lookup: Lookup | None = None,
    ) -> None:
        if not isinstance(overrides, Mapping):
            raise ConfigurationError(f"prices maps models to prices, not {overrides!r}")
        if unknown not in ("refuse", "warn"):
            raise ConfigurationError(f"unknown_price is 'refuse' or 'warn', not {unknown!r}")
        self._overrides = [(model, _override(model, p)) for model, p in overrides.items()]
        self._warns = unknown == "warn"
        self._now = now
        self._lookup = lookup or listed
        self._kept: dict[tuple[str, str], tuple[float, Price]] = {}
        self._said: set[str] = set()

    def of(self, model: str | None, service: str = "") -> Price:
        """The price of a model.

        Args:
            model: its name, as requests have it.
            service: the provider's service tier (``"flex"``, ``"priority"``) or ``"batch"``.

        Raises:
            PriceUnknown: there is none.
        """
        name = model or ""
        now = self._now()
        kept = self._kept.get((name, service))
        if kept is not None and abs(now - kept[0]) < FRESH:
            return kept[1]
        price = self._find(name, service, now)
        if len(self._kept) > 1000:  # names of models come from requests
            self._kept.clear()
        self._kept[name, service] = now, price
        return price

    def _find(self, model: str, service: str, now: float) -> Price:
        for pattern, price in self._overrides:
            if matches(model, pattern):
                return price
        found = self._lookup(model, service, datetime.fromtimestamp(now, timezone.utc))
        if found is None and self._warns:
            if len(self._said) < 100 and model not in self._said:
                self._said.add(model)
                log.warning("no price is known for %r: the dearest is taken", model)
            found = dearest()
        if found is None:
            raise PriceUnknown(
                f"no price is known for the model {model!r}: say it with "
                f"Guard(prices={{{model!r}: Price(input=..., output=...)}})"
                + ("" if _list() else ", or pip install 'quotaguard[prices]'")
            )
        return found

    def by(self, now: Callable[[], float]) -> Prices:
        """The same at the times of another clock."""
        unknown = "warn" if self._warns else "refuse"
        return Prices(dict(self._overrides), unknown, now, self._lookup)

    def priced(self, usage: Usage, model: str | None, service: str = "") -> Usage:
        """The usage with its cost.

        Raises:
            PriceUnknown: there is no price.
        """
        return usage._replace(nano_usd=self.of(model, service).nano_usd(usage))

    def cost(self, usage: Usage | None, model: str | None, service: str = "") -> int | None:
        """What the usage costs in nano-dollars; None if that can't be told."""
        try:
            return None if usage is None else self.of(model, service).nano_usd(usage)
        except PriceUnknown:
            return None


def _override(model: object, price: object) -> Price:
    if not isinstance(model, str) or not model:
        raise ConfigurationError(f"prices maps names of models to prices, not {model!r}")
    try:
        return Price.of(price)
    except ConfigurationError as error:
        raise ConfigurationError(f"prices[{model!r}]: {error}") from error


def listed(model: str, service: str, at: datetime) -> Price | None:
    """What the list of ``genai-prices`` says; None: nothing, or it is not installed."""
    snapshot = _list()
    found = _model(model) if snapshot is not None and model else None
    if found is None:
        return None
    context = None
    if service:
        context = {"processing" if service == "batch" else "service_tier": service}
    prices = found.get_prices(at, context)
    if prices.input_mtok is None:  # billed by the hour, the character, the picture
        return None
    floors = [
        -1,
        *sorted({t.start for p in vars(prices).values() for t in getattr(p, "tiers", ())}),
    ]
    price = _at(prices, floors[-1] + 1)
    for below, above in zip(floors[-2::-1], floors[:0:-1], strict=True):
        price = replace(_at(prices, below + 1), above=above, longer=price)
    return price


def context_window(model: str) -> int | None:
    """The most input tokens that a model takes, by the list; None: unknown."""
    found = _model(model) if _list() is not None else None
    return None if found is None else found.context_window


def price_page(model: str) -> str | None:
    """The provider's page that the list has a model's prices from; None: unknown."""
    found = _entry(model) if _list() is not None else None
    pages = getattr(found[0], "pricing_urls", None) if found is not None else None
    return pages[0] if pages else None


@lru_cache(maxsize=1)
def dearest() -> Price | None:
    """The highest price for each kind of token of all text models of OpenAI and Anthropic."""
    snapshot = _list()
    if snapshot is None:
        return None
    now = datetime.now(timezone.utc)
    all_prices = [
        listed(model.id, "", now)
        for provider in snapshot.providers
        if provider.id in ("openai", "anthropic")
        for model in provider.models
    ]
    known = [price for price in all_prices if price is not None]
    return Price(max(p.input for p in known), max(p.output for p in known))


@lru_cache(maxsize=1)
def _list() -> Any:
    try:
        from genai_prices import data_snapshot
    except ModuleNotFoundError:
        return None
    return data_snapshot.get_snapshot()


def _model(model: str) -> Any:
    """What the list knows of a model."""
    found = _entry(model)
    return None if found is None else found[1]


@lru_cache(maxsize=1000)
def _entry(model: str) -> Any:
    """The provider and the model, under whichever provider's name for it."""
    for place in _PLACES:
        try:
            return _list().find_provider_model(model, None, place, None)
        except LookupError:
            continue
    return None


def _at(prices: Any, input_tokens: int) -> Price:
    """The price of a request with that many input tokens."""

    def of(name: str) -> Decimal | None:
        price = getattr(prices, name)
        for tier in getattr(price, "tiers", ())[::-1]:
            if input_tokens > tier.start:
                return tier.price  # type: ignore[no-any-return]
        return getattr(price, "base", price)  # type: ignore[no-any-return]

    return Price(
        input=of("input_mtok") or Decimal(0),
        output=of("output_mtok") or Decimal(0),
        cached=of("cache_read_mtok"),
        cache_write=of("cache_write_mtok"),
        cache_write_1h=of("cache_write_1h_mtok"),
    )
