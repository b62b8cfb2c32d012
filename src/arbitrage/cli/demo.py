"""``arbitrage demo``: the shipped models solve a few problems live, then a table compares methods."""

import asyncio
import time
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.live import Live

from arbitrage.cli.show import LivePrinter, legend, rich_table, table_console, trace_footer
from arbitrage.core.turn import Setting
from arbitrage.datasets.named import problems
from arbitrage.evaluation.figures.metrics import all_figures
from arbitrage.evaluation.running.deadline import Deadline
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.plan import Plan, resolved_entries, solvers_of
from arbitrage.evaluation.running.solutions import Solution, TracePosition, condense
from arbitrage.evaluation.running.sweep import Finished, sweep
from arbitrage.pairs.catalogue import TINY
from arbitrage.pairs.loaded import LoadedPair, load
from arbitrage.policies.spec import methods
from arbitrage.report.tables import terminal_table

COMPARED: Final = ("draft", "target", "rsd", "confidence", "router", "speculative", "router+speculative")
ALL: Final = (*COMPARED, "random", "likelihood", "oracle", "router:model")
LOG_S: Final = 20.0
"""Seconds between two lines of progress where standard output is no terminal."""


def demo(
    limit: Annotated[int, typer.Option(help="Compare on so many held-out problems at most.")] = 200,
    seconds: Annotated[float, typer.Option(help="Start no further problem after so many seconds.")] = 120.0,
    shown: Annotated[int, typer.Option(help="How many problems to solve live.")] = 3,
    compare_all: Annotated[
        bool, typer.Option("--all", help="Also compare chance, the oracle and the router with a language model.")
    ] = False,
) -> None:
    """Solve problems live with the shipped pair, then compare methods on held-out problems, problem by problem.

    It stops at --limit problems or --seconds after its start, whichever comes first.
    """
    started = time.monotonic()
    console = table_console()
    names = ALL if compare_all else COMPARED
    loaded = load(TINY, policies=names)
    _solve_live(loaded, console, shown)
    entries = resolved_entries(loaded, methods(names))
    plan = Plan(problems=problems("tiny:test", limit), entries=entries, setting=Setting())
    console.print(
        f"\nMethods on at most {limit} held-out problems, for {seconds:g} s from the start, one solution at a time:"
    )
    remaining_s = max(seconds - (time.monotonic() - started), seconds / 2)
    num = _compare_live(plan, loaded, console, remaining_s, is_audited=compare_all)
    why = f"after {seconds:g} s" if num < limit else "at the limit"
    console.print(
        f"\nstopped {why}: {num} problems\n"
        "accepted: steps kept from the draft · by target: share of tokens · speed-up: over target-only",
        style="dim",
    )
    console.print(
        "\nTo go on:\n"
        "  arbitrage demo --all --limit 200 --seconds 600      more methods, more problems\n"
        "  arbitrage eval --limit 300 --out runs/main          intervals, waste, plots and a report.html\n"
        "  arbitrage solve 'Solve for x: 3x+4=25.'             one problem of your own\n"
        "  arbitrage serve                                     a chat at http://127.0.0.1:8000/, an endpoint at /v1\n"
        "  docs/your-own-pair.md                               the same with your models"
    )


def _solve_live(loaded: LoadedPair, console: Console, count: int) -> None:
    console.print(legend())
    for problem in problems("tiny:validation", 15)[4::5][:count]:
        console.print(f"\n[bold]{problem.question}[/bold]")
        console.print(trace_footer(loaded.solve(problem.question, watch=LivePrinter(console))))


def _compare_live(plan: Plan, loaded: LoadedPair, console: Console, seconds: float, *, is_audited: bool) -> int:
    """Show the table again after every problem that all methods have solved; returns the number of such problems."""
    solutions: dict[Entry, list[Solution]] = {entry: [] for entry in plan.entries}
    last_line = time.monotonic()

    def on_finished(done: Finished) -> None:
        nonlocal last_line
        solutions[done.entry].append(condense(done.trace, TracePosition(entry=done.entry)))
        counts = set(map(len, solutions.values()))
        if len(counts) > 1:
            return  # The problem is not solved by all methods yet.
        (num,) = counts
        table = terminal_table(all_figures(solutions), f"{TINY}, {num} problems")
        live.update(rich_table(table), refresh=True)
        if not console.is_terminal and time.monotonic() - last_line >= LOG_S:
            last_line = time.monotonic()
            console.print(f"{num} of at most {len(plan.problems)} problems")

    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        auditor = loaded.auditor if is_audited else None
        work = sweep(plan, solvers_of(loaded, plan), on_finished, auditor=auditor, is_done=Deadline(seconds))
        asyncio.run(work)
    return min(map(len, solutions.values()))
