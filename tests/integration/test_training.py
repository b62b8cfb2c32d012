"""Rows, routers and their quality by the public commands on the shipped models."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from arbitrage.cli.train_router import train_router
from arbitrage.core.boxes import last_boxed
from arbitrage.core.solve import solve
from arbitrage.core.types import Finish, Source
from arbitrage.grading import is_same
from arbitrage.pairs.catalogue import load_engines
from arbitrage.policies import TargetOnly
from arbitrage.runtime.store import read_manifest, run_key
from arbitrage.scorers.format import InputFormat
from arbitrage.tiny import MARKS, WEIGHTS
from arbitrage.training import trainer
from arbitrage.training.recipe import read_report
from arbitrage.training.rows import read_rows
from command_line import command

pytestmark = pytest.mark.integration
EARLIER = Path(__file__).parents[1] / "data" / "b6ccee5"
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


def pair_with(router, folder):
    """A configuration of the shipped draft and target with another router."""
    models = {"draft": WEIGHTS / "draft", "target": WEIGHTS / "target", "router": router}
    path = folder / "pair.toml"
    tables = [f'[{role}]\npath = "{checkpoint}"\nname = "tiny-{role}"\n' for role, checkpoint in models.items()]
    path.write_text("".join(tables))
    return path


def serves(router, folder):
    """Whether a pair that names the router's folder solves a problem with it."""
    pair = pair_with(router, folder)
    status, out, err = command("solve", "--pair", pair, "Solve for x: 3x+4=25.")
    assert status == 0, err
    return "router(draft)" in out


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


def test_rows_with_rollout_scores_train_a_router(rows, tmp_path):
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
    assert " 0 new " in command(*label)[1]
    assert command("train-router", tmp_path / "labelled", tmp_path / "router", *TRAIN)[0] == 0


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A pair file with the shipped draft and target only, and rows of six problems, which have no scores."""
    folder = tmp_path_factory.mktemp("bare")
    pair = folder / "pair.toml"
    pair.write_text("".join(f'[{role}]\npath = "{WEIGHTS / role}"\nname = "tiny-{role}"\n' for role in Source))
    collect = ("collect", folder / "rows", "--pair", pair, "--limit", "6", "--samples", "1", "--temperature", "0")
    status, _, err = command(*collect)
    assert status == 0, err
    return folder


LABEL = ("--continuations", "1", "--temperature", "0")


@pytest.fixture(scope="module")
def labelled(bare):
    """These rows with scores by rollouts."""
    labelled = bare / "labelled"
    label = ("label", bare / "rows", labelled, "--pair", bare / "pair.toml", *LABEL)
    status, out, err = command(*label, "--dry-run")
    assert (status, "of 6 problems to score · at most" in out, labelled.exists()) == (0, True, False), err
    status, _, err = command(*label)
    assert (status, "prompt tokens from the cache" in err) == (0, True), err
    assert command(*label, "--dry-run")[1].startswith("0 rows of 0 problems to score · at most 0 continuations")
    return labelled


def test_a_pair_without_a_prm_gets_a_router(bare, labelled, tmp_path):
    pair, probe = bare / "pair.toml", tmp_path / "probe"
    status, _, err = command("train-probe", labelled, probe, "--pair", pair, "--validation-share", "0.3")
    assert status == 0, err
    status, out, err = command("eval-router", labelled, probe, "--pair", pair, "--all-rows", "--json")
    assert (status, json.loads(out.splitlines()[-1])["num_problems"]) == (0, 6), err
    with_router = pair_with(probe, tmp_path)
    run, policies = tmp_path / "run", ("--policies", "target,router", "--thresholds", "0.1,0.9")
    status, out, err = command(
        *("eval", "--pair", with_router, *policies, "--dataset", "tiny:validation", "--limit", "3", "--out", run)
    )
    assert (status, "router" in out) == (0, True), err
    calibrate = ("calibrate", run, "--pair", with_router, "--budget", "seconds<=1000", "--confidence", "0.1")
    status, out, err = command(*calibrate)
    assert (status, "written into" in out) == (0, True), err


def test_rollouts_give_the_scores_of_single_continuations(bare, labelled):
    pair = load_engines(bare / "pair.toml")

    async def single(row, sample, source):
        start = [*(past.as_candidate() for past in row.history), sample.as_candidate(source)]
        text = "".join(step.text for step in start)
        if sample.finish is not Finish.END_OF_SEQUENCE:
            text += (await solve(row.problem, pair, TargetOnly(), start=start)).text
        return float(is_same(last_boxed(text), row.problem.answer))

    async def all_single(rows):
        pairs = [((row.draft, Source.DRAFT), (row.targets[0], Source.TARGET)) for row in rows]
        return [[await single(row, *pair) for pair in pairs_of] for row, pairs_of in zip(rows, pairs, strict=True)]

    rows = list(read_rows(labelled))[:12]
    assert [[row.draft.score, row.targets[0].score] for row in rows] == asyncio.run(all_single(rows))


def test_a_command_names_the_step_that_is_missing(bare, tmp_path):
    rows, pair = bare / "rows", ("--pair", bare / "pair.toml")
    probe = EARLIER / "probe"
    for arguments in (("train-probe", rows, tmp_path), ("train-router", rows, tmp_path), ("eval-router", rows, probe)):
        status, _, err = command(*arguments, *pair)
        assert (status, len(err.splitlines())) == (2, 1)
        assert err.startswith("error: the rows have no scores, first step 0 of problem")
        assert "score them by rollouts with `arbitrage label`" in err
    status, _, err = command("calibrate", rows, *pair, "--budget", "target-tokens<=0.3")
    assert (status, "solve some with `arbitrage eval" in err) == (2, True)


def test_problems_that_nobody_can_grade_are_left_out(bare, tmp_path):
    rows = tmp_path / "rows"
    shutil.copytree(bare / "rows", rows)
    records = [json.loads(line) for line in (rows / "rows.jsonl").read_text().splitlines()]
    first = records[0]["problem_id"]
    for name in ("some", "all"):
        vague = [r | {"answer": "$$"} if name == "all" or r["problem_id"] == first else r for r in records]
        (rows / "rows.jsonl").write_text("".join(json.dumps(record) + "\n" for record in vague))
        status, out, err = command("label", rows, tmp_path / "out", "--pair", bare / "pair.toml", *LABEL, "--dry-run")
        if name == "some":
            assert "1 problems left out: nobody can grade their gold answers, first '$$' of problem" in err
            assert " of 5 problems to score" in out
    assert (status, err.startswith("error: nobody can grade the gold answers of these rows")) == (2, True)


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


@pytest.fixture
def earlier(tmp_path):
    """The files of commit b6ccee5 as if that commit had been installed at the same path."""
    shutil.copytree(EARLIER, tmp_path / "earlier")
    keys = {}
    for folder in ("rows", "labelled", "probe"):
        manifest = tmp_path / "earlier" / folder / "manifest.json"
        text = manifest.read_text().replace("WEIGHTS", str(WEIGHTS))
        for key_before, key in keys.items():
            text = text.replace(key_before, key)
        key_before = json.loads(manifest.read_text())["key"]
        manifest.write_text(text)
        keys[key_before] = run_key(read_manifest(manifest.parent))
    return tmp_path / "earlier"


def test_a_collection_of_an_earlier_version_continues(earlier):
    collect = ("collect", earlier / "rows", "--samples", "2", "--keep-draft", "0.3", "--hidden-states", "--limit")
    status, out, err = command(*collect, "2")
    assert (status, out.startswith("7 rows "), " 0 new " in out) == (0, True, True), err
    assert (earlier / "rows" / "rows.jsonl").read_bytes() == (EARLIER / "rows" / "rows.jsonl").read_bytes()
    status, out, err = command(*collect, "3")
    assert status == 0, err
    assert len({row.problem.id for row in read_rows(earlier / "rows")}) == 3


def test_rollout_scores_of_an_earlier_version_continue(earlier):
    label = ("label", earlier / "rows", earlier / "labelled", "--continuations", "1", "--temperature", "0", "--limit")
    status, out, err = command(*label, "1")
    assert (status, out.startswith("3 rows "), " 0 new " in out) == (0, True, True), err
    status, out, err = command(*label, "2")
    assert (status, out.startswith("7 rows "), " 4 new " in out) == (0, True, True), err


def test_a_probe_of_an_earlier_version_is_evaluated(earlier):
    evaluation = ("eval-router", earlier / "rows", earlier / "probe", "--all-rows", "--margin", "0.1", "--json")
    status, out, err = command(*evaluation)
    assert status == 0, err
    expected = json.loads((EARLIER / "judgement.json").read_text())["router"]
    assert json.loads(out.splitlines()[-1])["router"]["rho"] == pytest.approx(expected["rho"], abs=1e-6)
    assert serves(earlier / "probe", earlier)


@pytest.mark.parametrize(
    ("options", "changed", "key"),
    [
        ({}, {}, "e6b9f9143c81fca3"),
        ({"marks": ("", "")}, {"annotation": {}}, "737900585d789b57"),
    ],
    ids=["defaults", "no marks"],
)
def test_a_router_is_identified_as_before(tmp_path, monkeypatch, options, changed, key):
    """The run keys of commit b6ccee5: a router of that commit is not trained again."""
    opened_with = {}

    def open_folder(folder, settings):
        opened_with.update(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "RunFolder", open_folder)
    with pytest.raises(KeyboardInterrupt):
        train_router(EARLIER / "rows", tmp_path / "out", start="org/base", **options)
    expected = {
        "rows": "b36f052c5efed8ef",
        "num_rows": 7,
        "start": "org/base",
        "start_weights": "",
        "annotation": {"draft": "<|draft|>", "target": "<|target|>"},
        "recipe": {
            "labelling": "binary",
            "margin": 0.0,
            "num_target_samples": None,
            "balance": "downsample",
            "validation_share": 0.1,
            "num_epochs": 3.0,
            "learning_rate": 1e-05,
            "batch_size": 1024,
            "device_batch_size": 16,
            "warmup_share": 0.1,
            "lora_rank": 0,
            "bf16": False,
            "save_steps": 200,
            "seed": 0,
        },
        "from_scratch": False,
    }
    assert json.dumps(opened_with) == json.dumps(expected | changed)
    assert run_key(opened_with) == key


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
