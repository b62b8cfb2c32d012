"""Plant wrong formulas and run the tests: ``python benchmarks/mutations.py``.

Plants one error at a time into a copy of the package, runs the unit tests of the figures against the copy, and prints
whether a test failed. Exit status 1 if an error is not caught, or if the tests fail without an error.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
TESTS: Final = tuple(
    f"tests/{name}.py"
    for name in (
        "unit/test_intervals",
        "unit/test_metrics",
        "unit/test_repair",
        "unit/test_rates",
        "unit/test_eval_run",
        "system/test_matched",
    )
)


@dataclass(frozen=True, slots=True)
class Mutation:
    """A wrong formula: its meaning, and the texts of the right and the wrong one."""

    meaning: str
    module: str
    """Name of one module below ``arbitrage/evaluation``."""
    right: str
    wrong: str

    def plant(self, package: Path) -> None:
        """Write the error.

        Raises:
            SystemExit: If the module does not hold the right formula exactly once, because this list is out of date.
        """
        (path,) = (package / "evaluation").rglob(f"{self.module}.py")
        text = path.read_text()
        if text.count(self.right) != 1:
            raise SystemExit(f"{self.module}: {self.right!r} occurs {text.count(self.right)} times, not once")
        path.write_text(text.replace(self.right, self.wrong))


MUTATIONS: Final = (
    Mutation("a tie counts as a gain", "solutions", "self.advantage <= 0.0", "self.advantage < 0.0"),
    Mutation(
        "the advantage has the wrong sign",
        "solutions",
        "self.target_score - self.draft_score",
        "self.draft_score - self.target_score",
    ),
    Mutation("accepted steps count as wasted", "solutions", "self.source is not Source.TARGET or ", ""),
    Mutation(
        "the first scorer is read instead of the auditor", "solutions", "reversed(values.values())", "values.values()"
    ),
    Mutation(
        "candidates that only measure are discarded tokens",
        "solutions",
        "if candidate is step.candidate or candidate.source not in step.decision.measured:",
        "if True:",
    ),
    Mutation("a repaired step's beginning counts twice", "solutions", "candidate.num_written", "candidate.num_tokens"),
    Mutation("tokens that the draft reused count", "solutions", "if candidate.source is Source.TARGET else 0", ""),
    Mutation(
        "discarded target tokens are lost in sums",
        "solutions",
        "self.target_discarded + other.target_discarded",
        "self.target_discarded",
    ),
    Mutation("a failure can be right", "solutions", " and trace.finish is not Finish.FAILED", ""),
    Mutation("latency includes what only measures", "solutions", "seconds=trace.latency_s", "seconds=trace.wall_s"),
    Mutation(
        "energy of what only measures is charged to the policy",
        "sweep",
        " or trace.measurement else",
        " else",
    ),
    Mutation(
        "acceptance by tokens leaves the target out",
        "metrics",
        "tokens.draft_accepted / num_tokens if num_tokens",
        "tokens.draft_accepted / (tokens.draft_accepted + tokens.draft_discarded) if num_tokens",
    ),
    Mutation(
        "speed-up upside down",
        "metrics",
        "target_s / mean_s if target_s and mean_s",
        "mean_s / target_s if target_s and mean_s",
    ),
    Mutation("failures count in the times", "metrics", "if not solution.is_failed]\n    steps", "]\n    steps"),
    Mutation("P(target better) is the waste", "metrics", "1.0 - waste.rate,", "waste.rate,"),
    Mutation("waste over accepted steps", "metrics", "waste.rate * (1.0 - acceptance)", "waste.rate * acceptance"),
    Mutation(
        "waste counts steps, not tokens",
        "metrics",
        "sum(step.num_target_tokens for step in self.audited if",
        "sum(1 for step in self.audited if",
    ),
    Mutation("the 95th percentile is the 90th", "metrics", "quantile(values, 0.95)", "quantile(values, 0.9)"),
    Mutation(
        "a model that was not called is left out of its mean",
        "metrics",
        "[seconds.get(role, 0.0) for seconds in each]",
        "[seconds[role] for seconds in each if role in seconds]",
    ),
    Mutation(
        "attempts are pooled over problems",
        "metrics",
        "problems = list(by_problem(graded).values())",
        "problems = [[solution] for solution in graded]",
    ),
    Mutation(
        "ungraded is wrong",
        "metrics",
        "graded = [solution for solution in solutions if solution.is_correct is not None]",
        "graded = list(solutions)",
    ),
    Mutation("overlapping solutions count twice", "metrics", "end - max(start, reached)", "end - start"),
    Mutation(
        "cached tokens cost operations",
        "rates",
        "(cost.num_computed + cost.num_generated)",
        "(cost.num_computed + cost.num_cached + cost.num_generated)",
    ),
    Mutation(
        "prices of prompt and answer swapped",
        "rates",
        "(cost.num_generated, self.generated)",
        "(cost.num_generated, self.prompt)",
    ),
    Mutation("a normal interval instead of Wilson's", "intervals", "(share + spread / 2) / (1 + spread)", "share"),
    Mutation("a 90 % interval", "intervals", "ordered[int(0.025 * num)]", "ordered[int(0.05 * num)]"),
    Mutation("a one-sided p-value", "intervals", "if abs(total) >= observed", "if total >= observed"),
    Mutation(
        "the p-value leaves out the observed sum", "intervals", "if abs(total) >= observed", "if abs(total) > observed"
    ),
    Mutation(
        "samples without replacement",
        "intervals",
        "rng.choices(indices, k=num) for",
        "rng.sample(indices, k=num) for",
    ),
    Mutation("a dominated threshold is on the frontier", "frontier", "accuracy > frontier[-1][1]", "True"),
    Mutation(
        "thresholds are not interpolated", "frontier", "fast + (slow - fast) * (accuracy - low) / (high - low)", "slow"
    ),
    Mutation("the margin is added", "paired", "accuracy - margin - 1e-9", "accuracy + margin - 1e-9"),
    Mutation("the slowest threshold is chosen", "matched", "matching)[-1]", "matching)[0]"),
    Mutation(
        "non-inferiority looks at the mean",
        "matched",
        "paired.lowest_gap(entry, TARGET) > -margin",
        "paired.accuracy(entry) - paired.accuracy(TARGET) > -margin",
    ),
    Mutation(
        "losses that were not observed are impossible",
        "paired",
        "Fraction(-1)]",
        "Fraction(0)]",
    ),
    Mutation(
        "thresholds are shown one by one", "matched", "shown = takewhile(lambda entry:", "shown = filter(lambda entry:"
    ),
    Mutation("draws that miss the accuracy are dropped", "matched", "        return 0.0\n", "        return 1.0\n"),
    Mutation(
        "the rival stays at the whole sample",
        "matched",
        "own, other = (paired.seconds_at(one, TARGET, margin) for one in (method, reference))",
        "own = paired.seconds_at(method, TARGET, margin)\n    other = [reference_seconds] * len(own)",
    ),
    Mutation("problems are not paired", "paired", "if all(p in of_entry for of_entry in attempts.values())", ""),
)


def is_caught(mutation: Mutation | None) -> bool:
    """Whether the tests fail on a copy of the package with this error, or without an error where it is None."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "arbitrage"
        shutil.copytree(ROOT / "src" / "arbitrage", package, ignore=shutil.ignore_patterns("weights", "__pycache__"))
        if mutation:
            mutation.plant(package)
        environment = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        command = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS)
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):  # 1: tests failed. Other statuses are errors of pytest itself.
        raise SystemExit(done.stdout + done.stderr)
    return done.returncode == 1


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="plant only errors whose meaning contains this text")
    planted = [mutation for mutation in MUTATIONS if parser.parse_args().only in mutation.meaning]
    if is_caught(None):
        raise SystemExit("the tests fail without an error")
    missed = []
    for mutation in planted:
        caught = is_caught(mutation)
        missed += [] if caught else [mutation]
        print(f"{'caught' if caught else 'MISSED'}  {mutation.module:<9}  {mutation.meaning}", flush=True)
    print(f"{len(planted) - len(missed)} of {len(planted)} caught")
    raise SystemExit(bool(missed))


if __name__ == "__main__":
    main()
