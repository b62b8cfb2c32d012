"""What a comparison says at a glance."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from arbitrage.evaluation.figures.curves import gain_share, waste_ratio
from arbitrage.evaluation.figures.frontier import mean_gap, pareto
from arbitrage.evaluation.figures.matched import (
    MARGIN,
    Matched,
    Speedup,
    beside,
    fastest_matched,
    fastest_noninferior,
    matched_speedup,
)
from arbitrage.evaluation.figures.metrics import Row
from arbitrage.evaluation.figures.paired import Paired
from arbitrage.evaluation.figures.rates import Rates
from arbitrage.evaluation.running.sweep import TARGET, Entry, Graded, table_of

ENDS_AND_CHANCE: Final = ("random", "draft", "target")
NO_PRODUCTS: Final = (*ENDS_AND_CHANCE, "oracle")
"""Policies that nobody would serve, or that are what one compares with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Figures across rows; None where the comparison lacks what they need."""

    margin: float = MARGIN
    """How much accuracy below target-only counts as matched."""
    vs_target: Mapping[str, Matched] = field(default_factory=dict)
    """By policy: its fastest threshold at the target's accuracy, against target-only. Those that reach it only."""
    router_vs_rsd: Matched | None = None
    """The same threshold of the router, against RSD's fastest at the target's accuracy."""
    noninferior: Mapping[str, Mapping[str, Matched]] = field(default_factory=dict)
    """By policy: its fastest threshold that is shown to lose less accuracy than the margin, against target-only; the
    routers' also against such thresholds of other policies. Empty where no threshold is so shown, or
    target-only has no times."""
    speedups: Mapping[str, Speedup] = field(default_factory=dict)
    """By policy: against target-only at its accuracy minus the margin, thresholds interpolated."""
    router_vs: Mapping[str, Speedup] = field(default_factory=dict)
    """The router likewise, against other policies."""
    router_mean_gap: Mapping[str, float] = field(default_factory=dict)
    """The router's accuracy minus another policy's at equal seconds, mean over the seconds that both cover."""
    gain_share: float | None = None
    """See :func:`arbitrage.evaluation.figures.curves.gain_share`."""
    waste_ratio: float | None = None
    """See :func:`arbitrage.evaluation.figures.curves.waste_ratio`."""

    @property
    def headline(self) -> str | None:
        """The policy that a reader asks about first: the router, or the fastest one that reaches the accuracy."""
        known = {policy: speedup.speedup for policy, speedup in self.speedups.items() if policy not in NO_PRODUCTS}
        return "router" if "router" in known else max(known, key=lambda policy: known[policy], default=None)


def summary_of(solutions: Graded, rows: list[Row], *, margin: float = MARGIN, seed: int = 0) -> Summary:
    """Compare policies where they ran.

    Args:
        solutions: Of all problems, by entry.
        rows: The same, condensed.
        margin: How much accuracy below target-only counts as matched.
        seed: Of the bootstrap.
    """
    by_policy = {name: [row for row in rows if row.policy == name] for name in ("router", "rsd", "oracle")}
    chance = [row for row in rows if row.policy in ENDS_AND_CHANCE]
    paired = Paired(solutions, seed=seed)
    vs_target: dict[str, Matched] = {}
    speedups: dict[str, Speedup] = {}
    shown: dict[str, Entry | None] = {}
    has_target = TARGET in solutions and bool(paired.problems)
    policies = dict.fromkeys(entry.policy for entry in solutions)
    for policy in policies if has_target else ():
        if policy not in ENDS_AND_CHANCE and (matched := fastest_matched(paired, policy, TARGET, margin=margin)):
            vs_target[policy] = matched
        if policy not in ENDS_AND_CHANCE:
            shown[policy] = fastest_noninferior(paired, policy, margin=margin)
        if policy != TARGET.policy and (speedup := matched_speedup(paired, policy, TARGET.policy, margin=margin)):
            speedups[policy] = speedup
    rsd = vs_target.get("rsd")
    rivals = [policy for policy in policies if policy not in (*NO_PRODUCTS, "router")] if "router" in policies else []
    versus = {rival: matched_speedup(paired, "router", rival, margin=margin) for rival in rivals if has_target}
    frontiers = {policy: _frontier(paired, policy) for policy in policies} if paired.problems else {}
    gaps = {rival: mean_gap(frontiers["router"], frontiers[rival]) for rival in rivals if frontiers}
    return Summary(
        margin=margin,
        vs_target=vs_target,
        router_vs_rsd=fastest_matched(paired, "router", rsd.entry, margin=margin) if rsd else None,
        noninferior={policy: _beside(paired, policy, shown) for policy in shown},
        speedups=speedups,
        router_vs={rival: speedup for rival, speedup in versus.items() if speedup},
        router_mean_gap={rival: gap for rival, gap in gaps.items() if gap is not None},
        gain_share=gain_share(by_policy["router"], by_policy["oracle"], chance),
        waste_ratio=waste_ratio(by_policy["router"], by_policy["rsd"]),
    )


def is_router(policy: str) -> bool:
    """Whether a policy is a rule of this package's routers, in whatever combination."""
    return policy.startswith("router")


def _beside(paired: Paired, policy: str, shown: Mapping[str, Entry | None]) -> dict[str, Matched]:
    """A policy's threshold beside target-only; a router's also beside those of policies that are none."""
    if not (entry := shown[policy]):
        return {}
    rivals = [rival for name, rival in shown.items() if rival and not is_router(name) and name not in NO_PRODUCTS]
    references = [TARGET, *rivals] if is_router(policy) else [TARGET]
    compared = {reference.policy: beside(paired, entry, reference) for reference in references}
    known = {name: matched for name, matched in compared.items() if matched}
    return known if TARGET.policy in known else {}


def _frontier(paired: Paired, policy: str) -> list[tuple[float, float]]:
    return pareto((paired.seconds(entry) or 0.0, paired.accuracy(entry)) for entry in paired.of(policy))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All figures of one run."""

    rows: list[Row]
    summary: Summary


def evidence_of(solutions: Graded, *, rates: Rates | None = None, margin: float = MARGIN, seed: int = 0) -> Evidence:
    """Compute all figures of one run.

    Args:
        solutions: Of all problems, by entry.
        rates: To estimate operations and cost with.
        margin: How much accuracy below target-only counts as matched.
        seed: Of the bootstrap.
    """
    rows = table_of(solutions, rates)
    return Evidence(rows=rows, summary=summary_of(solutions, rows, margin=margin, seed=seed))
