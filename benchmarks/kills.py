"""Kill a collection and a training at random moments: ``python benchmarks/kills.py OUT --kills 10``.

Each command runs once undisturbed. Then it runs again and is killed ``--kills`` times before it can finish. The script
prints the number of rows that were lost, doubled or different, and whether the weights are equal, bit for bit.
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
    """Start a public command in a new process, without output."""
    command = [sys.executable, "-m", "arbitrage", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(arguments: tuple[str | Path, ...]) -> None:
    """Run a command until it ends."""
    process = start(arguments)
    if process.wait():
        raise SystemExit(f"exit status {process.returncode}: {arguments}")


def disturb(arguments: tuple[str | Path, ...], kills: int, rng: random.Random, seconds: tuple[float, float]) -> int:
    """Kill a command several times, then let it finish.

    Args:
        arguments: The command.
        kills: The number of kills.
        rng: Chooses the moments.
        seconds: The shortest and the longest time before a kill.

    Returns:
        The number of kills; fewer than ``kills`` if the command finished earlier.
    """
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
    """All values of each row that a seed determines."""
    return Counter(
        (row.problem.id, row.step, row.history, row.kept, row.draft.text, tuple(sample.text for sample in row.targets))
        for row in read_rows(folder)
    )


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=10, help="kills of each command")
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, out = random.Random(arguments.seed), arguments.out

    options = ("--limit", str(arguments.problems), "--samples", "2", "--keep-draft", "0.3")
    finish(("collect", out / "rows", *options))
    kills = disturb(("collect", out / "killed-rows", *options), arguments.kills, rng, (4.0, 14.0))
    undisturbed, resumed = rows_in(out / "rows"), rows_in(out / "killed-rows")
    doubled = sum(count - 1 for count in resumed.values())
    lost = (undisturbed - resumed).total()
    figures = {"rows": undisturbed.total(), "lost or different": lost, "doubled": doubled}
    print(json.dumps({"collect": {"kills": kills, **figures}}), flush=True)

    finish(("train-router", out / "rows", out / "router", *TRAIN))
    kills = disturb(("train-router", out / "rows", out / "killed-router", *TRAIN), arguments.kills, rng, (8.0, 24.0))
    weights = [(out / name / "model.safetensors").read_bytes() for name in ("router", "killed-router")]
    print(json.dumps({"train": {"kills": kills, "same weights": weights[0] == weights[1]}}))


if __name__ == "__main__":
    main()
