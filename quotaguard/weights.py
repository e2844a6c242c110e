"""What counts toward a limit, and how much."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import TypeAlias

from .errors import ConfigurationError
from .models import matches
from .usage import Usage

Measure: TypeAlias = Callable[[Usage, "str | None"], float]
"""How much a call with this usage of a model counts, in units of a limit's metric."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What a token of each kind counts toward a limit on tokens; plain input counts 1.

    A reservation counts all input as plain, since nobody knows yet what the provider's cache holds.

    Attributes:
        cached: a token read from the provider's prompt cache. Anthropic's own limits count 0 for
            most models (https://docs.claude.com/en/api/rate-limits).
        cache_write: a token written to it.
        output: an output token; above 1 it is what Amazon Bedrock calls a burndown rate
            (https://docs.aws.amazon.com/bedrock/latest/userguide/quotas-token-burndown.html).
        models: shell pattern of a model -> what all its tokens are multiplied by; the first that
            matches counts, and what none matches counts 1. So one quota can span a fleet.

    Raises:
        ConfigurationError: a weight is no number >= 0.
    """

    cached: float = 1.0
    cache_write: float = 1.0
    output: float = 1.0
    models: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        given = self.models.items() if isinstance(self.models, Mapping) else self.models
        try:
            models = tuple((str(pattern), weight) for pattern, weight in given)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"the weights of models are like {{'gpt-4o-mini': 0.1}}, not {self.models!r}"
            ) from error
        object.__setattr__(self, "models", models)
        named = [(each.name, getattr(self, each.name)) for each in fields(self)[:3]]
        for what, weight in (*named, *models):
            is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
            if not is_number or not 0 <= weight < math.inf:
                raise ConfigurationError(
                    f"the weight of {what} is a number >= 0 such as 0.1, not {weight!r}"
                )

    @classmethod
    def of(cls, said: object) -> Weights:
        """Weights, or the mapping of their names to numbers that a file has.

        Raises:
            ConfigurationError: a name is unknown or a weight wrong.
        """
        if isinstance(said, Weights):
            return said
        names = [each.name for each in fields(cls)]
        if not isinstance(said, Mapping) or not said.keys() <= set(names):
            raise ConfigurationError(f"weights are any of {', '.join(names)}, not {said!r}")
        return cls(**said)

    def of_model(self, model: str | None) -> float:
        """What a token of the model counts."""
        for pattern, weight in self.models:
            if model is not None and matches(model, pattern):
                return weight
        return 1.0

    def measure(self, metric: str) -> Measure:
        """How to measure a metric of tokens with these weights."""
        return partial(self._weigh, metric != "output_tokens", metric != "input_tokens")

    def _weigh(self, with_input: bool, with_output: bool, usage: Usage, model: str | None) -> float:
        count = 0.0
        if with_input:
            plain = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
            count += plain + self.cached * usage.cached_tokens
            count += self.cache_write * usage.cache_write_tokens
        if with_output:
            count += self.output * usage.output_tokens
        return count * self.of_model(model)
