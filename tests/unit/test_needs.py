"""A method that reads values which an engine does not return fails when it is built, not at the first problem."""

import re
from dataclasses import replace

import numpy as np
import pytest

from arbitrage.core.errors import ConfigError
from arbitrage.core.turn import Pair
from arbitrage.engines.prompt import PlainPrompt
from arbitrage.engines.tokens import TokenText
from arbitrage.grading import is_same
from arbitrage.pairs.config import PairConfig
from arbitrage.pairs.hf import HFModel
from arbitrage.pairs.llamacpp import LlamaCppModel
from arbitrage.pairs.loaded import LoadedPair
from arbitrage.pairs.needs import OF_ENGINES, OF_PROBES
from arbitrage.pairs.served import LlamaServerModel, SGLangModel, VLLMModel
from arbitrage.policies.table import METHODS, Models, Need
from arbitrage.scorers.format import InputFormat
from arbitrage.scorers.probe import Inputs, ProbeHead, ProbeScorer
from helpers import scripted

SCHEMAS = {"hf": HFModel, "llamacpp": LlamaCppModel}
SERVERS = {"vllm": VLLMModel, "sglang": SGLangModel, "llama-server": LlamaServerModel}


def probe(inputs):
    weights = dict.fromkeys(("mean", "scale", "inner", "inner_bias", "outer", "outer_bias"), np.zeros(1, np.float32))
    return ProbeScorer(ProbeHead(inputs=inputs, **weights), name="router", input_format=InputFormat(kind="router"))


def loaded(draft="hf", target="hf", router=None):
    models = [
        SERVERS[engine](path="m", url="http://127.0.0.1:1") if engine in SERVERS else SCHEMAS[engine](path="m")
        for engine in (draft, target)
    ]
    pair = Pair(draft=scripted("drafted"), target=scripted("written"))
    config = PairConfig(name="test", draft=models[0], target=models[1], router=HFModel(path="r") if router else None)
    routers = {"router": router} if router else {}
    return LoadedPair(
        config=config, models=Models(pair_name="test", pair=pair, is_same_answer=is_same, routers=routers)
    )


@pytest.mark.parametrize(
    ("policy", "engines", "message"),
    [
        ("confidence", {"draft": "llama-server"}, r"draft's engine \(llama-server\) returns no log-probabilities;"),
        ("entropy", {"draft": "llama-server"}, r"draft's engine \(llama-server\) returns no first-token entropy;"),
        ("entropy", {"draft": "vllm"}, r"draft's engine \(vllm\) returns no first-token entropy;"),
        ("entropy", {"draft": "sglang"}, r"draft's engine \(sglang\) returns no first-token entropy;"),
        ("likelihood", {"target": "llama-server"}, r"\(llama-server\) returns no log-probabilities of a given step;"),
        ("judge", {"target": "llama-server"}, r"\(llama-server\) returns no log-probabilities of a given step;"),
        ("repair:0.1", {"target": "llama-server"}, r"\(llama-server\) returns no log-probabilities of a given step;"),
    ],
)
def test_values_that_an_engine_does_not_return_are_one_error_at_build_time(policy, engines, message):
    pair = loaded(**engines)
    with pytest.raises(ConfigError, match=f"{message} the policy '{policy}' needs them .*choose another policy"):
        pair.method(policy)
    with pytest.raises(ConfigError, match=message):
        pair.policy(policy)
    with pytest.raises(ConfigError, match=message):
        pair.solve("?", policy=policy)


@pytest.mark.parametrize(
    ("inputs", "engines", "values"),
    [
        (Inputs.CONFIDENCE, {"draft": "vllm"}, "first-token entropy"),
        (Inputs.STATE, {"draft": "vllm"}, "first-token entropy"),
        (Inputs.LIKELIHOODS, {"draft": "llama-server"}, "log-probabilities"),
        (Inputs.LIKELIHOODS, {"target": "llama-server"}, "log-probabilities of a given step"),
    ],
)
def test_a_probe_router_needs_the_values_that_it_reads(inputs, engines, values):
    with pytest.raises(ConfigError, match=f"returns no {values}; the policy 'router' needs them"):
        loaded(**engines, router=probe(inputs)).method("router")


@pytest.mark.parametrize("policy", ["confidence", "likelihood", "judge", "random", "draft", "target", "majority"])
@pytest.mark.parametrize("engine", ["hf", "llamacpp", "vllm", "sglang"])
def test_an_engine_that_returns_the_values_is_accepted(policy, engine):
    assert loaded(engine, engine).method(policy).name == policy


def test_only_the_role_that_a_method_reads_counts():
    assert loaded(draft="hf", target="llama-server").method("confidence").name == "confidence"
    assert loaded(draft="llama-server", target="vllm").method("likelihood").name == "likelihood"
    assert loaded("vllm", "llama-server").method("random").name == "random"
    assert loaded("vllm", "vllm", router=probe(Inputs.LIKELIHOODS)).method("router").name == "router"


def test_every_need_has_one_check():
    """PRM and router are checked by :class:`Models`, the last two where the guessing target is built."""
    elsewhere = {Need.PRM, Need.ROUTER, Need.ONE_VOCABULARY, Need.IN_PROCESS}
    assert elsewhere | OF_ENGINES.keys() == set(Need)
    assert OF_PROBES.keys() == set(Inputs)
    assert {need for row in METHODS.values() for need in row.needs} <= set(Need)
    model = LlamaServerModel(path="m", url="http://127.0.0.1:1")
    assert model.lacks == set(OF_ENGINES)
    assert replace(model, name="other").identity == {"path": "m", "name": "other", "engine": "llama-server"}


class Words:
    """A tokenizer of which only the vocabulary is read."""

    def __init__(self, vocabulary):
        self.get_vocab = vocabulary.copy


@pytest.mark.parametrize("policy", ["repair:0.1", "repair:0.1+speculative"])
def test_models_that_share_no_vocabulary_cannot_share_a_step(policy):
    words = [Words({"a": 0, "b": 1}), Words({"a": 1})]
    draft, target, same = (
        TokenText(tokenizer, name, PlainPrompt())
        for tokenizer, name in ((words[0], "small"), (words[1], "large"), (words[0], "twin"))
    )
    pair = loaded(router=probe(Inputs.LIKELIHOODS))
    other, shared = (
        replace(pair, models=replace(pair.models, pair=Pair(draft=draft, target=engine))) for engine in (target, same)
    )
    message = rf"the policy '{re.escape(policy)}' needs one vocabulary, those of 'small' and 'large' differ .*router"
    with pytest.raises(ConfigError, match=message):
        other.method(f"{policy}@0.1")
    assert shared.policy("repair:0.1@0.1").epsilon == 0.1
