"""``arbitrage eval``: policies and thresholds compared on a dataset."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from arbitrage.cli.config_file import ConfigOption
from arbitrage.cli.options import LIMITS, FieldsOption, MaxStepsOption, MaxTokensOption, PairOption, SeedOption
from arbitrage.cli.report import MarginOption, ParamsOption, PricesOption, write
from arbitrage.cli.show import rows_table, table_console
from arbitrage.cli.sweeping import run_in_folder, run_in_memory
from arbitrage.core.turn import Setting
from arbitrage.core.types import Limits, Sampling
from arbitrage.datasets.hub import NAMED
from arbitrage.datasets.named import problems
from arbitrage.evaluation.figures.matched import MARGIN
from arbitrage.evaluation.figures.rates import Rates
from arbitrage.evaluation.figures.summary import Evidence, evidence_of
from arbitrage.evaluation.running.folder import read_run
from arbitrage.evaluation.running.planning import plan_lines, plan_of, run_settings
from arbitrage.evaluation.running.solutions import Graded
from arbitrage.evaluation.running.sweep import graded
from arbitrage.pairs.loaded import load
from arbitrage.policies.spec import methods, parse_threshold
from arbitrage.policies.table import METHODS
from arbitrage.report.export import plain
from arbitrage.report.words import summary_lines

DATASET_HELP = f"tiny:test, tiny:ood, …, {', '.join(NAMED)}, hub:OWNER/NAME, or a JSONL or Parquet file."
SCHEMA = 1
"""Version of the JSON line."""


def evaluate(
    pair: PairOption = "tiny",
    policies: Annotated[
        str,
        typer.Option(
            help=f"Comma-separated, from {', '.join(METHODS)}, router:NAME; NAME@0.2 is one at that threshold only; "
            "speculative, ngram and majority take a number, as majority:5; RULE+speculative is a rule whose target "
            "guesses tokens."
        ),
    ] = ",".join(METHODS),
    thresholds: Annotated[str, typer.Option(help="Comma-separated, in [0, 1]; empty for each policy's default.")] = "",
    dataset: Annotated[str, typer.Option(help=DATASET_HELP)] = "tiny:test",
    fields: FieldsOption = "",
    limit: Annotated[int | None, typer.Option(help="Only the first so many problems.")] = None,
    stratify: Annotated[str, typer.Option(help="Take a field's values in equal shares, such as level.")] = "",
    samples: Annotated[int, typer.Option(help="Attempts at each problem, each with seeds of its own.")] = 1,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    max_tokens: MaxTokensOption = LIMITS.max_tokens,
    max_steps: MaxStepsOption = LIMITS.max_steps,
    seed: SeedOption = 0,
    proposals: Annotated[
        bool, typer.Option(help="Offer rejected draft steps to the target as token proposals.")
    ] = True,
    jobs: Annotated[
        int, typer.Option(help="Solutions in flight: 1 times latency, more time throughput under that load.")
    ] = 1,
    audit: Annotated[
        bool | None,
        typer.Option(help="Score every candidate by the PRM, untimed, to know the waste; by default if --jobs is 1."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for traces, summary, plots and report; a run that was stopped continues there."),
    ] = None,
    traces: Annotated[Path | None, typer.Option(help="Write every trace to this file, one JSON a line.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many solutions, calls and tokens there would be.")
    ] = False,
    margin: MarginOption = MARGIN,
    params: ParamsOption = "",
    prices: PricesOption = "",
    config: ConfigOption = None,  # noqa: ARG001 - its callback has used it.
    as_json: Annotated[bool, typer.Option("--json", help="End standard output with one JSON line.")] = False,
) -> None:
    """Compare policies on the same problems: batch 1, interleaved in random order, warmed up.

    Columns: share of steps accepted from the draft, share of tokens by the target, share of escalations that
    gained nothing (by the PRM), mean seconds per problem, speed-up over target-only in this run, share of the
    time outside model calls.

    With --out, a run that was killed at any moment and is started again with the same options goes on; with other
    options it refuses. `arbitrage report` makes its report anew. Exit status 1 if every solution failed.
    """
    rates = Rates.parse(params, prices)
    setting = Setting(
        limits=Limits(max_tokens=max_tokens, max_steps=max_steps),
        sampling=Sampling(temperature=temperature),
        seed=seed,
        use_proposals=proposals,
    )
    found = problems(dataset, limit, stratify=stratify, fields=fields)
    specs = methods(_split(policies), [parse_threshold(text) for text in _split(thresholds)])
    if dry_run:
        typer.echo("\n".join(plan_lines(specs, found, setting, samples, out)))
        return
    compares = any(spec.has_threshold for spec in specs)
    audits = compares and (jobs == 1 if audit is None else audit)
    loaded = load(pair, policies=specs, with_prm=audits)
    plan = plan_of(loaded, found, specs, setting, attempts=samples, jobs=jobs, audit=audits)
    if out is None:
        solutions: Graded = graded(run_in_memory(plan, traces))
        evidence = evidence_of(solutions, rates=rates, margin=margin, seed=seed)
    else:
        run_in_folder(plan, out, run_settings(loaded, plan, dataset), traces)
        run = read_run(out)
        solutions = run.solutions
        evidence = evidence_of(solutions, rates=rates, margin=margin, seed=seed)
        write(run, evidence)
    _tell(solutions, evidence, f"{loaded.name} on {dataset}, {len(found)} problems, seed {seed}")
    if as_json:
        record: dict[str, Any] = {"schema": SCHEMA, "pair": loaded.name, "num_problems": len(found)}
        record |= {"out": None if out is None else str(out), **plain(evidence)}
        print(json.dumps(plain(record)))  # noqa: T201
    if all(solution.is_failed for found_of_one in solutions.values() for solution in found_of_one):
        raise typer.Exit(1)


def _tell(solutions: Graded, evidence: Evidence, title: str) -> None:
    """Print the failures, the table, and the comparison in words."""
    for entry, found in solutions.items():
        if failed := [solution for solution in found if solution.is_failed]:
            typer.echo(f"{entry.policy}: {len(failed)} of {len(found)} failed, first: {failed[0].error}", err=True)
        if short := [solution for solution in found if solution.error and not solution.is_failed]:
            told = f"{len(short)} of {len(found)} cut short or audited in part, first: {short[0].error}"
            typer.echo(f"{entry.policy}: {told}", err=True)
    table_console().print(rows_table(evidence.rows, title))
    if num_ungraded := sum(row.num_ungraded for row in evidence.rows):
        typer.echo(f"{num_ungraded} solutions ungraded: not in the accuracy")
    for line in summary_lines(evidence.summary):
        typer.echo(line)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
