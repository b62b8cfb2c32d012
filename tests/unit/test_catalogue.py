"""Pairs by name: those that ship with the package, and users' files."""

import json
import os
from pathlib import Path

import pytest

import arbitrage
from arbitrage.core.errors import ConfigError
from arbitrage.pairs.catalogue import SHIPPED, pair_config, router_format, router_start, shipped_pairs
from arbitrage.pairs.config import MARKS
from arbitrage.tiny import MARKS as TINY_MARKS
from arbitrage.tiny import WEIGHTS

PAIR = '[draft]\npath = "a"\n[target]\npath = "b"\n[prm]\npath = "c"\n'


def test_the_shipped_pairs_are_listed():
    assert shipped_pairs() == ["tiny"]


@pytest.mark.parametrize("name", shipped_pairs())
def test_a_shipped_pair_is_complete(name):
    config = pair_config(name)
    assert config.name == name
    assert {"draft", "target", "prm", "router"} <= set(config.models)
    for model in config.models.values():
        assert Path(model.path).is_dir()
        assert Path(model.path).is_relative_to(Path(arbitrage.__file__).parent)


def test_the_tiny_pair_has_the_run_keys_of_earlier_versions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Paths do not depend on where a command is run.
    config = pair_config("tiny")
    identities = {role: model.identity for role, model in config.models.items()}
    expected = {
        "draft": {"path": str(WEIGHTS / "draft"), "name": "tiny-draft", "engine": "hf"},
        "target": {"path": str(WEIGHTS / "target"), "name": "tiny-target", "engine": "hf"},
        "prm": {"path": str(WEIGHTS / "prm"), "name": "tiny-prm", "engine": "hf"},
        "router": {"path": str(WEIGHTS / "probe"), "name": "tiny-probe", "engine": "hf"},
        "router:model": {"path": str(WEIGHTS / "router"), "name": "tiny-router", "engine": "hf"},
    }
    assert json.dumps(identities) == json.dumps(expected)
    assert not any(os.pardir in identity["path"] for identity in identities.values())


def test_the_tiny_pair_marks_steps_with_its_own_tokens():
    assert pair_config("tiny").marks == TINY_MARKS
    input_format = router_format("tiny")
    assert (input_format.annotation, router_start("tiny")) == (TINY_MARKS, str(WEIGHTS / "prm"))
    assert input_format.trained_for == {"draft": "tiny-draft", "target": "tiny-target"}


@pytest.mark.parametrize(
    ("text", "method"),
    [
        (PAIR, "confidence"),
        (PAIR + '[routers.second]\npath = "d"\n', "confidence"),
        (PAIR + '[router]\npath = "d"\n', "router"),
        ('default_method = "rsd"\n' + PAIR + '[router]\npath = "d"\n', "rsd"),
        ('default_method = "confidence+speculative"\n' + PAIR, "confidence+speculative"),
        ('default_method = ""\n' + PAIR, "confidence"),
    ],
)
def test_a_pair_has_a_default_method(tmp_path, text, method):
    (tmp_path / "pair.toml").write_text(text)
    assert pair_config(tmp_path / "pair.toml").default_method == method


def test_the_default_method_is_a_string_and_stands_before_the_tables(tmp_path):
    path = tmp_path / "pair.toml"
    path.write_text("default_method = 3\n" + PAIR)
    with pytest.raises(ConfigError, match=r"pair\.toml: default_method must be a string, got 3"):
        pair_config(path)
    path.write_text('default_methd = "rsd"\n' + PAIR)
    with pytest.raises(ConfigError, match=r"unknown key 'default_methd' \(did you mean 'default_method'\?\)"):
        pair_config(path)
    path.write_text(PAIR + 'default_method = "rsd"\n')
    with pytest.raises(ConfigError, match=r"\[prm\]: 'default_method' belongs to the pair \(write it before the first"):
        pair_config(path)
    assert pair_config("tiny").default_method == "router"


@pytest.mark.parametrize("call", [Path, str])
def test_a_users_file_named_like_a_shipped_pair_is_not_that_pair(tmp_path, monkeypatch, call):
    (tmp_path / "tiny.toml").write_text(PAIR)
    monkeypatch.chdir(tmp_path)
    for name in ("tiny.toml", tmp_path / "tiny.toml"):
        config = pair_config(call(name))
        assert (config.name, config.draft.path, config.marks) == ("tiny", "a", MARKS)
        assert router_format(call(name)).annotation == {"draft": "Model 0: ", "target": "Model 1: "}
        assert router_start(call(name)) == "c"
    assert pair_config(call("tiny")).draft.path == str(WEIGHTS / "draft")


def test_a_pair_may_have_marks_of_its_own(tmp_path):
    path = tmp_path / "pair.toml"
    path.write_text(PAIR + '[marks]\ndraft = "D: "\ntarget = "T: "\n')
    assert router_format(path).annotation == {"draft": "D: ", "target": "T: "}
    assert router_format(path, {"draft": "x", "target": "y"}).annotation == {"draft": "x", "target": "y"}
    assert router_format(path, {}).annotation == {}
    path.write_text(PAIR + "[marks]\n")
    assert router_format(path).annotation == {}


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ('[marks]\ndraft = "D"\n', r"pair\.toml: marks need the keys draft and target, got draft"),
        ('[marks]\ndraft = "D"\ntarget = "T"\nprm = "P"\n', "got draft, target, prm"),
        ("[marks]\ndraft = 0\ntarget = 1\n", "marks must be a table of strings, got {'draft': 0, 'target': 1}"),
        ('[mark]\ndraft = "D"\n', r"unknown key 'mark' \(did you mean 'marks'\?\)"),
    ],
)
def test_bad_marks_are_refused(tmp_path, marks, message):
    (tmp_path / "pair.toml").write_text(PAIR + marks)
    with pytest.raises(ConfigError, match=message):
        pair_config(tmp_path / "pair.toml")


def test_a_pair_that_is_nowhere_is_named_with_a_remedy(tmp_path):
    with pytest.raises(ConfigError, match=r"no configuration file at 'tinny' \(did you mean 'tiny'\?\)"):
        pair_config("tinny")
    with pytest.raises(ConfigError, match=r"no configuration file at '.*x\.toml' \(name a TOML file, or .* tiny\)"):
        pair_config(tmp_path / "x.toml")
    with pytest.raises(ConfigError, match="no configuration file at"):
        pair_config(tmp_path)


def test_shipped_files_name_their_models_relative_to_themselves():
    for name in shipped_pairs():
        assert str(WEIGHTS.parents[1]) not in (SHIPPED / f"{name}.toml").read_text()


def test_a_router_of_a_pair_without_a_prm_reads_questions_as_the_target_does(tmp_path):
    path = tmp_path / "pair.toml"
    path.write_text('[draft]\npath = "a"\n[target]\npath = "b"\nsystem = "Think."\n')
    input_format = router_format(path)
    assert (input_format.system, input_format.trained_for) == ("Think.", {"draft": "a", "target": "b"})
    with pytest.raises(ConfigError, match=r"'pair' has no PRM from which .* start \(name a checkpoint with --start"):
        router_start(path)
