"""The command line on the shipped models."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from arbitrage.bench.costs import PairCosts
from arbitrage.cli.main import run
from arbitrage.tiny import WEIGHTS

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
QUESTION = "Compared to Leo Mia owns 3 times as many stamps. Leo has 4 stamps. How many stamps does Mia have?"


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run the command line in process: (exit status, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["arbitrage", *arguments])
        with pytest.raises(SystemExit) as exit_info:
            run()
        output = capsys.readouterr()
        return exit_info.value.code or 0, output.out, output.err

    return call


def test_solve_prints_each_step_and_the_answer(cli):
    status, out, _ = cli("solve", QUESTION)
    assert status == 0
    assert "3*4=12" in out
    assert "answer 12" in out


def test_solve_json_is_a_trace(cli):
    status, out, _ = cli("solve", QUESTION, "--policy", "target", "--json")
    trace = json.loads(out.splitlines()[-1])
    assert status == 0
    assert trace["schema"] == 1
    assert all(len(step["candidates"]) == 1 for step in trace["steps"])


def test_eval_ends_with_the_promised_json_line_and_writes_one_trace_a_line(cli, tmp_path):
    traces = tmp_path / "traces.jsonl"
    status, out, _ = cli(
        *("eval", "--policies", "draft,target,random,rsd,oracle,router", "--thresholds", "0.3,0.7"),
        *("--limit", "2", "--seed", "0", "--json", "--traces", str(traces)),
    )
    record = json.loads(out.splitlines()[-1])
    assert status == 0
    assert (record["schema"], record["pair"], record["num_problems"]) == (2, "tiny", 2)
    assert [(row["policy"], row["threshold"]) for row in record["rows"]] == [
        ("draft", None),
        ("target", None),
        *[(policy, t) for policy in ("random", "rsd", "oracle", "router") for t in (0.3, 0.7)],
    ]
    by_policy = {row["policy"]: row for row in record["rows"]}
    assert by_policy["target"]["speedup_vs_target"] == 1.0
    assert by_policy["draft"]["target_token_share"] == 0.0
    assert by_policy["target"]["acceptance_rate"] == 0.0
    assert by_policy["target"]["wasted_escalation_rate"] is None
    assert len(traces.read_text().splitlines()) == 2 * len(record["rows"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("eval", "--policies", "telepathy"), "telepathy"),
        (("eval", "--policies", "majority:few"), "whole number, got 'few'"),
        (("eval", "--policies", "speculative:0"), "at least 1, got 0"),
        (("solve", QUESTION, "--policy", "judge", "--threshold", "2"), "[0, 1], got 2"),
        (("eval", "--policies", "router", "--thresholds", "1.5"), "1.5"),
        (("eval", "--thresholds", "half"), "half"),
        (("eval", "--dataset", "nowhere.jsonl"), "nowhere.jsonl"),
        (("eval", "--dataset", "tiny:exam"), "exam"),
        (("eval", "--limit", "0"), "limit"),
        (("eval", "--pair", "nowhere.toml"), "nowhere.toml"),
        (("solve", "  "), "empty"),
        (("solve", QUESTION, "--policy", "rsd", "--threshold", "-0.1"), "-0.1"),
        (("solve", QUESTION, "--temperature", "-1"), "temperature"),
        (("solve", QUESTION, "--policy", "target@0.1"), "'target' has no threshold, got 0.1"),
        (("solve", QUESTION, "--policy", "router@1.1"), "threshold must be in [0, 1], got 1.1"),
        (("solve", QUESTION, "--budget", "seconds<=0.001"), "not calibrated for 'seconds<=0.001'"),
        (("solve", QUESTION, "--budget", "seconds<=1", "--threshold", "0.5"), "the threshold 0.5 too"),
        (("solve", QUESTION, "--budget", "seconds<=1", "--policy", "rsd"), "the policy 'rsd' too"),
        (("calibrate", "nowhere.jsonl", "--budget", "seconds<=1"), "nowhere.jsonl"),
        (("bench", "--repeats", "0"), "repeats must be at least 1, got 0"),
        (("bench", "--pair", "nowhere.toml"), "nowhere.toml"),
        (("calibrate", "nowhere.jsonl", "--budget", "fast"), "not a budget: 'fast'"),
    ],
)
def test_bad_input_is_one_clear_line(cli, arguments, told):
    status, _, err = cli(*arguments)
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("error: ")
    assert told in err


def test_a_prompt_longer_than_the_context_is_a_failed_problem_with_its_reason(cli):
    status, _, err = cli("solve", QUESTION * 60)
    assert status == 1
    assert "context" in err
    assert len(err.strip().splitlines()) == 1


def test_bench_prints_the_costs_of_every_model_and_a_sentence(cli):
    status, out, _ = cli("bench", "--repeats", "1", "--prompt-tokens", "80", "--tokens", "8")
    assert status == 0
    for word in ("draft tiny-draft", "prm hf", "router:model hf", "32 tokens"):
        assert word in out
    assert out.splitlines()[-1].startswith("A draft token costs 0.") or "no step-level method" in out


def test_bench_json_is_read_back(cli):
    status, out, _ = cli("bench", "--repeats", "2", "--prompt-tokens", "80", "--tokens", "8", "--json")
    assert status == 0
    record = json.loads(out)
    costs = PairCosts.read(record)
    assert costs.to_json() == {name: value for name, value in record.items() if name != "advice"}
    assert (record["advice"]["rule"], costs.pair) == ("router", "tiny")
    for model in (costs.draft, costs.target):
        assert [one.tokens for one in model.verified] == [2, 4, 8, 16, 32]
        assert not model.reads_whole_context
        assert model.context_tokens == 80
        assert min(model.generated_ms.value, model.limit.ms_per_token, *(one.ms.value for one in model.verified)) > 0.0
        assert model.runtime.details["dtype"] == "torch.float32"
        assert model.runtime.forward_path in ("eager", "traced", "static")
    assert costs.draft.limit.weights_bytes < costs.target.limit.weights_bytes
    assert {role: one.asks_target for role, one in costs.scorers.items()} == {
        "prm": False,
        "router": True,
        "router:model": False,
    }


def test_bench_says_that_a_context_is_too_short(cli):
    status, _, err = cli("bench", "--prompt-tokens", "600")
    assert status == 2
    assert "tokens fill the context of tiny-draft" in err


def test_a_bound_of_steps_ends_a_solution(cli):
    status, out, err = cli("solve", QUESTION, "--max-steps", "1", "--json")
    assert status == 0, err
    trace = json.loads(out)
    assert (len(trace["steps"]), trace["finish"]) == (1, "step_limit")


def test_a_device_that_is_not_there_is_one_clear_line(cli, tmp_path):
    model = f'path = "{WEIGHTS / "draft"}"\ndevice = "cuda:0"\n'
    (tmp_path / "pair.toml").write_text(f"[draft]\n{model}[target]\n{model}")
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    status, _, err = cli("solve", QUESTION, "--pair", str(tmp_path / "pair.toml"), "--policy", "draft")
    assert status == 2
    assert "cannot be put on the device 'cuda:0'" in err
    assert len(err.strip().splitlines()) == 1


def test_a_problem_that_cannot_be_encoded_fails_alone(cli, tmp_path):
    rows = [{"id": 1, "question": QUESTION}, {"id": 2, "question": "\ud800?"}, {"id": "\udfff", "question": QUESTION}]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    traces = tmp_path / "traces.jsonl"
    status, _, err = cli(
        *("eval", "--policies", "draft", "--dataset", str(tmp_path / "problems.jsonl"), "--traces", str(traces))
    )
    records = {record["problem"]["id"]: record for record in map(json.loads, traces.read_text().splitlines())}
    assert status == 0
    assert "2 of 3 failed" in err
    assert records["1"]["finish"] == "end_of_sequence"
    assert "surrogates not allowed" in records["2"]["error"]
    assert "the id" in records["\udfff"]["error"]


def test_an_evaluation_of_failures_alone_has_failed(cli, tmp_path):
    (tmp_path / "long.jsonl").write_text(json.dumps({"question": QUESTION * 60, "answer": 1}) + "\n")
    status, _, err = cli("eval", "--policies", "draft", "--dataset", str(tmp_path / "long.jsonl"))
    assert status == 1
    assert "draft: 1 of 1 failed" in err


def test_a_broken_checkpoint_is_one_clear_line(cli, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "pair.toml").write_text('[draft]\npath = "model"\n[target]\npath = "model"\n')
    status, _, err = cli("solve", QUESTION, "--pair", str(tmp_path / "pair.toml"))
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert "model" in err


def test_the_console_script_explains_itself():
    done = subprocess.run(
        [sys.executable, "-c", "from arbitrage.cli.main import run; run()", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(command in done.stdout for command in ("solve", "eval", "demo"))


def test_a_run_is_estimated_on_the_costs_of_this_machine_and_of_another(cli, tmp_path):
    run_folder, costs = tmp_path / "run", tmp_path / "costs.json"
    policies = "target,draft,rsd,confidence,likelihood,router,speculative:6,router+speculative:6"
    assert cli("eval", "--policies", policies, "--limit", "2", "--no-audit", "--out", str(run_folder))[0] == 0
    status, out, _ = cli("bench", "--repeats", "2", "--prompt-tokens", "80", "--tokens", "16", "--json")
    assert status == 0
    costs.write_text(out.splitlines()[-1])
    status, out, _ = cli("estimate", str(run_folder), "--costs", str(costs), "--json")
    assert status == 0
    assert out.startswith("ESTIMATE: ")
    record = json.loads(out.splitlines()[-1])
    assert (record["is_estimate"], record["num_problems"], len(record["beside"])) == (True, 2, 8)
    # Tests run beside others, so times are not compared closely.
    assert all(0.2 < row["ratio"] < 5.0 for row in record["beside"])
    assert [row["seconds_per_problem"] for row in record["rows"]] == [row["estimated_s"] for row in record["beside"]]
    other = ROOT / "benchmarks" / "costs" / "h100-qwen2.toml"
    status, _, err = cli("estimate", str(run_folder), "--costs", str(other))
    assert (status, "lack 'prm', which the run used" in err, err.count("\n")) == (2, True, 1)


def test_the_shipped_pair_is_judged(cli):
    other = ROOT / "benchmarks" / "costs" / "h100-qwen2.toml"
    status, out, _ = cli("advise", "--limit", "6", "--costs", str(other), "--target", "7B", "--json")
    assert status == 0
    record = json.loads(out.splitlines()[-1])
    assert record["num_problems"] == 6
    assert record["answer"] in ("worth it", "not worth it here", "only with the costs in h100-qwen2.toml")
    assert out.splitlines()[-2] == record["sentence"]
    here, there = record["machines"]
    assert {rule["rule"] for rule in here["rules"]} == {"likelihood", "confidence"}
    assert there["cost_ratio"] == pytest.approx(1.62 / 7.14)
