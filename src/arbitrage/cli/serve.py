"""``arbitrage serve``: an OpenAI-compatible endpoint on a pair."""

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from arbitrage.cli.options import LIMITS, PairOption, complete_method
from arbitrage.core.errors import ConfigError
from arbitrage.core.hosts import is_loopback
from arbitrage.pairs.catalogue import pair_config
from arbitrage.pairs.loaded import load


def serve(
    pair: PairOption = "tiny",
    host: Annotated[str, typer.Option(help="Where to listen; another host than this one needs keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for any free one.", min=0, max=65535)] = 8000,
    policy: Annotated[
        str,
        typer.Option(
            help="The method behind the model id NAME; by default the pair's default method.",
            autocompletion=complete_method,
        ),
    ] = "",
    max_tokens: Annotated[
        int, typer.Option(help="Most tokens of an answer whose request names no number.")
    ] = LIMITS.max_tokens,
    max_steps: Annotated[
        int, typer.Option(help="Most steps of an answer whose request names no number.")
    ] = LIMITS.max_steps,
    max_in_flight: Annotated[int, typer.Option(help="Solutions at a time.")] = 16,
    max_queue: Annotated[int, typer.Option(help="Solutions that may wait; further requests get status 429.")] = 256,
    max_request_bytes: Annotated[int, typer.Option(help="Larger requests get status 413.")] = 1 << 20,
    deadline: Annotated[float, typer.Option(help="Seconds that a request may take, waiting included.")] = 600.0,
    api_key_env: Annotated[
        str, typer.Option(help="Environment variable that holds the accepted API keys, with commas between.")
    ] = "",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Accept requests from any machine without a key.")
    ] = False,
) -> None:
    """Serve a pair to any client of OpenAI's interface, and a page at / that shows which model writes each step.

    A client chooses the method by the model's name: NAME, NAME/target, NAME/router@0.05. GET /v1/models lists them.
    """
    from arbitrage.serving.keys import Keys
    from arbitrage.serving.server import bound
    from arbitrage.serving.server import serve as run
    from arbitrage.serving.service import ServeOptions, Service

    if not is_loopback(host) and not api_key_env and not insecure:
        raise ConfigError(
            f"--host {host} can be reached from other machines, and no key is asked for",
            hint="name a variable with keys by --api-key-env, or allow everyone with --insecure",
        )
    options = ServeOptions(
        method=policy,
        max_in_flight=max_in_flight,
        max_queue=max_queue,
        max_request_bytes=max_request_bytes,
        deadline_s=deadline,
        max_tokens=max_tokens,
        max_steps=max_steps,
        keys=Keys.from_env(api_key_env) if api_key_env else Keys(),
        only_loopback=is_loopback(host) and not insecure,
    )
    config, console = pair_config(pair), Console(highlight=False, soft_wrap=True)
    listening = bound(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}"
    console.print(f"loading {config.name}; {address}/health answers 200 when it is ready", markup=False)

    def report() -> None:
        console.print(f"page {address}/ · endpoint {address}/v1 · model {config.name} · Ctrl-C stops it", markup=False)

    asyncio.run(run(Service(options), lambda: load(config), listening, on_ready=report))
