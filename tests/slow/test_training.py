"""Rows, routers and their quality by the public commands on the shipped models."""

import json

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
from command_line import command
from shipped import TRAIN, serves

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows of twelve problems."""
    folder = tmp_path_factory.mktemp("rows") / "rows"
    collect = ("collect", folder, "--limit", "12", "--samples", "2", "--keep-draft", "0.3", "--hidden-states")
    status, out, _ = command(*collect)
    assert status == 0
    assert "inside models" in out
    return folder


def test_rows_hold_the_steps_of_both_models(rows):
    logged = list(read_rows(rows))
    assert len({row.problem.id for row in logged}) == 12
    assert all(len(row.targets) == 2 for row in logged)
    assert all(0.0 <= sample.score <= 1.0 for row in logged for sample in (row.draft, *row.targets))
    assert all(row.draft.first_entropy >= 0.0 for row in logged)
    assert any(row.targets[0].text != row.targets[1].text for row in logged)
    assert {row.kept for row in logged} == set(Source)
    assert sum(row.advantage > 0.05 for row in logged) > 0


def test_a_router_from_the_pairs_own_rows_serves_and_is_evaluated(rows, tmp_path):
    status, out, err = command("train-router", rows, tmp_path / "router", *TRAIN)
    assert status == 0, err
    assert "held-out loss" in out
    input_format = InputFormat.load(tmp_path / "router")
    assert (input_format.kind, input_format.annotation) == ("router", MARKS)
    assert input_format.trained_for == {"draft": "tiny-draft", "target": "tiny-target"}
    status, out, err = command(
        *("eval-router", rows, tmp_path / "router", "--all-rows", "--json", "--out", tmp_path / "quality")
    )
    assert status == 0, err
    record = json.loads(out.splitlines()[-1])
    assert record["num_problems"] == 12
    assert {path.name for path in (tmp_path / "quality").iterdir()} == {
        *("judgement.json", "gain.svg", "gain.png", "reliability.svg", "reliability.png")
    }
    assert serves(tmp_path / "router", tmp_path)


def test_a_router_by_lora_is_a_plain_checkpoint(rows, tmp_path):
    status, _, err = command("train-router", rows, tmp_path / "router", *TRAIN, "--lora-rank", "4")
    assert status == 0, err
    prm, router = (load_file(folder / "model.safetensors") for folder in (WEIGHTS / "prm", tmp_path / "router"))
    assert prm.keys() - {"score.bias"} == router.keys()  # Only a head of token classification has a bias.
    changed = {name for name in router if not torch.equal(prm[name].float(), router[name])}
    assert {"model.layers.0.self_attn.q_proj.weight", "score.weight"} <= changed
    assert "model.embed_tokens.weight" not in changed
    assert serves(tmp_path / "router", tmp_path)


@pytest.mark.parametrize("inputs", ["state", "likelihoods", "step-likelihoods"])
def test_a_probe_from_the_pairs_own_rows_serves_and_is_evaluated(rows, tmp_path, inputs):
    status, out, err = command("train-probe", rows, tmp_path / "probe", "--margin", "0.05", "--inputs", inputs)
    assert (status, "held-out loss" in out) == (0, True), err
    assert serves(tmp_path / "probe", tmp_path)
    status, out, err = command("eval-router", rows, tmp_path / "probe", "--json", "--all-rows", "--margin", "0.05")
    assert status == 0, err
    assert json.loads(out.splitlines()[-1])["router"]["auc"] > 0.5


def test_a_shipped_router_is_evaluated_on_new_rows(rows):
    status, out, err = command("eval-router", rows, "--margin", "0.05", "--json")
    assert status == 0, err
    record = json.loads(out.splitlines()[-1])
    assert record["router"]["auc"] > 0.7  # Low enough for twelve problems.


def test_a_training_stopped_inside_an_epoch_continues_in_the_same_order(rows, tmp_path, monkeypatch):
    small = {"epochs": 3.0, "learning_rate": 3e-4, "batch_size": 2, "device_batch_size": 2, "save_steps": 3}
    train_router(rows, tmp_path / "undisturbed", margin=0.05, **small)
    num_updates = read_report(tmp_path / "undisturbed")["num_updates"]
    assert num_updates >= 12
    step, steps_done = trainer.Trainer.training_step, []

    def stopped(self, *arguments, **options):
        if len(steps_done) == num_updates // 3 + 4:  # After a checkpoint inside the second epoch.
            raise KeyboardInterrupt
        steps_done.append(1)
        return step(self, *arguments, **options)

    monkeypatch.setattr(trainer.Trainer, "training_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_router(rows, tmp_path / "resumed", margin=0.05, **small)
    monkeypatch.setattr(trainer.Trainer, "training_step", step)
    train_router(rows, tmp_path / "resumed", margin=0.05, **small)
    undisturbed, resumed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("undisturbed", "resumed"))
    assert undisturbed == resumed


def test_the_device_batch_size_changes_no_update(rows, tmp_path):
    """Packed sequences have different numbers of labels; each label of a batch has the same weight."""
    checkpoints = []
    for size in (8, 1):
        out = tmp_path / str(size)
        train_router(rows, out, margin=0.05, epochs=1.0, learning_rate=3e-4, batch_size=8, device_batch_size=size)
        checkpoints.append(load_file(out / "model.safetensors"))
    for name, weights in checkpoints[0].items():
        torch.testing.assert_close(weights, checkpoints[1][name], atol=3e-4, rtol=1e-2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train-router", "{rows}", "{out}", "--labels", "classes-3"), "choose from binary"),
        (("train-router", "{rows}", "{out}", "--margin", "0.99"), "at least two classes"),
        (("train-router", "{rows}", "{out}", "--start", "{out}"), "cannot start from"),
        (("train-router", "{out}", "{out}"), "no manifest.json"),
        (("eval-router", "{rows}", "{prm}"), "is a prm, expected a router"),
        (("eval-router", "{rows}", "{draft}"), "has no arbitrage.json"),
        (
            ("collect", "{rows}", "--keep-draft", "0.3", "--hidden-states"),
            "run: samples was 2, now 4 (",
        ),
        (("collect", "{out}", "--temperature", "0"), "temperature 0 makes all 4 target samples equal"),
        (("collect", "{out}", "--jobs", "0"), "at least 1, got 0"),
        (("label", "{rows}", "{out}", "--limit", "-1"), "limit must be at least 1, got -1"),
        (("collect", "{out}", "--behaviour", "telepathy"), "telepathy"),
    ],
)
def test_bad_input_is_one_clear_line(rows, tmp_path, arguments, message):
    folders = {"rows": rows, "out": tmp_path / "out", "prm": WEIGHTS / "prm", "draft": WEIGHTS / "draft"}
    status, _, err = command(*(argument.format(**folders) for argument in arguments))
    assert status == 2
    assert err.strip().splitlines()[-1].startswith("error: ")
    assert message in err
    assert "Traceback" not in err
