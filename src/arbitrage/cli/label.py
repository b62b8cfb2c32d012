"""``arbitrage label``: rows with rollout scores in place of PRM scores."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from arbitrage.cli.collect import print_report
from arbitrage.cli.options import PairOption, SeedOption
from arbitrage.cli.show import counting
from arbitrage.datasets.named import check_limit
from arbitrage.policies.spec import rules
from arbitrage.training.row_runs import LabelOptions, run_labelling


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
    limit: Annotated[
        int | None, typer.Option(help="Only the first LIMIT problems; a larger limit continues a run.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Problems in progress at a time.")] = 8,
    seed: SeedOption = 0,
) -> None:
    """Score rows by rollouts to the final answer.

    The new score of a step is the share of its continuations that reach the gold answer. The new rows differ from the
    old rows in their scores only. train-router, train-probe and eval-router accept them like collected rows. A run that
    was killed continues when it is started again with the same options.
    """
    check_limit(limit)
    options = LabelOptions(
        policy=policy,
        threshold=threshold,
        num_continuations=continuations,
        num_target_samples=samples,
        temperature=temperature,
        seed=seed,
    )
    progress = partial(counting, "carrying on")
    report = run_labelling(rows, out, options, pair=pair, limit=limit, max_in_flight=jobs, progress=progress)
    print_report(report, out)
