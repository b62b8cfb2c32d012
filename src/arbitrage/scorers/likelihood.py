"""How likely the target would write a draft's step itself: one forward pass over the step, nothing decoded."""

import math
import time
from typing import Final

from arbitrage.core.errors import ContextOverflow, MissingExtra
from arbitrage.core.types import Candidate, Cost, Problem, Score

try:
    import torch

    from arbitrage.engines.hf import HFEngine
    from arbitrage.engines.hf_cache import CachedSequence
    from arbitrage.engines.worker import CancelFlag
except ImportError as error:
    raise MissingExtra("hf") from error


ROOT: Final = 10
"""Of a step's probability: the order of steps stays, and those of hundreds of tokens stay apart from 1."""


def score_of(log_probability: float) -> float:
    """How unlikely a step is, from its log-probability in nats: 1 - p ** (1 / ROOT)."""
    return -math.expm1(min(0.0, log_probability) / ROOT)


def log_probability_of(score: float) -> float:
    """The log-probability of a step (nats, down to -368) whose :func:`score_of` is ``score``."""
    return ROOT * math.log1p(-min(score, 1.0 - 1e-16))


class LikelihoodScorer:
    """Scores a step by how unlikely it is to the engine's model: 1 - p(step | prefix) ** (1 / ROOT).

    BiLD (arXiv 2302.07863) looks back on a small model's text with the large one in the same way, token by token. The
    sessions are its own, so the target computes a prefix twice where it also writes.
    """

    def __init__(self, engine: HFEngine, *, name: str = "likelihood") -> None:
        """Wrap the target's engine.

        Args:
            engine: Whose probabilities count, at temperature 1.
            name: How policies and traces call it.
        """
        self.engine, self._name = engine, name

    @property
    def name(self) -> str:
        """How policies and traces call it."""
        return self._name

    async def open(self, problem: Problem) -> "LikelihoodScoring":
        """Start judging a problem; nothing is computed yet."""
        return LikelihoodScoring(self, self.engine.prompt.encode(self.engine.tokenizer, problem.question))

    @torch.inference_mode()
    def log_probability(self, sequence: CachedSequence, prefix: list[int], step: list[int]) -> tuple[float, int]:
        """Read the chance of ``step`` behind ``prefix``, computing only what ``sequence`` lacks.

        Returns:
            The log-probability in nats, and how many tokens were cached.

        Raises:
            ContextOverflow: If both together do not fit.
        """
        ids = [*prefix, *step]
        if len(ids) > self.engine.context_length:
            raise ContextOverflow(f"{len(ids)} tokens do not fit the context of {self.engine.name}")
        num_cached = sequence.reuse(prefix)  # Without the prefix's last token: it predicts the step's first.
        logits = sequence.logits(ids[num_cached:-1], num_last=len(step)).float()
        chosen = torch.tensor(step, device=logits.device)[:, None]
        return float(logits.log_softmax(dim=-1).gather(-1, chosen).sum()), num_cached


class LikelihoodScoring:
    """One problem's ids and KV cache."""

    def __init__(self, scorer: LikelihoodScorer, prompt_ids: list[int]) -> None:
        self._scorer, self._ids = scorer, prompt_ids
        self._sequence = CachedSequence(scorer.engine.model)

    async def score(self, candidate: Candidate) -> Score:
        """Score a step on the device's thread; an empty one is certain."""
        return await self._scorer.engine.worker.run(lambda flag: self._score(candidate, flag))

    def _score(self, candidate: Candidate, flag: CancelFlag) -> Score:
        flag.check()
        started, step, cost = time.perf_counter(), self._scorer.engine.encode(candidate.text), Cost()
        total = 0.0
        if step:
            total, num_cached = self._scorer.log_probability(self._sequence, self._ids, step)
            cost = Cost(
                num_calls=1,
                num_computed=len(self._sequence) - num_cached,
                num_cached=num_cached,
                seconds=time.perf_counter() - started,
            )
        return Score(scorer=self._scorer.name, source=candidate.source, value=score_of(total), cost=cost)

    async def commit(self, candidate: Candidate) -> None:
        """Append a step; what a rejected one left in the cache is cropped at the next score."""
        self._ids.extend(self._scorer.engine.encode(candidate.text))

    async def close(self) -> None:
        """Drop the cache."""
        self._sequence = CachedSequence(self._scorer.engine.model)
