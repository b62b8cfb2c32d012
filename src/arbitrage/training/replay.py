"""Replay any rule at every threshold on logged rows, without a model: the myopic objective of the paper.

A rule gives an order in which draft steps are escalated. Escalating row i gains its advantage. A threshold escalates
the first rows of the order. By the budget theorem (arXiv 2512.05033) no order gains more than the order of the
advantages themselves at an equal number of escalations.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from arbitrage.core.errors import MissingExtra, RowError
from arbitrage.training.rows import Row

try:
    import numpy as np
    from numpy.typing import NDArray
except ImportError as error:
    raise MissingExtra("train") from error

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Results of a rule at every number of escalations, from 0 to all N rows; each array has N + 1 entries."""

    thresholds: Scores
    """The threshold that makes this number of escalations: each row whose score exceeds it is escalated. Infinite for
    no escalation. NaN where no threshold gives this number, because the next row has the same score."""
    escalation_rate: Scores
    score: Scores
    """Mean realised PRM score, s_d + a * advantage."""
    waste: Scores
    """Share of the escalations whose advantage is not above 0; NaN without escalations."""
    target_token_share: Scores
    """Share of the kept tokens that the target wrote."""


def replay(rows: Sequence[Row], scores: Scores) -> Replay:
    """Escalate rows in descending order of ``scores``.

    Args:
        rows: Logged rows.
        scores: The rule's score of each row; rows with equal scores are escalated in the order of ``rows``.

    Raises:
        RowError: If there are no rows.
    """
    if not rows:
        raise RowError("a replay needs at least 1 row, got 0", hint="collect rows first")
    order = np.argsort(-scores, kind="stable")
    gain = advantages(rows)[order]
    draft_tokens = np.array([row.draft.num_tokens for row in rows], dtype=float)[order]
    target_tokens = np.array([row.targets[0].num_tokens for row in rows], dtype=float)[order]
    count = np.arange(len(rows) + 1)
    tokens_by_target = _cumulative(target_tokens)
    tokens_by_draft = draft_tokens.sum() - _cumulative(draft_tokens)
    with np.errstate(invalid="ignore"):
        waste = _cumulative(gain <= 0.0) / count
        share = tokens_by_target / (tokens_by_target + tokens_by_draft)
    draft_score = float(np.mean([row.draft_score for row in rows]))
    return Replay(
        thresholds=_thresholds(scores[order]),
        escalation_rate=count / len(rows),
        score=draft_score + _cumulative(gain) / len(rows),
        waste=waste,
        target_token_share=share,
    )


def _cumulative(values: NDArray[np.generic]) -> Scores:
    """Sums of the first 0, 1, … N values."""
    return np.concatenate([[0.0], np.cumsum(values.astype(float))])


def _thresholds(descending: Scores) -> Scores:
    """See :attr:`Replay.thresholds`; scores in descending order."""
    last_escalated, next_score = np.concatenate([[np.inf], descending]), np.concatenate([descending, [-np.inf]])
    # After k escalations the threshold must be below the last escalated score and not below the next one.
    thresholds: Scores = np.where(last_escalated > next_score, next_score, np.nan)
    return thresholds


def advantages(rows: Sequence[Row]) -> Scores:
    """Mean advantage of each row, shape [rows]."""
    return np.array([row.advantage for row in rows], dtype=float)


def oracle_gain_share(advantage: Scores, scores: Scores) -> float:
    """Share of the oracle's gain over chance that a rule gets, averaged over escalation rates.

    The share is the area between the rule's curve and chance over the area between the oracle's curve and chance.
    By chance every escalation gains the mean advantage. The oracle has 1, chance has 0.

    Args:
        advantage: The advantage of each row.
        scores: The rule's score of each row; the rule escalates the largest score first.

    Returns:
        NaN if all rows have the same advantage.
    """
    by_rule, by_oracle = _gain_over_chance(advantage, scores), _gain_over_chance(advantage, advantage)
    return float(by_rule.sum() / by_oracle.sum()) if by_oracle.sum() > 0.0 else float("nan")


def oracle_gain_shares_at(advantage: Scores, scores: Scores, rates: Sequence[float]) -> dict[float, float]:
    """The share of :func:`oracle_gain_share` at each of the given escalation rates."""
    by_rule, by_oracle = _gain_over_chance(advantage, scores), _gain_over_chance(advantage, advantage)
    counts = {rate: round(rate * len(advantage)) for rate in rates}
    return {
        rate: float(by_rule[k] / by_oracle[k]) if by_oracle[k] > 0.0 else float("nan") for rate, k in counts.items()
    }


def _gain_over_chance(advantage: Scores, scores: Scores) -> Scores:
    """Gain of the first 0, 1, … N escalations minus the mean gain of as many random escalations."""
    chance: Scores = np.arange(len(advantage) + 1) * advantage.mean()
    return _cumulative(advantage[np.argsort(-scores, kind="stable")]) - chance


def _confidence(row: Row) -> float:
    if not row.draft.logprobs:
        return 0.0
    return -float(np.mean(row.draft.logprobs))


BASELINES: Final[Mapping[str, Callable[[Row], float]]] = {
    "rsd (−s_d)": lambda row: -row.draft_score,
    "draft confidence (−mean log p)": _confidence,
    "first-token entropy": lambda row: row.draft.first_entropy or 0.0,
    "step length": lambda row: float(row.draft.num_tokens),
    "position": lambda row: float(row.step),
    "random": lambda row: random.Random(f"{row.problem.id}\0{row.step}").random(),
    "oracle": lambda row: row.advantage,
}
"""Rules that need no router: from a row to its score; the rule escalates the largest score first."""


def baseline(rows: Sequence[Row], name: str) -> Scores:
    """Scores of a rule of :data:`BASELINES`."""
    return np.array([BASELINES[name](row) for row in rows], dtype=float)
