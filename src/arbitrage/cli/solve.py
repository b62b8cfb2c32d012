"""``arbitrage solve``: one problem, live."""

import json
from typing import Annotated

import typer
from rich.console import Console

from arbitrage.cli.options import LIMITS, MaxStepsOption, MaxTokensOption, PairOption, SeedOption, complete_method
from arbitrage.cli.show import LivePrinter, legend, trace_footer
from arbitrage.core.errors import ConfigError
from arbitrage.core.turn import Setting
from arbitrage.core.types import Finish, Limits, Sampling
from arbitrage.pairs.catalogue import pair_config
from arbitrage.pairs.loaded import LoadedPair, load
from arbitrage.policies.spec import MethodSpec
from arbitrage.policies.table import METHODS


def solve(
    question: Annotated[str, typer.Argument(help="The problem in words.")],
    pair: PairOption = "tiny",
    policy: Annotated[
        str,
        typer.Option(
            help=f"The method: {', '.join(METHODS)}; without it the pair's default method.",
            autocompletion=complete_method,
        ),
    ] = "",
    threshold: Annotated[
        float | None,
        typer.Option(
            help="The policy's threshold, in [0, 1]; a router's default is in its checkpoint, or 0.5 if it holds none."
        ),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="Instead of a threshold: a budget that the router was calibrated for.")
    ] = "",
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    max_tokens: MaxTokensOption = LIMITS.max_tokens,
    max_steps: MaxStepsOption = LIMITS.max_steps,
    seed: SeedOption = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the trace as one JSON line instead.")] = False,
) -> None:
    """Solve one problem, each step coloured by the model that wrote it.

    Exit status: 0 when solved, 1 when a model failed on the way, 2 for bad input.
    """
    console = Console(highlight=False)
    setting = Setting(
        limits=Limits(max_tokens=max_tokens, max_steps=max_steps), sampling=Sampling(temperature=temperature), seed=seed
    )
    spec = MethodSpec.parse(policy or pair_config(pair).default_method)
    loaded = load(pair, policies=[spec])
    if budget:
        threshold = _of_budget(loaded, budget, spec, threshold)
    method = loaded.method(spec, threshold)
    if not as_json:
        console.print(legend())
    watch = (lambda trace: None) if as_json else LivePrinter(console)
    trace = loaded.solve(question, policy=method, setting=setting, watch=watch)
    if as_json:
        print(json.dumps({**trace.to_json(), "forward_passes": loaded.paths}))  # noqa: T201
    else:
        console.print(trace_footer(trace))
    if trace.finish is Finish.FAILED:
        typer.echo(f"error: {trace.error}", err=True)
        raise typer.Exit(1)


def _of_budget(loaded: LoadedPair, budget: str, method: MethodSpec, threshold: float | None) -> float:
    """The threshold of a budget.

    Raises:
        ConfigError: If the method does not use it, or the router is not calibrated for it.
    """
    if str(method) != "router" or threshold is not None:
        conflict = f"the threshold {threshold:g}" if threshold is not None else f"the policy {str(method)!r}"
        raise ConfigError(f"a budget sets the router's threshold, got {conflict} too", hint="leave one out")
    return loaded.threshold_for(budget)
