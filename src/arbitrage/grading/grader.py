"""Many answers graded at once: exactly where that is enough, else by algebra in processes with time limits."""

import atexit
import json
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from typing import Final, Self

from arbitrage.core.errors import ConfigError
from arbitrage.core.trace import Trace
from arbitrage.grading.exact import Verdict, judge_exactly
from arbitrage.grading.pool import Pool

Pair = tuple[str | None, str | None]
"""An answer and the gold answer."""
Grade = Callable[[Trace], bool | None]
"""Whether a trace is right; None if it is ungraded or timed out. A :class:`Grader` is such a function."""

LIMIT_S: Final = 5.0
MAX_WORKERS: Final = 8


class Grader:
    """Grades answers and remembers the verdicts.

    The processes start at the first answer that needs algebra. Without the extra ``math`` such answers are compared as
    text, and one warning says so.

    Args:
        limit_s: Processor seconds for one answer.
        num_workers: Number of processes; 0 for one per core, at most :data:`MAX_WORKERS`.

    Raises:
        ConfigError: If a value is out of range.
    """

    def __init__(self, *, limit_s: float = LIMIT_S, num_workers: int = 0) -> None:
        if not limit_s > 0.0:
            raise ConfigError(f"limit_s must be above 0, got {limit_s}")
        if num_workers < 0:
            raise ConfigError(f"num_workers must be at least 0, got {num_workers}")
        self._verdicts: dict[Pair, Verdict] = {}
        self._is_symbolic = find_spec("math_verify") is not None
        self._has_warned = False
        self._lock = threading.Lock()
        self._pool = Pool(
            [sys.executable, "-P", "-W", "ignore", "-m", "arbitrage.grading.worker", str(limit_s)],
            num_workers or min(MAX_WORKERS, os.cpu_count() or 1),
        )

    def grade(self, pairs: Iterable[Pair]) -> list[Verdict]:
        """Grade answers; an answer that was graded before takes no time.

        Args:
            pairs: The content of the box and the gold answer; either may be None.

        Returns:
            A verdict for each pair, in order.

        Raises:
            GradingError: If no grading process can be started.
        """
        requested = list(pairs)
        with self._lock:
            undecided: dict[Pair, Verdict] = {}
            for pair in requested:
                if pair not in self._verdicts and pair not in undecided:
                    answer, gold = pair
                    verdict, is_final = (Verdict.UNGRADED, True) if gold is None else judge_exactly(answer, gold)
                    (self._verdicts if is_final else undecided)[pair] = verdict
            self._verdicts |= self._judge(undecided)
            return [self._verdicts[pair] for pair in requested]

    def _judge(self, undecided: dict[Pair, Verdict]) -> dict[Pair, Verdict]:
        if not undecided:
            return {}
        if not self._is_symbolic:
            self._warn(undecided)
            return undecided
        verdicts = self._ask(list(undecided))
        # Whether a gold answer counts must not depend on the answer. If "0" can be compared with the gold answer in
        # time, the answer is the one that hangs, and it is wrong.
        late = [pair for pair, verdict in verdicts.items() if verdict is Verdict.TIMED_OUT]
        plain = self._ask([("0", gold) for gold in dict.fromkeys(gold for _, gold in late)])
        return verdicts | {pair: Verdict.WRONG for pair in late if plain["0", pair[1]] is not Verdict.TIMED_OUT}

    def _ask(self, pairs: list[Pair]) -> dict[Pair, Verdict]:
        words = self._pool.ask([json.dumps(pair) for pair in pairs])
        return {pair: Verdict(word) if word else Verdict.TIMED_OUT for pair, word in zip(pairs, words, strict=True)}

    def _warn(self, undecided: dict[Pair, Verdict]) -> None:
        if not self._has_warned:
            answer, gold = next(iter(undecided))
            warnings.warn(
                f"symbolic grading is not installed: answers such as {answer!r} for {gold!r} are compared as text "
                "(pip install 'arbitrage-llm[math]')",
                stacklevel=5,
            )
        self._has_warned = True

    def grade_traces(self, traces: Iterable[Trace]) -> list[Verdict]:
        """Grade finished traces, all at once."""
        return self.grade((trace.answer, trace.problem.answer) for trace in traces)

    def __call__(self, trace: Trace) -> bool | None:
        """Whether a trace is right; None if it is ungraded or timed out."""
        return self.grade_traces([trace])[0].is_correct

    def close(self) -> None:
        """End the processes; the verdicts stay."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@cache
def shared() -> Grader:
    """The grader that the whole process shares; its processes end with it."""
    grader = Grader()
    atexit.register(grader.close)
    return grader


def grade(pairs: Iterable[Pair]) -> list[Verdict]:
    """Grade answers with the shared grader; see :meth:`Grader.grade`."""
    return shared().grade(pairs)


def grade_traces(traces: Iterable[Trace]) -> list[Verdict]:
    """Grade traces with the shared grader, all at once; :func:`is_correct` then answers for each without delay."""
    return shared().grade_traces(traces)


def is_correct(trace: Trace) -> bool | None:
    r"""Whether the last ``\boxed{}`` of a trace holds the gold answer.

    Returns:
        None if it is ungraded or timed out, which does not count as wrong.
    """
    return shared()(trace)


def is_same(answer: str | None, gold: str) -> bool:
    """Whether an answer equals the gold answer; None does not."""
    return grade([(answer, gold)])[0] is Verdict.CORRECT
