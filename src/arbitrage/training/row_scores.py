"""Score logged draft steps with a router or any other scorer, as in serving."""

from collections.abc import Sequence

from arbitrage.core.errors import MissingExtra
from arbitrage.core.ports import Scorer
from arbitrage.core.turn import History, Pair
from arbitrage.core.types import Source
from arbitrage.training.replay import Scores
from arbitrage.training.rows import Row, by_problem

try:
    import numpy as np
except ImportError as error:
    raise MissingExtra("train") from error


async def score_rows(scorer: Scorer, rows: Sequence[Row], pair: Pair | None = None) -> Scores:
    """Score each row's draft step as in serving: step by step, with the scorer's cache.

    Args:
        scorer: Any scorer of draft steps, such as a router.
        rows: Rows in any order.
        pair: The models that the scorer reads; None for a scorer that reads none.

    Returns:
        One score for each row, in the order of the rows; shape [rows].
    """
    scores: dict[tuple[str, int], float] = {}
    for solution in _solutions(rows):
        history = History(solution[0].problem, pair)
        try:
            for row in solution:
                for past in row.history[len(history.chosen) :]:
                    await history.commit(past.as_candidate())
                session = await history.scoring(scorer)
                score = await session.score(row.draft.as_candidate(Source.DRAFT))
                scores[row.problem.id, row.step] = score.value
        finally:
            await history.close()
    return np.array([scores[row.problem.id, row.step] for row in rows])


def _solutions(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows by problem, each problem's in the order of the steps."""
    return [sorted(solution, key=lambda row: row.step) for solution in by_problem(rows).values()]
