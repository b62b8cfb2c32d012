"""A process that grades: one JSON pair a line in, one verdict a line out, each within its time or the process dies.

Run as ``python -m arbitrage.grading.worker LIMIT_S``. The kernel ends a computation that overruns: a handler in Python
would run only after the current operation, which may be a huge power.
"""

import json
import logging
import signal
import sys
from typing import Final

from arbitrage.grading.symbolic import judge

WALL_PER_CPU: Final = 4.0
"""The limit counts seconds of the processor, so that a busy machine grades alike; of the clock, so many times more."""
MAX_BYTES: Final = 2 * 2**30


def main(limit_s: float) -> None:
    """Answer until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides when to stop.
    logging.disable(logging.CRITICAL)
    _limit_memory()
    answers, sys.stdout = sys.stdout, sys.stderr  # Output of a library must not be read as a verdict.
    judge("x+1", "1+x")  # Build the parser before timing starts.
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
