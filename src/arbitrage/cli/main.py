"""Entry point of ``arbitrage``."""

import sys

import typer

from arbitrage.cli.calibrate import calibrate
from arbitrage.cli.collect import collect
from arbitrage.cli.convert_prm import convert_prm
from arbitrage.cli.demo import demo
from arbitrage.cli.eval_router import eval_router
from arbitrage.cli.evaluate import evaluate
from arbitrage.cli.export_gguf import export_gguf
from arbitrage.cli.label import label
from arbitrage.cli.report import report
from arbitrage.cli.solve import solve
from arbitrage.cli.train_probe import train_probe
from arbitrage.cli.train_router import train_router
from arbitrage.cli.up import up
from arbitrage.core.errors import ArbitrageError

app = typer.Typer(
    name="arbitrage",
    help="Step-level speculative reasoning: a draft model writes, a router decides when the target should.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Help names tables such as [router] and datasets such as tiny:train:9, which are no markup.
    add_completion=False,
)
app.command()(solve)
app.command(name="eval")(evaluate)
app.command()(report)
app.command()(demo)
app.command()(collect)
app.command()(label)
app.command()(train_router)
app.command()(train_probe)
app.command()(eval_router)
app.command()(calibrate)
app.command()(up)
app.command()(convert_prm)
app.command(name="export-gguf")(export_gguf)


def run() -> None:
    """Run the command line; errors that a user can mend are one line and exit status 2."""
    try:
        app()
    except ArbitrageError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
