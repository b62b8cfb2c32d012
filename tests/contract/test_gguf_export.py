"""GGUF files hold what the checkpoint held; what they cannot hold is refused."""

import copy
import json

import pytest

gguf = pytest.importorskip("gguf")
torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from tokenizers import Regex, normalizers, pre_tokenizers  # noqa: E402
from tokenizers.processors import TemplateProcessing  # noqa: E402
from transformers import AddedToken, LlamaConfig, LlamaForCausalLM  # noqa: E402

from arbitrage.core.errors import CheckpointError, ConfigError  # noqa: E402
from arbitrage.core.types import Problem, Source  # noqa: E402
from arbitrage.engines.gguf_export import export_gguf  # noqa: E402
from arbitrage.engines.hf import HFEngine  # noqa: E402
from helpers import candidate, opened  # noqa: E402

PROBLEM = Problem(id="p1", question="Mia has 3 stamps.")
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 1,
    "bos_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.fixture
def saved(tokenizer, tmp_path):
    """Saves a random model of the given shape with a tokenizer, changed as wanted; returns folder and model."""

    def save(change=lambda tokenizer: None, dtype=None, std=0.3, **shape):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer) + 3, **{**SHAPE, **shape})).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.normal_(mean=float("norm" in name), std=std)
        model = model.to(dtype) if dtype else model
        other = copy.deepcopy(tokenizer)
        change(other)
        model.save_pretrained(str(tmp_path))
        other.save_pretrained(str(tmp_path))
        return tmp_path, model

    return save


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"num_key_value_heads": 2},
        {"head_dim": 32},
        {"tie_word_embeddings": True},
        {"attention_bias": True, "mlp_bias": True},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
        {"rope_parameters": LLAMA3},
    ],
    ids=str,
)
async def test_the_file_computes_what_the_checkpoint_computes(saved, tokenizer, shape):
    pytest.importorskip("llama_cpp")
    from arbitrage.engines.llamacpp import LlamaEngine

    folder, model = saved(**shape)
    export_gguf(folder, folder / "model.gguf", "f32")
    engine = LlamaEngine.load(folder / "model.gguf", threads=1)
    step = candidate("She has 3 times as many stamps as Leo has, which is 42, and then some more of them.\n\n" * 4)
    async with opened(engine, PROBLEM) as session, opened(HFEngine(model, tokenizer, name="hf"), PROBLEM) as other:
        assert session.token_ids == other.token_ids
        read, wanted = await session.likelihood(step), await other.likelihood(step)
        assert read.logprobs == pytest.approx(wanted.logprobs, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_weights_come_through_unchanged(saved, dtype, kind):
    folder, model = saved(dtype=dtype)
    export_gguf(folder, folder / "model.gguf", kind)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(folder / "model.gguf").tensors}
    wanted = model.state_dict()
    for new, old in (
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output_norm.weight", "model.norm.weight"),
        ("blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight"),
        ("output.weight", "lm_head.weight"),
    ):
        values = wanted[old].float().numpy()
        if kind == "f16" and values.ndim > 1:
            values = values.astype(np.float16)
        assert tensors[new].data.dtype == values.dtype
        assert np.array_equal(tensors[new].data, values)
    assert len(tensors) == len(wanted)


@pytest.mark.parametrize(("kind", "tolerance"), [("f16", 0.01), ("q8_0", 0.2), ("q4_k_m", 1.0), ("q3_k_l", 2.0)])
async def test_fewer_bits_say_nearly_the_same(saved, tokenizer, kind, tolerance):
    pytest.importorskip("llama_cpp")
    from arbitrage.engines.llamacpp import LlamaEngine

    folder, model = saved(std=0.1, hidden_size=256, intermediate_size=256)
    export_gguf(folder, folder / "model.gguf", kind)
    engine, step = LlamaEngine.load(folder / "model.gguf", threads=1), candidate("She has 3 times as many.\n\n")
    async with opened(engine, PROBLEM) as session, opened(HFEngine(model, tokenizer, name="hf"), PROBLEM) as other:
        read, wanted = await session.likelihood(step), await other.likelihood(step)
        gaps = [abs(a - b) for a, b in zip(read.logprobs, wanted.logprobs, strict=True)]
        assert sum(gaps) / len(gaps) < tolerance
    sizes = {"f16": 2.0, "q8_0": 1.07, "q4_k_m": 0.7, "q3_k_l": 0.6}
    num_weights = sum(weight.numel() for weight in model.parameters())
    assert (folder / "model.gguf").stat().st_size < sizes[kind] * num_weights + 60_000


def test_a_begin_token_is_put_before_texts_as_transformers_does(saved):
    pytest.importorskip("llama_cpp")
    from arbitrage.engines.llamacpp_native import GGUFTokenizer, LlamaModel

    def change(tokenizer):
        tokenizer.bos_token = "<|user|>"
        post = TemplateProcessing(single="<|user|> $A", special_tokens=[("<|user|>", tokenizer.bos_token_id)])
        tokenizer.backend_tokenizer.post_processor = post
        changed.append(tokenizer)

    changed = []
    folder, _ = saved(change)
    export_gguf(folder, folder / "model.gguf")
    ours = GGUFTokenizer(LlamaModel(folder / "model.gguf"), "begin")
    for add_special_tokens in (True, False):
        wanted = changed[0].encode("Mia has 3.", add_special_tokens=add_special_tokens)
        assert ours.encode("Mia has 3.", add_special_tokens) == wanted


def test_every_token_that_ends_an_answer_does(saved):
    pytest.importorskip("llama_cpp")
    from arbitrage.engines.llamacpp import LlamaEngine

    folder, _ = saved()
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2, 7]}))
    export_gguf(folder, folder / "model.gguf")
    assert LlamaEngine.load(folder / "model.gguf", threads=1).eos_ids == {1, 2, 7}
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 3, 4, 5]}))
    with pytest.raises(CheckpointError, match=r"5 tokens that end an answer, \[1, 2, 3, 4, 5\]; a GGUF file holds"):
        export_gguf(folder, folder / "model.gguf")


def _lower_case(tokenizer):
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


def _other_pattern(tokenizer):
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\w+|\W+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _greedy_token(tokenizer):
    tokenizer.add_tokens([AddedToken("<|greedy|>", lstrip=True, special=True)])


def _end_token_too(tokenizer):
    post = TemplateProcessing(single="$A <|end|>", special_tokens=[("<|end|>", 1)])
    tokenizer.backend_tokenizer.post_processor = post


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_lower_case, "no byte-level BPE without a normaliser"),
        (_other_pattern, "uses a pre-tokenizer that llama.cpp does not support"),
        (_greedy_token, r"'<\|greedy\|>' strips white space around it \(lstrip, rstrip\), .* \(use llama.cpp's own"),
        (_end_token_too, r"adds \['<\|end\|>'\] to every text"),
    ],
)
def test_a_tokenizer_that_would_give_other_ids_is_refused(saved, change, told):
    folder, _ = saved(change)
    (folder / "model.gguf").write_text("old")
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(CheckpointError, match=told):
        export_gguf(folder, folder / "model.gguf")
    assert (folder / "model.gguf").read_text() == "old"
    assert {path.name for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ({"hidden_act": "gelu"}, "hidden_act must be 'silu', got 'gelu'"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "rope_type must be default, linear or llama3, got 'dynamic'",
        ),
    ],
)
def test_a_shape_that_llama_cpp_would_run_otherwise_is_refused(saved, shape, told):
    folder, _ = saved(**shape)
    with pytest.raises(CheckpointError, match=told):
        export_gguf(folder, folder / "model.gguf")


def test_a_head_with_a_bias_is_refused(random_lm, tokenizer, tmp_path):
    random_lm(0).save_pretrained(str(tmp_path))
    tokenizer.save_pretrained(str(tmp_path))
    with pytest.raises(CheckpointError, match=r"no place for the tensor 'lm_head\.bias'"):
        export_gguf(tmp_path, tmp_path / "model.gguf")


def test_weights_beyond_16_bits_are_refused(saved):
    folder, model = saved()
    model.lm_head.weight.data[0, 0] = 1e6
    model.save_pretrained(str(folder))
    with pytest.raises(CheckpointError, match=r"'lm_head.weight'|'output.weight' does not fit into 16 bits"):
        export_gguf(folder, folder / "model.gguf", "f16")
    export_gguf(folder, folder / "model.gguf", "f32")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "no safetensors file in"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x08" + b"\0" * 20), "cannot read .*safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), r"cannot read .*config\.json"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "qwen2"}'), "is a 'qwen2' of None"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"cannot read .*tokenizer\.json"),
    ],
)
def test_broken_files_are_named(saved, spoil, told):
    folder, _ = saved()
    spoil(folder)
    with pytest.raises(CheckpointError, match=told):
        export_gguf(folder, folder / "model.gguf")


def test_bad_arguments_are_named(saved):
    folder, _ = saved()
    with pytest.raises(ConfigError, match=r"type must be one of f32, f16, q8_0, .*, q2_k, got 'int4'"):
        export_gguf(folder, folder / "model.gguf", "int4")
    with pytest.raises(ConfigError, match=r"cannot write '.*none.model\.gguf': No such file"):
        export_gguf(folder, folder / "none" / "model.gguf")


async def test_an_engine_of_a_pair_is_chosen_by_its_file(saved):
    pytest.importorskip("llama_cpp")
    from arbitrage.pairs.catalogue import load_engines

    folder, _ = saved()
    export_gguf(folder, folder / "model.gguf", "q8_0")
    (folder / "pair.toml").write_text(
        '[draft]\npath = "model.gguf"\nname = "small"\ncontext_length = 100\nsequences = 2\n[target]\npath = "."\n'
    )
    pair = load_engines(folder / "pair.toml")
    assert (type(pair.draft).__name__, type(pair.target).__name__) == ("LlamaEngine", "HFEngine")
    assert (pair.draft.name, pair.draft.context_length, pair.draft.context.num_sequences) == ("small", 100, 2)
    async with opened(pair.draft, PROBLEM, Source.DRAFT) as session:
        assert session.token_ids
