"""The loop of step-level speculation, on one screen."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from arbitrage.core.errors import ArbitrageError, ContextOverflow
from arbitrage.core.policy import Policy
from arbitrage.core.trace import Trace
from arbitrage.core.turn import History, OnText, Pair, Setting, Turn
from arbitrage.core.types import Candidate, Finish, Problem


async def solve(
    problem: Problem,
    pair: Pair,
    policy: Policy,
    setting: Setting | None = None,
    *,
    start: Sequence[Candidate] = (),
    watch: Callable[[Trace], None] = lambda trace: None,
    on_text: OnText | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Trace:
    """Solve one problem: each step is written by the model that the policy chooses.

    Args:
        problem: The problem.
        pair: Draft and target.
        policy: The rule that decides, step by step, whose text to keep.
        setting: Limits, sampling and seeds; defaults to greedy decoding.
        start: Steps that exist already; the trace begins behind them, and limits count from there.
        watch: Called with the trace so far after every step, and with the final one, also when cancelled.
        on_text: Gets the text of a step while it is written, where it is sure to be kept; ``watch`` gets every step.
        clock: Returns seconds; tests replace it.

    Returns:
        The trace. A failing engine or scorer ends it as ``FAILED``, a context that is full behind the first step as
        ``TOKEN_LIMIT``; both with the error, the steps so far kept.

    Raises:
        asyncio.CancelledError: If cancelled, after the engines are at rest.
    """
    history = History(problem, pair, start)
    try:
        return await finish(history, policy, setting or Setting(), watch=watch, on_text=on_text, clock=clock)
    finally:
        await history.close()


async def finish(
    history: History,
    policy: Policy,
    setting: Setting,
    *,
    watch: Callable[[Trace], None] = lambda trace: None,
    on_text: OnText | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Trace:
    """Write the rest of a solution; its sessions stay open, to go back and continue in another way.

    Args:
        history: The steps that exist already.
        policy: As for :func:`solve`.
        setting: As for :func:`solve`.
        watch: As for :func:`solve`.
        on_text: As for :func:`solve`.
        clock: As for :func:`solve`.

    Returns:
        As for :func:`solve`: only the steps behind those that existed.

    Raises:
        asyncio.CancelledError: If cancelled, after the engines are at rest.
    """
    limits, started = setting.limits, clock()
    trace = Trace(problem=history.problem, policy=policy.name)
    turn = None
    try:
        while trace.finish is None:
            budget = min(limits.max_step_tokens, limits.max_tokens - trace.num_tokens)
            turn = Turn(history, setting, budget, on_text)
            decision = await policy.decide(turn)
            step = await turn.keep(decision)
            trace = trace.extend(step, limits, clock() - started)
            watch(trace)
    except ArbitrageError as error:
        is_full = isinstance(error, ContextOverflow) and history.chosen
        ending = Finish.TOKEN_LIMIT if is_full else Finish.FAILED
        trace = replace(trace, finish=ending, error=str(error), wall_s=clock() - started)
        watch(trace)
    except asyncio.CancelledError:
        watch(replace(trace, finish=Finish.CANCELLED, wall_s=clock() - started))
        raise
    finally:
        if turn is not None:
            await turn.abandon()
    return trace
