"""The audit: the PRM scores every candidate of a finished solution, outside the measured latency."""

from dataclasses import replace

from arbitrage.core.errors import ArbitrageError
from arbitrage.core.ports import Scorer
from arbitrage.core.trace import Trace
from arbitrage.core.turn import History
from arbitrage.core.types import Finish, Step


async def audited(trace: Trace, auditor: Scorer) -> Trace:
    """Add the auditor's score of every whole candidate, tagged as measurement.

    The solution stays the same, its latency and usage included. The auditor's seconds are added to ``wall_s``, which
    includes measurement.

    Args:
        trace: A finished solution. If no step has candidates of both models, there is nothing to compare, and it is
            returned unchanged.
        auditor: The PRM, under a name that differs from that of the PRM in the policy.

    Returns:
        The trace with scores. If the auditor fails or its context is full, the remaining steps have no score, and the
        trace's error says so unless it has an error already.
    """
    if all(len({candidate.source for candidate in step.candidates}) < 2 for step in trace.steps):
        return trace
    history, steps, error = History(trace.problem, None), list[Step](), trace.error
    try:
        for step in trace.steps:
            steps.append(await _scored(step, auditor, history))
            await history.commit(step.candidate)
    except ArbitrageError as failure:
        error = error or f"audit stopped at step {len(steps)}: {failure}"
    finally:
        await history.close()
    steps += trace.steps[len(steps) :]
    scored = replace(trace, steps=tuple(steps), error=error)
    cost = scored.measurement.get(auditor.name)
    return replace(scored, wall_s=scored.wall_s + (cost.seconds if cost else 0.0))


async def _scored(step: Step, auditor: Scorer, history: History) -> Step:
    session = await history.scoring(auditor)
    whole = [candidate for candidate in step.candidates if candidate.finish is not Finish.GIVEN_UP]
    scores = [replace(await session.score(candidate), sample=candidate.sample) for candidate in whole]
    decision = replace(step.decision, measured=step.decision.measured | {auditor.name})
    return replace(step, decision=decision, scores=(*step.scores, *scores))
