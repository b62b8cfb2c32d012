"""What each escalation gained: a finished solution's candidates, scored outside its latency."""

from dataclasses import replace

from arbitrage.core.errors import ArbitrageError
from arbitrage.core.ports import Scorer
from arbitrage.core.trace import Trace
from arbitrage.core.turn import History
from arbitrage.core.types import Step


async def audited(trace: Trace, auditor: Scorer) -> Trace:
    """Add a PRM's score of every candidate, tagged as measurement.

    The solution is as it was, its latency and usage included: the auditor's seconds are added to ``wall_s``, which
    holds what is measured.

    Args:
        trace: A finished solution; returned as it is where no step has two writers, since there is nothing to compare.
        auditor: The PRM, under a name of its own where the policy asks the same.

    Returns:
        The trace. Where the auditor fails, or its context is full, the steps from there on have no score, and the error
        is the trace's unless it has one.
    """
    if all(len({candidate.source for candidate in step.candidates}) < 2 for step in trace.steps):
        return trace
    history, steps, error = History(trace.problem, None), list[Step](), trace.error
    try:
        for step in trace.steps:
            steps.append(await _scored(step, auditor, history))
            await history.commit(step.candidate)
    except ArbitrageError as stopped:
        error = error or f"audit stopped at step {len(steps)}: {stopped}"
    finally:
        await history.close()
    steps += trace.steps[len(steps) :]
    made = replace(trace, steps=tuple(steps), error=error)
    spent = made.measurement.get(auditor.name)
    return replace(made, wall_s=made.wall_s + (spent.seconds if spent else 0.0))


async def _scored(step: Step, auditor: Scorer, history: History) -> Step:
    session = await history.scoring(auditor)
    scores = [replace(await session.score(candidate), sample=candidate.sample) for candidate in step.candidates]
    decision = replace(step.decision, measured=step.decision.measured | {auditor.name})
    return replace(step, decision=decision, scores=(*step.scores, *scores))
