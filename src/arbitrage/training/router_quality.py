"""How well a router orders logged draft steps that training did not see, beside rules that need no router."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Final

from arbitrage.core.errors import MissingExtra, RowError
from arbitrage.training.replay import (
    BASELINES,
    Scores,
    advantages,
    baseline,
    oracle_gain_share,
    oracle_gain_shares_at,
)
from arbitrage.training.rows import Row

try:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.stats import spearmanr
    from sklearn.metrics import average_precision_score, roc_auc_score
except ImportError as error:
    raise MissingExtra("train") from error

Indices = NDArray[np.int64]
SCHEMA: Final = 1
"""Version of the JSON record."""
RATES: Final = (0.1, 0.2, 0.3, 0.5, 0.7)
"""Escalation rates that tables show."""
RSD: Final = next(iter(BASELINES))
"""The baseline that the router's lead is measured from."""
NUM_BINS: Final = 10
"""Bins of equal width over [0, 1] in which probabilities are compared with frequencies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval (percentile bootstrap over problems)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingQuality:
    """Figures of one rule on one set of rows; none depends on a threshold."""

    name: str
    rho: Estimate
    """Spearman's correlation of the rule's scores with the mean advantage."""
    auc: float
    """Probability that a row with gain ranks above a row without gain."""
    average_precision: float
    oracle_gain_share: Estimate
    """See :func:`arbitrage.training.replay.oracle_gain_share`."""
    oracle_gain_shares_at: Mapping[float, float]
    """The same share at single escalation rates."""
    waste_at: Mapping[float, float]
    """Share of escalations without gain, by escalation rate."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form; both shares of the oracle's gain keep their short keys."""
        return {
            "name": self.name,
            "rho": asdict(self.rho),
            "auc": self.auc,
            "average_precision": self.average_precision,
            "gain_share": asdict(self.oracle_gain_share),
            "gain_shares_at": dict(self.oracle_gain_shares_at),
            "waste_at": dict(self.waste_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterQuality:
    """Figures of a router and of the baselines on the same rows."""

    num_rows: int
    num_problems: int
    gain_rate: float
    """Share of rows whose advantage is above the margin."""
    ceiling: Estimate | None
    """Spearman's correlation of the advantages by two independent halves of the target samples. It bounds the ``rho``
    that a rule can have with one half. None with one sample."""
    router: RankingQuality
    accuracy: Mapping[int, float]
    """Share of rows that the router classifies correctly at 0.5, by label (0: no gain, 1: gain)."""
    calibration_error: float
    """Expected calibration error over ten bins of equal width (Naeini et al. 2015)."""
    baselines: Sequence[RankingQuality]
    lead: Estimate
    """The router's share of the oracle's gain minus the share of RSD's order, which ranks by -s_d."""

    def to_json(self, *, rows: str, margin: float) -> dict[str, Any]:
        """The versioned JSON form.

        Args:
            rows: The folder of the rows.
            margin: The margin of the measurement.
        """
        return {
            "schema": SCHEMA,
            "rows": rows,
            "router": self.router.to_json(),
            "margin": margin,
            "num_rows": self.num_rows,
            "num_problems": self.num_problems,
            "gain_rate": self.gain_rate,
            "ceiling": asdict(self.ceiling) if self.ceiling else None,
            "accuracy": dict(self.accuracy),
            "calibration_error": self.calibration_error,
            "baselines": [ranking.to_json() for ranking in self.baselines],
            "lead": asdict(self.lead),
        }


def measure_router_quality(
    rows: Sequence[Row], scores: Scores, *, name: str, margin: float = 0.0, seed: int = 0, resamples: int = 500
) -> RouterQuality:
    """Measure how well a router's scores order rows, and do the same for every baseline.

    Args:
        rows: Held-out rows.
        scores: The router's score of each row.
        name: The router's name.
        margin: An advantage up to this value counts as no gain.
        seed: The bootstrap's seed.
        resamples: The bootstrap's number of resamples.

    Raises:
        RowError: If all rows have a gain, or none has one.
    """
    advantage = advantages(rows)
    has_gain = (advantage > margin).astype(np.int64)
    if has_gain.min(initial=1) == has_gain.max(initial=0):
        raise RowError(
            f"eval-router needs rows with and without gain (advantage above the margin {margin:g}), "
            f"got {len(rows)} of one kind",
            hint="collect more rows, or change the margin",
        )
    samples = _resampled(rows, seed, resamples)
    rsd = baseline(rows, RSD)
    bins = reliability(scores, has_gain)
    is_right = (scores > 0.5) == has_gain

    def lead(i: Indices) -> float:
        return oracle_gain_share(advantage[i], scores[i]) - oracle_gain_share(advantage[i], rsd[i])

    return RouterQuality(
        num_rows=len(rows),
        num_problems=len({row.problem.id for row in rows}),
        gain_rate=float(has_gain.mean()),
        ceiling=_ceiling(rows, samples),
        router=_ranking_quality(name, advantage, scores, has_gain, samples),
        accuracy={label: float(is_right[has_gain == label].mean()) for label in (0, 1)},
        calibration_error=sum(count * abs(probability - rate) for probability, rate, count in bins) / len(rows),
        baselines=[_ranking_quality(rule, advantage, baseline(rows, rule), has_gain, samples) for rule in BASELINES],
        lead=_estimate(lead, samples),
    )


def reliability(scores: Scores, has_gain: Indices) -> list[tuple[float, float, int]]:
    """Compare probabilities with frequencies, in bins of equal width.

    Args:
        scores: Probabilities, shape [rows].
        has_gain: 1 for a row with gain, else 0; shape [rows].

    Returns:
        (mean probability, share of rows with gain, number of rows) of each bin that has rows.
    """
    bin_of_row = np.minimum((scores * NUM_BINS).astype(int), NUM_BINS - 1)
    members = [bin_of_row == k for k in range(NUM_BINS)]
    return [(float(scores[m].mean()), float(has_gain[m].mean()), int(m.sum())) for m in members if m.any()]


def _ranking_quality(
    name: str, advantage: Scores, scores: Scores, has_gain: Indices, samples: Sequence[Indices]
) -> RankingQuality:
    order = np.argsort(-scores, kind="stable")
    counts = {rate: max(1, round(rate * len(advantage))) for rate in RATES}
    return RankingQuality(
        name=name,
        rho=_estimate(lambda i: _rho(scores[i], advantage[i]), samples),
        auc=float(roc_auc_score(has_gain, scores)),
        average_precision=float(average_precision_score(has_gain, scores)),
        oracle_gain_share=_estimate(lambda i: oracle_gain_share(advantage[i], scores[i]), samples),
        oracle_gain_shares_at=oracle_gain_shares_at(advantage, scores, RATES),
        waste_at={rate: float((advantage[order[:k]] <= 0.0).mean()) for rate, k in counts.items()},
    )


def _ceiling(rows: Sequence[Row], samples: Sequence[Indices]) -> Estimate | None:
    half = min(len(row.targets) for row in rows) // 2
    if half == 0:
        return None
    first, second = (
        np.array([fmean(row.target_scores(part)) - row.draft_score for row in rows])
        for part in (slice(None, half), slice(half, 2 * half))
    )
    return _estimate(lambda i: _rho(first[i], second[i]), samples)


def _rho(a: Scores, b: Scores) -> float:
    if np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return 0.0  # A constant score gives no ranking, so Spearman's rho is undefined: count it as no correlation.
    return float(spearmanr(a, b).statistic)


def _resampled(rows: Sequence[Row], seed: int, resamples: int) -> list[Indices]:
    """All rows, then samples of whole problems with replacement: rows of one problem depend on one another."""
    of_problem: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        of_problem[row.problem.id].append(i)
    groups, rng = [np.array(group) for group in of_problem.values()], np.random.default_rng(seed)
    picks = rng.integers(len(groups), size=(resamples, len(groups)))
    return [np.arange(len(rows)), *(np.concatenate([groups[k] for k in pick]) for pick in picks)]


def _estimate(statistic: Callable[[Indices], float], samples: Sequence[Indices]) -> Estimate:
    """The statistic of the first sample, with the interval from all later samples."""
    value, *resampled = (statistic(sample) for sample in samples)
    low, high = np.nanquantile(resampled, (0.025, 0.975)) if resampled else (value, value)
    return Estimate(value=value, low=float(low), high=float(high))
