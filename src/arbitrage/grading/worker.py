"""A process that grades: it reads a JSON pair from each line and prints a verdict, or dies at its time limit.

Run as ``python -m arbitrage.grading.worker LIMIT_S``. The kernel ends a computation that takes too long. A signal
handler in Python would not run before the end of a long operation on integers, such as a power of a power of a power.
"""

import json
import logging
import signal
import sys
from typing import Final

from arbitrage.grading.symbolic import judge

WALL_PER_CPU: Final = 4.0
"""The limit is in processor seconds, so that a busy machine gives the same verdicts; on the clock it is so many times
longer."""
MAX_BYTES: Final = 2 * 2**30
"""Address space of the process."""


def main(limit_s: float) -> None:
    """Answer lines until standard input ends.

    Args:
        limit_s: Processor seconds for one line.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides when to stop.
    logging.disable(logging.CRITICAL)
    _limit_memory()
    answers, sys.stdout = sys.stdout, sys.stderr  # Text that a library prints must not be taken for a verdict.
    judge("x+1", "1+x")  # The first call builds tables; they must not count towards the time of an answer.
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        _set_timer(limit_s)
        verdict = judge(*json.loads(line))
        _set_timer(0.0)
        print(verdict, file=answers, flush=True)


def _set_timer(seconds: float) -> None:
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, WALL_PER_CPU * seconds)


def _limit_memory() -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))


if __name__ == "__main__":
    main(float(sys.argv[1]))
