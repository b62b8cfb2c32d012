"""The top of the page: how much faster at the target's accuracy, and where the seconds go."""

from html import escape

from arbitrage.evaluation.figures.metrics import MethodFigures
from arbitrage.evaluation.figures.summary import Evidence, Summary
from arbitrage.evaluation.running.entry import TARGET, Entry
from arbitrage.report.highlights import RIVALS, SUBJECT, headline
from arbitrage.report.markup import card, note, time_bars
from arbitrage.report.words import duration, interval_text, number, points_text


def glance(evidence: Evidence) -> str:
    """The headline, a few large figures, and bars of time."""
    summary, figures = evidence.summary, {one.entry: one for one in evidence.figures}
    target, method = figures.get(TARGET), headline(summary)
    if target is None or target.accuracy is None:
        return note("Target-only did not run, or nothing could be graded: there is no accuracy to match.")
    matched = summary.of(method).fastest if method else None
    if method is None or matched is None:
        points = summary.margin * 100
        text = f"No policy comes within {points:g} points of target-only's accuracy of {target.accuracy:.1%}."
        return f'<p class="headline">{escape(text)}</p>' + time_bars({"target-only": target})
    own = figures[matched.entry]
    bars = time_bars({"target-only": target, f"{matched.entry.label}, its fastest at that accuracy": own})
    return (
        _headline(summary, method, target)
        + f'<div class="cards">{"".join(_cards(summary, method, own, target))}</div>'
        + f"<h3>Where the seconds of a problem go</h3>{bars}"
    )


def _headline(summary: Summary, method: Entry, target: MethodFigures) -> str:
    speedup = summary.of(method).interpolated
    assert speedup is not None, "a headline reaches the accuracy"
    return (
        f'<p class="headline">At {summary.margin * 100:g} points below target-only\'s accuracy of '
        f"{target.accuracy:.1%}, {escape(method.policy)} is <strong>{speedup.speedup.value:.2f}× as fast</strong> "
        f"{escape(interval_text(speedup.speedup.interval))}: "
        f"{duration(speedup.seconds)} a problem instead of {duration(speedup.reference_seconds)}.</p>"
    )


def _cards(summary: Summary, method: Entry, own: MethodFigures, target: MethodFigures) -> list[str]:
    """Large figures of the headline's method; ``own`` are those of its fastest threshold at the target's accuracy."""
    comparison = summary.of(method)
    speedup, matched, shown = comparison.interpolated, comparison.fastest, comparison.noninferior
    assert speedup is not None
    assert matched is not None
    versus = {rival: summary.of(method, rival).interpolated for rival in RIVALS if method == SUBJECT}
    cards = [
        card(
            f"{speedup.speedup.value:.2f}×", f"as fast as target-only {interval_text(speedup.speedup.interval)}, 95 %"
        ),
        card(
            number(own.accuracy, ".1%"),
            f"right by {matched.entry.label}; target-only {target.accuracy:.1%}; gap {points_text(matched.gap)}, "
            f"p = {matched.p_value:.2g}",
        ),
        *(
            card(
                f"{one.speedup.value:.2f}×",
                f"as fast as {rival.policy} {interval_text(one.speedup.interval)} at that accuracy",
            )
            for rival, one in versus.items()
            if one
        ),
        card(number(own.target_token_share, ".0%"), f"of tokens by the target under {matched.entry.label}"),
    ]
    if shown:
        meaning = f"as fast by {shown.entry.label}, shown to lose less than {summary.margin * 100:g} points"
        cards.append(card(f"{shown.speedup.value:.2f}×", f"{meaning} {interval_text(shown.speedup.interval)}"))
    if own.wasted_escalation_rate is not None:
        cards.append(card(f"{own.wasted_escalation_rate:.0%}", "of its escalations gained nothing, by the PRM"))
    return cards
