"""Do two runs hold the same solutions? ``python benchmarks/same_results.py RUN RUN [--tolerance 0]``.

Compares the solutions of two run folders of ``arbitrage eval`` that both have finished: texts, token ids, decisions and
finishes must be equal, scores and log-probabilities up to the tolerance. Prints one JSON line; exit status 1 if any
solution differs.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from arbitrage.runtime.store import read_records

Key = tuple[Any, ...]


def solutions(folder: Path) -> dict[Key, dict[str, Any]]:
    """Traces by entry, threshold, attempt and problem."""
    return {
        (trace["entry"], trace["threshold"], trace["attempt"], trace["problem"]["id"]): trace
        for _, trace in read_records(folder / "traces.jsonl")
    }


def facts(trace: dict[str, Any]) -> tuple[Any, list[float]]:
    """Everything of a solution that must be equal, and the numbers that may be rounded."""
    equal: list[Any] = [trace["finish"], trace["error"]]
    numbers: list[float] = []
    for step in trace["steps"]:
        equal.append((step["kept"], step["finish"], step["decision"]["source"]))
        numbers.append(step["decision"]["score"])
        for candidate in step["candidates"]:
            equal.append((candidate["source"], candidate["text"], candidate["token_ids"], candidate["finish"]))
            numbers += candidate["logprobs"] or []
        for score in step["scores"]:
            equal.append((score["scorer"], score["source"]))
            numbers.append(score["value"])
    return equal, [number for number in numbers if number is not None]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs=2)
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="greatest difference of a score or log-probability"
    )
    arguments = parser.parse_args()
    first, second = map(solutions, arguments.runs)
    both = sorted(first.keys() & second.keys(), key=str)
    differing, greatest = [], 0.0
    for key in both:
        (equal, numbers), (other_equal, others) = facts(first[key]), facts(second[key])
        is_same = equal == other_equal and len(numbers) == len(others)
        if is_same:
            greatest = max([greatest, *(abs(a - b) for a, b in zip(numbers, others, strict=True))])
            is_same = all(
                math.isclose(a, b, rel_tol=0.0, abs_tol=arguments.tolerance)
                for a, b in zip(numbers, others, strict=True)
            )
        if not is_same:
            differing.append(key)
    print(
        json.dumps(
            {
                "solutions": len(both),
                "differ": len(differing),
                "greatest_difference": greatest,
                "first_that_differ": differing[:5],
            }
        )
    )
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
