"""``arbitrage demo``: the shipped models solve a few problems live, then all policies are compared."""

from functools import partial
from typing import Annotated, Final

import typer

from arbitrage.cli.show import LivePrinter, counting, legend, rich_table, table_console, trace_footer
from arbitrage.core.turn import Setting
from arbitrage.datasets.named import problems
from arbitrage.evaluation.figures.metrics import all_figures
from arbitrage.evaluation.running.execute import Execution
from arbitrage.evaluation.running.plan import Plan, resolved_entries, solvers_of
from arbitrage.evaluation.running.solutions import graded
from arbitrage.pairs.catalogue import TINY
from arbitrage.pairs.loaded import load
from arbitrage.policies.spec import methods
from arbitrage.report.tables import terminal_table

COMPARED: Final = [
    "draft",
    "target",
    "speculative",
    "router+speculative",
    "random",
    "rsd",
    "oracle",
    "likelihood",
    "router",
    "router:model",
]


def demo(
    limit: Annotated[int, typer.Option(help="How many held-out problems to compare on.")] = 200,
    shown: Annotated[int, typer.Option(help="How many problems to solve live.")] = 3,
) -> None:
    """Solve problems live with the shipped pair, then compare policies on held-out problems."""
    console = table_console()
    loaded = load(TINY)
    console.print(legend())
    for problem in problems("tiny:validation", 15)[4::5][:shown]:
        console.print(f"\n[bold]{problem.question}[/bold]")
        trace = loaded.solve(problem.question, watch=LivePrinter(console))
        console.print(trace_footer(trace))
    console.print(f"\nPolicies on {limit} held-out problems, one at a time, in random order:")
    entries = resolved_entries(loaded, methods(COMPARED))
    plan = Plan(problems=problems("tiny:test", limit), entries=entries, setting=Setting())
    execution = Execution(
        plan=plan,
        methods=solvers_of(loaded, plan),
        auditor=loaded.auditor,
        progress=partial(counting, "solving"),
    )
    figures = all_figures(graded(execution.in_memory()))
    console.print(rich_table(terminal_table(figures, f"{TINY}, {limit} problems")))
    console.print(
        "accepted: steps kept from the draft · by target: share of tokens · "
        "wasted: escalations without gain by the PRM · oracle: an upper bound, timed without what only measures",
        style="dim",
    )
