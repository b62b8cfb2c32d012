"""Rows, router and judgement by the public commands on the shipped models."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from arbitrage.cli.train_router import train_router
from arbitrage.core.types import Source
from arbitrage.scorers.format import InputFormat
from arbitrage.tiny import MARKS, WEIGHTS
from arbitrage.training import trainer
from arbitrage.training.recipe import read_report
from arbitrage.training.rows import read_rows

pytestmark = pytest.mark.integration
TRAIN = (
    *("--epochs", "2", "--learning-rate", "3e-4", "--batch-size", "8", "--device-batch-size", "8"),
    *("--margin", "0.05", "--save-steps", "2"),
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows of twelve problems."""
    folder = tmp_path_factory.mktemp("rows") / "rows"
    collect = ("collect", folder, "--limit", "12", "--samples", "2", "--keep-draft", "0.3", "--hidden-states")
    status, out, _ = command(*collect)
    assert status == 0
    assert "inside models" in out
    return folder


def command(*arguments):
    """Run the command line as a user would: (exit status, stdout, stderr)."""
    done = subprocess.run(start(arguments), capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def start(arguments):
    return [sys.executable, "-m", "arbitrage", *map(str, arguments)]


def pair_with(router, folder):
    """A configuration of the shipped draft and target with another router."""
    models = {"draft": WEIGHTS / "draft", "target": WEIGHTS / "target", "router": router}
    path = folder / "pair.toml"
    path.write_text("".join(f'[{role}]\npath = "{place}"\nname = "tiny-{role}"\n' for role, place in models.items()))
    return path


def serves(router, folder):
    """Whether a router's folder can be named in a pair and asked about a step."""
    pair = pair_with(router, folder)
    status, out, err = command("solve", "--pair", pair, "Solve for x: 3x+4=25.")
    assert status == 0, err
    return "router(draft)" in out


def killed(arguments, seconds):
    """Run a command and kill it after a while; whether it was still running."""
    process = subprocess.Popen(start(arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def test_rows_hold_what_the_models_wrote(rows):
    found = list(read_rows(rows))
    assert len({row.problem.id for row in found}) == 12
    assert all(len(row.targets) == 2 for row in found)
    assert all(0.0 <= sample.score <= 1.0 for row in found for sample in (row.draft, *row.targets))
    assert all(row.draft.first_entropy >= 0.0 for row in found)
    assert any(row.targets[0].text != row.targets[1].text for row in found)
    assert {row.kept for row in found} == set(Source)
    assert sum(row.advantage > 0.05 for row in found) > 0


def test_a_router_from_the_pairs_own_rows_serves_and_is_judged(rows, tmp_path):
    status, out, err = command("train-router", rows, tmp_path / "router", *TRAIN)
    assert status == 0, err
    assert "held-out loss" in out
    made = InputFormat.load(tmp_path / "router")
    assert (made.kind, made.annotation) == ("router", MARKS)
    assert made.trained_for == {"draft": "tiny-draft", "target": "tiny-target"}
    status, out, err = command(
        *("eval-router", rows, tmp_path / "router", "--all-rows", "--json", "--out", tmp_path / "judged")
    )
    assert status == 0, err
    record = json.loads(out.splitlines()[-1])
    assert record["num_problems"] == 12
    assert {path.name for path in (tmp_path / "judged").iterdir()} == {
        *("judgement.json", "gain.svg", "gain.png", "reliability.svg", "reliability.png")
    }
    assert serves(tmp_path / "router", tmp_path)


def test_a_router_by_lora_is_a_plain_checkpoint(rows, tmp_path):
    status, _, err = command("train-router", rows, tmp_path / "router", *TRAIN, "--lora-rank", "4")
    assert status == 0, err
    before, after = (load_file(folder / "model.safetensors") for folder in (WEIGHTS / "prm", tmp_path / "router"))
    assert before.keys() - {"score.bias"} == after.keys()  # A head of token classification has one more.
    changed = {name for name in after if not torch.equal(before[name].float(), after[name])}
    assert {"model.layers.0.self_attn.q_proj.weight", "score.weight"} <= changed
    assert "model.embed_tokens.weight" not in changed
    assert serves(tmp_path / "router", tmp_path)


@pytest.mark.parametrize("inputs", ["state", "likelihoods"])
def test_a_probe_from_the_pairs_own_rows_serves_and_is_judged(rows, tmp_path, inputs):
    status, out, err = command("train-probe", rows, tmp_path / "probe", "--margin", "0.05", "--inputs", inputs)
    assert (status, "held-out loss" in out) == (0, True), err
    assert serves(tmp_path / "probe", tmp_path)
    status, out, err = command("eval-router", rows, tmp_path / "probe", "--json", "--all-rows", "--margin", "0.05")
    assert status == 0, err
    assert json.loads(out.splitlines()[-1])["router"]["auc"] > 0.5


def test_rollouts_score_the_same_rows_anew_and_serve_as_rows(rows, tmp_path):
    few = tmp_path / "few"
    assert command("collect", few, "--limit", "4", "--samples", "2", "--keep-draft", "0.3")[0] == 0
    label = ("label", few, tmp_path / "labelled", "--continuations", "2")
    assert command(*label, "--limit", "2")[0] == 0
    assert len({row.problem.id for row in read_rows(tmp_path / "labelled")}) == 2
    status, out, err = command(*label)
    assert (status, "inside models" in out) == (0, True), err
    old, new = list(read_rows(few)), list(read_rows(tmp_path / "labelled"))
    assert sorted(row.draft.text for row in new) == sorted(row.draft.text for row in old)
    assert {row.draft.score for row in new} <= {0.0, 0.5, 1.0}
    assert max(row.targets[0].score for row in new) == 1.0
    assert "0 new" in command(*label)[1]
    assert command("train-router", tmp_path / "labelled", tmp_path / "router", *TRAIN)[0] == 0


def test_a_shipped_router_is_judged_on_fresh_rows(rows):
    status, out, err = command("eval-router", rows, "--margin", "0.05", "--json")
    assert status == 0, err
    record = json.loads(out.splitlines()[-1])
    assert record["router"]["auc"] > 0.7  # A floor with room for twelve problems.


def test_collection_killed_at_random_is_what_it_would_have_been(rows, tmp_path):
    """The same rows as the undisturbed run, seconds aside: none lost, none doubled, none different."""
    rng = random.Random(0)
    collect = ("collect", tmp_path / "rows", "--limit", "12", "--samples", "2", "--keep-draft", "0.3")
    num_killed = sum(killed(collect, rng.uniform(3.0, 9.0)) for _ in range(3))
    assert num_killed > 0
    assert command(*collect)[0] == 0
    assert content(tmp_path / "rows") == content(rows)


def content(folder):
    """All that a seed determines, by problem and step."""
    found = [
        (row.problem.id, row.step, row.history, row.kept, row.draft.text, tuple(sample.text for sample in row.targets))
        for row in read_rows(folder)
    ]
    return sorted(found)


def test_training_killed_at_random_ends_as_it_would_have(rows, tmp_path):
    rng = random.Random(1)
    command("train-router", rows, tmp_path / "whole", *TRAIN)
    started = time.monotonic()
    while killed(("train-router", rows, tmp_path / "parts", *TRAIN), rng.uniform(8.0, 16.0)):
        assert time.monotonic() - started < 240
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_a_training_stopped_inside_an_epoch_goes_on_in_its_order(rows, tmp_path, monkeypatch):
    small = {"epochs": 3.0, "learning_rate": 3e-4, "batch_size": 2, "device_batch_size": 2, "save_steps": 3}
    train_router(rows, tmp_path / "whole", margin=0.05, **small)
    num_updates = read_report(tmp_path / "whole")["num_updates"]
    assert num_updates >= 12
    step, done = trainer.Trainer.training_step, []

    def stopped(self, *arguments, **options):
        if len(done) == num_updates // 3 + 4:  # Behind a checkpoint inside the second epoch.
            raise KeyboardInterrupt
        done.append(1)
        return step(self, *arguments, **options)

    monkeypatch.setattr(trainer.Trainer, "training_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_router(rows, tmp_path / "parts", margin=0.05, **small)
    monkeypatch.setattr(trainer.Trainer, "training_step", step)
    train_router(rows, tmp_path / "parts", margin=0.05, **small)
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_how_many_sequences_fit_on_the_device_changes_no_update(rows, tmp_path):
    """Packed sequences hold different numbers of labels: each label of a batch counts the same, however it is cut."""
    reports = []
    for size in (8, 1):
        out = tmp_path / str(size)
        train_router(rows, out, margin=0.05, epochs=1.0, learning_rate=3e-4, batch_size=8, device_batch_size=size)
        reports.append(load_file(out / "model.safetensors"))
    for name, weights in reports[0].items():
        torch.testing.assert_close(weights, reports[1][name], atol=3e-4, rtol=1e-2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("train-router", "{rows}", "{out}", "--labels", "classes-3"), "choose from binary"),
        (("train-router", "{rows}", "{out}", "--margin", "0.99"), "at least two classes"),
        (("train-router", "{rows}", "{out}", "--start", "{out}"), "cannot start from"),
        (("train-router", "{out}", "{out}"), "no manifest.json"),
        (("eval-router", "{rows}", "{prm}"), "is a prm, wanted a router"),
        (("eval-router", "{rows}", "{draft}"), "has no arbitrage.json"),
        (
            ("collect", "{rows}", "--keep-draft", "0.3", "--hidden-states"),
            "run: samples was 2, now 4 (",
        ),
        (("collect", "{out}", "--temperature", "0"), "would all be the same"),
        (("collect", "{out}", "--jobs", "0"), "at least 1, got 0"),
        (("label", "{rows}", "{out}", "--limit", "-1"), "limit must be at least 1, got -1"),
        (("collect", "{out}", "--behaviour", "telepathy"), "telepathy"),
    ],
)
def test_bad_input_is_one_clear_line(rows, tmp_path, arguments, told):
    places = {"rows": rows, "out": tmp_path / "out", "prm": WEIGHTS / "prm", "draft": WEIGHTS / "draft"}
    status, _, err = command(*(argument.format(**places) for argument in arguments))
    assert status == 2
    assert err.strip().splitlines()[-1].startswith("error: ")
    assert told in err
    assert "Traceback" not in err
