"""The short run of `arbitrage advise`: draft and target alone, and how likely the target finds each step."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from statistics import fmean
from typing import Final

from arbitrage.bench.advice import LIKELIHOOD, NO_SCORER
from arbitrage.core.errors import ConfigError, ContextOverflow
from arbitrage.core.trace import Trace
from arbitrage.core.turn import History, Pair, Setting
from arbitrage.core.types import Problem
from arbitrage.estimation.gap import DraftedStep, Gap, Outcome
from arbitrage.evaluation.running.entry import TARGET, Entry
from arbitrage.evaluation.running.execute import Execution, Progress
from arbitrage.evaluation.running.plan import Plan, solvers_of
from arbitrage.evaluation.running.solutions import graded
from arbitrage.pairs.blocking import run
from arbitrage.pairs.loaded import LoadedPair
from arbitrage.policies.spec import MethodSpec
from arbitrage.scorers.likelihood import LikelihoodScorer

DRAFT: Final = Entry(MethodSpec("draft"))
Reading = Callable[[int], AbstractContextManager[Callable[[], None]]]
"""Shows the progress of reading solutions: it gets their number, and yields a function to call after each."""


def measure_gap(
    loaded: LoadedPair,
    problems: Sequence[Problem],
    setting: Setting,
    *,
    solving: Progress,
    reading: Reading,
) -> Gap:
    """Solve problems by each model alone, and have the target read the draft's steps where its engine can.

    Args:
        loaded: The pair.
        problems: With gold answers.
        setting: Limits, sampling and seed.
        solving: Shows the progress of solutions.
        reading: Shows the progress of reading.

    Raises:
        ConfigError: If no problem can be graded, or the draft wrote no step.
    """
    plan = Plan(problems=problems, entries=[DRAFT, TARGET], setting=setting)
    traces = Execution(plan=plan, methods=solvers_of(loaded, plan), progress=solving).in_memory()
    solutions = graded(traces)
    by_target = {solution.problem: solution.is_correct for solution in solutions[TARGET]}
    is_read = reads_likelihood(loaded)
    outcomes = []
    with reading(len(problems)) as advance:
        for trace, solution in zip(traces[DRAFT], solutions[DRAFT], strict=True):
            target_right = by_target[solution.problem]
            if solution.is_correct is not None and target_right is not None:
                steps = run(draft_steps(trace, loaded.pair, is_read=is_read))
                outcomes.append(
                    Outcome(
                        problem=solution.problem,
                        draft_right=solution.is_correct,
                        target_right=target_right,
                        steps=steps,
                    )
                )
            advance()
    if not any(one.steps for one in outcomes):
        raise ConfigError(
            f"none of {len(problems)} problems has a gold answer that can be read and a step of the draft",
            hint="name a dataset with answers, and check the draft with `arbitrage solve`",
        )
    return Gap(outcomes, seed=setting.seed)


def reads_likelihood(loaded: LoadedPair) -> bool:
    """Whether the target's engine gives the likelihood of a step; some servers do not."""
    try:
        loaded.method(LIKELIHOOD)
    except ConfigError:
        return False
    return True


async def draft_steps(trace: Trace, pair: Pair, *, is_read: bool) -> list[DraftedStep]:
    """The steps of a draft's solution with the doubt of each rule.

    Args:
        trace: Of the draft alone.
        pair: The engines.
        is_read: Whether the target reads each step; one that does not fit its context has the greatest doubt.
    """
    history, scorer, steps = History(trace.problem, pair), LikelihoodScorer(), []
    try:
        for step in trace.steps:
            candidate, doubt = step.candidate, dict[str, float]()
            if candidate.logprobs is not None:
                doubt[NO_SCORER] = 1.0 - math.exp(fmean(candidate.logprobs or (0.0,)))
            if is_read:
                try:
                    doubt[LIKELIHOOD] = (await (await history.scoring(scorer)).score(candidate)).value
                except ContextOverflow:
                    doubt[LIKELIHOOD] = 1.0
            await history.commit(candidate)
            steps.append(DraftedStep(num_tokens=candidate.num_tokens, doubt=doubt))
    finally:
        await history.close()
    return steps
