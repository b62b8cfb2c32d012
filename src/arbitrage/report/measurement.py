"""The parts of the page about the measurement: warnings about a run, and definitions of its figures."""

import json
from html import escape
from typing import Final

from arbitrage.evaluation.figures.summary import Summary
from arbitrage.evaluation.running.folder import Run, planned_entries
from arbitrage.report.markup import facts, note

DEFINITIONS: Final = {
    "seconds": "wall-clock time of a solution as it would be served, without calls that only measure; failed solutions "
    "are left out",
    "accuracy": "share right, mean over attempts, then over problems; failed solutions are wrong, ungraded ones left "
    "out; 95 % by Wilson, with several attempts by a bootstrap over problems",
    "wasted": "escalations whose target step the PRM scores no higher than the draft's, of those where it scored both",
    "p": "Fisher's paired randomization test over problems, exact, two-sided; McNemar's for one attempt",
    "FLOPs, cost": "estimated from parameter counts and prices that the user gave: 2 × parameters for each token that "
    "went through a model",
    "energy": "the processor's own counters during a solution, without the audit; absent where a policy itself "
    "measures; graphics cards are not included",
}
ENVIRONMENT: Final = (
    "forward_passes",
    *("started", "commit", "processor", "num_cores", "num_threads", "devices", "platform", "python", "versions"),
)
"""Fields of a session that are shown, where it has them."""


def warnings_of(run: Run) -> str:
    """Warnings about a run: unfinished, failed and ungraded solutions, and seconds under load."""
    texts = []
    if run.settings:
        planned = run.settings["problems"]["count"] * run.settings["samples"]
        solved = min(map(len, run.solutions.values()))
        waiting = [entry.label for entry in planned_entries(run.settings) if entry not in run.solutions]
        absent = f" No solution yet by {', '.join(waiting)}." if waiting else ""
        if planned > solved or absent:
            texts.append(
                f"Unfinished: {solved} of {planned} solutions of each policy exist; the figures are of these.{absent}"
            )
    for entry, solutions in run.solutions.items():
        if failed := [solution for solution in solutions if solution.is_failed]:
            texts.append(f"{entry.label}: {len(failed)} of {len(solutions)} failed, first: {failed[0].error}")
    ungraded = {s.problem for solutions in run.solutions.values() for s in solutions if s.is_correct is None}
    if ungraded:
        texts.append(f"{len(ungraded)} of {len(run.problems)} problems could not be graded; accuracies leave them out.")
    if run.jobs > 1:
        texts.append(
            "Seconds are of solutions under load, several in flight: they cannot be compared with a latency run's."
        )
    return "".join(map(note, texts))


def measurement_of(run: Run, summary: Summary) -> str:
    """Protocol, definitions, environment and settings of a run."""
    values = {"protocol": run.protocol, **DEFINITIONS, "margin": f"{summary.margin * 100:g} points"}
    latest = run.sessions[-1] if run.sessions else {}
    for name in ENVIRONMENT:
        if value := latest.get(name):
            is_nested = isinstance(value, dict)
            text = ", ".join(f"{k} {v}" for k, v in value.items()) if is_nested else str(value)
            values[name.replace("_", " ")] = text
    values |= {"sessions": str(len(run.sessions)), "run key": run.key or "none: a file of traces"}
    settings = (
        f"<details><summary>All settings</summary><pre>{escape(json.dumps(run.settings, indent=2))}</pre></details>"
    )
    return facts(values) + (settings if run.settings else "")
