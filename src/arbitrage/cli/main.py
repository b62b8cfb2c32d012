"""Entry point of ``arbitrage``."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Final

import typer

from arbitrage.cli.advise import advise
from arbitrage.cli.bench import bench
from arbitrage.cli.calibrate import calibrate
from arbitrage.cli.collect import collect
from arbitrage.cli.convert_prm import convert_prm
from arbitrage.cli.demo import demo
from arbitrage.cli.estimate import estimate
from arbitrage.cli.eval_router import eval_router
from arbitrage.cli.evaluate import evaluate
from arbitrage.cli.export_gguf import export_gguf
from arbitrage.cli.label import label
from arbitrage.cli.report import report
from arbitrage.cli.serve import serve
from arbitrage.cli.solve import solve
from arbitrage.cli.train_probe import train_probe
from arbitrage.cli.train_router import train_router
from arbitrage.cli.up import up
from arbitrage.core.errors import ArbitrageError, ConfigError
from arbitrage.version import __version__

COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "solve": solve,
    "serve": serve,
    "eval": evaluate,
    "report": report,
    "bench": bench,
    "estimate": estimate,
    "advise": advise,
    "demo": demo,
    "collect": collect,
    "label": label,
    "train-router": train_router,
    "train-probe": train_probe,
    "eval-router": eval_router,
    "calibrate": calibrate,
    "up": up,
    "convert-prm": convert_prm,
    "export-gguf": export_gguf,
}
"""Every command by name, in the order of the help."""

app = typer.Typer(
    name="arbitrage",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Help names tables such as [router] and datasets such as tiny:train:9, which are no markup.
)
for name, command in COMMANDS.items():
    # Without a short help, the list of commands would cut the first line off.
    app.command(name=name, short_help=(command.__doc__ or "").partition("\n")[0])(command)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"arbitrage {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Step-level speculative reasoning.

    A draft model writes each step; a router decides which steps the target model writes instead.
    """


def _check_arguments(arguments: Sequence[str]) -> None:
    """Refuse bytes that are no text before any command starts.

    Raises:
        ConfigError: If an argument is not UTF-8; Python then holds its bytes as lone surrogates.
    """
    for number, argument in enumerate(arguments, start=1):
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"argument {number} is not UTF-8: {argument!a}", hint="write it in UTF-8") from error


@contextlib.contextmanager
def _shown_log() -> Iterator[None]:
    """Write lines about long work, such as a compilation, to standard error."""
    log, handler = logging.getLogger("arbitrage"), logging.StreamHandler()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


def run() -> None:
    """Run the command line; errors that a user can mend are one line and exit status 2."""
    try:
        _check_arguments(sys.argv[1:])
        with _shown_log():
            app()
    except ArbitrageError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
