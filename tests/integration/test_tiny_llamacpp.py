"""The tiny pair runs by llama.cpp as by transformers, and drafts for itself in three bits."""

from itertools import chain

import pytest

pytest.importorskip("llama_cpp")
pytest.importorskip("gguf")

from typer.testing import CliRunner

import arbitrage as arb
from arbitrage.cli.main import app
from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Source
from arbitrage.datasets.named import problems
from arbitrage.tiny import WEIGHTS

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both models as files, and pairs of them."""
    folder = tmp_path_factory.mktemp("tiny")
    for role, kind in (("draft", "f32"), ("target", "f32"), ("target", "q3_k_l")):
        out = folder / f"{role}-{kind}.gguf"
        done = CliRunner().invoke(app, ["export-gguf", str(WEIGHTS / role), str(out), "--type", kind])
        assert (done.exit_code, f"MB, {kind}" in done.stdout) == (0, True)
    target = f'[target]\npath = "target-f32.gguf"\nname = "tiny-target"\n[prm]\npath = "{WEIGHTS / "prm"}"\n'
    for name, draft in (("pair", "draft-f32"), ("quantised", "target-q3_k_l")):
        router = f'[router]\npath = "{WEIGHTS / "probe"}"\n'
        (folder / f"{name}.toml").write_text(f'[draft]\npath = "{draft}.gguf"\nname = "tiny-draft"\n{target}{router}')
    return folder


@pytest.mark.parametrize("policy", ["draft", "target", "router"])
def test_greedy_text_is_that_of_transformers(folder, policy):
    """On none of the 100 problems of benchmarks/parity.py did they differ at 32 bits."""
    pair, twin = arb.load(folder / "pair.toml"), arb.load("tiny")
    for problem in problems("tiny:test", 12):
        made, wanted = (one.solve(problem.question, policy=policy) for one in (pair, twin))
        assert made.text == wanted.text
        assert [step.source for step in made.steps] == [step.source for step in wanted.steps]


@pytest.mark.parametrize("engine", ["llamacpp", "hf"])
def test_a_file_of_the_hub_is_that_file(folder, tmp_path, monkeypatch, engine):
    """In a cache in the hub's layout, without a connection."""
    repository, commit = tmp_path / "hub" / "models--me--tiny", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    for role in Source:
        (repository / "snapshots" / commit / f"{role}.gguf").symlink_to(folder / f"{role}-f32.gguf")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    tables = [f'[{role}]\npath = "hub:me/tiny/{role}.gguf"\nengine = "{engine}"\n' for role in Source]
    (tmp_path / "pair.toml").write_text("".join(tables))
    pair, (problem, *_) = arb.load(tmp_path / "pair.toml"), problems("tiny:test", 1)
    twin = arb.load(folder / "pair.toml", policies=["draft"])
    assert pair.solve(problem.question, policy="draft").text == twin.solve(problem.question, policy="draft").text
    identity = pair.identity(tuple(Source))
    assert identity["draft"]["path"] == "hub:me/tiny/draft.gguf"
    assert identity["draft"]["weights"] != identity["target"]["weights"] != ""


def test_questions_have_the_ids_that_transformers_gives_them(folder):
    ours, theirs = (arb.load(name).pair.target.tokenizer for name in (folder / "pair.toml", "tiny"))
    for problem in problems("tiny:ood", 300):
        assert ours.encode(problem.question) == theirs.encode(problem.question)


def test_a_target_in_three_bits_drafts_for_itself(folder):
    pair = arb.load(folder / "quantised.toml")
    traces = [pair.solve(problem.question, policy="rsd", threshold=0.5) for problem in problems("tiny:test", 12)]
    steps = list(chain(*(trace.steps for trace in traces)))
    assert {step.source for step in steps} == set(Source)
    assert sum(step.source is Source.DRAFT for step in steps) > len(steps) / 2


def test_an_unknown_type_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"type must be one of f32, f16, q8_0, .*, q2_k, got 'int4'"):
        CliRunner().invoke(
            app, ["export-gguf", str(WEIGHTS / "draft"), str(tmp_path / "x"), "--type", "int4"], catch_exceptions=False
        )
