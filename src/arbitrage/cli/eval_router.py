"""``arbitrage eval-router``: how well a router orders rows that its training did not see."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from arbitrage.cli.options import PairOption, SeedOption
from arbitrage.cli.show import table_console
from arbitrage.training.router_runs import run_router_evaluation

if TYPE_CHECKING:
    from arbitrage.training.router_quality import RouterQuality


def eval_router(
    rows: Annotated[Path, typer.Argument(help="Folder of rows by `arbitrage collect` or `arbitrage label`.")],
    router: Annotated[str, typer.Argument(help="Checkpoint folder of a router; empty for the pair's router.")] = "",
    pair: PairOption = "tiny",
    out: Annotated[Path | None, typer.Option(help="Folder for pictures and judgement.json.")] = None,
    all_rows: Annotated[
        bool, typer.Option(help="Use all rows, not only those of problems that the training held out.")
    ] = False,
    margin: Annotated[float, typer.Option(help="An advantage up to this value counts as no gain.")] = 0.0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: SeedOption = 0,
    as_json: Annotated[bool, typer.Option("--json", help="End standard output with one JSON line.")] = False,
) -> None:
    """Measure how well a router orders rows.

    The table compares it with rules that need no router. The steps were logged before; no model writes a step.
    rho: Spearman's correlation with the advantage. gain: share of the oracle's gain over chance, averaged over
    escalation rates. waste: share of escalations without gain. Intervals are over problems.
    """
    quality = run_router_evaluation(
        rows, router, pair=pair, out=out, uses_all_rows=all_rows, margin=margin, device=device, seed=seed
    )
    _print_quality(quality, table_console())
    if as_json:
        print(json.dumps(quality.to_json(rows=str(rows), margin=margin)))  # noqa: T201


def _print_quality(quality: "RouterQuality", console: Console) -> None:
    ceiling = quality.ceiling
    console.print(
        f"{quality.num_rows} rows of {quality.num_problems} problems · the target is better in "
        f"{quality.gain_rate:.0%} · rho between halves of its samples "
        + (f"{ceiling.value:.3f} [{ceiling.low:.3f}, {ceiling.high:.3f}]" if ceiling else "unknown with one sample")
    )
    rates = list(quality.router.waste_at)
    table = Table(title="order of escalation", title_justify="left")
    table.add_column("rule", no_wrap=True)
    for name in ("rho", "AUC", "AP", "gain", *(f"waste at {rate:.0%}" for rate in rates)):
        table.add_column(name, justify="right", no_wrap=name in ("rho", "gain"))
    for ranking in (quality.router, *quality.baselines):
        gain = ranking.oracle_gain_share
        table.add_row(
            ranking.name,
            f"{ranking.rho.value:.3f}",
            f"{ranking.auc:.3f}",
            f"{ranking.average_precision:.3f}",
            f"{gain.value:.0%} [{gain.low:.0%}, {gain.high:.0%}]",
            *(f"{ranking.waste_at[rate]:.0%}" for rate in rates),
        )
    console.print(table)
    lead = quality.lead
    console.print(
        f"gain above rsd {lead.value * 100:+.1f} points [{lead.low * 100:+.1f}, {lead.high * 100:+.1f}] · "
        f"right at 0.5: "
        f"{quality.accuracy[0]:.0%} without gain, {quality.accuracy[1]:.0%} with · "
        f"calibration error {quality.calibration_error:.3f}"
    )
