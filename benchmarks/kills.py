"""Kill a collection and a training at random moments: ``python benchmarks/kills.py OUT --kills 10``.

Each runs once undisturbed, and once killed so many times before it may finish. Prints how many rows were lost, doubled
or different, and whether the weights are the same, bit for bit.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

from arbitrage.training.rows import read_rows

TRAIN: Final = ("--epochs", "6", "--learning-rate", "3e-4", "--batch-size", "16", "--save-steps", "4")


def start(arguments: tuple[str | Path, ...]) -> "subprocess.Popen[bytes]":
    """A public command in a process of its own; its progress goes nowhere."""
    command = [sys.executable, "-m", "arbitrage", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(arguments: tuple[str | Path, ...]) -> None:
    """Run a command to its end."""
    process = start(arguments)
    if process.wait():
        raise SystemExit(f"exit status {process.returncode}: {arguments}")


def disturb(arguments: tuple[str | Path, ...], kills: int, rng: random.Random, seconds: tuple[float, float]) -> int:
    """Kill a command so many times, then let it finish; fewer if it finishes before."""
    for count in range(kills):
        process = start(arguments)
        try:
            process.wait(rng.uniform(*seconds))
            return count
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    finish(arguments)
    return kills


def rows_in(folder: Path) -> Counter[tuple[object, ...]]:
    """All that a seed determines of each row."""
    return Counter(
        (row.problem.id, row.step, row.history, row.kept, row.draft.text, tuple(sample.text for sample in row.targets))
        for row in read_rows(folder)
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=10, help="of each command")
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, out = random.Random(arguments.seed), arguments.out

    options = ("--limit", str(arguments.problems), "--samples", "2", "--keep-draft", "0.3")
    finish(("collect", out / "rows", *options))
    kills = disturb(("collect", out / "killed-rows", *options), arguments.kills, rng, (4.0, 14.0))
    whole, parts = rows_in(out / "rows"), rows_in(out / "killed-rows")
    doubled = sum(count - 1 for count in parts.values())
    figures = {"rows": whole.total(), "lost or different": (whole - parts).total(), "doubled": doubled}
    print(json.dumps({"collect": {"kills": kills, **figures}}), flush=True)

    finish(("train-router", out / "rows", out / "router", *TRAIN))
    kills = disturb(("train-router", out / "rows", out / "killed-router", *TRAIN), arguments.kills, rng, (8.0, 24.0))
    weights = [(out / name / "model.safetensors").read_bytes() for name in ("router", "killed-router")]
    print(json.dumps({"train": {"kills": kills, "same weights": weights[0] == weights[1]}}))


if __name__ == "__main__":
    main()
