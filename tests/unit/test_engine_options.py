"""The options of each engine: one schema per engine, and a row that makes it known."""

import re
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

import pytest

from arbitrage.core.errors import ConfigError
from arbitrage.engines.scripted import ScriptedEngine
from arbitrage.pairs.config import read_pair
from arbitrage.pairs.engines import ENGINES
from arbitrage.pairs.hf import HFModel
from arbitrage.pairs.llamacpp import LlamaCppModel
from arbitrage.pairs.loading import load_engine, load_router_model
from arbitrage.pairs.model import ModelConfig
from arbitrage.pairs.served import ServedModel
from arbitrage.runtime.store import run_key

PAIR = '[draft]\npath = "a"\n[target]\npath = "b"\n'


def test_every_option_of_an_engine_is_read(tmp_path):
    text = """
[draft]
path = "a.gguf"
device = "cuda:0"
dtype = "float16"
sequences = 2
context_length = 512
threads = 3
threads_batch = 4
gpu_layers = 0
flash_attention = true
exact = false
[target]
path = "b"
device = "cuda:1"
dtype = "bfloat16"
exact = true
"""
    (tmp_path / "pair.toml").write_text(text)
    config = read_pair(tmp_path / "pair.toml")
    assert config.draft == LlamaCppModel(
        path="a.gguf",
        device="cuda:0",
        dtype="float16",
        sequences=2,
        context_length=512,
        threads=3,
        threads_batch=4,
        gpu_layers=0,
        flash_attention=True,
        exact=False,
    )
    assert config.target == HFModel(path="b", device="cuda:1", dtype="bfloat16", exact=True)


@pytest.mark.parametrize("module", ["llamacpp", "hf"])
def test_an_engine_is_passed_only_the_options_that_are_set(monkeypatch, module):
    """What is left out is the engine's to choose."""
    calls = []

    class Fake:
        @staticmethod
        def load(path, **options):
            calls.append((path, options))

    name, schema = ("LlamaEngine", LlamaCppModel) if module == "llamacpp" else ("HFEngine", HFModel)
    fake = types.ModuleType(f"arbitrage.engines.{module}")
    setattr(fake, name, Fake)
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    load_engine(schema(path="m"))
    load_engine(schema(path="m", exact=False))
    (path, plain), (_, exact) = calls
    always = {"name", "device", "dtype", "prompt", "keeps_hidden_state"}
    assert (path, set(plain)) == ("m", always | ({"context", "sequences"} if module == "llamacpp" else {"cache"}))
    assert exact == {**plain, "exact": False}
    if module == "llamacpp":
        options = {"threads": 3, "threads_batch": 4, "gpu_layers": 0, "flash_attention": False}
        load_engine(schema(path="m", **options))
        assert calls[-1] == ("m", {**plain, **options})


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoModel(ModelConfig):
    """An engine that writes one step again and again."""

    engine: ClassVar[str] = "echo"
    path_fields: ClassVar[tuple[str, ...]] = ("path", "script")
    address_fields: ClassVar[tuple[str, ...]] = ("labels",)

    script: str = ""
    volume: float = 1.0
    words: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    def load_engine(self, *, keeps_hidden_state=False):
        return ScriptedEngine(script={"p": " ".join(self.words)}, name=self.display_name)


def test_an_engine_is_added_by_a_schema_and_a_row(tmp_path, monkeypatch):
    monkeypatch.setitem(ENGINES, "echo", EchoModel)
    (tmp_path / "said").touch()
    text = PAIR + 'engine = "echo"\nscript = "said"\nvolume = 2\nwords = ["a", "b"]\nlabels = {x = "y"}\n'
    (tmp_path / "pair.toml").write_text(text)
    target = read_pair(tmp_path / "pair.toml").target
    script = str(tmp_path / "said")
    assert target == EchoModel(path="b", script=script, volume=2, words=("a", "b"), labels={"x": "y"})
    assert target.identity == {"path": "b", "engine": "echo", "script": script, "volume": 2, "words": ("a", "b")}
    assert EchoModel(path="b").identity == {"path": "b", "engine": "echo"}
    assert load_engine(target).script == {"p": "a b"}
    with pytest.raises(ConfigError, match="a router runs on the engine hf, vllm or sglang, got 'echo'"):
        load_router_model(target)
    for old, new, message in (
        ('"echo"', '"hf"', r"engine 'hf' takes no script, got 'said' \(script is an option of echo\)"),
        ('"echo"', '"eco"', r"engine must be one of .*, echo, got 'eco' \(did you mean 'echo'\?\)"),
        ('["a", "b"]', '"a"', "words must be a list of strings, got 'a'"),
        ("volume = 2", "volume = true", "volume must be a number, got True"),
    ):
        (tmp_path / "pair.toml").write_text(text.replace(old, new))
        with pytest.raises(ConfigError, match=message):
            read_pair(tmp_path / "pair.toml")


def test_run_keys_are_those_of_earlier_versions(tmp_path):
    """Runs go on only where the models' identity is the same: options of servers and defaults are no part of it."""
    text = """
[draft]
path = "org/small"
name = "small"
engine = "vllm"
url = "http://127.0.0.1:8101"
served_name = "s"
dtype = "bfloat16"
context_length = 4096
timeout_s = 5
api_key_env = "KEY"
tokenizer = "org/tok"
server_args = ["--x"]
server_env = {A = "1"}
prompt = "llama3-step"
system = "Be brief."
[[draft.examples]]
question = "1+1?"
solution = "2"
[target]
path = "big.gguf"
device = "cuda:0"
dtype = "float16"
context_length = 512
sequences = 2
[prm]
path = "org/prm"
format = "skywork"
dtype = "bfloat16"
[router]
path = "../router"
[routers.second]
path = "q.gguf"
engine = "llama-server"
url = "http://h:1"
"""
    (tmp_path / "router").mkdir()
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "pair.toml").write_text(text)
    config = read_pair(tmp_path / "pairs" / "pair.toml")
    identities = {role: model.identity for role, model in config.models.items()}
    assert identities == {
        "draft": {
            "path": "org/small",
            "name": "small",
            "engine": "vllm",
            "dtype": "bfloat16",
            "prompt": "llama3-step",
            "system": "Be brief.",
            "examples": ({"question": "1+1?", "solution": "2"},),
            "tokenizer": "org/tok",
            "context_length": 4096,
        },
        "target": {
            "path": "big.gguf",
            "engine": "llamacpp",
            "device": "cuda:0",
            "dtype": "float16",
            "sequences": 2,
            "context_length": 512,
        },
        "prm": {"path": "org/prm", "engine": "hf", "dtype": "bfloat16", "format": "skywork"},
        "router": {"path": f"{tmp_path}/pairs/../router", "engine": "hf"},
        "router:second": {"path": "q.gguf", "engine": "llama-server"},
    }
    del identities["router"]  # Its path differs from test to test.
    assert run_key(identities) == "0e454850ee0d6449"


def test_the_documentation_lists_every_option_with_its_engines():
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    listed = {}
    for line in text.split("In a model's table:")[1].splitlines():
        if line.startswith("| `"):
            _, keys, engines, *_ = line.split("|")
            listed |= dict.fromkeys(re.findall("`(.*?)`", keys), engines.strip())
    servers = {name for name, schema in ENGINES.items() if issubclass(schema, ServedModel)}
    assert listed.pop("engine") == "all"
    assert listed.pop("format") == "all but `llamacpp`"  # A common option, of PRMs: llama.cpp runs none in process.
    for key, engines in listed.items():
        names = set(re.findall("`(.*?)`", engines))
        if engines.startswith("all"):
            names = ENGINES.keys() - names
        elif engines == "servers":
            names = servers
        having = {name for name, schema in ENGINES.items() if key in {spec.name for spec in fields(schema)}}
        assert (key, having) == (key, names)
    assert {spec.name for schema in ENGINES.values() for spec in fields(schema)} - {"format"} == set(listed)
