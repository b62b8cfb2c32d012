"""``arbitrage collect``: training rows for a router."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from arbitrage.cli.options import (
    LIMITS,
    DatasetOption,
    FieldsOption,
    MaxStepsOption,
    MaxTokensOption,
    PairOption,
    SeedOption,
)
from arbitrage.cli.show import counting
from arbitrage.core.types import Limits
from arbitrage.datasets.named import problems
from arbitrage.pairs.catalogue import pair_config
from arbitrage.policies.spec import rules
from arbitrage.training.collect import RowsReport
from arbitrage.training.parquet import write_parquet
from arbitrage.training.row_runs import CollectOptions, run_collection
from arbitrage.training.rows import read_rows


def collect(
    out: Annotated[Path, typer.Argument(help="Folder for the rows; a stopped run continues in its folder.")],
    pair: PairOption = "tiny",
    dataset: DatasetOption = "tiny:train:9",
    fields: FieldsOption = "",
    limit: Annotated[
        int | None, typer.Option(help="Only the first LIMIT problems; a larger limit continues a run.")
    ] = None,
    stratify: Annotated[str, typer.Option(help="Take equal shares of a field's values, such as level.")] = "",
    samples: Annotated[int, typer.Option(help="Target steps from every prefix.")] = 4,
    temperature: Annotated[float, typer.Option(help="Temperature of the target's samples; the draft is greedy.")] = 0.7,
    behaviour: Annotated[
        str,
        typer.Option(
            help="Policy that chooses the step with which a solution continues: "
            f"{', '.join(rules())} (oracle: the better step). Empty: oracle, and random without a PRM."
        ),
    ] = "",
    threshold: Annotated[float | None, typer.Option(help="Threshold of the behaviour, in [0, 1].")] = None,
    keep_draft: Annotated[
        float, typer.Option(help="Where the behaviour escalates, keep the draft's step with this probability.")
    ] = 0.0,
    hidden_states: Annotated[
        bool, typer.Option(help="Store the draft's last hidden state of each step, for a probe router.")
    ] = False,
    no_prm: Annotated[
        bool, typer.Option("--no-prm", help="Rows without scores, also where the pair has a PRM.")
    ] = False,
    max_tokens: MaxTokensOption = LIMITS.max_tokens,
    max_steps: MaxStepsOption = LIMITS.max_steps,
    jobs: Annotated[int, typer.Option(help="Problems in progress at a time.")] = 8,
    seed: SeedOption = 0,
    parquet: Annotated[bool, typer.Option(help="At the end, write rows.parquet beside rows.jsonl.")] = False,
) -> None:
    """Collect training rows for a router.

    From every prefix, the draft writes one step and the target several. The PRM scores all of them; without one, the
    rows have no scores, and `arbitrage label` scores them by rollouts. Each step of a solution becomes a row. Rows are
    written solution by solution. A run that was killed continues when it is started again with the same options; no row
    is lost or doubled. Other options are refused. The exit status is 1 if problems failed; the same command tries them
    again.
    """
    scores = not no_prm and pair_config(pair).prm is not None
    options = CollectOptions(
        dataset=dataset,
        fields=fields,
        stratify=stratify,
        num_target_samples=samples,
        temperature=temperature,
        behaviour=behaviour or ("oracle" if scores else "random"),
        scores=scores,
        threshold=threshold,
        keep_draft=keep_draft,
        keeps_hidden_state=hidden_states,
        limits=Limits(max_tokens=max_tokens, max_steps=max_steps),
        seed=seed,
    )
    chosen_problems = problems(dataset, limit, stratify=stratify, seed=seed, fields=fields)
    progress = partial(counting, "collecting")
    report = run_collection(chosen_problems, out, options, pair=pair, max_in_flight=jobs, progress=progress)
    if parquet:
        write_parquet(read_rows(out), out / "rows.parquet")
    print_report(report, out)


def print_report(report: RowsReport, out: Path) -> None:
    """Print the counts of a run that wrote rows; if problems failed, print the first error and exit with status 1."""
    rate = report.num_rows / report.wall_s if report.wall_s else 0.0
    share = report.model_s / report.wall_s if report.wall_s else 0.0
    typer.echo(
        f"{report.total_rows} rows in {out} · {report.num_rows} new in {report.wall_s:.1f} s, {rate:.1f} a second · "
        f"{share:.0%} of the time inside models"
    )
    if report.failures:
        problem, error = next(iter(report.failures.items()))
        typer.echo(f"error: {len(report.failures)} problems failed, first {problem}: {error}", err=True)
        raise typer.Exit(1)
