"""What a comparison says at a glance."""

from collections.abc import Mapping
from dataclasses import dataclass, field

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
from arbitrage.evaluation.running.entry import TARGET, Entry
from arbitrage.evaluation.running.solutions import Graded
from arbitrage.evaluation.running.sweep import table_of
from arbitrage.policies.spec import MethodSpec
from arbitrage.policies.table import Standing

ROUTER, RSD, ORACLE = (Entry(MethodSpec(rule)) for rule in ("router", "rsd", "oracle"))


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
    products: frozenset[str] = frozenset()
    """Policies that one would serve: neither what one compares with, nor an upper bound."""
    routers: frozenset[str] = frozenset()
    """Policies in which a trained router decides."""
    gain_share: float | None = None
    """See :func:`arbitrage.evaluation.figures.curves.gain_share`."""
    waste_ratio: float | None = None
    """See :func:`arbitrage.evaluation.figures.curves.waste_ratio`."""

    @property
    def headline(self) -> str | None:
        """The policy that a reader asks about first: the router, or the fastest one that reaches the accuracy."""
        known = {policy: speedup.speedup for policy, speedup in self.speedups.items() if policy in self.products}
        return "router" if "router" in known else max(known, key=lambda policy: known[policy], default=None)


def summary_of(solutions: Graded, rows: list[Row], *, margin: float = MARGIN, seed: int = 0) -> Summary:
    """Compare policies where they ran.

    Args:
        solutions: Of all problems, by entry.
        rows: The same, condensed.
        margin: How much accuracy below target-only counts as matched.
        seed: Of the bootstrap.
    """
    by_group = {group: [row for row in rows if row.entry.group == group] for group in (ROUTER, RSD, ORACLE)}
    chance = [row for row in rows if _is_baseline(row.entry)]
    paired = Paired(solutions, seed=seed)
    vs_target: dict[str, Matched] = {}
    speedups: dict[str, Speedup] = {}
    shown: dict[Entry, Entry | None] = {}
    has_target = TARGET in solutions and bool(paired.problems)
    groups = list(dict.fromkeys(entry.group for entry in solutions))
    for group in groups if has_target else ():
        if not _is_baseline(group):
            if matched := fastest_matched(paired, group, TARGET, margin=margin):
                vs_target[group.policy] = matched
            shown[group] = fastest_noninferior(paired, group, margin=margin)
        if group != TARGET and (speedup := matched_speedup(paired, group, TARGET, margin=margin)):
            speedups[group.policy] = speedup
    rsd = vs_target.get(RSD.policy)
    rivals = [group for group in groups if is_product(group) and group != ROUTER] if ROUTER in groups else []
    versus = {rival: matched_speedup(paired, ROUTER, rival, margin=margin) for rival in rivals if has_target}
    frontiers = {group: _frontier(paired, group) for group in groups} if paired.problems else {}
    gaps = {rival: mean_gap(frontiers[ROUTER], frontiers[rival]) for rival in rivals if frontiers}
    return Summary(
        margin=margin,
        vs_target=vs_target,
        router_vs_rsd=fastest_matched(paired, ROUTER, rsd.entry, margin=margin) if rsd else None,
        noninferior={group.policy: _beside(paired, group, shown) for group in shown},
        speedups=speedups,
        router_vs={rival.policy: speedup for rival, speedup in versus.items() if speedup},
        router_mean_gap={rival.policy: gap for rival, gap in gaps.items() if gap is not None},
        products=frozenset(group.policy for group in groups if is_product(group)),
        routers=frozenset(group.policy for group in groups if group.method.is_router),
        gain_share=gain_share(by_group[ROUTER], by_group[ORACLE], chance),
        waste_ratio=waste_ratio(by_group[ROUTER], by_group[RSD]),
    )


def _is_baseline(entry: Entry) -> bool:
    return entry.method.standing is Standing.BASELINE


def is_product(entry: Entry) -> bool:
    """Whether one would serve the method."""
    return entry.method.standing is Standing.PRODUCT


def _beside(paired: Paired, group: Entry, shown: Mapping[Entry, Entry | None]) -> dict[str, Matched]:
    """A method's threshold beside target-only; a router's also beside those of methods without a router."""
    if not (entry := shown[group]):
        return {}
    rivals = [rival for rival in shown.values() if rival and not rival.method.is_router and is_product(rival)]
    references = [TARGET, *rivals] if entry.method.is_router else [TARGET]
    compared = {reference.policy: beside(paired, entry, reference) for reference in references}
    known = {name: matched for name, matched in compared.items() if matched}
    return known if TARGET.policy in known else {}


def _frontier(paired: Paired, group: Entry) -> list[tuple[float, float]]:
    return pareto((paired.seconds(entry) or 0.0, paired.accuracy(entry)) for entry in paired.of(group))


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
