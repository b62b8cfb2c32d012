"""``arbitrage collect``: training rows for a router."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from arbitrage.cli.options import LIMITS, FieldsOption, MaxStepsOption, MaxTokensOption, PairOption, SeedOption
from arbitrage.cli.show import counting
from arbitrage.core.turn import Setting
from arbitrage.core.types import Limits, Problem, Sampling
from arbitrage.datasets.named import problems
from arbitrage.pairs.loaded import LoadedPair, load
from arbitrage.policies.spec import MethodSpec, rules
from arbitrage.runtime.store import GroupLog
from arbitrage.training.collect import Collecting, Report
from arbitrage.training.collect import collect as collect_rows
from arbitrage.training.rows import SCHEMA, read_rows, write_parquet


def collect(
    out: Annotated[Path, typer.Argument(help="Folder for the rows; a run that was stopped continues there.")],
    pair: PairOption = "tiny",
    dataset: Annotated[str, typer.Option(help="tiny:train:SEED, … or a JSONL file.")] = "tiny:train:9",
    fields: FieldsOption = "",
    limit: Annotated[int | None, typer.Option(help="Only the first so many problems; more continue a run.")] = None,
    stratify: Annotated[str, typer.Option(help="Take a field's values in equal shares, such as level.")] = "",
    samples: Annotated[int, typer.Option(help="Target steps from every prefix.")] = 4,
    temperature: Annotated[float, typer.Option(help="Of the target's samples; the draft is greedy.")] = 0.7,
    behaviour: Annotated[
        str, typer.Option(help=f"Whose step a solution goes on with: {', '.join(rules())} (oracle: the better one).")
    ] = "oracle",
    threshold: Annotated[float | None, typer.Option(help="Of the behaviour, in [0, 1].")] = None,
    keep_draft: Annotated[
        float, typer.Option(help="Where the behaviour escalates, keep the draft's step with this probability.")
    ] = 0.0,
    hidden_states: Annotated[
        bool, typer.Option(help="Keep the draft's last hidden state of each step, for a probe router.")
    ] = False,
    max_tokens: MaxTokensOption = LIMITS.max_tokens,
    max_steps: MaxStepsOption = LIMITS.max_steps,
    jobs: Annotated[int, typer.Option(help="Problems in flight.")] = 8,
    seed: SeedOption = 0,
    parquet: Annotated[bool, typer.Option(help="Write rows.parquet beside rows.jsonl at the end.")] = False,
) -> None:
    """Collect router rows: from every prefix one draft step and several target steps, scored by the PRM.

    Rows are written solution by solution. Killed at any moment and started again with the same options, the run
    goes on without a row lost or doubled; with other options it refuses. Exit status 1 if problems failed; the
    same command tries them again.
    """
    setting = Setting(limits=Limits(max_tokens=max_tokens, max_steps=max_steps), seed=seed)
    found = problems(dataset, limit, stratify=stratify, seed=seed, fields=fields)
    spec = MethodSpec.parse(behaviour)
    loaded = load(pair, policies=[spec], with_prm=True, keeps_hidden_state=hidden_states)
    policy = Collecting(
        prm=loaded.models.required_prm(),
        behaviour=loaded.policy(spec, threshold),
        num_target_samples=samples,
        target_sampling=Sampling(temperature=temperature),
        keep_draft=keep_draft,
    )
    settings = {
        "row_schema": SCHEMA,
        "models": loaded.identity(("draft", "target", "prm", *((spec.rule_name,) if spec.is_router else ()))),
        "dataset": dataset,
        "stratify": stratify,
        "samples": samples,
        "temperature": temperature,
        "behaviour": behaviour,
        "threshold": loaded.resolved(spec, threshold).threshold,
        "keep_draft": keep_draft,
        "hidden_states": hidden_states,
        "max_tokens": max_tokens,
        "seed": seed,
        # Named only where they say something, so that rows from before there were such options are continued.
        **({"fields": fields} if fields else {}),
        **({"max_steps": max_steps} if max_steps != LIMITS.max_steps else {}),
    }
    started = time.monotonic()
    with GroupLog(out, settings, id_field="problem_id") as log:
        report = _run(loaded, found, policy, setting, log, jobs)
        seconds, total = time.monotonic() - started, log.num_records
    if parquet:
        write_parquet(read_rows(out), out / "rows.parquet")
    tell(report, seconds, total, out)


def _run(
    loaded: LoadedPair, found: list[Problem], policy: Collecting, setting: Setting, log: GroupLog, jobs: int
) -> Report:
    with counting("collecting", len(found), sum(p.id in log.done for p in found)) as one_more:
        work = collect_rows(found, loaded.pair, policy, setting, log, max_in_flight=jobs, seen=lambda trace: one_more())
        return asyncio.run(work)


def tell(report: Report, seconds: float, total: int, out: Path) -> None:
    """Say what was written; problems that failed are an error, and exit status 1."""
    rate = report.num_rows / seconds if seconds else 0.0
    share = report.model_s / seconds if seconds else 0.0
    typer.echo(
        f"{total} rows in {out} · {report.num_rows} new in {seconds:.1f} s, {rate:.1f} a second · "
        f"{share:.0%} of the time inside models"
    )
    if report.failures:
        problem, error = next(iter(report.failures.items()))
        typer.echo(f"error: {len(report.failures)} problems failed, first {problem}: {error}", err=True)
        raise typer.Exit(1)
