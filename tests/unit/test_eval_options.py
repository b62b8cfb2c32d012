"""Options of an evaluation: from a file, and what they come to before anything is loaded."""

import sys
from dataclasses import replace

import pytest
from test_eval_folder import SETTINGS

from arbitrage.cli.main import run
from arbitrage.core.errors import ConfigError
from arbitrage.core.turn import Setting
from arbitrage.core.types import Limits, Message, Problem
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.execute import LiveAccuracy
from arbitrage.evaluation.running.folder import EvalFolder
from arbitrage.evaluation.running.settings import problems_hash
from arbitrage.evaluation.running.sweep import Finished
from arbitrage.evaluation.running.workload import workload_lines
from arbitrage.policies.spec import methods
from helpers import entry_of, solved, step, written

SETTING = Setting(limits=Limits(max_steps=10, max_tokens=100, max_step_tokens=20))
PROBLEMS = [Problem(id=f"p{i}", question="?", answer="7") for i in range(5)]


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run the command line in process: (exit status, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["arbitrage", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            run()
        output = capsys.readouterr()
        return exit_info.value.code or 0, output.out, output.err

    return call


def test_a_dry_run_counts_solutions_and_bounds_calls_and_tokens():
    lines = workload_lines(methods(["target", "router", "rsd"], [0.3, 0.7]), PROBLEMS, SETTING, 2, None)
    assert lines[0].startswith("50 solutions: 5 problems, 5 policies and thresholds, 2 attempts each")
    # Ten solutions of each: a call a step by the target; two writers and three scores by the others.
    assert f"at most {10 * 10 * (1 + 4 * 5):,} model calls" in lines[1]
    assert f"{10 * (100 + 4 * (100 + 10 * 20)):,} generated tokens" in lines[1]
    assert lines[2] == "no estimate: nothing is solved yet by target, router@0.3, router@0.7 and 2 others"


def test_a_dry_run_estimates_from_what_a_run_has_solved(tmp_path):
    (method,) = methods(["target"])
    with EvalFolder(tmp_path, SETTINGS, {}):
        pass
    assert "nothing is solved yet by target" in workload_lines([method], PROBLEMS, SETTING, 1, tmp_path)[2]
    with EvalFolder(tmp_path, SETTINGS, {}) as folder:
        for number, tokens in enumerate((10, 30)):
            trace = solved(step(written("target", tokens)), problem=f"p{number}", wall_s=6.0, policy="target")
            folder.append(Finished(entry=Entry(method), attempt=0, trace=trace, began_s=0.0))
    lines = workload_lines([method], PROBLEMS, SETTING, 1, tmp_path)
    assert lines[2] == "about 5 calls and 100 generated tokens in 0.5 minutes, by the means of finished solutions"


def test_a_dry_run_loads_nothing(cli, tmp_path):
    out = tmp_path / "run"
    status, told, _ = cli(
        "eval", "--dry-run", "--limit", "4", "--policies", "target", "--out", out, "--pair", "none.toml"
    )
    assert (status, out.exists()) == (0, False)
    assert told.startswith("4 solutions: 4 problems")


def test_options_come_from_a_file_unless_the_command_line_has_them(cli, tmp_path):
    path = tmp_path / "eval.toml"
    path.write_text('policies = ["draft", "router@0.3"]\nlimit = 7\ndry-run = true\nsamples = 2\n')
    status, told, err = cli("eval", "--config", path, "--limit", "3")
    assert (status, err) == (0, "")
    assert told.startswith("12 solutions: 3 problems, 2 policies and thresholds, 2 attempts each")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("polices = 'draft'", "unknown option 'polices' (did you mean 'policies'?)"),
        ("limit = {a = 1}", "limit must be a number, a text, a truth value or a list"),
        ("limit = ", "not TOML"),
        (None, "no file at"),
    ],
)
def test_a_bad_file_of_options_is_one_clear_line(cli, tmp_path, content, told):
    path = tmp_path / "eval.toml"
    if content is not None:
        path.write_text(content)
    status, _, err = cli("eval", "--config", path)
    assert status == 2
    assert told in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("eval", "--policies", "telepathy", "--dry-run"), "unknown policy 'telepathy'"),
        (("eval", "--policies", "", "--dry-run"), "no policies to compare"),
        (("eval", "--params", "draft=big"), "params: draft must be a number"),
        (("eval", "--policies", "router@2", "--dry-run"), "threshold must be in [0, 1], got 2 for 'router'"),
        (("eval", "--max-steps", "0", "--dry-run"), "max_steps must be at least 1, got 0"),
        (("report", "nowhere"), "no records at 'nowhere'"),
    ],
)
def test_bad_input_is_one_clear_line(cli, arguments, told):
    status, _, err = cli(*arguments)
    assert status == 2
    assert err.startswith("error: ")
    assert told in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [("solve", "Gr\udcf6\udcdfe?"), ("eval", "--dataset", "\udcff.jsonl"), ("\udc80",), ("report", "a\ud800b")],
)
def test_an_argument_that_is_not_utf_8_is_one_clear_line_before_anything_is_loaded(cli, arguments):
    """Python holds bytes that are no text as lone surrogates."""
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: argument {len(arguments)} is not UTF-8: '")
    assert err.isascii()
    assert err.count("\n") == 1


def test_progress_says_how_many_are_right_so_far():
    live = LiveAccuracy()
    told = [
        live.count(Finished(entry=entry_of(policy), attempt=0, trace=solved(answer=answer, gold=gold), began_s=0.0))
        for policy, answer, gold in (("draft", "7", None), ("target", "7", "7"), ("rsd", "8", "7"), ("draft", "7", "7"))
    ]
    assert told[0] == "solving"
    assert told[-1] == "solving · right: target 100%, others 50%"


def test_a_router_by_name_is_no_unknown_policy():
    assert [spec.rule_name for spec in methods(["router:mine"])] == ["router:mine"]
    with pytest.raises(ConfigError, match="unknown policy 'mine'"):
        methods(["mine"])


def test_the_hash_of_plain_questions_never_changes_and_that_of_conversations_depends_on_their_messages():
    plain = Problem(id="p1", question="2+2?", answer="4")
    assert problems_hash([plain]) == "2e047fffc0f6e5aa"
    talks = [replace(plain, messages=[Message("system", text), *plain.messages]) for text in ("Be brief.", "Think.")]
    assert len({problems_hash([problem]) for problem in (plain, *talks)}) == 3


def test_the_hash_of_problems_depends_on_answers_and_order():
    other = [*PROBLEMS[:-1], Problem(id="p4", question="?", answer="8")]
    assert len({problems_hash(found) for found in (PROBLEMS, other, PROBLEMS[::-1], PROBLEMS[:4])}) == 4
