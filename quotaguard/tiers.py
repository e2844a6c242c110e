"""Tiers: what a kind of user may use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .errors import ConfigurationError
from .limits import Limit, matches
from .policies import Policy, policies


@dataclass(frozen=True, slots=True, init=False)
class Tier:
    """A named plan: limits, models, and what happens when a limit is exceeded.

    Attributes:
        name: what ``tier=`` says.
        limits: all of them must have room.
        models: shell patterns of the models that may be used; empty: all.
        when_exceeded: policies tried in order (see `quotaguard.policies`); None: the guard's.

    Raises:
        ConfigurationError: a value is wrong; the message says which.
    """

    name: str
    limits: tuple[Limit, ...]
    models: tuple[str, ...]
    when_exceeded: tuple[Policy, ...] | None

    def __init__(
        self,
        name: str,
        limits: Iterable[str | Limit] = (),
        models: Iterable[str] = (),
        when_exceeded: Iterable[Policy] | Policy | None = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"a tier's name is a non-empty string, not {name!r}")
        patterns = tuple(models) if isinstance(models, Iterable) else (models,)
        if isinstance(models, str) or not all(isinstance(p, str) and p for p in patterns):
            raise ConfigurationError(f"tier {name!r}: models is a list of names, not {models!r}")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "limits", distinct(limits, f"tier {name!r}"))
        object.__setattr__(self, "models", patterns)
        chosen = None if when_exceeded is None else policies(when_exceeded)
        object.__setattr__(self, "when_exceeded", chosen)

    def allows(self, model: str | None) -> bool:
        """Whether the tier includes the model (a call without a model is always allowed)."""
        return not self.models or model is None or any(matches(model, p) for p in self.models)


def distinct(limits: Iterable[str | Limit], where: str) -> tuple[Limit, ...]:
    """Limits, parsed; no two of the same scope may name the same bucket.

    Raises:
        ConfigurationError: one cannot be read, or two are about the same thing.
    """
    if isinstance(limits, (str, Limit)) or not isinstance(limits, Iterable):
        raise ConfigurationError(
            f"{where}: limits is a list such as ['10k tokens/day'], not {limits!r}"
        )
    try:
        parsed = tuple(Limit.parse(limit) for limit in limits)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from error
    seen: dict[tuple[str, str], Limit] = {}
    for limit in parsed:
        other = seen.setdefault((limit.scope, limit.id), limit)
        if other is not limit:
            raise ConfigurationError(
                f"{where}: {str(other)!r} and {str(limit)!r} limit the same thing; keep one"
            )
    return parsed
