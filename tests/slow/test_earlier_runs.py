"""Rows, probes and run keys of commit b6ccee5 are continued, evaluated and recognised."""

import json
import shutil

import pytest

from arbitrage.cli.train_router import train_router
from arbitrage.runtime.store import read_manifest, run_key
from arbitrage.tiny import WEIGHTS
from arbitrage.training import trainer
from arbitrage.training.rows import read_rows
from command_line import command
from shipped import EARLIER, serves

pytestmark = pytest.mark.integration


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
