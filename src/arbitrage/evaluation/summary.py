"""What a comparison says at a glance."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from arbitrage.evaluation.curves import gain_share, waste_ratio
from arbitrage.evaluation.grading import Grade, is_correct
from arbitrage.evaluation.matched import Matched, fastest_matched
from arbitrage.evaluation.metrics import Row
from arbitrage.evaluation.run import Entry, Results

ENDS_AND_CHANCE: Final = ("random", "draft", "target")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Figures across rows; None where the comparison lacks what they need."""

    vs_target: Mapping[str, Matched] = field(default_factory=dict)
    """By policy: its fastest threshold at the target's accuracy, against target-only. Those that reach it only."""
    router_vs_rsd: Matched | None = None
    """The same threshold of the router, against RSD's fastest at the target's accuracy."""
    gain_share: float | None = None
    """See :func:`arbitrage.evaluation.curves.gain_share`."""
    waste_ratio: float | None = None
    """See :func:`arbitrage.evaluation.curves.waste_ratio`."""


def summary_of(
    results: Results, rows: list[Row], *, margin: float = 0.015, seed: int = 0, grade: Grade = is_correct
) -> Summary:
    """Compare router, RSD, oracle and chance where they ran.

    Args:
        results: The traces by entry.
        rows: The same, condensed.
        margin: How much accuracy below target-only counts as matched.
        seed: Of the bootstrap.
        grade: Says which traces are right.
    """
    target, rng = Entry("target"), random.Random(seed)
    by_policy = {name: [row for row in rows if row.policy == name] for name in ("router", "rsd", "oracle")}
    chance = [row for row in rows if row.policy in ENDS_AND_CHANCE]
    vs_target: dict[str, Matched] = {}
    if target in results:
        for policy in dict.fromkeys(entry.policy for entry in results if entry.policy not in ENDS_AND_CHANCE):
            if matched := fastest_matched(results, policy, target, margin=margin, rng=rng, grade=grade):
                vs_target[policy] = matched
    rsd = vs_target.get("rsd")
    return Summary(
        vs_target=vs_target,
        router_vs_rsd=fastest_matched(results, "router", rsd.entry, margin=margin, rng=rng, grade=grade)
        if rsd
        else None,
        gain_share=gain_share(by_policy["router"], by_policy["oracle"], chance),
        waste_ratio=waste_ratio(by_policy["router"], by_policy["rsd"]),
    )
