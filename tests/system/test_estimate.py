"""`arbitrage estimate` on traces and costs that are given."""

import json

import pytest

from arbitrage.core.types import Cost, Source
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.folder import trace_record
from command_line import command
from helpers import candidate, score, solved, step

COSTS = """
source = "a friend's machine"
[draft]
generated_ms = 1
prompt_ms = 0.1
[target]
generated_ms = 10
prompt_ms = 1
"""


def written(source, text, seconds):
    cost = Cost(num_calls=1, num_computed=1, num_cached=9, num_generated=10, seconds=seconds)
    return candidate(text, source, token_ids=tuple(range(10)), cost=cost)


@pytest.fixture
def files(tmp_path):
    """Ten problems, each solved right by the target, and by the draft under a rule; and costs by hand."""
    traces, costs = tmp_path / "traces.jsonl", tmp_path / "costs.toml"
    lines = [
        trace_record(
            Entry.recorded(policy, threshold),
            solved(step(written(source, r"\boxed{7}", 0.5)), problem=f"p{number}", policy=policy, wall_s=0.5),
        )
        for number in range(10)
        for policy, threshold, source in (("target", None, Source.TARGET), ("confidence", 0.5, Source.DRAFT))
    ]
    traces.write_text("".join(json.dumps(line) + "\n" for line in lines))
    costs.write_text(COSTS)
    return traces, costs


def test_an_estimate_has_the_tables_of_an_evaluation_and_says_what_it_is(files):
    traces, costs = files
    status, out, _ = command("estimate", traces, "--costs", costs, "--json")
    assert status == 0
    head, *lines, last = out.splitlines()
    assert head.startswith("ESTIMATE: an estimate from token counts and the costs of draft for target")
    assert "a friend's machine" in head
    assert "batch 1, no overlap, time outside models as this run measured it" in head
    assert any("estimated: confidence@0.5 is" in line and "10.00× [10.00, 10.00]" in line for line in lines)
    record = json.loads(last)
    assert record["is_estimate"] is True
    assert [row["seconds_per_problem"] for row in record["rows"]] == pytest.approx([0.1, 0.01])
    assert [row["accuracy"] for row in record["rows"]] == [1.0, 1.0]
    assert [row["ratio"] for row in record["beside"]] == pytest.approx([0.2, 0.02])
    assert record["summary"]["comparisons"][0]["interpolated"]["speedup"]["value"] == pytest.approx(10.0)


def test_time_outside_models_is_an_option(files):
    traces, costs = files
    status, out, _ = command("estimate", traces, "--costs", costs, "--outside-ms", "5", "--json")
    assert status == 0
    assert [row["estimated_s"] for row in json.loads(out.splitlines()[-1])["beside"]] == pytest.approx([0.105, 0.015])


def refused(*arguments):
    status, out, err = command("estimate", *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    return err


def test_what_cannot_be_estimated_is_one_clear_line(files, tmp_path):
    traces, costs = files
    assert "no model '7B' for the target" in refused(traces, "--costs", costs, "--target", "7B")
    assert "cannot read the costs" in refused(traces, "--costs", tmp_path / "none.json")
    (tmp_path / "empty.jsonl").write_text("")
    assert "holds no traces" in refused(tmp_path / "empty.jsonl", "--costs", costs)
    assert "none" in refused(tmp_path / "none", "--costs", costs)
    costs.write_text(COSTS.replace("= 10", "= -10"))
    assert "generated_ms must be a number of milliseconds above 0, got -10" in refused(traces, "--costs", costs)


def test_a_run_with_several_solutions_in_flight_has_no_time_outside_models(files, tmp_path):
    traces, costs = files
    run = tmp_path / "run"
    run.mkdir()
    traces.rename(run / "traces.jsonl")
    (run / "manifest.json").write_text(json.dumps({"schema": 1, "key": "k", "settings": {"jobs": 4}}))
    assert "had 4 solutions in flight" in refused(run, "--costs", costs)
    assert command("estimate", run, "--costs", costs, "--outside-ms", "0")[0] == 0


def test_a_scorer_without_costs_is_named(tmp_path, files):
    costs = files[1]
    scored = step(written(Source.DRAFT, "x", 0.5), scores=(score("prm", Source.DRAFT, 0.5),))
    traces = tmp_path / "rsd.jsonl"
    traces.write_text(json.dumps(trace_record(Entry.recorded("rsd", 0.5), solved(scored, policy="rsd"))) + "\n")
    assert "lack 'prm', which the run used" in refused(traces, "--costs", costs)
