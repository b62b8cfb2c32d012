"""How traces and rows look in a terminal."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from arbitrage.core.trace import Trace
from arbitrage.core.types import Source, Step
from arbitrage.evaluation.figures.metrics import Row
from arbitrage.report.words import number

LINE_S: Final = 60.0
"""Seconds between two lines of progress in a log file."""
SPEED_S: Final = 300.0
"""The time left is told by the speed of so many seconds: problems differ."""
COLOURS = {Source.DRAFT: "cyan", Source.TARGET: "magenta"}


def step_line(step: Step) -> Text:
    """One step, coloured by its author, with what was replaced, scores, tokens and time."""
    line = Text(f"{step.source:>6} ", style=f"bold {COLOURS[step.source]}")
    line.append(step.text.strip(), style=COLOURS[step.source])
    for candidate in step.candidates:
        if candidate is not step.candidate:
            line.append("  ")
            line.append(candidate.text.strip(), style="strike dim")
    line.append(f"  {_details(step)}", style="dim")
    return line


def _details(step: Step) -> str:
    parts = [f"{score.scorer}({score.source}) {score.value:.2f}" for score in step.scores]
    seconds = sum(c.cost.seconds for c in step.candidates) + sum(s.cost.seconds for s in step.scores)
    return " · ".join([*parts, f"{step.candidate.num_tokens} tokens", f"{seconds * 1000:.0f} ms"])


def trace_footer(trace: Trace) -> Text:
    """The answer and what it took."""
    rate, share = trace.acceptance_rate, trace.target_token_share
    parts = [
        f"answer {trace.answer or '—'}",
        f"{len(trace.steps)} steps",
        f"{rate:.0%} by the draft" if rate is not None else "no steps",
        f"{share:.0%} of tokens by the target" if share is not None else "no tokens",
        f"{trace.latency_s * 1000:.0f} ms",
        str(trace.finish),
    ]
    return Text(" · ".join(parts), style="bold")


class LivePrinter:
    """Prints each step as soon as it is kept; a ``watch`` of :func:`arbitrage.core.solve.solve`."""

    def __init__(self, console: Console) -> None:
        self._console, self._num_shown = console, 0

    def __call__(self, trace: Trace) -> None:
        """Print what is new in the trace."""
        for step in trace.steps[self._num_shown :]:
            self._console.print(step_line(step))
        self._num_shown = len(trace.steps)


def table_console() -> Console:
    """A console for tables: as wide as the terminal, or wide enough for all columns where there is none."""
    return Console(width=None if Console().is_terminal else 120, highlight=False)


@contextmanager
def counting(doing: str, total: int, done: int = 0, *, console: Console | None = None) -> Iterator[Callable[..., None]]:
    """Show how far long work is: a bar on standard error, or a line a minute where that is no terminal.

    Args:
        doing: What is done.
        total: How many things there are.
        done: How many of them an earlier run has made.
        console: Where to write; replaced in tests.

    Yields:
        To be called when one more is made, with what is done next, or no words for the same.
    """
    console = console or Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, speed_estimate_period=SPEED_S) as progress:
        bar, told = progress.add_task(doing, total=total, completed=done), progress.get_time()

        def one_more(words: str = "") -> None:
            nonlocal told
            progress.update(bar, advance=1, description=words or doing)
            if not console.is_terminal and progress.get_time() - told >= LINE_S:
                console.print(progress.get_renderable())
                told = progress.get_time()

        yield one_more


def legend() -> Text:
    """Who has which colour."""
    text = Text("steps by the ")
    text.append("draft", style=COLOURS[Source.DRAFT])
    text.append(" and the ")
    text.append("target", style=COLOURS[Source.TARGET])
    text.append("; struck through: a draft step that the target replaced", style="dim")
    return text


def rows_table(rows: Sequence[Row], title: str) -> Table:
    """A comparison of policies."""
    table = Table(title=title, title_justify="left")
    table.add_column("policy", no_wrap=True)
    for name in (
        "threshold",
        "accuracy",
        "95 %",
        "accepted",
        "by target",
        "wasted",
        "s/problem",
        "speed-up",
        "overhead",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        has_interval = row.accuracy_low is not None and row.accuracy_high is not None
        table.add_row(
            row.entry.policy,
            number(row.entry.threshold, "g"),
            number(row.accuracy, ".1%"),
            f"{row.accuracy_low:.0%}–{row.accuracy_high:.0%}" if has_interval else "–",
            number(row.acceptance_rate, ".0%"),
            number(row.target_token_share, ".0%"),
            number(row.wasted_escalation_rate, ".0%"),
            number(row.seconds_per_problem, ".3f"),
            number(row.speedup_vs_target, ".2f") + ("×" if row.speedup_vs_target else ""),
            number(row.overhead_share, ".1%"),
        )
    return table
