"""Traces, tables and progress in a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import rich.table
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from arbitrage.core.trace import Trace
from arbitrage.core.types import Source, Step
from arbitrage.report.columns import Table

LINE_S: Final = 60.0
"""Seconds between two lines of progress in a log file."""
SPEED_S: Final = 300.0
"""The time left is estimated from the speed over this many seconds, because problems differ."""
COLOURS = {Source.DRAFT: "cyan", Source.TARGET: "magenta"}

Advance = Callable[..., None]
"""Called after each item of long work, with a description or without."""


def step_line(step: Step) -> Text:
    """One step, coloured by its author, with rejected candidates, scores, tokens and time."""
    line = Text(f"{step.source:>6} ", style=f"bold {COLOURS[step.source]}")
    for author, text in step.candidate.parts:
        line.append(text.strip("\n"), style=COLOURS[author])
    for candidate in step.candidates:
        if candidate is not step.candidate:
            line.append("  ")
            line.append(candidate.text.strip(), style="strike dim")
    line.append(f"  {_details(step)}", style="dim")
    return line


def _details(step: Step) -> str:
    parts = [f"{score.scorer}({score.source}) {score.value:.2f}" for score in step.scores]
    seconds = sum(c.cost.seconds for c in step.candidates) + sum(s.cost.seconds for s in step.scores)
    taken = f", {step.candidate.num_taken} by the draft" if len(step.candidate.parts) > 1 else ""
    return " · ".join([*parts, f"{step.candidate.num_tokens} tokens{taken}", f"{seconds * 1000:.0f} ms"])


def trace_footer(trace: Trace) -> Text:
    """The answer with its number of steps, shares by model, and time."""
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
        """Print the steps that the trace has gained."""
        for step in trace.steps[self._num_shown :]:
            self._console.print(step_line(step))
        self._num_shown = len(trace.steps)


def table_console() -> Console:
    """A console for tables: as wide as the terminal, or wide enough for all columns where there is none."""
    return Console(width=None if Console().is_terminal else 120, highlight=False)


@contextmanager
def counting(description: str, total: int, done: int = 0, *, console: Console | None = None) -> Iterator[Advance]:
    """Show the progress of long work: a bar on standard error, or a line a minute where that is not a terminal.

    Args:
        description: The work, in a word.
        total: Number of items.
        done: Number of items that an earlier run finished.
        console: Where to write; replaced in tests.

    Yields:
        A function to call after each item, with a new description, or without one to show the first.
    """
    console = console or Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, speed_estimate_period=SPEED_S) as progress:
        bar, printed = progress.add_task(description, total=total, completed=done), progress.get_time()

        def advance(words: str = "") -> None:
            nonlocal printed
            progress.update(bar, advance=1, description=words or description)
            if not console.is_terminal and progress.get_time() - printed >= LINE_S:
                console.print(progress.get_renderable())
                printed = progress.get_time()

        yield advance


def legend() -> Text:
    """The colours of the authors."""
    text = Text("steps by the ")
    text.append("draft", style=COLOURS[Source.DRAFT])
    text.append(" and the ")
    text.append("target", style=COLOURS[Source.TARGET])
    text.append("; struck through: a draft step that the target replaced", style="dim")
    return text


def rich_table(content: Table) -> rich.table.Table:
    """A table for the terminal."""
    table = rich.table.Table(title=content.title, title_justify="left")
    for number, name in enumerate(content.head):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for cells in content.body:
        table.add_row(*cells)
    return table
