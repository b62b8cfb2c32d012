"""Is a calibrated budget kept on new problems? ``python benchmarks/calibration.py TRACES BUDGET …``.

Splits the problems of a comparison in two halves at random, calibrates on one, and measures the budget's loss on the
other. Prints one JSON line for each budget.
"""

import argparse
import json
import random
from pathlib import Path
from statistics import fmean

from arbitrage.core.errors import ConfigError
from arbitrage.evaluation.calibration import ROUTER
from arbitrage.evaluation.figures.calibrate import Budget, Outcome, calibrate, outcomes_of
from arbitrage.evaluation.running.folder import read_traces


def resplit(
    outcomes: dict[float, list[Outcome]], reference: list[Outcome], budget: Budget, rng: random.Random
) -> tuple[float, float] | None:
    """Threshold chosen on one half, and mean loss on the other; None if no threshold could be promised."""
    problems = sorted({outcome.problem for outcome in reference})
    looked_at = set(rng.sample(problems, len(problems) // 2))

    def half(found: list[Outcome], is_first: bool) -> list[Outcome]:
        return [outcome for outcome in found if (outcome.problem in looked_at) == is_first]

    try:
        chosen = calibrate({t: half(found, True) for t, found in outcomes.items()}, half(reference, True), budget)
    except ConfigError:
        return None
    target = {outcome.problem: outcome for outcome in reference}
    rest = half(outcomes[chosen.threshold], False)
    return chosen.threshold, fmean(budget.loss([outcome], [target[outcome.problem]]) for outcome in rest)


def main() -> None:
    """Command line."""
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
        made = [split for split in splits if split is not None]
        record = {
            "budget": budget.name,
            "resplits": len(splits),
            "promised": len(made),
            "kept": sum(loss <= budget.loss_limit for _, loss in made),
            "thresholds": {f"{t:g}": sum(chosen == t for chosen, _ in made) for t in sorted({t for t, _ in made})},
            "mean_loss": round(fmean(loss for _, loss in made), 4) if made else None,
        }
        print(json.dumps(record))


if __name__ == "__main__":
    main()
