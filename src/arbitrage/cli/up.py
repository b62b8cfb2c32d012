"""``arbitrage up``: the servers of a pair, until Ctrl-C."""

import signal
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from arbitrage.cli.options import complete_pair
from arbitrage.core.errors import ConfigError
from arbitrage.pairs.catalogue import pair_config
from arbitrage.pairs.launch import answers, servers
from arbitrage.runtime.servers import Started, running


def up(
    pair: Annotated[
        str, typer.Option(help="A TOML file whose models name servers.", autocompletion=complete_pair)
    ] = "",
    config: Annotated[str, typer.Option(help="The earlier name of --pair.", hidden=True)] = "",
    logs: Annotated[Path, typer.Option(help="Folder for the servers' logs.")] = Path("logs"),
    timeout: Annotated[float, typer.Option(help="Seconds that a server may take until it answers.")] = 600.0,
    print_only: Annotated[bool, typer.Option("--print", help="Only show the commands.")] = False,
) -> None:
    """Start the servers that a pair names, wait until they answer, and stop them on Ctrl-C.

    Each kind of server gets the flags that step-level speculation needs: prefix caching, counts of cached tokens, the
    pooling task of a classifier. `server_args = [...]` in a model's table adds flags. The table [launch] names the
    command that starts a kind of server.
    """
    if not (name := pair or config):
        raise ConfigError("no pair is given", hint="name its TOML file by --pair")
    to_start = servers(pair_config(name))
    console = Console(highlight=False, soft_wrap=True)
    if print_only:
        for server in to_start:
            console.print(str(server), markup=False)
        return
    for number in (signal.SIGINT, signal.SIGTERM):  # A shell has background jobs ignore Ctrl-C.
        signal.signal(number, signal.default_int_handler)

    def report(started: Started) -> None:
        console.print(f"{started.server.role} answers at {started.server.url} · log {started.log}", markup=False)

    try:
        with running(to_start, logs, is_ready=answers, on_ready=report, timeout_s=timeout) as all_started:
            console.print("all servers answer; Ctrl-C stops them")
            while True:
                for started in all_started:
                    started.check()
                time.sleep(1.0)
    except KeyboardInterrupt:
        console.print("all servers are stopped")
