"""The report: complete, self-contained, and safe whatever a model wrote."""

import csv
import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from rich.console import Console

from arbitrage.cli.show import rich_table
from arbitrage.core.types import Decision, Finish, Source
from arbitrage.evaluation.figures.compare import differences, merged, named
from arbitrage.evaluation.figures.rates import Rates
from arbitrage.evaluation.figures.summary import evidence_of
from arbitrage.evaluation.running.entry import TARGET
from arbitrage.evaluation.running.folder import EvalFolder, read_run
from arbitrage.evaluation.running.sweep import Finished
from arbitrage.report import browse
from arbitrage.report.browse import embedded, stratified_order
from arbitrage.report.columns import Column, Table
from arbitrage.report.drawing import looks_of
from arbitrage.report.files import write_summaries
from arbitrage.report.markup import role_colours, table, time_bars
from arbitrage.report.plots import plots_of, shown_entries
from arbitrage.report.report import comparison_page, run_page, write_report
from arbitrage.report.step_plots import _bins
from helpers import entry_of, score, solved, step, written

D, T = Source.DRAFT, Source.TARGET
ENTRIES = {
    TARGET: 4.0,
    entry_of("router", 0.2): 3.0,
    entry_of("router", 0.5): 2.0,
    entry_of("oracle", 0.1): 2.5,
    entry_of("draft"): 1.0,
}
NASTY = '</script><script>alert("x")</script> & <b>bold</b>'


def steps_of(entry, number):
    """Three steps: one escalated where the entry does so, with both candidates scored."""
    kept = [step(written(D, 5, 0.1, text=f"step {number}\n\n"))] * 2
    if entry.policy == "draft":
        return kept
    if entry == TARGET:
        return [step(written(T, 6, 1.0, text=NASTY))]
    gain = (-0.2, 0.3, 0.6)[number % 3]
    scores = (
        score("audit", D, 0.3),
        score("audit", T, 0.3 + gain),
        score(entry.policy, D, 0.3 * (number % 3) + 0.2, seconds=0.05),
    )
    decision = Decision(source=T, score=0.3 * (number % 3) + 0.2, measured=frozenset({"audit"}))
    return [*kept, step(written(T, 6, 1.0, text=NASTY), written(D, 4, 0.1), decision=decision, scores=scores)]


def solution(entry, number, num_right=30):
    is_right = number < num_right and (entry.policy != "draft" or number % 2)
    trace = solved(
        *steps_of(entry, number),
        answer="7" if is_right else "8",
        problem=f"p{number}",
        wall_s=ENTRIES[entry] + 0.01 * number,
        policy=entry.policy,
        level=str(number % 3 + 1),
    )
    return Finished(entry=entry, attempt=0, trace=trace, began_s=float(number))


def write(folder, entries=ENTRIES, num=36, **values):
    settings = {"pair": "tiny", "dataset": "tiny:test", "problems": {"count": num}, "samples": 1, "jobs": 1}
    environment = {"commit": "abc123", "processor": "a fast one", "versions": {"torch": "2"}}
    with EvalFolder(folder, settings, environment) as run:
        for number in range(num):
            for entry in entries:
                run.append(solution(entry, number, **values))
    return read_run(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="module")
def evidence(run):
    return evidence_of(run.solutions, rates=Rates.parse("draft=1e9,target=1e10,router=1e9,oracle=1"))


@pytest.fixture(scope="module")
def written_report(run, evidence, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_summaries(run, evidence, folder)
    write_report(run, evidence, folder)
    return folder


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_everything_that_was_promised_is_written(written_report):
    assert {path.name for path in written_report.iterdir()} == {
        *("summary.csv", "summary.json", "summary.md", "report.html", "plots")
    }
    names = (
        *("accuracy-acceptance", "accuracy-seconds", "waste-escalation", "time-role"),
        *("advantage", "router-reliability", "acceptance-level", "acceptance-step"),
    )
    assert {path.name for path in (written_report / "plots").iterdir()} == {
        f"{name}.{ending}" for name in names for ending in ("svg", "png")
    }
    picture = ElementTree.parse(written_report / "plots" / "accuracy-seconds.svg").getroot()
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"


def test_the_tables_hold_every_row_and_figure(written_report):
    with (written_report / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["policy"], row["threshold"]) for row in rows][:2] == [("draft", ""), ("target", "")]
    assert [(row["policy"], row["threshold"]) for row in rows][2:] == [
        ("oracle", "0.1"),
        ("router", "0.2"),
        ("router", "0.5"),
    ]
    assert float(rows[4]["role_s.target.mean"]) == 1.0
    assert float(rows[1]["flops_per_problem"]) == 2 * (6 * 1e10 + 1 * 1e9)
    record = json.loads((written_report / "summary.json").read_text())
    assert (record["schema"], record["num_problems"], len(record["rows"])) == (2, 36, len(ENTRIES))
    comparisons = {(one["method"], one["reference"]): one for one in record["summary"]["comparisons"]}
    assert list(comparisons) == [("oracle", "target"), ("router", "target"), ("router", "oracle")]
    router = comparisons["router", "target"]
    assert router["interpolated"]["speedup"]["value"] > 1.0
    assert router["fastest"]["entry"] == {"policy": "router", "threshold": 0.5}
    assert router["fastest"]["gap"]["interval"] == {"low": 0.0, "high": 0.0}
    assert record["sessions"][0]["commit"] == "abc123"
    text = (written_report / "summary.md").read_text()
    assert "as fast as target-only" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_the_page_answers_at_a_glance(written_report):
    page = (written_report / "report.html").read_text()
    start = page.index('<section id="glance"')
    top = page[start : page.index("</section>", start)]
    assert "router is <strong>" in top
    assert "× as fast</strong>" in top
    assert " s a problem instead of 4." in top
    assert "router@0.5, its fastest at that accuracy" in top
    assert "target 1 s, draft 300 ms" in top


def test_the_page_needs_no_network_and_its_markup_is_whole(written_report):
    page = (written_report / "report.html").read_text()
    own = re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*', own)  # A name space is no address to load from.
    assert "@import" not in page
    assert "fetch(" not in page
    assert len(page.encode()) < 5_000_000
    ids = re.findall(r'\bid="([^"]+)"', own)
    assert len(ids) == len(set(ids))
    assert page.count("<figure>") == page.count("<svg ") == 8
    assert not re.findall(r"\$[a-z]+", re.sub(r"<script>.*?</script>", "", own, flags=re.DOTALL))  # All is filled in.


def test_what_a_model_wrote_cannot_leave_the_data(written_report):
    page = (written_report / "report.html").read_text()
    assert "alert(" in page
    assert "</script><script>alert" not in page
    assert NASTY in data_of(page)["texts"]


def test_the_browser_holds_every_step_and_candidate(run, written_report):
    data = data_of((written_report / "report.html").read_text())
    assert len(data["problems"]) == 36
    problem = next(problem for problem in data["problems"] if problem["id"] == "p4")
    by_entry = {data["entries"][found[0]]: found for found in problem["solutions"]}
    assert list(by_entry) == [entry.label for entry in ENTRIES]
    _, is_right, answer, _, ms, num_tokens, escalated, wasted, steps = by_entry["router@0.5"]
    assert (is_right, data["texts"][answer], ms, num_tokens, escalated, wasted) == (True, "7", 2040.0, 17, 1, 0)
    kept, candidates, scores, is_wasted = steps[2]
    assert (kept, is_wasted) == (0, 0)
    assert [(c[0], data["texts"][c[1]], c[2]) for c in candidates] == [(1, NASTY, 6), (0, "x", 4)]
    assert {(data["scorers"][s[0]], s[1], s[2], s[4]) for s in scores} == {
        *(("audit", 0, 0.3, 1), ("audit", 1, 0.6, 1), ("router", 0, 0.5, 0))
    }
    assert (data["left"], data["right"]) == ("router@0.5", "target")


def test_where_not_all_fits_a_stratified_sample_is_embedded_and_the_page_says_so(run, evidence, monkeypatch):
    whole = embedded({"": run})
    few = embedded({"": run}, budget=len(json.dumps(whole)) // 3)
    assert 3 <= len(few["problems"]) < 30
    assert {problem["level"] for problem in few["problems"]} == {"1", "2", "3"}
    monkeypatch.setattr(browse, "MOST_SOLUTIONS", 5 * len(ENTRIES))
    assert "5 of 36 problems, drawn in equal shares" in run_page(run, evidence, [])


def test_a_sample_begins_with_every_level_and_pattern(run):
    order = stratified_order({"": run}, seed=0)
    assert sorted(order) == sorted(run.problems)
    patterns = [
        (run.problems[p].metadata["level"], *(run.solutions[e][int(p[1:])].is_correct for e in ENTRIES)) for p in order
    ]
    num = len(set(patterns))
    assert len(set(patterns[:num])) == num


def test_the_page_warns_of_unfinished_failed_and_ungraded_solutions(tmp_path):
    run = write(tmp_path, num=6)
    assert "Unfinished" not in run_page(run, evidence_of(run.solutions), [])
    policies = [[entry.policy, entry.threshold, "a", None, None] for entry in [*ENTRIES, entry_of("rsd", 0.7)]]
    run = replace(run, settings={**run.settings, "samples": 2, "policies": policies})
    page = run_page(run, evidence_of(run.solutions), [])
    assert (
        "Unfinished: 6 of 12 solutions of each policy exist; the figures are of these. No solution yet by rsd@0.7."
        in page
    )
    broken = [replace(s, finish=Finish.FAILED, error="<no> memory", is_correct=False) for s in run.solutions[TARGET]]
    run = replace(run, solutions={**run.solutions, TARGET: broken})
    assert "target: 6 of 6 failed, first: &lt;no&gt; memory" in run_page(run, evidence_of(run.solutions), [])
    blind = {entry: [replace(s, is_correct=None) for s in found] for entry, found in run.solutions.items()}
    page = run_page(replace(run, solutions=blind), evidence_of(blind), [])
    assert "6 of 6 problems could not be graded" in page
    assert "there is no accuracy to match" in page


def test_the_page_warns_of_seconds_under_load(run):
    page = run_page(replace(run, settings={**run.settings, "jobs": 8}), evidence_of(run.solutions), [])
    assert "8 solutions of one policy in flight" in page
    assert "cannot be compared with a latency run" in page


def test_where_no_policy_reaches_the_target_the_page_says_so(tmp_path):
    run = write(tmp_path, {TARGET: 4.0, entry_of("draft"): 1.0}, num=8)
    page = run_page(run, evidence_of(run.solutions), [])
    assert "No policy comes within 1.5 points" in page


def test_two_runs_are_compared_on_one_page(tmp_path):
    runs = named([write(tmp_path / "first", num=12), write(tmp_path / "second", num=12, num_right=4)])
    evidence = {name: evidence_of(run.solutions) for name, run in runs.items()}
    page = comparison_page(runs, evidence, differences(runs), evidence_of(merged(runs)))
    assert "first → second" in page
    assert "100.0% → 33.3%" in page
    data = data_of(page)
    assert {"router@0.5 · first", "router@0.5 · second"} <= set(data["entries"])
    assert data["left"] == "draft · first"
    assert len(data["problems"][0]["solutions"]) == 2 * len(ENTRIES)


def test_pictures_are_valid_svg_that_reads_as_text(run, evidence):
    for plot in plots_of(run.solutions, evidence):
        picture = ElementTree.fromstring(plot.svg())
        assert picture.tag.endswith("svg")
        words = " ".join(picture.itertext())
        assert "share" in words or "seconds" in words or "problems" in words
        assert plot.caption.endswith(".")


def test_one_threshold_of_each_policy_is_shown_where_there_is_no_room_for_all(run, evidence):
    assert shown_entries(evidence, run.solutions) == [
        *(entry_of("draft"), TARGET, entry_of("oracle", 0.1), entry_of("router", 0.5))
    ]


def test_without_levels_or_scores_their_pictures_are_left_out(tmp_path):
    settings = {"problems": {"count": 2}, "pair": "x", "dataset": "y"}
    with EvalFolder(tmp_path, settings, {}) as folder:
        for number in range(2):
            trace = solved(answer="7", problem=str(number), policy="draft")
            folder.append(Finished(entry=entry_of("draft"), attempt=0, trace=trace, began_s=0.0))
    run = read_run(tmp_path)
    names = [plot.name for plot in plots_of(run.solutions, evidence_of(run.solutions))]
    assert names == ["accuracy-acceptance", "accuracy-seconds", "time-role"]


def test_reliability_is_read_in_tenths_with_enough_steps():
    pairs = [(0.12, True)] * 6 + [(0.18, False)] * 6 + [(0.95, True)] * 10 + [(1.0, True)] * 10 + [(0.5, True)] * 9
    (first, last) = _bins(pairs)
    assert first == pytest.approx((0.15, 0.5, 12))
    assert last == pytest.approx((0.975, 1.0, 20))


def test_a_policy_looks_the_same_everywhere_and_runs_differ_by_their_line():
    target, rsd, other = entry_of("target"), replace(entry_of("rsd"), run="a"), entry_of("x")
    first, second = (replace(entry_of("router"), run=run) for run in ("a", "b"))
    looks = looks_of([target, first, second, rsd])
    assert looks[first]["color"] == looks[second]["color"] != looks[rsd]["color"]
    assert looks[first]["linestyle"] != looks[second]["linestyle"]
    router = entry_of("router", 0.3)
    assert looks_of([entry_of("rsd"), router])[router.group] == looks_of([router, other])[router.group]


def test_markup_is_escaped(evidence):
    assert "<b>" not in table(Table(title="<b>", head=["<b>"], body=[["<b>"]]))
    assert "<em>" not in time_bars({"<em>": evidence.figures[0]})
    colours = role_colours(["target", "strange", "outside"])
    assert len(set(colours.values())) == len(colours)
    assert list(colours)[-1] == "outside"


def test_a_table_is_described_once_and_rendered_three_ways():
    columns = [
        Column("name", lambda record: record[0], terminal="n"),
        Column("figure", lambda record: record[1], terminal="f", terminal_unit="×"),
        Column("some", lambda record: record[2]),
        Column("all", lambda record: record[2], needs_all=True),
    ]
    records = [("a", "1.5", "7"), ("b", "–", "–")]
    content = Table.of("title", columns, records, is_stressed=lambda record: record[0] == "b", hides_empty=True)
    assert content.markdown() == ["| name | figure | some |", "|---|---|---|", "| a | 1.5 | 7 |", "| b | – | – |"]
    assert "<tr><td>a</td><td>1.5</td><td>7</td></tr>" in table(content)
    assert '<tr class="best"><td>b</td>' in table(content)
    terminal = Table.for_terminal("title", columns, records)
    assert (terminal.head, terminal.body) == (["n", "f"], [["a", "1.5×"], ["b", "–"]])
    console = Console(file=io.StringIO(), width=40)
    console.print(rich_table(terminal))
    assert console.file.getvalue().splitlines()[0].strip() == "title"
    assert "│ a │ 1.5× │" in console.file.getvalue()
