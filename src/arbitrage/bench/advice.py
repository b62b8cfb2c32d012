"""Whether a pair can gain anything, from the costs of its models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from arbitrage.bench.costs import PairCosts

NO_SCORER: Final = "confidence"
"""The rule that stands for all that decide by numbers of the draft alone: they cost no model call."""
LIKELIHOOD: Final = "likelihood"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Bounds of step-level methods on a pair.

    Times are relative to the time that the target needs to write the same number of tokens. Where the draft keeps the
    share a of the steps, a step takes

        time(a) = draft + (1 - a) * (1 + draft_reading) + a * target_reading + scoring

    so the speed-up over target-only is 1 / time(a).
    """

    draft: float
    """Time of a generated token of the draft over one of the target."""
    draft_reading: float
    """The draft reads the target's steps: its time per prompt token over the target's per generated token."""
    target_reading: float
    """The target reads the draft's steps: its time per prompt token over its time per generated token."""
    step_tokens: int
    """Length of the steps for which scoring is counted."""
    scoring: Mapping[str, float] = field(default_factory=dict)
    """Time to score a step, by rule or role; :data:`NO_SCORER` takes none."""
    asks_target: frozenset[str] = frozenset()
    """Those that have the target read every step, so that it need not read the kept ones again."""

    @classmethod
    def of(cls, costs: PairCosts) -> "Advice":
        """Put the costs of a pair into relation.

        Args:
            costs: All as measured, for steps as long as the longer one of its settings.
        """
        token, tokens = costs.target.generated_ms.value, costs.settings.tokens
        scoring = {NO_SCORER: 0.0, **{role: one.step_ms / (tokens * token) for role, one in costs.scorers.items()}}
        if (reading := costs.target.reading_ms(tokens)) is not None:
            scoring[LIKELIHOOD] = reading / (tokens * token)
        return cls(
            draft=costs.draft.generated_ms.value / token,
            draft_reading=costs.draft.prompt_ms.value / token,
            target_reading=costs.target.prompt_ms.value / token,
            step_tokens=tokens,
            scoring=scoring,
            asks_target=frozenset({LIKELIHOOD, *(role for role, one in costs.scorers.items() if one.asks_target)}),
        )

    @property
    def most_speedup(self) -> float:
        """Speed-up of the draft alone, which no step-level method can exceed."""
        return 1.0 / self.draft

    def speedup(self, kept: float, rule: str = NO_SCORER) -> float:
        """Speed-up where the draft keeps this share of the steps.

        Args:
            kept: A share in [0, 1].
            rule: A key of :attr:`scoring`.
        """
        time = self.draft + (1.0 - kept) * (1.0 + self.draft_reading) + kept * self._reading(rule)
        return 1.0 / (time + self.scoring[rule])

    def break_even(self, rule: str = NO_SCORER) -> float | None:
        """The share of steps that the draft must keep for a speed-up of 1; None where no share suffices.

        Args:
            rule: A key of :attr:`scoring`.
        """
        saved = 1.0 + self.draft_reading - self._reading(rule)
        spent = self.draft + self.draft_reading + self.scoring[rule]
        return spent / saved if spent < saved else None

    def sentence(self, rule: str = NO_SCORER) -> str:
        """The bounds in one sentence.

        Args:
            rule: The rule that decides, a key of :attr:`scoring`.
        """
        start = f"A draft token costs {self.draft:.2f} of a target token: "
        if self.draft >= 1.0:
            return start + "no step-level method can be faster than the target here."
        start += f"a step-level method is at most {self.most_speedup:.1f} times as fast as the target, "
        start += f"and {self.speedup(0.5):.2f} times where it escalates half of the steps; "
        needed = self.break_even(rule)
        if needed is None:
            return start + f"with {rule} it is slower, even if the draft keeps all steps."
        return start + f"with {rule} it gains time only if the draft keeps more than {needed:.0%} of the steps."

    def to_json(self, rule: str) -> dict[str, object]:
        """The numbers behind the sentence, and the sentence.

        Args:
            rule: As for :meth:`sentence`.
        """
        return {
            "draft": self.draft,
            "draft_reading": self.draft_reading,
            "target_reading": self.target_reading,
            "step_tokens": self.step_tokens,
            "most_speedup": self.most_speedup,
            "half_speedup": self.speedup(0.5),
            "scoring": dict(self.scoring),
            "break_even": {name: self.break_even(name) for name in self.scoring},
            "rule": rule,
            "sentence": self.sentence(rule),
        }

    def _reading(self, rule: str) -> float:
        return 0.0 if rule in self.asks_target else self.target_reading
