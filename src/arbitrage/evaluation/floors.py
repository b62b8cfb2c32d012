"""The floor of a probe: below which log-probability under the draft a step is sure to be rejected.

With it a rule can stop the draft within a step (:class:`arbitrage.policies.learned.Rejection`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Final

from arbitrage.core.errors import ConfigError
from arbitrage.core.trace import Trace
from arbitrage.core.types import Finish, Source
from arbitrage.evaluation.running.folder import read_traces
from arbitrage.scorers.probe import ProbeHead

SCORES: Final = (0.025, 0.055, 0.075, 0.105, 0.155, 0.205, 0.305, 0.505)
"""The scores for which a bound is looked for: just above thresholds in use, which a rejected step must exceed."""
LEAST_STEPS: Final = 30
"""Steps that must lie below a bound."""
Scored = tuple[float, float]
"""A step's log-probability under the draft (the lowest of all its beginnings), and its score."""


def write_floor(folder: Path, traces: Path, *, purity: float) -> tuple[Scored, ...]:
    """Choose the floor of a probe, and write it into its checkpoint.

    Args:
        folder: The probe's checkpoint.
        traces: A run folder in which the probe scored steps, or a file of its traces; new problems to the probe.
        purity: See :func:`floor_of`.

    Returns:
        Pairs of score and log-probability.

    Raises:
        ConfigError: If the purity is out of range.
        CheckpointError: If the folder holds no probe.
        StoreError: If there are no traces.
    """
    head = ProbeHead.load(folder)
    steps = [step for _, trace in read_traces(traces) for step in scored_steps(trace)]
    floor = floor_of(steps, purity=purity)
    replace(head, floor=floor).save(folder)
    return floor


def scored_steps(trace: Trace, scorer: str = "router") -> Iterable[Scored]:
    """The draft's whole steps with their scores by a scorer."""
    for step in trace.steps:
        drafts = [c for c in step.candidates if c.source is Source.DRAFT and c.finish is not Finish.GIVEN_UP]
        scores = [score.value for score in step.scores if (score.scorer, score.source) == (scorer, Source.DRAFT)]
        for draft, score in zip(drafts, scores, strict=False):
            if draft.logprobs:
                yield min(accumulate(draft.logprobs)), score


def floor_of(steps: Sequence[Scored], *, purity: float) -> tuple[Scored, ...]:
    """For each of :data:`SCORES` the highest bound below which at least ``purity`` of the steps have that score.

    Args:
        steps: The steps; equal ones, such as those of several methods, count once.
        purity: In (0, 1].

    Returns:
        Pairs of score and log-probability, for the scores that have a bound.
    """
    if not 0.0 < purity <= 1.0:
        raise ConfigError(f"--floor must be in (0, 1], got {purity:g}")
    ordered = sorted(set(steps))
    floor: list[Scored] = []
    for score in SCORES:
        num_above = accumulate(value >= score for _, value in ordered)
        bounds = [
            logprob
            for count, (above, (logprob, _)) in enumerate(zip(num_above, ordered, strict=True), start=1)
            if count >= LEAST_STEPS and above >= purity * count
        ]
        floor += [(score, bounds[-1])] if bounds else []
    return tuple(floor)
