"""``arbitrage eval``: policies and thresholds compared on a dataset."""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from arbitrage.cli.config_file import ConfigOption
from arbitrage.cli.options import (
    LIMITS,
    DatasetOption,
    FieldsOption,
    MaxStepsOption,
    MaxTokensOption,
    PairOption,
    SeedOption,
    complete_method,
)
from arbitrage.cli.report import MarginOption, ParamsOption, PricesOption
from arbitrage.cli.show import counting, rich_table, table_console
from arbitrage.core.errors import ConfigError, MissingExtra
from arbitrage.core.turn import Setting
from arbitrage.core.types import Limits, Problem, Sampling
from arbitrage.datasets.named import problems
from arbitrage.evaluation.figures.matched import MARGIN
from arbitrage.evaluation.figures.rates import Rates
from arbitrage.evaluation.figures.summary import Evidence, evidence_of
from arbitrage.evaluation.running.execute import Execution
from arbitrage.evaluation.running.folder import Run
from arbitrage.evaluation.running.in_flight import AUTO, best_in_flight, parse_in_flight, trials
from arbitrage.evaluation.running.plan import Plan, SolvingPair, needs_audit, resolved_entries, solvers_of
from arbitrage.evaluation.running.settings import run_settings
from arbitrage.evaluation.running.solutions import Graded, graded
from arbitrage.evaluation.running.workload import workload_lines
from arbitrage.pairs.catalogue import pair_config
from arbitrage.pairs.loaded import load
from arbitrage.policies.spec import MethodSpec, methods, parse_threshold
from arbitrage.policies.table import METHODS
from arbitrage.report.export import evidence_record
from arbitrage.report.files import SCHEMA, write_run
from arbitrage.report.tables import terminal_table
from arbitrage.report.words import summary_lines
from arbitrage.runtime.store import MANIFEST, read_manifest


def evaluate(
    pair: PairOption = "tiny",
    policies: Annotated[
        str,
        typer.Option(
            help=f"Comma-separated, from {', '.join(METHODS)}, router:NAME. NAME@0.2 runs at that threshold only. "
            "speculative, ngram and majority take a number, as in majority:5. RULE+speculative is a rule whose target "
            "verifies guessed tokens.",
            autocompletion=complete_method,
        ),
    ] = ",".join(METHODS),
    thresholds: Annotated[str, typer.Option(help="Comma-separated, in [0, 1]; empty for each policy's default.")] = "",
    dataset: DatasetOption = "tiny:test",
    fields: FieldsOption = "",
    limit: Annotated[int | None, typer.Option(help="Only the first LIMIT problems.")] = None,
    stratify: Annotated[str, typer.Option(help="Take equal shares of a field's values, such as level.")] = "",
    samples: Annotated[int, typer.Option(help="Attempts at each problem, each with its own seeds.")] = 1,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    max_tokens: MaxTokensOption = LIMITS.max_tokens,
    max_steps: MaxStepsOption = LIMITS.max_steps,
    seed: SeedOption = 0,
    proposals: Annotated[
        bool, typer.Option(help="Offer rejected draft steps to the target as token proposals.")
    ] = True,
    give_up: Annotated[bool, typer.Option(help="Let the draft stop within a step that is sure to be rejected.")] = True,
    jobs: Annotated[
        int,
        typer.Option(
            parser=parse_in_flight,
            metavar="<int|auto>",
            help="Solutions in flight. 1 measures latency, more measure throughput under that load; auto doubles them "
            "until the first policy's throughput stops growing.",
        ),
    ] = 1,
    ray: Annotated[
        str,
        typer.Option(help="Solve on the actors of the Ray cluster at this address; local starts one. Give --jobs too."),
    ] = "",
    audit: Annotated[
        bool | None,
        typer.Option(
            help="Have the PRM score every candidate, untimed, to measure waste; on by default with --jobs 1."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for traces, summary, plots and report; a stopped run continues in its folder."),
    ] = None,
    traces: Annotated[
        Path | None, typer.Option(help="Write every trace to this file, one JSON object per line.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print how many solutions, calls and tokens there would be.")
    ] = False,
    margin: MarginOption = MARGIN,
    params: ParamsOption = "",
    prices: PricesOption = "",
    config: ConfigOption = None,  # noqa: ARG001 - its callback reads it.
    as_json: Annotated[bool, typer.Option("--json", help="End standard output with one JSON line.")] = False,
) -> None:
    """Compare policies on the same problems: batch 1, interleaved in random order, warmed up.

    Columns: share of steps accepted from the draft, share of tokens by the target, share of escalations without gain
    (by the PRM), mean seconds per problem, speed-up over target-only in this run, share of the time outside model
    calls.

    With --out, a run that was killed at any moment continues when it is started again with the same options; with
    other options the command refuses. `arbitrage report` makes its report again. Exit status 1 if every solution
    failed.
    """
    rates = Rates.parse(params, prices)
    setting = Setting(
        limits=Limits(max_tokens=max_tokens, max_steps=max_steps),
        sampling=Sampling(temperature=temperature),
        seed=seed,
        use_proposals=proposals,
        gives_up=give_up,
    )
    problem_list = problems(dataset, limit, stratify=stratify, fields=fields)
    specs = methods(_split(policies), [parse_threshold(text) for text in _split(thresholds)])
    if dry_run:
        typer.echo("\n".join(workload_lines(specs, problem_list, setting, samples, out)))
        return
    if ray and audit:
        raise ConfigError("the audit runs in this process, not on a Ray cluster", hint="leave --audit or --ray out")
    is_audited = needs_audit(specs, jobs, audit) and not ray
    with _pair(pair, specs, ray, with_prm=is_audited) as loaded:
        entries = resolved_entries(loaded, specs)
        plan = Plan(problems=problem_list, entries=entries, setting=setting, num_attempts=samples, jobs=jobs or 1)
        if jobs == AUTO:
            plan = replace(plan, jobs=_chosen_jobs(loaded, plan, out))
        run, solutions = _solved(loaded, plan, dataset, is_audited=is_audited, out=out, traces=traces)
    evidence = evidence_of(solutions, rates=rates, margin=margin, seed=seed)
    if run:
        _write(run, evidence)
    _print(solutions, evidence, f"{loaded.name} on {dataset}, {len(problem_list)} problems, seed {seed}")
    if as_json:
        record = {"pair": loaded.name, "num_problems": len(problem_list), "out": None if out is None else str(out)}
        print(json.dumps({"schema": SCHEMA, **record, **evidence_record(evidence)}))  # noqa: T201
    if all(solution.is_failed for of_entry in solutions.values() for solution in of_entry):
        raise typer.Exit(1)


@contextmanager
def _pair(name: str, specs: Sequence[MethodSpec], ray: str, *, with_prm: bool) -> Iterator[SolvingPair]:
    """The pair, loaded in this process or in actors."""
    if not ray:
        yield load(name, policies=specs, with_prm=with_prm)
        return
    from arbitrage.cluster.ray_pair import RayPair

    config = pair_config(name)
    with RayPair(partial(load, config, policies=specs), config.ray, ray) as remote:
        yield remote


def _chosen_jobs(loaded: SolvingPair, plan: Plan, out: Path | None) -> int:
    """The number of solutions in flight: that of the run which is continued, or the one that trials choose."""
    if out is not None and (out / MANIFEST).exists():
        return int(read_manifest(out).get("jobs", 1))
    solver = loaded.method(plan.entries[0].method)

    async def solve(problem: Problem) -> int:
        return (await solver.solve(problem, plan.setting)).num_tokens

    measured = asyncio.run(trials(solve, plan.problems))
    chosen = best_in_flight(measured)
    rates = ", ".join(f"{trial.in_flight}: {trial.tokens_per_s:,.0f}" for trial in measured)
    typer.echo(f"{chosen} solutions in flight; tokens a second of {solver.name} by their number: {rates}", err=True)
    return chosen


def _solved(
    loaded: SolvingPair, plan: Plan, dataset: str, *, is_audited: bool, out: Path | None, traces: Path | None
) -> tuple[Run | None, Graded]:
    """Carry out a plan: the run in its folder, None without a folder, and the solutions."""
    auditor = loaded.auditor if is_audited else None
    execution = Execution(
        plan=plan,
        methods=solvers_of(loaded, plan),
        auditor=auditor,
        progress=partial(counting, "solving"),
        paths=loaded.paths,
    )
    if out is None:
        return None, graded(execution.in_memory(traces))
    settings = run_settings(loaded, plan, dataset, is_audited=auditor is not None)
    run = execution.in_folder(out, settings, arguments=sys.argv[1:], traces=traces)
    return run, run.solutions


def _write(run: Run, evidence: Evidence) -> None:
    """Write the report, or only its summaries where plots cannot be drawn."""
    try:
        write_run(run, evidence)
    except MissingExtra as error:
        typer.echo(f"no report: {error}", err=True)


def _print(solutions: Graded, evidence: Evidence, title: str) -> None:
    """Print the failures, the table, and the comparison in words."""
    for entry, of_entry in solutions.items():
        num, failed = len(of_entry), [solution for solution in of_entry if solution.is_failed]
        if failed:
            typer.echo(f"{entry.policy}: {len(failed)} of {num} failed, first: {failed[0].error}", err=True)
        if partial := [solution for solution in of_entry if solution.error and not solution.is_failed]:
            words = f"{len(partial)} of {num} cut short or audited in part, first: {partial[0].error}"
            typer.echo(f"{entry.policy}: {words}", err=True)
    table_console().print(rich_table(terminal_table(evidence.figures, title)))
    if num_ungraded := sum(one.num_ungraded for one in evidence.figures):
        typer.echo(f"{num_ungraded} solutions ungraded: not in the accuracy")
    for line in summary_lines(evidence.summary):
        typer.echo(line)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
