"""The settings that identify a run, with the keys that commit b6ccee5 gave them: older runs must continue."""

import json
from pathlib import Path

import pytest

from arbitrage.cli.collect import collect
from arbitrage.cli.label import label
from arbitrage.cli.train_probe import train_probe
from arbitrage.core.turn import Pair
from arbitrage.pairs.loaded import LoadedPair
from arbitrage.policies.table import Models
from arbitrage.runtime.store import run_key
from arbitrage.scorers.scripted import ScriptedScorer
from arbitrage.training import label_runs, probe, row_runs
from helpers import scripted

ROWS = Path(__file__).parents[1] / "data" / "b6ccee5" / "rows"
ROWS_KEY = "b36f052c5efed8ef"


class Opened(Exception):
    """A run opened its folder."""

    def __init__(self, settings):
        super().__init__()
        self.settings = settings


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """Start a command until it opens its folder: the settings it opens the folder with."""

    def open_folder(folder, settings, **options):
        raise Opened(settings)

    def scorer(name):
        return ScriptedScorer(value=lambda *_: 0.5, name=name)

    models = Models(
        pair_name="test",
        pair=Pair(draft=scripted("d"), target=scripted("t")),
        is_same_answer=str.__eq__,
        prm=scorer("prm"),
        routers={role: scorer(role) for role in ("router", "router:model")},
    )
    monkeypatch.setattr(LoadedPair, "identity", lambda self, roles: {role: {"path": role} for role in roles})
    for module in (row_runs, label_runs):
        monkeypatch.setattr(module, "load", lambda *_, **__: LoadedPair(config=None, models=models))
        monkeypatch.setattr(module, "GroupLog", open_folder)
    monkeypatch.setattr("arbitrage.cli.collect.problems", lambda *_, **__: [])
    monkeypatch.setattr(probe, "RunFolder", open_folder)

    def start(command, *arguments, **options):
        with pytest.raises(Opened) as opened:
            command(*arguments, tmp_path / "out", **options)
        return opened.value.settings

    return start


COLLECT = {
    "row_schema": 1,
    "models": {"draft": {"path": "draft"}, "target": {"path": "target"}, "prm": {"path": "prm"}},
    "dataset": "tiny:train:9",
    "stratify": "",
    "samples": 4,
    "temperature": 0.7,
    "behaviour": "oracle",
    "threshold": 0.0,
    "keep_draft": 0.0,
    "hidden_states": False,
    "max_tokens": 4096,
    "seed": 0,
}


@pytest.mark.parametrize(
    ("options", "changed", "key"),
    [
        ({}, {}, "d4c118bab548b1f7"),
        ({"behaviour": "rsd"}, {"behaviour": "rsd", "threshold": 0.7}, "d9188d1a5f240b5e"),
        ({"behaviour": "draft", "threshold": 0.4}, {"behaviour": "draft", "threshold": None}, "938ec77cc87de536"),
        (
            {
                "dataset": "rows.jsonl",
                "fields": "question=q",
                "stratify": "level",
                "samples": 2,
                "temperature": 0.5,
                "behaviour": "router:model",
                "threshold": 0.3,
                "keep_draft": 0.3,
                "hidden_states": True,
                "max_tokens": 512,
                "max_steps": 20,
                "seed": 7,
            },
            {
                "models": {**COLLECT["models"], "router:model": {"path": "router:model"}},
                "dataset": "rows.jsonl",
                "stratify": "level",
                "samples": 2,
                "temperature": 0.5,
                "behaviour": "router:model",
                "threshold": 0.3,
                "keep_draft": 0.3,
                "hidden_states": True,
                "max_tokens": 512,
                "seed": 7,
                "fields": "question=q",
                "max_steps": 20,
            },
            "983f447002232c80",
        ),
    ],
    ids=["defaults", "default threshold", "no threshold", "all options"],
)
def test_a_collection_is_identified_as_before(settings, options, changed, key):
    opened_with = settings(collect, **options)
    assert json.dumps(opened_with) == json.dumps({**COLLECT, **changed})
    assert run_key(opened_with) == key


@pytest.mark.parametrize(
    ("options", "changed", "key"),
    [
        ({}, {}, "4beea9dca05503c0"),
        (
            {"threshold": 0.3, "continuations": 2, "samples": 2, "temperature": 0.5, "seed": 7},
            {"threshold": 0.3, "continuations": 2, "samples": 2, "temperature": 0.5, "seed": 7},
            "ece0198ff96d20b8",
        ),
        (
            {"policy": "router", "threshold": 0.3},
            {
                # Earlier versions left the router out, and mixed the rows of two.
                "models": {"draft": {"path": "draft"}, "target": {"path": "target"}, "router": {"path": "router"}},
                "policy": "router",
                "threshold": 0.3,
            },
            "bb8fd03dee74eacd",
        ),
        ({"max_tokens": 512, "until_boxed": True}, {"max_tokens": 512, "until_boxed": True}, "a8fd74bb2a9d8504"),
    ],
    ids=["defaults", "all options", "a router", "options of later versions"],
)
def test_rollout_scores_are_identified_as_before(settings, options, changed, key):
    expected = {
        "row_schema": 1,
        "rows": ROWS_KEY,
        "models": {"draft": {"path": "draft"}, "target": {"path": "target"}},
        "policy": "target",
        "threshold": None,
        "continuations": 4,
        "samples": 1,
        "temperature": 0.7,
        "seed": 0,
    }
    opened_with = settings(label, ROWS, **options)
    assert json.dumps(opened_with) == json.dumps(expected | changed)
    assert run_key(opened_with) == key


@pytest.mark.parametrize(
    ("options", "changed", "key"),
    [
        ({}, {}, "d7c1039f18b6d1a3"),
        (
            {"margin": 0.2, "inputs": "state", "units": 4, "epochs": 5, "validation_share": 0.2, "seed": 7},
            {"margin": 0.2, "inputs": "state", "num_units": 4, "validation_share": 0.2, "num_epochs": 5, "seed": 7},
            "3b7e0b08ff509474",
        ),
    ],
    ids=["defaults", "all options"],
)
def test_a_probe_is_identified_as_before(settings, options, changed, key):
    recipe = {
        "margin": 0.0,
        "inputs": "likelihoods",
        "ask_above": 0.0,
        "num_units": 32,
        "weight_decays": [0.1, 1.0, 10.0, 100.0],
        "validation_share": 0.1,
        "num_epochs": 30,
        "seed": 0,
    }
    opened_with = settings(train_probe, ROWS, **options)
    pair = {"draft": "tiny-draft", "target": "tiny-target"}
    assert json.loads(json.dumps(opened_with)) == {"rows": ROWS_KEY, "pair": pair, "recipe": recipe | changed}
    assert run_key(opened_with) == key
