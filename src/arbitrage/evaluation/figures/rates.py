"""Estimates of cost from tokens: floating-point operations from parameter counts, money from prices."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Cost
from arbitrage.policies.spec import MethodSpec

FLOPS_PER_PARAMETER: Final = 2.0
"""Operations of a forward pass for each token and parameter: one multiplication and one addition, attention left out
(Kaplan et al., arXiv 2001.08361)."""
MILLION: Final = 1e6


def billed(method: MethodSpec, usage: Mapping[str, Cost]) -> dict[str, Cost]:
    """Usage with guessed tokens billed: to the guesser as generated, to the target that rejects them as computed.

    Args:
        method: Names the model that guesses, if one does.
        usage: Cost by model as a trace holds it, with guessed tokens under the model that verifies them.
    """
    bills = dict(usage)
    guesser = method.guesser
    for model, cost in usage.items():
        if cost.num_guessed:
            bills[model] = replace(cost, num_computed=cost.num_computed + cost.num_guessed - cost.num_confirmed)
            if guesser:
                bills[guesser] = bills.get(guesser, Cost()) + Cost(num_generated=cost.num_guessed)
    return bills


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Prices of a million tokens, in any currency.

    Raises:
        ConfigError: If a price is negative.
    """

    prompt: float
    generated: float
    cached: float
    """Of prompt tokens that were read from a cache."""

    def __post_init__(self) -> None:
        for name in ("prompt", "generated", "cached"):
            if not getattr(self, name) >= 0.0:
                raise ConfigError(f"the {name} price must be at least 0, got {getattr(self, name)}")

    def of(self, cost: Cost) -> float:
        """The cost of a model's calls."""
        tokens = (
            (cost.num_computed, self.prompt),
            (cost.num_cached, self.cached),
            (cost.num_generated, self.generated),
        )
        return sum(num * price for num, price in tokens) / MILLION


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Parameter counts and prices by model, for the models that the user named."""

    parameters: Mapping[str, float] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)

    def flops(self, usage: Mapping[str, Cost]) -> float | None:
        """Estimated floating-point operations; None if a model that ran has no parameter count."""
        if not usage.keys() <= self.parameters.keys():
            return None
        return sum(
            FLOPS_PER_PARAMETER * self.parameters[model] * (cost.num_computed + cost.num_generated)
            for model, cost in usage.items()
        )

    def money(self, usage: Mapping[str, Cost]) -> float | None:
        """Estimated cost; None if a model that ran has no price."""
        if not usage.keys() <= self.prices.keys():
            return None
        return sum(self.prices[model].of(cost) for model, cost in usage.items())

    @classmethod
    def parse(cls, parameters: str = "", prices: str = "") -> Self:
        """Read the options of a command line.

        Args:
            parameters: ``draft=0.5e9,target=7e9``.
            prices: ``draft=0.1:0.4,target=0.5:1.5:0.05``: prices of a million prompt tokens, generated tokens, and
                cached prompt tokens (by default the price of prompt tokens).

        Raises:
            ConfigError: If an option cannot be read.
        """
        return cls(
            parameters={model: _number(value, "params", model) for model, value in _pairs(parameters, "params")},
            prices={model: _price(value, model) for model, value in _pairs(prices, "prices")},
        )


def _pairs(text: str, option: str) -> list[tuple[str, str]]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        if not all(part.partition("=")):
            raise ConfigError(f"{option}: not MODEL=VALUE: {part!r}", hint="write draft=NUMBER,target=NUMBER")
    return [(part.partition("=")[0].strip(), part.partition("=")[2].strip()) for part in parts]


def _price(text: str, model: str) -> Price:
    values = [_number(part, "prices", model) for part in text.split(":")]
    if not 2 <= len(values) <= 3:
        raise ConfigError(
            f"prices: {model} needs PROMPT:GENERATED or PROMPT:GENERATED:CACHED, got {text!r}",
            hint="prices are of a million tokens",
        )
    return Price(prompt=values[0], generated=values[1], cached=values[-1] if len(values) == 3 else values[0])


def _number(text: str, option: str, model: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise ConfigError(f"{option}: {model} must be a number of at least 0, got {text!r}")
    return value
