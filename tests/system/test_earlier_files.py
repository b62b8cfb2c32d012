"""Rows and a probe that commit b6ccee5 wrote are read, and give the figures that they gave then."""

import json
import shutil
from pathlib import Path

import pytest

from arbitrage.core.types import Finish, Source
from arbitrage.pairs.catalogue import load_router
from arbitrage.runtime.store import read_manifest
from arbitrage.scorers.format import InputFormat
from arbitrage.scorers.probe import Inputs
from arbitrage.training.probe import ProbeRecipe, train_probe
from arbitrage.training.recipe import held_out_rows, read_report
from arbitrage.training.router_quality import measure_router_quality
from arbitrage.training.row_scores import score_rows
from arbitrage.training.rows import read_rows

FILES = Path(__file__).parents[1] / "data" / "b6ccee5"


@pytest.mark.parametrize("folder", ["rows", "labelled"])
def test_rows_keep_their_bytes(folder):
    lines = (FILES / folder / "rows.jsonl").read_text().splitlines()
    assert [json.dumps(row.to_json()) for row in read_rows(FILES / folder)] == lines


def test_rows_keep_their_meaning():
    first, *others = read_rows(FILES / "rows")
    assert (first.problem.id, first.problem.answer, first.step, first.kept) == ("train-9-0", "15", 0, Source.DRAFT)
    assert first.draft.text == "Ava stores 40.\n\n"
    assert (len(first.targets), len(first.draft.hidden_state)) == (2, 128)
    assert others[-1].draft.finish is Finish.END_OF_SEQUENCE
    assert [row.problem.id for row in (first, *others)] == ["train-9-0"] * 3 + ["train-9-1"] * 4
    assert {row.models["prm"] for row in read_rows(FILES / "labelled")} == {"rollouts by target"}


async def test_a_probe_gives_the_same_figures():
    expected = json.loads((FILES / "judgement.json").read_text())
    rows = list(read_rows(FILES / "rows"))
    router, _ = load_router(FILES / "probe")
    quality = measure_router_quality(rows, await score_rows(router, rows), name="router", margin=0.1)
    record = quality.to_json(rows="rows", margin=0.1)
    assert list(record) == list(expected)
    assert flat(json.loads(json.dumps(record))) == pytest.approx(flat(expected), abs=1e-6, nan_ok=True)
    assert {row.problem.id for row in held_out_rows(rows, FILES / "probe")} == {"train-9-1"}


def flat(record, above=""):
    """The leaves of nested JSON by their paths."""
    items = record.items() if isinstance(record, dict) else enumerate(record)
    leaves = {}
    for name, value in items:
        path = f"{above}/{name}"
        leaves |= flat(value, path) if isinstance(value, dict | list) else {path: value}
    return leaves


def test_a_finished_probe_is_not_trained_again(tmp_path):
    folder = shutil.copytree(FILES / "probe", tmp_path / "probe")
    recipe = ProbeRecipe(margin=0.1, inputs=Inputs.STATE, num_units=2, num_epochs=5)
    settings = {name: value for name, value in read_manifest(folder).items() if name != "recipe"}
    report = train_probe([], folder, recipe, InputFormat.load(folder), settings=settings)
    assert report == read_report(FILES / "probe")
