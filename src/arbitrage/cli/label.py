"""``arbitrage label``: rows scored by what comes of their steps."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from arbitrage.cli.collect import tell
from arbitrage.cli.options import PairOption, SeedOption
from arbitrage.cli.show import counting
from arbitrage.core.turn import Setting
from arbitrage.core.types import Sampling
from arbitrage.datasets.named import check_limit
from arbitrage.grading import is_same
from arbitrage.pairs.loaded import load
from arbitrage.policies.spec import rules
from arbitrage.runtime.store import GroupLog, read_manifest, run_key
from arbitrage.training.rollouts import Rollouts, score_by_rollouts
from arbitrage.training.rows import SCHEMA, read_rows


def label(
    rows: Annotated[Path, typer.Argument(help="Folder that `arbitrage collect` wrote, with gold answers.")],
    out: Annotated[Path, typer.Argument(help="Folder for the new rows; a run that was stopped continues there.")],
    pair: PairOption = "tiny",
    policy: Annotated[str, typer.Option(help=f"Who carries on from each step: {', '.join(rules())}.")] = "target",
    threshold: Annotated[float | None, typer.Option(help="Of that policy, in [0, 1].")] = None,
    continuations: Annotated[int, typer.Option(help="From each step to the final answer.")] = 4,
    samples: Annotated[int, typer.Option(help="Score so many of a row's target steps, and drop the others.")] = 1,
    temperature: Annotated[float, typer.Option(help="Of the continuations.")] = 0.7,
    limit: Annotated[int | None, typer.Option(help="Only the first so many problems; more continue a run.")] = None,
    jobs: Annotated[int, typer.Option(help="Problems in flight.")] = 8,
    seed: SeedOption = 0,
) -> None:
    """Score rows by rollouts: the share of a step's continuations that end in the right answer.

    The new rows are like the old ones but for their scores: train-router, train-probe and eval-router take them in
    place of the PRM's. Killed at any moment and started again with the same options, the run goes on.
    """
    check_limit(limit)
    manifest, found = read_manifest(rows), list(read_rows(rows))
    loaded = load(pair, policies=[policy])
    rollouts = Rollouts(
        policy=loaded.policy(policy, threshold),
        grade=is_same,
        setting=Setting(sampling=Sampling(temperature=temperature), seed=seed),
        num_continuations=continuations,
        num_target_samples=samples,
    )
    settings = {
        "row_schema": SCHEMA,
        "rows": run_key(manifest),
        "models": loaded.identity(("draft", "target")),
        "policy": policy,
        "threshold": threshold,
        "continuations": continuations,
        "samples": samples,
        "temperature": temperature,
        "seed": seed,
    }
    problems = set(list(dict.fromkeys(row.problem.id for row in found))[:limit])
    found, started = [row for row in found if row.problem.id in problems], time.monotonic()
    with (
        GroupLog(out, settings, id_field="problem_id") as log,
        counting("carrying on", len(problems), len(log.done & problems)) as one_more,
    ):
        work = score_by_rollouts(found, loaded.pair, rollouts, log, max_in_flight=jobs, seen=lambda problem: one_more())
        report = asyncio.run(work)
        total = log.num_records
    tell(report, time.monotonic() - started, total, out)
