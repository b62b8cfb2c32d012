"""The tables of a report, each described once; nothing here draws plots."""

from collections.abc import Collection, Sequence
from typing import Final

from arbitrage.evaluation.figures.compare import Difference
from arbitrage.evaluation.figures.metrics import MethodFigures
from arbitrage.evaluation.figures.summary import Comparison, Summary
from arbitrage.evaluation.running.entry import Entry
from arbitrage.report.columns import NONE, Column, Table
from arbitrage.report.highlights import SUBJECT, headline
from arbitrage.report.words import interval_text, is_plain_product, name_of, number, points_text, ratio_text


def _share(part: int, total: int) -> float | None:
    return part / total if total else None


def _accuracy_interval(one: MethodFigures) -> str:
    has_interval = one.accuracy_low is not None and one.accuracy_high is not None
    return f"{one.accuracy_low:.0%}–{one.accuracy_high:.0%}" if has_interval else NONE


def _discarded(one: MethodFigures) -> float | None:
    return _share(one.tokens.draft_discarded, one.tokens.draft_accepted + one.tokens.draft_discarded)


COLUMNS: Final[Sequence[Column[MethodFigures]]] = (
    Column("policy", lambda one: one.entry.policy, terminal="policy"),
    Column("threshold", lambda one: number(one.entry.threshold, "g"), terminal="threshold"),
    Column("accuracy", lambda one: number(one.accuracy, ".1%"), terminal="accuracy"),
    Column("95 %", _accuracy_interval, terminal="95 %"),
    Column("accepted", lambda one: number(one.acceptance_rate, ".0%"), terminal="accepted"),
    Column("repaired", lambda one: number(one.repair_rate or None, ".0%")),
    Column("tokens by target", lambda one: number(one.target_token_share, ".0%"), terminal="by target"),
    Column("wasted", lambda one: number(one.wasted_escalation_rate, ".0%"), terminal="wasted"),
    Column("s/problem", lambda one: number(one.seconds_per_problem, ".3f"), terminal="s/problem"),
    Column("p50", lambda one: number(one.seconds.p50 if one.seconds else None, ".3f")),
    Column("p95", lambda one: number(one.seconds.p95 if one.seconds else None, ".3f")),
    Column("speed-up", lambda one: number(one.speedup_vs_target, ".2f"), terminal="speed-up", terminal_unit="×"),
    Column("overhead", lambda one: number(one.overhead_share, ".1%"), terminal="overhead"),
    Column("tokens/s", lambda one: number(one.tokens_per_second, ".0f")),
    # Where an audit hides the throughput of some entries, that of the others has nothing to be compared with.
    Column("solutions/s", lambda one: number(one.solutions_per_second, ".2f"), needs_all=True),
    Column("draft lost", lambda one: number(_discarded(one), ".0%")),
    Column("reused", lambda one: number(_share(one.tokens.reused, one.tokens.target_kept), ".0%")),
    Column("FLOPs", lambda one: number(one.flops_per_problem, ".2e")),
    Column("cost", lambda one: number(one.cost_per_problem, ".3g")),
    Column("J/problem", lambda one: number(one.energy_j_per_problem, ".3g")),
    Column("failed", lambda one: str(one.num_failed) if one.num_failed else NONE),
    Column("ungraded", lambda one: str(one.num_ungraded) if one.num_ungraded else NONE),
)


def terminal_table(figures: Sequence[MethodFigures], title: str) -> Table:
    """All entries with the columns for which a terminal has room."""
    return Table.for_terminal(title, COLUMNS, figures)


def figures_table(figures: Sequence[MethodFigures], stressed: Collection[Entry] = ()) -> Table:
    """All entries with every column for which there are figures."""
    return Table.of("all policies", COLUMNS, figures, is_stressed=lambda one: one.entry in stressed, hides_empty=True)


def speed_table(summary: Summary) -> Table:
    """Every method that reaches the target's accuracy, compared with target-only; the fastest first."""
    reached = [summary.of(method) for method in summary.methods if summary.of(method).interpolated]
    top = headline(summary)
    return Table.of(
        "speed-ups",
        SPEED_COLUMNS,
        sorted(reached, key=lambda one: -one.interpolated.speedup.value if one.interpolated else 0.0),
        is_stressed=lambda one: one.method == top,
    )


def _shown_cell(one: Comparison) -> str:
    matched = one.noninferior
    if matched is None:
        return NONE if one.method.is_baseline else "none"
    threshold = "" if matched.entry.threshold is None else f"{matched.entry.threshold:g}: "
    return f"{threshold}{matched.speedup.value:.2f}×, gap ≥ {matched.lowest_gap * 100:.1f}"


SPEED_COLUMNS: Final[Sequence[Column[Comparison]]] = (
    Column("policy", lambda one: one.method.policy),
    Column("speed-up", lambda one: f"{one.interpolated.speedup.value:.2f}×" if one.interpolated else NONE),
    Column("95 %", lambda one: interval_text(one.interpolated.speedup.interval) if one.interpolated else NONE),
    Column("s/problem", lambda one: number(one.interpolated.seconds if one.interpolated else None, ".3f")),
    Column("fastest threshold", lambda one: number(one.fastest.entry.threshold if one.fastest else None, "g")),
    Column("its speed-up", lambda one: ratio_text(one.fastest.speedup) if one.fastest else NONE),
    Column("accuracy gap", lambda one: points_text(one.fastest.gap, unit="") if one.fastest else NONE),
    Column("p", lambda one: number(one.fastest.p_value if one.fastest else None, ".2g")),
    Column("shown not inferior", _shown_cell),
)


def routers_table(summary: Summary) -> Table:
    """Routers compared with methods in which no router decides, at the target's accuracy; it may have no rows."""
    pairs = [
        *((SUBJECT, rival) for rival in summary.references(SUBJECT) if summary.of(SUBJECT, rival).interpolated),
        *(pair for pair, comparison in summary.comparisons.items() if comparison.noninferior),
    ]
    comparisons = [
        summary.of(method, rival)
        for method, rival in dict.fromkeys(pairs)
        if method.method.is_router and is_plain_product(rival)
    ]
    return Table.of("routers beside others", ROUTER_COLUMNS, comparisons)


ROUTER_COLUMNS: Final[Sequence[Column[Comparison]]] = (
    Column("routers beside others", lambda one: f"{one.method.policy} over {one.reference.policy}"),
    Column("thresholds interpolated", lambda one: ratio_text(one.interpolated.speedup) if one.interpolated else NONE),
    Column("both shown not inferior", lambda one: ratio_text(one.noninferior.speedup) if one.noninferior else NONE),
    Column(
        "which are",
        lambda one: (
            f"{name_of(one.noninferior.entry)} over {name_of(one.noninferior.reference)}" if one.noninferior else NONE
        ),
    ),
)


def differences_table(differences: Sequence[Difference]) -> Table:
    """The entries that two runs share."""
    return Table.of("differences", DIFFERENCE_COLUMNS, differences)


DIFFERENCE_COLUMNS: Final[Sequence[Column[Difference]]] = (
    Column("policy", lambda one: one.entry.label),
    Column("runs", lambda one: f"{one.first} → {one.second}"),
    Column("accuracy", lambda one: f"{one.accuracy[0]:.1%} → {one.accuracy[1]:.1%}"),
    Column("difference, points", lambda one: points_text(one.gap, unit="")),
    Column("p", lambda one: f"{one.p_value:.2g}"),
    Column("s/problem", lambda one: f"{number(one.seconds[0], '.3f')} → {number(one.seconds[1], '.3f')}"),
    Column("speed-up", lambda one: ratio_text(one.speedup) if one.speedup else NONE),
)
