"""How good a router is on rows it has not seen, beside rules that need none."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from arbitrage.core.errors import MissingExtra, RowError
from arbitrage.core.ports import Scorer
from arbitrage.core.turn import History, Pair
from arbitrage.core.types import Source
from arbitrage.training.replay import BASELINES, Scores, advantages, baseline, gain_share, gain_shares_at
from arbitrage.training.rows import Row

try:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.stats import spearmanr
    from sklearn.metrics import average_precision_score, roc_auc_score
except ImportError as error:
    raise MissingExtra("train") from error

Indices = NDArray[np.int64]
RATES: Final = (0.1, 0.2, 0.3, 0.5, 0.7)
"""Escalation rates that tables show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval (percentile bootstrap over problems)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Figures of one rule on one set of rows; none depends on a threshold."""

    name: str
    rho: Estimate
    """Spearman's correlation with the mean advantage."""
    auc: float
    """Probability that a row with gain is placed above one without."""
    average_precision: float
    gain_share: Estimate
    """See :func:`arbitrage.training.replay.gain_share`."""
    gain_shares_at: Mapping[float, float]
    waste_at: Mapping[float, float]
    """Share of escalations without gain, by escalation rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A router beside the baselines."""

    num_rows: int
    num_problems: int
    gain_rate: float
    """Share of rows whose advantage is above the margin."""
    ceiling: Estimate | None
    """Correlation of advantages by independent halves of the target samples, which bounds any rule's ``rho`` with
    one half; None with one sample."""
    router: Verdict
    accuracy: Mapping[int, float]
    """Share of rows that the router judges right at 0.5, by label (0: no gain, 1: gain)."""
    calibration_error: float
    """Expected calibration error over ten bins of equal width (Naeini et al. 2015)."""
    baselines: Sequence[Verdict]
    lead: Estimate
    """The router's gain share minus that of -s_d, what RSD ranks by."""


async def router_scores(router: Scorer, rows: Sequence[Row], pair: Pair | None = None) -> Scores:
    """What a router says of each row's draft step, asked as when served: step by step, with its cache.

    Args:
        router: Any scorer of draft steps.
        rows: In any order.
        pair: Whom the router asks, if it does.
    """
    scores: dict[tuple[str, int], float] = {}
    for solution in _solutions(rows):
        history = History(solution[0].problem, pair)
        try:
            for row in solution:
                for past in row.history[len(history.chosen) :]:
                    await history.commit(past.as_candidate())
                session = await history.scoring(router)
                score = await session.score(row.draft.as_candidate(Source.DRAFT))
                scores[row.problem.id, row.step] = score.value
        finally:
            await history.close()
    return np.array([scores[row.problem.id, row.step] for row in rows])


def _solutions(rows: Sequence[Row]) -> list[list[Row]]:
    by_problem: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_problem[row.problem.id].append(row)
    return [sorted(solution, key=lambda row: row.step) for solution in by_problem.values()]


def judge(
    rows: Sequence[Row], scores: Scores, *, name: str, margin: float = 0.0, seed: int = 0, resamples: int = 500
) -> Judgement:
    """Judge a router's scores of rows.

    Args:
        rows: Held-out rows.
        scores: The router's, one for each row.
        name: The router's.
        margin: Advantages up to this are no gain.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.

    Raises:
        RowError: If all rows are of one class.
    """
    gains = (advantages(rows) > margin).astype(np.int64)
    if gains.min(initial=1) == gains.max(initial=0):
        raise RowError(
            f"a judgement needs rows with and without gain, got {len(rows)} of one kind", hint="collect more"
        )
    gain, samples = advantages(rows), _resampled(rows, seed, resamples)
    rsd = baseline(rows, next(iter(BASELINES)))
    bins = reliability(scores, gains)
    right = (scores > 0.5) == gains
    return Judgement(
        num_rows=len(rows),
        num_problems=len({row.problem.id for row in rows}),
        gain_rate=float(gains.mean()),
        ceiling=_ceiling(rows, samples),
        router=_verdict(name, gain, scores, gains, samples),
        accuracy={label: float(right[gains == label].mean()) for label in (0, 1)},
        calibration_error=sum(count * abs(said - shown) for said, shown, count in bins) / len(rows),
        baselines=[_verdict(other, gain, baseline(rows, other), gains, samples) for other in BASELINES],
        lead=_estimate(lambda i: gain_share(gain[i], scores[i]) - gain_share(gain[i], rsd[i]), samples),
    )


def reliability(scores: Scores, gains: Indices, num_bins: int = 10) -> list[tuple[float, float, int]]:
    """(mean probability, share with gain, rows) of each bin of equal width that is not empty."""
    which = np.minimum((scores * num_bins).astype(int), num_bins - 1)
    members = [which == k for k in range(num_bins)]
    return [(float(scores[m].mean()), float(gains[m].mean()), int(m.sum())) for m in members if m.any()]


def _verdict(name: str, gain: Scores, scores: Scores, gains: Indices, samples: Sequence[Indices]) -> Verdict:
    order = np.argsort(-scores, kind="stable")
    counts = {rate: max(1, round(rate * len(gain))) for rate in RATES}
    return Verdict(
        name=name,
        rho=_estimate(lambda i: _rho(scores[i], gain[i]), samples),
        auc=float(roc_auc_score(gains, scores)),
        average_precision=float(average_precision_score(gains, scores)),
        gain_share=_estimate(lambda i: gain_share(gain[i], scores[i]), samples),
        gain_shares_at=gain_shares_at(gain, scores, RATES),
        waste_at={rate: float((gain[order[:k]] <= 0.0).mean()) for rate, k in counts.items()},
    )


def _ceiling(rows: Sequence[Row], samples: Sequence[Indices]) -> Estimate | None:
    half = min(len(row.targets) for row in rows) // 2
    if half == 0:
        return None
    first, second = (
        np.array([fmean(s.score for s in row.targets[part]) - row.draft.score for row in rows])
        for part in (slice(None, half), slice(half, 2 * half))
    )
    return _estimate(lambda i: _rho(first[i], second[i]), samples)


def _rho(a: Scores, b: Scores) -> float:
    if np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return 0.0  # What does not vary orders nothing.
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
    value, *others = (statistic(sample) for sample in samples)
    low, high = np.nanquantile(others, (0.025, 0.975)) if others else (value, value)
    return Estimate(value=value, low=float(low), high=float(high))
