"""Every rule and every threshold on logged rows, without a model: the myopic objective of the paper.

A rule is an order in which draft steps are escalated. Escalating row i gains its advantage; a threshold takes the
first rows of the order. By the budget theorem (arXiv 2512.05033) the order of the advantages themselves is never
beaten at an equal number of escalations.
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
    """What a rule does at every number of escalations, from none to all of N rows; each array has N + 1 entries."""

    thresholds: Scores
    """Escalating every row whose score exceeds it makes so many escalations; infinite for none.
    Between equal scores no threshold cuts: such entries are NaN."""
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
        scores: One for each row; ties are escalated in the order of the rows.

    Raises:
        RowError: If there are no rows.
    """
    if not rows:
        raise RowError("a replay needs rows, got none")
    order = np.argsort(-scores, kind="stable")
    gain = advantages(rows)[order]
    draft = np.array([row.draft.num_tokens for row in rows], dtype=float)[order]
    target = np.array([row.targets[0].num_tokens for row in rows], dtype=float)[order]
    count = np.arange(len(rows) + 1)
    written = _sums(target)
    kept = draft.sum() - _sums(draft)
    with np.errstate(invalid="ignore"):
        waste = _sums(gain <= 0.0) / count
        share = written / (written + kept)
    base = float(np.mean([row.draft.score for row in rows]))
    return Replay(
        thresholds=_thresholds(scores[order]),
        escalation_rate=count / len(rows),
        score=base + _sums(gain) / len(rows),
        waste=waste,
        target_token_share=share,
    )


def _sums(values: NDArray[np.generic]) -> Scores:
    """Sums of the first 0, 1, … N values."""
    return np.concatenate([[0.0], np.cumsum(values.astype(float))])


def _thresholds(descending: Scores) -> Scores:
    cuts = np.concatenate([descending, [-np.inf]])
    # After k escalations the next score must not exceed the threshold, and the last escalated one must.
    found: Scores = np.where(np.concatenate([[np.inf], descending]) > cuts, cuts, np.nan)
    return found


def advantages(rows: Sequence[Row]) -> Scores:
    """Mean advantage of each row."""
    return np.array([row.advantage for row in rows], dtype=float)


def gain_share(gain: Scores, scores: Scores) -> float:
    """Share of the oracle's gain over chance, averaged over escalation rates; 1 for the oracle, 0 for chance.

    The area between the rule's curve and chance over the area between the oracle's curve and chance, where chance
    gains the mean advantage with every escalation.

    Args:
        gain: Advantage of each row.
        scores: The rule's, the largest escalated first.

    Returns:
        NaN if all rows have the same advantage.
    """
    mine, best = _over_chance(gain, scores), _over_chance(gain, gain)
    return float(mine.sum() / best.sum()) if best.sum() > 0.0 else float("nan")


def gain_shares_at(gain: Scores, scores: Scores, rates: Sequence[float]) -> dict[float, float]:
    """The same share at single escalation rates."""
    mine, best = _over_chance(gain, scores), _over_chance(gain, gain)
    counts = {rate: round(rate * len(gain)) for rate in rates}
    return {rate: float(mine[k] / best[k]) if best[k] > 0.0 else float("nan") for rate, k in counts.items()}


def _over_chance(gain: Scores, scores: Scores) -> Scores:
    """Gain of the first 0, 1, … N escalations less what as many by chance would gain."""
    chance: Scores = np.arange(len(gain) + 1) * gain.mean()
    return _sums(gain[np.argsort(-scores, kind="stable")]) - chance


def _confidence(row: Row) -> float:
    if not row.draft.logprobs:
        return 0.0
    return -float(np.mean(row.draft.logprobs))


BASELINES: Final[Mapping[str, Callable[[Row], float]]] = {
    "rsd (−s_d)": lambda row: -row.draft.score,
    "draft confidence (−mean log p)": _confidence,
    "first-token entropy": lambda row: row.draft.first_entropy or 0.0,
    "step length": lambda row: float(row.draft.num_tokens),
    "position": lambda row: float(row.step),
    "random": lambda row: random.Random(f"{row.problem.id}\0{row.step}").random(),
    "oracle": lambda row: row.advantage,
}
"""Rules that need no router: from a row to its place in the order, the largest escalated first."""


def baseline(rows: Sequence[Row], name: str) -> Scores:
    """Scores of a rule of :data:`BASELINES`."""
    return np.array([BASELINES[name](row) for row in rows], dtype=float)
