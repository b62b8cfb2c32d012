"""Check calibrated budgets on new problems: ``python benchmarks/calibration.py TRACES BUDGET …``.

The script splits the problems of a comparison into two random halves. It calibrates on one half and measures the loss
of the budget on the other. It prints one JSON line for each budget.
"""

import argparse
import json
import random
from collections import Counter
from pathlib import Path
from statistics import fmean

from arbitrage.core.errors import ConfigError
from arbitrage.evaluation.calibration import ROUTER
from arbitrage.evaluation.figures.calibrate import Budget, Outcome, calibrate, outcomes_of
from arbitrage.evaluation.running.folder import read_traces


def resplit(
    outcomes: dict[float, list[Outcome]], reference: list[Outcome], budget: Budget, rng: random.Random
) -> tuple[float, float] | None:
    """Calibrate on a random half of the problems, and measure on the other half.

    Args:
        outcomes: The router's outcomes by threshold.
        reference: The outcomes of target-only.
        budget: The budget to calibrate for.
        rng: Chooses the half.

    Returns:
        The chosen threshold, and the mean loss on the other half; None if no threshold keeps the budget.
    """
    problems = sorted({outcome.problem for outcome in reference})
    calibration_problems = set(rng.sample(problems, len(problems) // 2))

    def half(all_outcomes: list[Outcome], is_calibration: bool) -> list[Outcome]:
        return [outcome for outcome in all_outcomes if (outcome.problem in calibration_problems) == is_calibration]

    try:
        calibrated = calibrate(
            {threshold: half(at_threshold, True) for threshold, at_threshold in outcomes.items()},
            half(reference, True),
            budget,
        )
    except ConfigError:
        return None
    target = {outcome.problem: outcome for outcome in reference}
    test_outcomes = half(outcomes[calibrated.threshold], False)
    return calibrated.threshold, fmean(budget.loss([outcome], [target[outcome.problem]]) for outcome in test_outcomes)


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", type=Path, help="file of `arbitrage eval --policies target,router … --traces FILE`")
    parser.add_argument("budgets", nargs="+", type=Budget.parse)
    parser.add_argument("--resplits", type=int, default=100)
    arguments = parser.parse_args()
    records = ((position.entry, trace) for position, trace in read_traces(arguments.traces))
    outcomes, reference = outcomes_of(records, ROUTER)
    for budget in arguments.budgets:
        rng = random.Random(0)
        splits = [resplit(outcomes, reference, budget, rng) for _ in range(arguments.resplits)]
        calibrated = [split for split in splits if split is not None]
        counts = Counter(threshold for threshold, _ in calibrated)
        record = {
            "budget": budget.name,
            "resplits": len(splits),
            "promised": len(calibrated),
            "kept": sum(loss <= budget.loss_limit for _, loss in calibrated),
            "thresholds": {f"{threshold:g}": counts[threshold] for threshold in sorted(counts)},
            "mean_loss": round(fmean(loss for _, loss in calibrated), 4) if calibrated else None,
        }
        print(json.dumps(record))


if __name__ == "__main__":
    main()
