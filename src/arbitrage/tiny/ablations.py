"""The paper's router ablations on the tiny pair: ``python -m arbitrage.tiny.ablations OUT``.

Every figure comes from the public commands on the shipped pair. Rows are collected once. Each variant is trained with
several seeds and evaluated on rows of other problems. The routers of the first seeds also solve problems, beside
target-only. Each result is stored, so a killed run continues where it stopped. ``--table`` prints the stored results as
Markdown.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

from arbitrage.runtime.store import write_json
from arbitrage.tiny import WEIGHTS
from arbitrage.tiny.commands import arbitrage, write_pair

SMALL: Final = ("--learning-rate", "3e-4", "--batch-size", "32", "--device-batch-size", "8", "--epochs", "2", "--bf16")
"""Training options for a router of this size; the paper's values are for 1.5 billion weights."""
MARGIN: Final = "0.2"
THRESHOLDS: Final = "0.05,0.2,0.4,0.7"
SPEEDUP: Final = 1.5
"""Accuracies are compared at this speed-up over target-only."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to train a router, as options of the public commands."""

    options: tuple[str, ...] = ()
    rows: str = "first"
    command: str = "train-router"


VARIANTS: Final[Mapping[str, Variant]] = {
    "base: 2 classes, marks, downsampled, 4 samples, PRM start": Variant(),
    "4 classes": Variant(("--labels", "classes-4")),
    "10 classes": Variant(("--labels", "classes-10")),
    "4 ordered bins": Variant(("--labels", "ordinal-4")),
    "10 ordered bins": Variant(("--labels", "ordinal-10")),
    "regression": Variant(("--labels", "regression")),
    "no marks": Variant(("--marks", "", "")),
    "not balanced": Variant(("--balance", "none")),
    "class weights": Variant(("--balance", "weights")),
    "1 target sample": Variant(("--samples", "1")),
    "start from the target": Variant(("--start", str(WEIGHTS / "target"))),
    "from scratch": Variant(("--from-scratch",)),
    "labels by rollouts": Variant(rows="rollouts"),
    "second round": Variant(rows="second"),
    "margin 0.05": Variant(("--margin", "0.05")),
    "probe on the draft's log-probabilities": Variant(("--inputs", "confidence"), command="train-probe"),
    "probe on its hidden state too": Variant(("--inputs", "state"), command="train-probe"),
    "probe on both models' likelihoods": Variant(("--inputs", "likelihoods"), command="train-probe"),
    "the same, labels by rollouts": Variant(("--inputs", "likelihoods"), rows="rollouts", command="train-probe"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A folder with rows, routers and results."""

    folder: Path
    num_problems: int
    """The number of problems of the training rows."""
    num_test_problems: int
    """The number of problems of the test rows, and of the problems to solve."""

    def last_line(self, *arguments: str | Path) -> dict[str, Any]:
        """Run a command; returns the JSON line at the end of its output."""
        record: dict[str, Any] = json.loads(arbitrage(*arguments, "--json").splitlines()[-1])
        return record

    def rows(self, name: str) -> Path:
        """A folder of rows; missing rows are collected first."""
        folder = self.folder / "rows" / name
        collect = ("collect", folder, "--hidden-states", "--keep-draft", "0.3", "--limit")
        if name == "first":
            arbitrage(*collect, str(self.num_problems))
        elif name == "test":
            arbitrage(*collect, str(self.num_test_problems), "--dataset", "tiny:validation:15")
        elif name == "second":
            router = self.router(next(iter(VARIANTS)), seed=0)
            on_policy = ("--behaviour", "router", "--threshold", "0.3", "--pair", self.pair(router))
            arbitrage(*collect, str(self.num_problems), "--dataset", "tiny:train:10", *on_policy)
        else:
            arbitrage("label", self.rows("first"), folder, "--continuations", "2")
        return folder

    def router(self, name: str, seed: int) -> Path:
        """A router's folder; the router is trained first if it is missing."""
        variant = VARIANTS[name]
        folder = self.folder / "routers" / f"{list(VARIANTS).index(name):02d}-{seed}"
        size = SMALL if variant.command == "train-router" else ()
        options = (*size, "--margin", MARGIN, *variant.options, "--seed", str(seed))
        arbitrage(variant.command, self.rows(variant.rows), folder, *options)
        return folder

    def pair(self, router: Path) -> Path:
        """A configuration of the shipped pair with another router."""
        models = {role: WEIGHTS / role for role in ("draft", "target", "prm")} | {"router": router}
        return write_pair(self.folder / "pairs" / f"{router.name}.toml", models)

    def evaluated(self, name: str, seed: int) -> dict[str, Any]:
        """Figures of one router on rows; measured first if they are not stored."""

        def measure() -> dict[str, Any]:
            options = ("--all-rows", "--margin", MARGIN)
            record = self.last_line("eval-router", self.rows("test"), self.router(name, seed), *options)
            return {
                "rho": record["router"]["rho"]["value"],
                "ceiling": record["ceiling"]["value"],
                "auc": record["router"]["auc"],
                "gain_share": record["router"]["gain_share"]["value"],
            }

        return self._stored("judged", name, seed, measure)

    def solved(self, name: str, seed: int) -> dict[str, Any]:
        """Accuracy and times of one router beside target-only; measured first if they are not stored."""

        def measure() -> dict[str, Any]:
            options = ("--policies", "target,router", "--thresholds", THRESHOLDS, "--dataset", "tiny:validation:6")
            limit = ("--limit", str(self.num_test_problems), "--seed", str(seed))
            record = self.last_line("eval", "--pair", self.pair(self.router(name, seed)), *options, *limit)
            target, *routed = record["rows"]
            return {"target_accuracy": target["accuracy"], "accuracy": accuracy_at(routed, SPEEDUP), "rows": routed}

        return self._stored("solved", name, seed, measure)

    def _stored(self, stage: str, name: str, seed: int, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        path = self.folder / stage / f"{list(VARIANTS).index(name):02d}-{seed}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"variant": name, "seed": seed, **measure()})
        record: dict[str, Any] = json.loads(path.read_text())
        return record

    def stored(self) -> Iterator[dict[str, Any]]:
        """All stored figures, one record for each variant and seed."""
        for path in sorted((self.folder / "judged").glob("*.json")):
            solved = self.folder / "solved" / path.name
            yield json.loads(path.read_text()) | (json.loads(solved.read_text()) if solved.exists() else {})


def accuracy_at(rows: Sequence[Mapping[str, Any]], speedup: float) -> float | None:
    """The accuracy of a router that is ``speedup`` times as fast as target-only, interpolated between its thresholds.

    Args:
        rows: Speed-up and accuracy of the router at each threshold.
        speedup: The speed-up over target-only.

    Returns:
        None if no two thresholds enclose the speed-up.
    """
    points = sorted((row["speedup_vs_target"], row["accuracy"]) for row in rows)
    for (slow, slow_accuracy), (fast, fast_accuracy) in pairwise(points):
        if slow <= speedup <= fast:
            share = (speedup - slow) / (fast - slow) if fast > slow else 0.0
            return float(slow_accuracy + share * (fast_accuracy - slow_accuracy))
    return None


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Mean and standard deviation over seeds, as Markdown."""
    lines = [
        f"| variant | seeds | rho | AUC | gain share | accuracy at {SPEEDUP}× |",
        "|---|---|---|---|---|---|",
    ]
    for name in VARIANTS:
        of_variant = [result for result in results if result["variant"] == name]
        if of_variant:
            cells = [_mean(of_variant, figure) for figure in ("rho", "auc", "gain_share", "accuracy")]
            lines.append(" | ".join([f"| {name}", str(len(of_variant)), *cells]) + " |")
    return "\n".join(lines)


def _mean(results: Sequence[Mapping[str, Any]], figure: str) -> str:
    measured = [result[figure] for result in results if figure in result]
    values = [value for value in measured if value is not None]
    if not values:
        return "not reached" if measured else "–"
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    missing = f" ({len(values)} of {len(measured)})" if len(values) < len(measured) else ""
    return f"{fmean(values):.3f}{spread}{missing}"


def main() -> None:
    """Command line of the ablations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for rows, routers and results")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--solving-seeds", type=int, default=1, help="number of seeds whose routers also solve problems; slow"
    )
    parser.add_argument("--problems", type=int, default=400, help="problems to collect rows from")
    parser.add_argument("--test-problems", type=int, default=240)
    parser.add_argument("--only", default="", help="only variants whose name contains this text")
    parser.add_argument("--table", action="store_true", help="print the stored results, and run nothing")
    arguments = parser.parse_args()
    run = Run(folder=arguments.out, num_problems=arguments.problems, num_test_problems=arguments.test_problems)
    if not arguments.table:
        names = [name for name in VARIANTS if arguments.only in name]
        for measure, num_seeds in ((run.evaluated, arguments.seeds), (run.solved, arguments.solving_seeds)):
            for seed in range(num_seeds):
                for name in names:
                    figures = measure(name, seed)
                    print(json.dumps({key: value for key, value in figures.items() if key != "rows"}), flush=True)
    print(table(list(run.stored())))


if __name__ == "__main__":
    main()
