"""``arbitrage eval-router``: how good a router is on rows it has not seen."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from arbitrage.cli.options import PairOption, SeedOption
from arbitrage.cli.show import table_console
from arbitrage.core.errors import RowError
from arbitrage.pairs.catalogue import load_router, router_folder
from arbitrage.training.recipe import read_report
from arbitrage.training.rows import Row, read_rows

SCHEMA = 1
"""Version of the JSON line."""


def eval_router(
    rows: Annotated[Path, typer.Argument(help="Folder that `arbitrage collect` wrote.")],
    router: Annotated[str, typer.Argument(help="A router's checkpoint folder; empty for the pair's.")] = "",
    pair: PairOption = "tiny",
    out: Annotated[Path | None, typer.Option(help="Folder for pictures and judgement.json.")] = None,
    all_rows: Annotated[
        bool, typer.Option(help="Judge on all rows, not only on problems that training held out.")
    ] = False,
    margin: Annotated[float, typer.Option(help="Advantages up to this are no gain.")] = 0.0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: SeedOption = 0,
    as_json: Annotated[bool, typer.Option("--json", help="End standard output with one JSON line.")] = False,
) -> None:
    """Judge a router on logged rows, beside rules that need none: nothing is written by a model.

    rho: Spearman's correlation with the advantage. gain: share of the oracle's gain over chance, averaged over
    escalation rates. waste: share of escalations without gain. Intervals are over problems.
    """
    folder = router_folder(pair, router)
    scorer, engines = load_router(folder, pair=pair, device=device)
    found = _unseen(list(read_rows(rows)), folder, all_rows)
    from arbitrage.training.judge import judge, router_scores  # Heavy: only when it is asked for.
    from arbitrage.training.replay import BASELINES, baseline

    scores = asyncio.run(router_scores(scorer, found, engines))
    judgement = judge(found, scores, name="router", margin=margin, seed=seed)
    record = {"schema": SCHEMA, "rows": str(rows), "router": str(folder), "margin": margin, **asdict(judgement)}
    _tell(judgement, table_console())
    if out:
        from arbitrage.training.pictures import gain_curve, reliability_diagram, save

        out.mkdir(parents=True, exist_ok=True)
        (out / "judgement.json").write_text(json.dumps(record, indent=2) + "\n")
        save(gain_curve(found, {"router": scores, **{name: baseline(found, name) for name in BASELINES}}), out, "gain")
        save(reliability_diagram(found, scores, margin=margin), out, "reliability")
    if as_json:
        print(json.dumps(record))  # noqa: T201


def _unseen(rows: list[Row], router: Path, all_rows: bool) -> list[Row]:
    """The rows of problems that the router was not trained on.

    Raises:
        RowError: If there are none.
    """
    report = read_report(router)
    if all_rows or report is None:
        return rows
    trained_on = report["settings"]["rows"]
    held_out = set(report["held_out_problems"])
    unseen = [row for row in rows if row.problem.id in held_out]
    if not unseen:
        raise RowError(
            f"no row is of a problem that the training of {str(router)!r} held out (its rows: {trained_on})",
            hint="use --all-rows for rows of other problems",
        )
    return unseen


def _tell(judgement: Any, console: Console) -> None:
    ceiling = judgement.ceiling
    console.print(
        f"{judgement.num_rows} rows of {judgement.num_problems} problems · the target is better in "
        f"{judgement.gain_rate:.0%} · rho between halves of its samples "
        + (f"{ceiling.value:.3f} [{ceiling.low:.3f}, {ceiling.high:.3f}]" if ceiling else "unknown with one sample")
    )
    rates = list(judgement.router.waste_at)
    table = Table(title="order of escalation", title_justify="left")
    table.add_column("rule", no_wrap=True)
    for name in ("rho", "AUC", "AP", "gain", *(f"waste at {rate:.0%}" for rate in rates)):
        table.add_column(name, justify="right", no_wrap=name in ("rho", "gain"))
    for verdict in (judgement.router, *judgement.baselines):
        table.add_row(
            verdict.name,
            f"{verdict.rho.value:.3f}",
            f"{verdict.auc:.3f}",
            f"{verdict.average_precision:.3f}",
            f"{verdict.gain_share.value:.0%} [{verdict.gain_share.low:.0%}, {verdict.gain_share.high:.0%}]",
            *(f"{verdict.waste_at[rate]:.0%}" for rate in rates),
        )
    console.print(table)
    lead = judgement.lead
    console.print(
        f"gain above rsd {lead.value * 100:+.1f} points [{lead.low * 100:+.1f}, {lead.high * 100:+.1f}] · "
        f"right at 0.5: "
        f"{judgement.accuracy[0]:.0%} without gain, {judgement.accuracy[1]:.0%} with · "
        f"calibration error {judgement.calibration_error:.3f}"
    )
