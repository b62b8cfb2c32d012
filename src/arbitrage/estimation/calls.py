"""The time of model calls, from the tokens that a trace records and the costs of a machine.

Batch 1, no overlap: the time of a solution is the sum of its calls' times and of the time outside models. A call takes
its ``call_ms`` and its forward passes. The first pass covers the tokens of the prefix that the cache lacks, with the
proposal or the guesses behind them; every token that the model then picks itself, except for the last, takes another.
"""

from dataclasses import dataclass, replace
from typing import Final

from arbitrage.bench.costs import ModelCosts, PairCosts
from arbitrage.core.errors import ConfigError
from arbitrage.core.trace import Trace
from arbitrage.core.types import Candidate, Cost, Score, Source, Step
from arbitrage.engines.guess_count import IN_STEP
from arbitrage.policies.spec import MethodSpec

BY_TARGET: Final = ("likelihood", "judge")
"""Scorers without a model of their own: the target reads each step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Times of calls on one machine."""

    costs: PairCosts
    verifies_proposals: bool
    """Whether the target computed a rejected draft step together with the prefix, as traces do not record it."""
    outside_ms: float | None = None
    """Milliseconds outside models for each step; None for those of the trace."""

    def timed(self, trace: Trace) -> Trace:
        """The same solution with the seconds that its calls take by these costs.

        Calls that only measure take no time. The time outside models is that of the trace, unless it is given.

        Raises:
            ConfigError: If the costs lack a model that the trace used.
        """
        outside_s = trace.latency_s - trace.model_s
        if self.outside_ms is not None:
            outside_s = self.outside_ms / 1000.0 * len(trace.steps)
        guessing = _Guessing(self.costs.draft if MethodSpec.recorded(trace.policy).guesser else None)
        steps = []
        for number, step in enumerate(trace.steps):
            steps.append(self._step(step, guessing, is_first=number == 0))
        timed = replace(trace, steps=tuple(steps))
        return replace(timed, wall_s=timed.model_s + outside_s)

    def _step(self, step: Step, guessing: "_Guessing", *, is_first: bool) -> Step:
        measured = step.decision.measured
        proposed = next((one for one in step.candidates if (one.source, one.sample) == (Source.DRAFT, 0)), None)
        candidates, kept = [], step.candidate
        for candidate in step.candidates:
            ms, guess_ms = 0.0, 0.0
            if candidate.source not in measured:
                is_offered = self.verifies_proposals and candidate.source is Source.TARGET and proposed is not None
                num_proposed = proposed.cost.num_generated if is_offered and proposed else 0
                ms = self.writing_ms(candidate.source, candidate.cost, num_proposed)
                guess_ms = guessing.ms(candidate.cost, Passes.of(candidate.cost, num_proposed))
            seconds, guessing_s = (ms + guess_ms) / 1000.0, guess_ms / 1000.0
            timed = replace(candidate, cost=replace(candidate.cost, seconds=seconds, guessing_s=guessing_s))
            candidates.append(timed)
            kept = timed if candidate is step.candidate else kept
        scores = [
            replace(score, cost=replace(score.cost, seconds=self._score_s(score, step, is_first=is_first)))
            for score in step.scores
        ]
        return replace(step, candidate=kept, candidates=tuple(candidates), scores=tuple(scores))

    def writing_ms(self, source: Source, cost: Cost, num_proposed: int) -> float:
        """Milliseconds in which a model writes a step, without those of guessing.

        Args:
            source: The author.
            cost: Its tokens.
            num_proposed: Tokens of the proposal, whether they were taken or not.
        """
        model, passes = self.costs.model(source), Passes.of(cost, num_proposed)
        return model.call_ms.value + model.pass_ms(passes.first) + passes.num_later * model.pass_ms(1.0 + passes.ahead)

    def _score_s(self, score: Score, step: Step, *, is_first: bool) -> float:
        if score.scorer in step.decision.measured:
            return 0.0
        scored = next(
            (one for one in step.candidates if (one.source, one.sample) == (score.source, score.sample)), None
        )
        return self.scoring_ms(score, scored or step.candidate, is_first=is_first) / 1000.0

    def scoring_ms(self, score: Score, candidate: Candidate, *, is_first: bool) -> float:
        """Milliseconds of a score.

        Args:
            score: The score.
            candidate: What was scored.
            is_first: Whether the scorer's first step in the solution: it reads the question too.

        Raises:
            ConfigError: If the costs lack the scorer.
        """
        own = self.costs.scorers.get(score.scorer)
        if score.scorer in BY_TARGET or (own and own.asks_target):
            return self._reading_ms(score.cost, candidate.num_tokens)
        if own is None:
            raise ConfigError(
                f"the costs of {self.costs.pair!r} lack {score.scorer!r}, which the run used",
                hint=f"measure a pair that has it, or add a table [scorers.{score.scorer}]",
            )
        # A scorer without a cache reads the whole solution each time, and so it did when it was measured.
        is_incremental = score.cost.num_cached > 0 or is_first
        return own.ms(score.cost.num_computed if is_incremental else candidate.num_tokens)

    def _reading_ms(self, cost: Cost, num_step: int) -> float:
        """The target reads a step: in one pass with the rest of the prefix, or behind it where widths disagree."""
        model = self.costs.target
        step = 0 if self.verifies_proposals else min(cost.num_computed, max(0, num_step - 1))
        ms = model.pass_ms(cost.num_computed - step) + model.pass_ms(step)
        return ms + (model.call_ms.value if model.reads_whole_context else 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """Forward passes of one call that writes; numbers are expectations, as a trace counts tokens and not passes."""

    first: float
    """Tokens of the first one; 0 if the logits behind prefix and proposal were at hand."""
    num_later: float
    ahead: float
    """Guesses in each pass that may hold some: in all later ones, and in a first one without a proposal."""

    @classmethod
    def of(cls, cost: Cost, num_proposed: int) -> "Passes":
        """Count the passes of a call.

        Args:
            cost: Its tokens.
            num_proposed: Tokens of the proposal.
        """
        num_picked = cost.num_generated - cost.num_reused - cost.num_confirmed
        # A step's last token needs no pass behind it. Where some tokens were guessed, it was one of them at their rate.
        num_later = num_picked - num_picked / max(1, num_picked + cost.num_confirmed)
        is_guessed_first = cost.num_computed > 0 and not num_proposed
        num_guessing = num_later + is_guessed_first
        ahead = cost.num_guessed / num_guessing if num_guessing else 0.0
        first = cost.num_computed + num_proposed + ahead * is_guessed_first if cost.num_computed else 0.0
        return cls(first=first, num_later=num_later, ahead=ahead)


class _Guessing:
    """The draft's time to guess tokens for the target in one solution: it reads what others wrote, then writes."""

    def __init__(self, draft: ModelCosts | None) -> None:
        """Start with an empty cache.

        Args:
            draft: The model that guesses; None where a look-up guesses, which takes no time to speak of.
        """
        self._draft, self._num_read = draft, 0

    def ms(self, cost: Cost, passes: Passes) -> float:
        """Milliseconds of all guesses in one call of the target, which made some forward passes."""
        if self._draft is None or not cost.num_guessed:
            return 0.0
        num_prefix = cost.num_computed + cost.num_cached
        num_missing = num_prefix + cost.num_reused - self._num_read  # Guesses begin where the proposal fails.
        self._num_read = num_prefix + cost.num_generated
        one, two = self._draft.pass_ms(1), self._draft.pass_ms(2)
        reading = self._draft.pass_ms(num_missing) - one if num_missing > IN_STEP else 0.0
        return reading + cost.num_guessed * one + _num_right_to_the_end(cost, passes) * (two - one)


def _num_right_to_the_end(cost: Cost, passes: Passes) -> float:
    """In how many passes all guesses were right, if in the others half of them were.

    The draft then lacks two tokens before it guesses again: its last guess, and the target's own token.
    """
    each = max(1.0, passes.ahead)
    num = cost.num_guessed / each
    return min(num, max(0.0, (cost.num_confirmed - num * (each - 1.0) / 2.0) * 2.0 / (each + 1.0)))
