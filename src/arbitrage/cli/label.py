"""``arbitrage label``: rows with rollout scores in place of PRM scores."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from arbitrage.cli.collect import print_report
from arbitrage.cli.options import LIMITS, MaxTokensOption, PairOption, SeedOption
from arbitrage.cli.show import counting
from arbitrage.core.types import Limits
from arbitrage.datasets.named import check_limit
from arbitrage.policies.spec import rules
from arbitrage.training.collect import RowsReport
from arbitrage.training.label_runs import LabelOptions, LabelPlan, plan_labelling, run_labelling, ungraded_line


def label(
    rows: Annotated[Path, typer.Argument(help="Folder of rows by `arbitrage collect`, with gold answers.")],
    out: Annotated[Path, typer.Argument(help="Folder for the new rows; a stopped run continues in its folder.")],
    pair: PairOption = "tiny",
    policy: Annotated[
        str, typer.Option(help=f"Policy that writes the continuations: {', '.join(rules())}.")
    ] = "target",
    threshold: Annotated[float | None, typer.Option(help="Threshold of that policy, in [0, 1].")] = None,
    continuations: Annotated[int, typer.Option(help="Continuations from each step to the final answer.")] = 4,
    samples: Annotated[int, typer.Option(help="Number of a row's target steps to score; the others are dropped.")] = 1,
    temperature: Annotated[float, typer.Option(help="Temperature of the continuations.")] = 0.7,
    max_tokens: MaxTokensOption = LIMITS.max_tokens,
    until_boxed: Annotated[
        bool,
        typer.Option("--until-boxed", help="End a continuation behind the first step with an answer in a box."),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(help="Only the first LIMIT problems; a larger limit continues a run.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Problems in progress at a time.")] = 8,
    seed: SeedOption = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what there is to score, and what it costs.")
    ] = False,
) -> None:
    """Score rows by rollouts to the final answer.

    The new score of a step is the share of its continuations that reach the gold answer. The new rows differ from the
    old rows in their scores only. train-router, train-probe and eval-router accept them like collected rows. A run that
    was killed continues when it is started again with the same options. The cheapest scores are those of one greedy
    continuation: --continuations 1 --temperature 0 --until-boxed.
    """
    check_limit(limit)
    options = LabelOptions(
        policy=policy,
        threshold=threshold,
        num_continuations=continuations,
        num_target_samples=samples,
        temperature=temperature,
        limits=Limits(max_tokens=max_tokens, stops_at_answer=until_boxed),
        seed=seed,
    )
    plan = plan_labelling(rows, out, options, limit=limit)
    if line := ungraded_line(plan):
        typer.echo(line, err=True)
    typer.echo(_plan_line(plan), err=not dry_run)
    if dry_run:
        return
    progress = partial(counting, "carrying on")
    report = run_labelling(plan, out, options, pair=pair, max_in_flight=jobs, progress=progress)
    if report.num_continuations:
        typer.echo(_cost_line(report), err=True)
    print_report(report, out)


def _plan_line(plan: LabelPlan) -> str:
    """What there is to score, and what it costs."""
    seconds = plan.expected_s
    return (
        f"{plan.num_rows} rows of {len(plan.problems) - plan.num_done} problems to score · at most "
        f"{plan.num_continuations:,} continuations and {plan.max_tokens:,} tokens · if they are as long as the "
        f"collected solutions: {plan.expected_tokens:,.0f} tokens"
        + (f", {_duration(seconds)} at {plan.seconds_per_token:.2g} s a token" if seconds is not None else "")
    )


def _cost_line(report: RowsReport) -> str:
    """What the continuations of this run cost."""
    num_read = report.num_computed + report.num_cached
    return (
        f"{report.num_continuations:,} continuations of {report.num_generated:,} tokens · "
        f"{report.num_cached / max(1, num_read):.0%} of {num_read:,} prompt tokens from the cache"
    )


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
