"""``arbitrage eval``: policies and thresholds compared on a dataset."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from arbitrage.build import POLICIES, SOLVERS, LoadedPair, entries, load, parse_threshold, problems
from arbitrage.cli.show import progress_bar, rows_table, summary_lines, table_console
from arbitrage.cli.solve import PairOption, SeedOption
from arbitrage.core.errors import ConfigError
from arbitrage.core.trace import Trace
from arbitrage.core.turn import Setting
from arbitrage.core.types import Finish, Problem
from arbitrage.evaluation.grading import Verdict, grade_traces
from arbitrage.evaluation.hub import NAMED
from arbitrage.evaluation.run import Entry, Results, compare, rows_of
from arbitrage.evaluation.summary import summary_of

DATASET_HELP = f"tiny:test, tiny:ood, …, {', '.join(NAMED)}, hub:OWNER/NAME, or a JSONL or Parquet file."
NAMES = (*POLICIES, *SOLVERS)
SCHEMA = 1
"""Version of the JSON line."""


def evaluate(
    pair: PairOption = "tiny",
    policies: Annotated[
        str,
        typer.Option(
            help=f"Comma-separated, from {', '.join(NAMES)}, router:NAME; NAME@0.2 is one at that threshold only; "
            f"{', '.join(SOLVERS)} take a number, as majority:5; RULE+speculative is a rule whose target guesses."
        ),
    ] = ",".join(NAMES),
    thresholds: Annotated[str, typer.Option(help="Comma-separated, in [0, 1]; empty for each policy's default.")] = "",
    dataset: Annotated[str, typer.Option(help=DATASET_HELP)] = "tiny:test",
    fields: Annotated[
        str, typer.Option(help="Columns of a file or hub dataset: question=problem,answer=solution,id=uid.")
    ] = "",
    limit: Annotated[int | None, typer.Option(help="Only the first so many problems.")] = None,
    stratify: Annotated[str, typer.Option(help="Take a field's values in equal shares, such as level.")] = "",
    seed: SeedOption = 0,
    proposals: Annotated[
        bool, typer.Option(help="Offer rejected draft steps to the target as token proposals.")
    ] = True,
    traces: Annotated[Path | None, typer.Option(help="Write every trace to this file, one JSON a line.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End standard output with one JSON line.")] = False,
) -> None:
    """Compare policies on the same problems: batch 1, interleaved in random order, warmed up.

    Columns: share of steps accepted from the draft, share of tokens by the target, share of escalations that
    gained nothing (by the PRM), mean seconds per problem, speed-up over target-only in this run, share of the
    time outside model calls.
    """
    found = problems(dataset, limit, stratify=stratify, fields=fields)
    wanted = entries(_split(policies), [parse_threshold(text) for text in _split(thresholds)])
    loaded = load(pair)
    results = run_comparison(loaded, found, wanted, Setting(seed=seed, use_proposals=proposals), traces)
    verdicts = Counter(grade_traces(trace for solved in results.values() for trace in solved))
    rows = rows_of(results)
    for entry, solved in results.items():
        if failed := [trace for trace in solved if trace.finish is Finish.FAILED]:
            typer.echo(f"{entry.policy}: {len(failed)} of {len(solved)} failed, first: {failed[0].error}", err=True)
    table_console().print(rows_table(rows, f"{loaded.name} on {dataset}, {len(found)} problems, seed {seed}"))
    summary = summary_of(results, rows, seed=seed)
    for verdict in (Verdict.UNGRADED, Verdict.TIMED_OUT):
        if verdicts[verdict]:
            typer.echo(f"{verdicts[verdict]} answers {verdict.value.replace('_', ' ')}: not in the accuracy")
    for line in summary_lines(summary):
        typer.echo(line)
    if as_json:
        record: dict[str, Any] = {"schema": SCHEMA, "pair": loaded.name, "num_problems": len(found)}
        record |= {"rows": [asdict(row) for row in rows], "summary": asdict(summary)}
        print(json.dumps(record))  # noqa: T201


def run_comparison(
    pair: LoadedPair, found: Sequence[Problem], wanted: Sequence[Entry], setting: Setting, traces: Path | None = None
) -> Results:
    """Run a comparison with a progress bar, writing traces as they finish.

    Raises:
        ConfigError: If the trace file cannot be written.
    """
    policies = {entry: pair.audited(pair.method(entry.policy, entry.threshold)) for entry in wanted}
    with progress_bar() as progress, _TraceFile(traces) as file:
        bar = progress.add_task("solving", total=len(found) * len(policies))

        def seen(entry: Entry, trace: Trace) -> None:
            file.write(entry, trace)
            progress.advance(bar)

        return asyncio.run(compare(found, pair.pair, policies, setting, seen=seen))


class _TraceFile:
    """Writes traces as they come, or nothing without a path."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._file = path, None if path is None else self._open(path)

    @staticmethod
    def _open(path: Path) -> IO[str]:
        try:
            return path.open("w")
        except OSError as error:
            raise ConfigError(f"cannot write traces to {str(path)!r}: {error.strerror}") from error

    def __enter__(self) -> "_TraceFile":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file:
            self._file.close()

    def write(self, entry: Entry, trace: Trace) -> None:
        if self._file:
            self._file.write(json.dumps({"threshold": entry.threshold, **trace.to_json()}) + "\n")
            self._file.flush()


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
