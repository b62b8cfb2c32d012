"""An evaluation of the shipped pair by the public commands: killed, resumed, reported, compared."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from command_line import command

pytestmark = pytest.mark.integration
POLICIES = ("--policies", "draft,target,random@0.5,router@0.3")


def start(arguments):
    return [sys.executable, "-m", "arbitrage", *map(str, arguments)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed, and its last line."""
    folder = tmp_path_factory.mktemp("eval") / "whole"
    status, out, err = command("eval", *POLICIES, "--limit", 3, "--samples", 2, "--out", folder, "--json")
    assert status == 0, err
    return folder, json.loads(out.splitlines()[-1])


def lines(folder):
    path = folder / "traces.jsonl"
    found = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in found.splitlines(keepends=True) if line.endswith(b"\n")]


def decided(record):
    """All that a seed determines of a solution: answers, decisions, tokens."""
    steps = [
        (step["decision"]["source"], [(c["source"], c["token_ids"]) for c in step["candidates"]])
        for step in record["steps"]
    ]
    return record["entry"], record["threshold"], record["problem"]["id"], record["attempt"], json.dumps(steps)


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


def test_killed_at_random_and_resumed_a_run_is_what_it_would_have_been(whole, tmp_path):
    folder, record = whole
    arguments = ("eval", *POLICIES, "--limit", 3, "--samples", 2, "--out", tmp_path / "run", "--json")
    rng, kept = random.Random(0), []
    for _ in range(2):
        process = subprocess.Popen(start(arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        waited_for, deadline = len(kept) + rng.randint(4, 8), time.monotonic() + 300
        while process.poll() is None and len(lines(tmp_path / "run")) < waited_for:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lines(tmp_path / "run")[: len(kept)] == kept  # With the timings of what had finished.
        kept = lines(tmp_path / "run")
    (tmp_path / "all.jsonl").write_text("of another run\n")
    status, out, err = command(*arguments, "--traces", tmp_path / "all.jsonl")
    assert status == 0, err
    done = lines(tmp_path / "run")
    assert done[: len(kept)] == kept
    assert (tmp_path / "all.jsonl").read_text() == (tmp_path / "run" / "traces.jsonl").read_text()
    status, _, err = command(*arguments, "--traces", tmp_path / "run" / "traces.jsonl")
    assert (status, lines(tmp_path / "run")) == (0, done), err
    assert sorted(map(decided, done)) == sorted(map(decided, lines(folder)))
    rows = json.loads(out.splitlines()[-1])["rows"]
    for name in ("policy", "threshold", "accuracy", "acceptance_rate", "tokens", "num_steps"):
        assert [row[name] for row in rows] == [row[name] for row in record["rows"]]
    assert len({line["session"] for line in done}) == 3


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
    status, out, err = command("eval", *POLICIES, *under_load)
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
