"""What a comparison says at a glance."""

import random
from dataclasses import dataclass

from arbitrage.evaluation.curves import gain_share, waste_ratio
from arbitrage.evaluation.matched import Matched, fastest_matched
from arbitrage.evaluation.metrics import Row
from arbitrage.evaluation.run import Entry, Results


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Figures across rows; None where the comparison lacks what they need."""

    router_vs_target: Matched | None = None
    """The router's fastest threshold at the target's accuracy, against target-only."""
    rsd_vs_target: Matched | None = None
    router_vs_rsd: Matched | None = None
    """The same threshold of the router, against RSD's fastest at the target's accuracy."""
    gain_share: float | None = None
    """See :func:`arbitrage.evaluation.curves.gain_share`."""
    waste_ratio: float | None = None
    """See :func:`arbitrage.evaluation.curves.waste_ratio`."""


def summary_of(results: Results, rows: list[Row], *, margin: float = 0.015, seed: int = 0) -> Summary:
    """Compare router, RSD, oracle and chance where they ran.

    Args:
        results: The traces by entry.
        rows: The same, condensed.
        margin: How much accuracy below target-only counts as matched.
        seed: Of the bootstrap.
    """
    target, rng = Entry("target"), random.Random(seed)
    by_policy = {name: [row for row in rows if row.policy == name] for name in ("router", "rsd", "oracle")}
    chance = [row for row in rows if row.policy in ("random", "draft", "target")]
    router = rsd = versus = None
    if target in results:
        router = fastest_matched(results, "router", target, margin=margin, rng=rng)
        rsd = fastest_matched(results, "rsd", target, margin=margin, rng=rng)
    if rsd:
        versus = fastest_matched(results, "router", rsd.entry, margin=margin, rng=rng)
    return Summary(
        router_vs_target=router,
        rsd_vs_target=rsd,
        router_vs_rsd=versus,
        gain_share=gain_share(by_policy["router"], by_policy["oracle"], chance),
        waste_ratio=waste_ratio(by_policy["router"], by_policy["rsd"]),
    )
