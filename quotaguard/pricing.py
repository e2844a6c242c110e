"""What usage costs, by the kept price list of ``genai-prices`` (extra ``quotaguard[prices]``).

That library was chosen because its prices are data, maintained in the open, carried in the package
(no download), with cached and tiered prices by model and date.
"""

from __future__ import annotations

from decimal import Decimal

from .usage import Usage


class PriceUnknown(LookupError):
    """There is no price for the model, or no price list; unknown is never zero."""


def cost(model: str, usage: Usage) -> Decimal:
    """US dollars that the usage costs at list prices.

    Raises:
        PriceUnknown: the list does not know the model, or ``genai-prices`` is not installed.
    """
    try:
        import genai_prices
    except ModuleNotFoundError as error:
        raise PriceUnknown("prices need genai-prices: pip install 'quotaguard[prices]'") from error
    counted = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    try:
        return genai_prices.calc_price(counted, model_ref=model).total_price
    except LookupError as error:
        raise PriceUnknown(f"no price is known for the model {model!r}") from error
