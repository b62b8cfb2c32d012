"""All figures of a run: of each entry, and of methods compared with one another."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields

from arbitrage.evaluation.figures.curves import gain_share, waste_ratio
from arbitrage.evaluation.figures.frontier import mean_gap
from arbitrage.evaluation.figures.matched import (
    MARGIN,
    Matched,
    Speedup,
    beside,
    fastest_matched,
    fastest_noninferior,
    matched_speedup,
)
from arbitrage.evaluation.figures.metrics import MethodFigures, all_figures
from arbitrage.evaluation.figures.paired import Paired
from arbitrage.evaluation.figures.rates import Rates
from arbitrage.evaluation.running.entry import TARGET, Entry
from arbitrage.evaluation.running.solutions import Graded


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A method compared with a reference; None where the solutions do not determine a figure.

    Method and reference are entries without a threshold: a comparison covers all thresholds of both.
    """

    method: Entry
    reference: Entry
    interpolated: Speedup | None = None
    """At the target's accuracy minus the margin, thresholds of both interpolated."""
    fastest: Matched | None = None
    """The method's fastest threshold that reaches this accuracy, with the reference's; None for a baseline."""
    noninferior: Matched | None = None
    """The method's fastest threshold that is shown to lose less accuracy than the margin, with the reference's; None
    for a baseline, and where no threshold of one of them is shown."""
    mean_gap: float | None = None
    """Accuracy minus the reference's at equal seconds, averaged over the seconds that both frontiers cover."""
    gain_share: float | None = None
    """Share of the reference's accuracy gain over chance; only where the reference is an upper bound. See
    :func:`arbitrage.evaluation.figures.curves.gain_share`."""
    waste_ratio: float | None = None
    """Rate of wasted escalations over the reference's at equal acceptance; see
    :func:`arbitrage.evaluation.figures.curves.waste_ratio`."""

    @property
    def is_empty(self) -> bool:
        """Whether no figure could be determined."""
        return all(getattr(self, f.name) is None for f in fields(self) if f.name not in ("method", "reference"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Comparisons of a run's methods."""

    margin: float = MARGIN
    """How far below target-only's accuracy an accuracy counts as matched."""
    comparisons: Mapping[tuple[Entry, Entry], Comparison] = field(default_factory=dict)
    """By method and reference: every method with target-only, and every method that one would serve with every other
    one and with every upper bound."""

    def of(self, method: Entry, reference: Entry = TARGET) -> Comparison:
        """The comparison of a method with a reference; an empty one if it was not made."""
        return self.comparisons.get((method, reference)) or Comparison(method=method, reference=reference)

    def references(self, method: Entry) -> list[Entry]:
        """The references that a method is compared with."""
        return [reference for other, reference in self.comparisons if other == method]

    @property
    def methods(self) -> list[Entry]:
        """The methods that are compared with target-only."""
        return [method for method, reference in self.comparisons if reference == TARGET]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All figures of one run."""

    figures: Sequence[MethodFigures]
    """Of each entry."""
    summary: Summary


def evidence_of(solutions: Graded, *, rates: Rates | None = None, margin: float = MARGIN, seed: int = 0) -> Evidence:
    """Compute all figures of one run.

    Args:
        solutions: Of all problems, by entry.
        rates: To estimate operations and cost with.
        margin: How far below target-only's accuracy an accuracy counts as matched.
        seed: Seed of the bootstrap.
    """
    figures = all_figures(solutions, rates)
    return Evidence(figures=figures, summary=summary_of(solutions, figures, margin=margin, seed=seed))


def summary_of(
    solutions: Graded, figures: Sequence[MethodFigures], *, margin: float = MARGIN, seed: int = 0
) -> Summary:
    """Compare the methods of a run.

    Args:
        solutions: Of all problems, by entry.
        figures: Of the same entries.
        margin: How far below target-only's accuracy an accuracy counts as matched.
        seed: Seed of the bootstrap.
    """
    comparer = _Comparer(figures, Paired(solutions, seed=seed), margin)
    methods = list(dict.fromkeys(entry.group for entry in solutions))
    pairs = _pairs(methods, comparer.has_target)
    return Summary(margin=margin, comparisons={pair: comparer.compare(*pair) for pair in pairs})


def _pairs(methods: Sequence[Entry], has_target: bool) -> Iterator[tuple[Entry, Entry]]:
    for method in methods:
        if has_target and method != TARGET:
            yield method, TARGET
        for reference in methods if method.is_product else ():
            if reference != method and not reference.is_baseline:
                yield method, reference


class _Comparer:
    """Computes comparisons; the thresholds of each method are chosen once."""

    def __init__(self, figures: Sequence[MethodFigures], paired: Paired, margin: float) -> None:
        self._figures, self._paired, self._margin = figures, paired, margin
        self._chance = [one for one in figures if one.entry.is_baseline]
        self.has_target = TARGET in paired.entries and bool(paired.problems)
        """Whether there is an accuracy to match."""
        methods = dict.fromkeys(entry.group for entry in paired.entries if not entry.is_baseline)
        chosen = methods if self.has_target else ()
        self._fastest = {method: fastest_matched(paired, method, margin=margin) for method in chosen}
        self._noninferior = {method: fastest_noninferior(paired, method, margin=margin) for method in chosen}
        if self.has_target:
            self._fastest[TARGET] = self._noninferior[TARGET] = TARGET

    def compare(self, method: Entry, reference: Entry) -> Comparison:
        own, other = (self._of(one) for one in (method, reference))
        paired, margin = self._paired, self._margin
        return Comparison(
            method=method,
            reference=reference,
            interpolated=matched_speedup(paired, method, reference, margin=margin) if self.has_target else None,
            fastest=self._matched(self._fastest, method, reference),
            noninferior=self._matched(self._noninferior, method, reference),
            mean_gap=mean_gap(paired.frontier(method), paired.frontier(reference)) if paired.problems else None,
            gain_share=gain_share(own, other, self._chance) if reference.is_bound else None,
            waste_ratio=waste_ratio(own, other),
        )

    def _of(self, method: Entry) -> list[MethodFigures]:
        return [one for one in self._figures if one.entry.group == method]

    def _matched(self, chosen: Mapping[Entry, Entry | None], method: Entry, reference: Entry) -> Matched | None:
        entry, other = chosen.get(method), chosen.get(reference)
        return beside(self._paired, entry, other) if entry and other else None
