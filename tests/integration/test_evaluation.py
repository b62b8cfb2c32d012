"""An evaluation of the shipped pair by the public commands: reported, compared."""

import json

import pytest

from command_line import command

pytestmark = pytest.mark.integration
POLICIES = ("--policies", "draft,target,random@0.5,router@0.3")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed, and its last line."""
    folder = tmp_path_factory.mktemp("eval") / "whole"
    status, out, err = command("eval", *POLICIES, "--limit", 3, "--samples", 2, "--out", folder, "--json")
    assert status == 0, err
    return folder, json.loads(out.splitlines()[-1])


def test_a_run_writes_all_that_was_promised_and_ends_with_one_line(whole):
    folder, record = whole
    assert {path.name for path in folder.iterdir()} >= {
        *("manifest.json", "sessions.json", "traces.jsonl"),
        *("summary.csv", "summary.json", "summary.md", "report.html", "plots"),
    }
    assert (record["schema"], record["num_problems"], record["out"]) == (2, 3, str(folder))
    assert [(row["policy"], row["num_solutions"]) for row in record["rows"]] == [
        *(("draft", 6), ("target", 6), ("random", 6), ("router", 6))
    ]
    session = json.loads((folder / "sessions.json").read_text())["sessions"][0]
    assert session["num_threads"] >= 1
    assert {"arbitrage", "torch", "transformers"} <= session["versions"].keys()


def test_other_options_do_not_mix_with_a_run(whole):
    folder, _ = whole
    status, _, err = command("eval", *POLICIES, "--limit", 3, "--samples", 2, "--out", folder, "--seed", 1)
    assert status == 2
    assert "belongs to another run: setting.seed was 0, now 1" in err


def test_a_report_is_made_anew_from_traces_alone(whole, tmp_path):
    folder, record = whole
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "traces.jsonl").write_bytes((folder / "traces.jsonl").read_bytes())
    params = ("--params", "draft=1e6,target=8e6,router=1e6")
    status, out, err = command("report", tmp_path / "copy", *params, "--json")
    assert status == 0, err
    rows = json.loads(out.splitlines()[-1])["rows"]
    assert {row["policy"]: row["accuracy"] for row in rows} == {
        row["policy"]: row["accuracy"] for row in record["rows"]
    }
    flops = {row["policy"]: row["flops_per_problem"] for row in rows}
    assert 0.0 < flops["draft"] < flops["router"]
    assert (tmp_path / "copy" / "report.html").exists()


def test_throughput_is_of_one_policy_at_a_time_and_runs_compare_only_on_the_same_problems(whole, tmp_path):
    folder, _ = whole
    under_load = ("--limit", 3, "--samples", 2, "--jobs", 4, "--out", tmp_path / "loaded", "--json")
    status, out, err = command("eval", "--policies", "target,router@0.3", *under_load)
    assert status == 0, err
    rows = {row["policy"]: row for row in json.loads(out.splitlines()[-1])["rows"]}
    assert all(row["solutions_per_second"] > 0.0 for row in rows.values())
    assert rows["router"]["num_audited"] == 0
    status, out, err = command("report", folder, tmp_path / "loaded", "--out", tmp_path / "both.html")
    assert status == 0, err
    assert "router@0.3: loaded +0.0 points" in out
    page = (tmp_path / "both.html").read_text()
    assert "4 solutions of one policy in flight" in page
    command("eval", "--policies", "draft", "--limit", 2, "--out", tmp_path / "fewer")
    status, _, err = command("report", folder, tmp_path / "fewer")
    assert status == 2
    assert "1 ('test-2') only in 'whole'" in err
