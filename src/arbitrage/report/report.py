"""The report: pictures and one page that opens from disk, all from traces alone."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from arbitrage.evaluation.figures.compare import Difference
from arbitrage.evaluation.figures.matched import Matched
from arbitrage.evaluation.figures.summary import Evidence, Summary
from arbitrage.evaluation.running.entry import TARGET, Entry
from arbitrage.evaluation.running.folder import Run, told_entries
from arbitrage.report.browse import embedded
from arbitrage.report.export import plain
from arbitrage.report.markup import card, facts, note, table, time_bars
from arbitrage.report.plots import Plot, accuracy_by_acceptance, accuracy_by_seconds, looks_of, plots_of
from arbitrage.report.tables import about, rows_cells
from arbitrage.report.words import duration, gap_text, interval_text, number


def write_report(run: Run, evidence: Evidence, folder: Path, page: Path | None = None) -> Path:
    """Write pictures and the page of one run.

    Args:
        run: The run.
        evidence: Its figures.
        folder: Where to write.
        page: Where to write the page; None for ``report.html`` in the folder.

    Returns:
        Where the page is.
    """
    plots = plots_of(run.solutions, evidence)
    (folder / "plots").mkdir(exist_ok=True)
    for plot in plots:
        plot.png(folder / "plots" / f"{plot.name}.png")
    page = page or folder / "report.html"
    page.write_text(run_page(run, evidence, plots))
    return page


def run_page(run: Run, evidence: Evidence, plots: Sequence[Plot]) -> str:
    """The page of one run."""
    summary = evidence.summary
    browser = embedded({"": run})
    matched = summary.vs_target.get(summary.headline or "")
    entry = matched.entry if matched else list(run.solutions)[-1]
    sections = _section("speed", "Speed at the target's accuracy", speed_table(summary))
    sections += _section("rows", "All policies", _rows_table(evidence, [m.entry for m in summary.vs_target.values()]))
    return _page(
        title=f"Arbitrage evaluation: {run.name}",
        about=about(run),
        notes=_notes(run),
        glance=glance(evidence),
        sections=sections,
        plots=plots,
        method=_method(run, summary),
        browser=browser | {"left": entry.label, "right": TARGET.label},
        num_problems=len(run.problems),
    )


def comparison_page(
    runs: Mapping[str, Run], evidence: Mapping[str, Evidence], found: Sequence[Difference], merged: Evidence
) -> str:
    """The page of several runs on the same problems.

    Args:
        runs: By name.
        evidence: Figures of each.
        found: What differs, by policy and threshold.
        merged: Figures of all, each policy tagged with its run.
    """
    looks = looks_of([row.entry for row in merged.rows])
    plots = [
        accuracy_by_seconds(merged.rows, looks, merged.summary.margin),
        accuracy_by_acceptance(merged.rows, looks),
    ]
    glances = "".join(f"<h3>{escape(name)}</h3>{glance(evidence[name])}" for name in runs)
    sections = _section("differences", "The same policy in both runs", differences_table(found))
    sections += _section("rows", "All policies", _rows_table(merged, []))
    first, second, *_ = runs
    entry = found[0].entry if found else next(iter(runs[first].solutions))
    return _page(
        title="Arbitrage comparison: " + ", ".join(runs),
        about=f"{len(runs)} runs on the same {len(runs[first].problems)} problems.",
        notes="".join(_notes(run) for run in runs.values()),
        glance=glances,
        sections=sections,
        plots=[plot for plot in plots if plot is not None],
        method="".join(f"<h3>{escape(name)}</h3>{_method(run, merged.summary)}" for name, run in runs.items()),
        browser=embedded(runs) | {"left": f"{entry.label} · {first}", "right": f"{entry.label} · {second}"},
        num_problems=len(runs[first].problems),
    )


def _page(
    *,
    title: str,
    about: str,
    notes: str,
    glance: str,
    sections: str,
    plots: Iterable[Plot],
    method: str,
    browser: Mapping[str, Any],
    num_problems: int,
) -> str:
    folder = resources.files("arbitrage.report") / "page"
    html, style, script = ((folder / f"page.{ending}").read_text() for ending in ("html", "css", "js"))
    num_shown = len(browser["problems"])
    sample = (
        f"All {num_problems} problems"
        if num_shown == num_problems
        else (
            f"{num_shown} of {num_problems} problems, drawn in equal shares from each level and each pattern of who "
            "is right"
        )
    )
    # A text that closes the element would end the data: "</" is written as JSON may write it.
    data = json.dumps(plain(browser), separators=(",", ":")).replace("</", "<\\/")
    return Template(html).substitute(
        title=escape(title),
        about=escape(about),
        notes=notes,
        glance=glance,
        sections=sections,
        pictures="".join(_figure(plot) for plot in plots),
        method=method,
        sample=escape(f"{sample}; of several attempts the first. ")
        + "Struck through: a step that was rejected for the one beside it.",
        style=style,
        script=script,
        data=data,
    )


def _figure(plot: Plot) -> str:
    return (
        f'<figure><h3>{escape(plot.title)}</h3><div role="img" aria-label="{escape(plot.title)}">{plot.svg()}</div>'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )


def _section(name: str, title: str, content: str) -> str:
    heading = f'<h2 id="{name}-title">{escape(title)}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">{heading}{content}</section>'


def _notes(run: Run) -> str:
    told = []
    if run.settings:
        planned = run.settings["problems"]["count"] * run.settings["samples"]
        solved = min(map(len, run.solutions.values()))
        waiting = [entry.label for entry in told_entries(run.settings) if entry not in run.solutions]
        absent = f" No solution yet by {', '.join(waiting)}." if waiting else ""
        if planned > solved or absent:
            told.append(f"Unfinished: {solved} of {planned} solutions of each policy are there; these count.{absent}")
    for entry, solutions in run.solutions.items():
        if failed := [solution for solution in solutions if solution.is_failed]:
            told.append(f"{entry.label}: {len(failed)} of {len(solutions)} failed, first: {failed[0].error}")
    ungraded = {s.problem for solutions in run.solutions.values() for s in solutions if s.is_correct is None}
    if ungraded:
        told.append(f"{len(ungraded)} of {len(run.problems)} problems could not be graded; accuracies leave them out.")
    if run.jobs > 1:
        told.append("Seconds are those of a solution among others under load: they do not compare with a latency run.")
    return "".join(map(note, told))


def glance(evidence: Evidence) -> str:
    """At the target's accuracy, how much faster, and where did the time go?"""
    summary, rows = evidence.summary, {row.entry: row for row in evidence.rows}
    target, name = rows.get(TARGET), summary.headline
    if target is None or target.accuracy is None:
        return note("Target-only did not run, or nothing could be graded: there is no accuracy to be matched.")
    if name is None or name not in summary.vs_target:
        points, accuracy = summary.margin * 100, target.accuracy
        told = f"No policy comes within {points:g} points of target-only's accuracy of {accuracy:.1%}."
        return f'<p class="headline">{escape(told)}</p>' + time_bars({"target-only": target})
    speedup, matched = summary.speedups[name], summary.vs_target[name]
    row = rows[matched.entry]
    headline = (
        f'<p class="headline">At {summary.margin * 100:g} points below target-only\'s accuracy of '
        f"{target.accuracy:.1%}, {escape(name)} is <strong>{speedup.speedup:.2f}× as fast</strong> "
        f"[{escape(interval_text(speedup.interval))}]: "
        f"{duration(speedup.seconds)} a problem instead of {duration(speedup.reference_seconds)}.</p>"
    )
    cards = [
        card(f"{speedup.speedup:.2f}×", f"as fast as target-only [{interval_text(speedup.interval)}], 95 %"),
        card(
            number(row.accuracy, ".1%"),
            f"right by {matched.entry.label}; target-only {target.accuracy:.1%}; gap {gap_text(matched)}, "
            f"p = {matched.p_value:.2g}",
        ),
        *(
            card(f"{versus.speedup:.2f}×", f"as fast as {rival} [{interval_text(versus.interval)}] at that accuracy")
            for rival, versus in summary.router_vs.items()
            if name == "router" and rival in ("rsd", "speculative")
        ),
        card(number(row.target_token_share, ".0%"), f"of tokens by the target under {matched.entry.label}"),
    ]
    if shown := summary.noninferior.get(name, {}).get(TARGET.policy):
        lost = f"shown to lose less than {summary.margin * 100:g} points"
        meaning = f"as fast by {shown.entry.label}, {lost} [{interval_text(shown.interval)}]"
        cards.append(card(f"{shown.speedup:.2f}×", meaning))
    if row.wasted_escalation_rate is not None:
        cards.append(card(f"{row.wasted_escalation_rate:.0%}", "of its escalations gained nothing, by the PRM"))
    bars = time_bars({"target-only": target, f"{matched.entry.label}, its fastest at that accuracy": row})
    return f'{headline}<div class="cards">{"".join(cards)}</div><h3>Where the seconds of a problem go</h3>{bars}'


def speed_table(summary: Summary) -> str:
    """Every policy that reaches the accuracy, against target-only."""
    if not summary.speedups:
        return note("No policy reaches the target's accuracy minus the margin, or target-only did not run.")
    head = (
        "policy",
        "speed-up",
        "95 %",
        "s/problem",
        "fastest threshold",
        "its speed-up",
        "accuracy gap",
        "p",
        "shown not inferior",
    )
    body = []
    for policy, speedup in sorted(summary.speedups.items(), key=lambda item: -item[1].speedup):
        matched = summary.vs_target.get(policy)
        cells = [policy, f"{speedup.speedup:.2f}×", f"[{interval_text(speedup.interval)}]", f"{speedup.seconds:.3f}"]
        cells += _matched_cells(matched) if matched else ["–"] * 4
        body.append([*cells, _shown_cell(summary.noninferior.get(policy))])
    text = (
        f"Seconds of each policy where its Pareto frontier reaches target-only's accuracy minus "
        f"{summary.margin * 100:g} points, thresholds interpolated; intervals from a paired bootstrap over problems "
        "that finds frontier and accuracy anew each time. Then its fastest single threshold at that accuracy, chosen "
        "on the same problems. 'Shown not inferior': its fastest threshold that loses less than these points with "
        "97.5 % confidence, thresholds tested from the slowest on; how fast it is, and what the gap is at least."
    )
    places = [place for place, cells in enumerate(body) if cells[0] == summary.headline]
    made = f'<p class="about">{escape(text)}</p>' + table(head, body, label="speed-ups", best=places)
    return made + routers_table(summary)


def routers_table(summary: Summary) -> str:
    """Routers against policies that are none, at the target's accuracy; nothing without both."""
    routers = {policy: found for policy, found in summary.noninferior.items() if policy in summary.routers}
    pairs = [("router", rival) for rival in summary.router_vs if rival not in summary.routers]
    pairs += [(policy, rival) for policy, found in routers.items() for rival in found if rival != TARGET.policy]
    body = []
    for policy, rival in dict.fromkeys(pairs):
        speedup = summary.router_vs.get(rival) if policy == "router" else None
        shown = routers.get(policy, {}).get(rival)
        body.append(
            [
                f"{policy} over {rival}",
                f"{speedup.speedup:.2f}× [{interval_text(speedup.interval)}]" if speedup else "–",
                f"{shown.speedup:.2f}× [{interval_text(shown.interval)}]" if shown else "–",
                f"{shown.entry.label} over {shown.reference.label}" if shown else "–",
            ]
        )
    if not body:
        return ""
    head = ("routers beside others", "thresholds interpolated", "both shown not inferior", "which are")
    return table(head, body, label="routers beside others")


def _matched_cells(matched: Matched) -> list[str]:
    low, high = matched.gap_interval.low * 100, matched.gap_interval.high * 100
    return [
        number(matched.entry.threshold, "g"),
        f"{matched.speedup:.2f}× [{matched.interval.low:.2f}, {matched.interval.high:.2f}]",
        f"{matched.accuracy_gap * 100:+.1f} [{low:+.1f}, {high:+.1f}]",
        f"{matched.p_value:.2g}",
    ]


def _shown_cell(found: Mapping[str, Matched] | None) -> str:
    if not found:
        return "–" if found is None else "none"
    matched = found[TARGET.policy]
    gap = f"{matched.speedup:.2f}×, gap ≥ {matched.lowest_gap * 100:.1f}"
    return gap if matched.entry.threshold is None else f"{matched.entry.threshold:g}: {gap}"


def differences_table(found: Sequence[Difference]) -> str:
    """The same policy and threshold in two runs."""
    if not found:
        return note("The runs share no policy at the same threshold, or nothing could be graded.")
    head = ("policy", "runs", "accuracy", "difference, points", "p", "s/problem", "speed-up")
    body = []
    for one in found:
        gap = one.gap_interval
        body.append(
            [
                one.entry.label,
                f"{one.first} → {one.second}",
                f"{one.accuracy[0]:.1%} → {one.accuracy[1]:.1%}",
                f"{(one.accuracy[1] - one.accuracy[0]) * 100:+.1f} [{gap.low * 100:+.1f}, {gap.high * 100:+.1f}]",
                f"{one.p_value:.2g}",
                f"{number(one.seconds[0], '.3f')} → {number(one.seconds[1], '.3f')}",
                f"{number(one.speedup, '.2f')}×"
                + (f" [{interval_text(one.speedup_interval)}]" if one.speedup_interval else ""),
            ]
        )
    return table(head, body, label="differences")


def _rows_table(evidence: Evidence, stressed: Sequence[Entry]) -> str:
    head, body = rows_cells(evidence.rows)
    best = [i for i, row in enumerate(evidence.rows) if row.entry in stressed]
    return table(head, body, label="all policies", best=best)


def _method(run: Run, summary: Summary) -> str:
    told = {
        "protocol": run.protocol,
        "seconds": "wall-clock of a solution as it would be served, without calls that only measure; failures left out",
        "accuracy": "share right, mean over attempts, then over problems; failures are wrong, ungraded left out; "
        "95 % by Wilson, with several attempts by a bootstrap over problems",
        "wasted": "escalations whose target step the PRM scores no better than the draft's, of those where it saw both",
        "p": "Fisher's paired randomization test over problems, exact, two-sided; McNemar's for one attempt",
        "margin": f"{summary.margin * 100:g} points",
        "FLOPs, cost": "estimated from parameter counts and prices that the user gave: 2 × parameters for each token "
        "that went through a model",
        "energy": "the processor's own counters while it was solved, the audit left out; absent where a policy itself "
        "measures; graphics cards not included",
    }
    latest = run.sessions[-1] if run.sessions else {}
    for name in (
        "started",
        "commit",
        "processor",
        "num_cores",
        "num_threads",
        "devices",
        "platform",
        "python",
        "versions",
    ):
        if latest.get(name):
            value = latest[name]
            told[name.replace("_", " ")] = (
                ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
            )
    told |= {"sessions": str(len(run.sessions)), "run key": run.key or "none: a file of traces"}
    settings = (
        f"<details><summary>All settings</summary><pre>{escape(json.dumps(run.settings, indent=2))}</pre></details>"
    )
    return facts(told) + (settings if run.settings else "")
