"""Commands on the shipped models, killed at random and started again: nothing is lost or doubled."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from arbitrage.training.rows import read_rows
from command_line import command
from shipped import TRAIN

pytestmark = pytest.mark.integration
EVAL = ("eval", "--policies", "draft,target,random@0.5,router@0.3", "--limit", 3, "--samples", 2)
COLLECT = ("collect", "--limit", "12", "--samples", "2", "--keep-draft", "0.3")


def started(arguments):
    """The command as a process of its own."""
    line = [sys.executable, "-m", "arbitrage", *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def killed(arguments, seconds):
    """Run a command and kill it after some seconds; whether it was still running."""
    process = started(arguments)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        kill(process)
        return True
    return False


def lines(folder):
    path = folder / "traces.jsonl"
    content = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in content.splitlines(keepends=True) if line.endswith(b"\n")]


def decided(record):
    """All that a seed determines of a solution: answers, decisions, tokens."""
    steps = [
        (step["decision"]["source"], [(c["source"], c["token_ids"]) for c in step["candidates"]])
        for step in record["steps"]
    ]
    return record["entry"], record["threshold"], record["problem"]["id"], record["attempt"], json.dumps(steps)


def collected(folder):
    """All values of rows that a seed determines, by problem and step."""
    values = [
        (row.problem.id, row.step, row.history, row.kept, row.draft.text, tuple(sample.text for sample in row.targets))
        for row in read_rows(folder)
    ]
    return sorted(values)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows of a collection that nothing disturbed."""
    folder = tmp_path_factory.mktemp("rows") / "rows"
    status, _, err = command(*COLLECT, folder)
    assert status == 0, err
    return folder


def test_an_evaluation_killed_at_random_is_what_it_would_have_been(tmp_path):
    status, out, err = command(*EVAL, "--out", tmp_path / "whole", "--json")
    assert status == 0, err
    record = json.loads(out.splitlines()[-1])
    arguments = (*EVAL, "--out", tmp_path / "run", "--json")
    rng, kept = random.Random(0), []
    for _ in range(2):
        process = started(arguments)
        waited_for, deadline = len(kept) + rng.randint(4, 8), time.monotonic() + 300
        while process.poll() is None and len(lines(tmp_path / "run")) < waited_for:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert process.poll() is None
        kill(process)
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
    assert sorted(map(decided, done)) == sorted(map(decided, lines(tmp_path / "whole")))
    resumed = json.loads(out.splitlines()[-1])["rows"]
    for name in ("policy", "threshold", "accuracy", "acceptance_rate", "tokens", "num_steps"):
        assert [row[name] for row in resumed] == [row[name] for row in record["rows"]]
    assert len({line["session"] for line in done}) == 3


def test_a_collection_killed_at_random_has_the_same_rows(rows, tmp_path):
    """The same rows as in the undisturbed run except for seconds: none lost, none doubled."""
    rng = random.Random(0)
    collect = (*COLLECT, tmp_path / "rows")
    num_killed = sum(killed(collect, rng.uniform(3.0, 9.0)) for _ in range(3))
    assert num_killed > 0
    assert command(*collect)[0] == 0
    assert collected(tmp_path / "rows") == collected(rows)


def last_checkpoint(folder):
    """The step of a training's last complete checkpoint; 0 before the first."""
    states = (folder / "work").glob("checkpoint-*/trainer_state.json")
    return max((int(state.parent.name.removeprefix("checkpoint-")) for state in states), default=0)


def test_a_training_killed_at_random_has_the_same_weights(rows, tmp_path):
    """Each attempt is killed at random after a checkpoint of its own, so that a slow machine gets on too."""
    rng = random.Random(1)
    command("train-router", rows, tmp_path / "undisturbed", *TRAIN)
    resume = ("train-router", rows, tmp_path / "resumed", *TRAIN)
    num_killed = 0
    for _ in range(3):
        process, before = started(resume), last_checkpoint(tmp_path / "resumed")
        while process.poll() is None and last_checkpoint(tmp_path / "resumed") == before:
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 1.0))
        num_killed += process.poll() is None
        kill(process)
    assert num_killed > 0
    assert command(*resume)[0] == 0
    undisturbed, resumed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("undisturbed", "resumed"))
    assert undisturbed == resumed
