"""Calibration of a router's checkpoint: thresholds for budgets, chosen from traces and written into the checkpoint."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from arbitrage.core.errors import CheckpointError
from arbitrage.evaluation.figures.calibrate import Budget, Calibration, calibrate, outcomes_of
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.folder import read_traces
from arbitrage.policies.spec import MethodSpec
from arbitrage.runtime.store import write_json
from arbitrage.scorers.format import InputFormat

ROUTER: Final = Entry(MethodSpec("router"))
"""The method whose thresholds a router's checkpoint holds."""
REPORT: Final = "calibration.json"
"""File in a calibrated router's checkpoint: for each budget the thresholds tested, with their bounds."""


def calibrate_router(
    folder: Path, traces: Path, budgets: Sequence[str], *, confidence: float, seed: int
) -> list[Calibration]:
    """Choose a router's threshold for each budget, and write them into its checkpoint.

    Args:
        folder: The router's checkpoint; budgets of earlier calibrations stay in it.
        traces: A run folder with target-only and the router at several thresholds, or a file of its traces.
        budgets: Such as ``target-tokens<=0.3``.
        confidence: Probability that a budget is kept on new problems of the same kind, in (0, 1).
        seed: Seed of the order in which problems enter the tests.

    Raises:
        ConfigError: If a budget cannot be read, the confidence is out of range, or no threshold keeps a budget.
        CheckpointError: If the folder is not a router's checkpoint, or its calibration report is broken.
        StoreError: If there are no traces.
        TraceError: If a trace cannot be read, or outcomes are missing.
    """
    input_format = InputFormat.load(folder)
    parsed = [Budget.parse(text) for text in budgets]
    records = ((position.entry, trace) for position, trace in read_traces(traces))
    outcomes, reference = outcomes_of(records, ROUTER)
    calibrations = [calibrate(outcomes, reference, budget, confidence=confidence, seed=seed) for budget in parsed]
    report = _read_report(folder) | {one.budget: asdict(one) for one in calibrations}
    thresholds = {one.budget: one.threshold for one in calibrations}
    replace(input_format, thresholds={**input_format.thresholds, **thresholds}).save(folder)
    write_json(folder / REPORT, report)
    return calibrations


def _read_report(folder: Path) -> dict[str, object]:
    """The report of earlier calibrations, by budget."""
    path = folder / REPORT
    try:
        report: dict[str, object] = json.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a calibration report: {error}", hint="remove the file") from error
    return report
