"""One GGUF file on two engines: transformers reads the weights and the tokenizer that llama.cpp reads."""

import importlib.util
import random

import pytest

gguf = pytest.importorskip("gguf")
torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

import chat_models  # noqa: E402
import gguf_vocabularies  # noqa: E402
from arbitrage.core.errors import CheckpointError, MissingExtra  # noqa: E402
from arbitrage.core.solve import solve  # noqa: E402
from arbitrage.core.turn import Pair  # noqa: E402
from arbitrage.core.types import Problem  # noqa: E402
from arbitrage.engines.encoding import encoder_of, text_ids  # noqa: E402
from arbitrage.engines.gguf_export import export_gguf  # noqa: E402
from arbitrage.engines.gguf_metadata import GGUFFile  # noqa: E402
from arbitrage.engines.hf import HFEngine  # noqa: E402
from arbitrage.engines.hf_gguf_tokenizer import end_ids, gguf_tokenizer  # noqa: E402
from arbitrage.engines.prompt import ChatPrompt, PlainPrompt  # noqa: E402
from arbitrage.engines.tokens import load_tokenizer  # noqa: E402
from arbitrage.pairs.config import read_pair  # noqa: E402
from arbitrage.policies import TargetOnly  # noqa: E402
from helpers import candidate, opened, setting  # noqa: E402

PROBLEM = Problem(id="p1", question="Mia has 3 stamps.")
STEP = candidate("She has 3 times as many stamps as Leo has, which is 42, and then some more of them.\n\n" * 4)
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 1,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
BYTE_LEVEL = list(gguf_vocabularies.PRE_TOKENIZERS)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def exported(tokenizer, tmp_path):
    """Writes a random model of the given shape as a GGUF file; returns the file and the model."""

    def export(kind="f32", **shape):
        if kind != "f32":  # Quantised by llama.cpp.
            pytest.importorskip("llama_cpp")
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer) + 3, **{**SHAPE, **shape})).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.normal_(mean=float("norm" in name), std=0.3)
        model.save_pretrained(str(tmp_path))
        tokenizer.save_pretrained(str(tmp_path))
        export_gguf(tmp_path, tmp_path / "model.gguf", kind)
        return tmp_path / "model.gguf", model

    return export


def edited(path, out, **values):
    """A copy of a GGUF file without tensors, with other values for some keys."""
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(out, values.pop("architecture", architecture))
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        subtype = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(key, field.contents(), field.types[0], subtype)
    for key, value in values.items():
        writer.add_string(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return out


@pytest.mark.parametrize("number", range(3))
async def test_both_engines_write_the_same_text(plain_lm, gguf_file, number):
    pytest.importorskip("llama_cpp")
    from arbitrage.engines.llamacpp import LlamaEngine

    file = gguf_file(plain_lm(number, layers=2))
    traces = []
    for engine in (LlamaEngine.load(file, threads=1), HFEngine.load(file)):
        limits = setting(max_tokens=48, max_step_tokens=10, max_idle_steps=99)
        traces.append(await solve(PROBLEM, Pair(draft=engine, target=engine), TargetOnly(), limits))
        assert engine.name == "model"
    made, wanted = traces
    assert made.text == wanted.text
    assert [step.candidate.token_ids for step in made.steps] == [step.candidate.token_ids for step in wanted.steps]
    assert sum(step.candidate.num_tokens for step in made.steps) > 20


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"num_key_value_heads": 2},
        {"head_dim": 32},
        {"tie_word_embeddings": True},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
        {"rope_parameters": LLAMA3},
    ],
    ids=str,
)
async def test_the_file_computes_what_the_checkpoint_computes(exported, tokenizer, shape):
    file, model = exported(**shape)
    async with (
        opened(HFEngine.load(file), PROBLEM) as session,
        opened(HFEngine(model, tokenizer, name="hf"), PROBLEM) as other,
    ):
        assert session.token_ids == other.token_ids
        read, wanted = await session.likelihood(STEP), await other.likelihood(STEP)
        assert read.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_quantised_weights_come_in_the_dtype_that_is_asked_for(exported, dtype):
    file, _ = exported("q8_0")
    model = HFEngine.load(file, dtype=dtype).model
    (wanted,) = [tensor for tensor in gguf.GGUFReader(file).tensors if tensor.name == "blk.1.ffn_down.weight"]
    values = torch.tensor(gguf.dequantize(wanted.data, wanted.tensor_type)).to(getattr(torch, dtype))
    assert torch.equal(model.model.layers[1].mlp.down_proj.weight, values)


def test_weights_that_transformers_leaves_out_are_an_error(exported):
    file, _ = exported(attention_bias=True)
    with pytest.raises(CheckpointError, match=r"transformers reads \d+ of the \d+ weights in .*model\.gguf.*llamacpp"):
        HFEngine.load(file)


def test_what_cannot_be_read_is_one_clear_error_before_the_weights(exported, tmp_path, monkeypatch):
    file, _ = exported()
    monkeypatch.setattr(LlamaForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("weights were read"))
    with pytest.raises(CheckpointError, match=r"no GGUF file at '.*none\.gguf'"):
        HFEngine.load(tmp_path / "none.gguf")
    (tmp_path / "broken.gguf").write_bytes(file.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"cannot read '.*broken\.gguf': \w+"):
        HFEngine.load(tmp_path / "broken.gguf")
    unknown = edited(file, tmp_path / "unknown.gguf", architecture="rwkv6")
    with pytest.raises(CheckpointError, match=r"cannot read '.*unknown\.gguf' of the architecture 'rwkv6': .*llamacpp"):
        HFEngine.load(unknown)
    stretched = edited(file, tmp_path / "stretched.gguf", **{"llama.rope.scaling.type": "yarn"})
    with pytest.raises(CheckpointError, match=r"'.*stretched\.gguf' stretches positions by 'yarn'"):
        HFEngine.load(stretched)


@pytest.mark.parametrize(("package", "extra"), [("gguf", "gguf"), ("accelerate", "hf")])
def test_a_missing_package_is_named_by_its_extra(exported, monkeypatch, package, extra):
    file, _ = exported()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == package else find(name, *_))
    with pytest.raises(MissingExtra, match=f"extra '{extra}'"):
        HFEngine.load(file)


def test_metadata_is_what_the_package_gguf_reads(exported):
    file, _ = exported("q8_0", rope_parameters=LLAMA3)
    reader, ours = gguf.GGUFReader(file), GGUFFile(file)
    theirs = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert ours.metadata == theirs
    assert {name: (one.num_elements, one.kind, one.offset) for name, one in ours.tensors.items()} == {
        one.name: (one.n_elements, one.tensor_type, one.data_offset) for one in reader.tensors
    }
    (rope,) = [tensor for tensor in reader.tensors if tensor.name == "rope_freqs.weight"]
    assert ours.floats("rope_freqs.weight") == tuple(rope.data.tolist())


def test_a_pair_may_name_the_engine_and_llama_cpp_stays_the_default(tmp_path):
    (tmp_path / "pair.toml").write_text('[draft]\npath = "a.gguf"\n[target]\npath = "a.gguf"\nengine = "hf"\n')
    pair = read_pair(tmp_path / "pair.toml")
    assert (pair.draft.engine, pair.target.engine) == ("llamacpp", "hf")
    assert pair.target.display_name == "a"


def texts(spellings, rng, count):
    parts = (
        *("Mia", " has", " stamps", "don't", "WE'LL", "x1", "3.14", "1234567", "\u00bd", "\u0663", "\u00e9", "\u4f60"),
        *(" ", "  ", "\t", "\n", "\n\n", ".\n\n", "\r\n", " \n ", "\u00a0", "\u3000", "\x85", "\U0001f600", "\u2014"),
        *spellings,
    )
    return ["".join(rng.choices(parts, k=rng.randrange(1, 12))) for _ in range(count)]


def test_a_served_model_takes_its_tokenizer_from_the_file(gguf_file, plain_lm, tokenizer):
    text = "Leo has 14 stamps.\n\nMia has 14*3=42 stamps."
    assert load_tokenizer(str(gguf_file(plain_lm(0)))).encode(text) == tokenizer.encode(text)


@pytest.fixture
def both(tmp_path):
    """A tokenizer in a GGUF file, by llama.cpp and as read here, with the file's metadata."""

    def load(name):
        pytest.importorskip("llama_cpp")
        theirs = gguf_vocabularies.load(name, chat_models.MODELS[name](), tmp_path)
        metadata = GGUFFile(tmp_path / f"{name}.gguf").metadata
        return theirs, gguf_tokenizer(metadata, tmp_path / f"{name}.gguf"), metadata

    return load


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_both_engines_give_a_text_the_same_ids(both, name):
    theirs, ours, _ = both(name)
    rng, spellings = random.Random(0), chat_models.SPELLINGS[name]
    for text in texts(spellings, rng, 1000):
        assert ours.encode(text, add_special_tokens=False) == theirs.encode(text, add_special_tokens=False), repr(text)
        assert ours.encode(text) == theirs.encode(text), repr(text)
        assert ours.decode(text_ids(ours, text)) == text
    for text in texts([], rng, 1000):
        assert text_ids(ours, text) == text_ids(theirs, text), repr(text)
    assert len(ours) == theirs._model.num_tokens


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_both_engines_see_the_same_control_tokens_ends_and_prompts(both, name):
    theirs, ours, metadata = both(name)
    assert encoder_of(ours).control_tokens == encoder_of(theirs).control_tokens
    assert end_ids(metadata) == theirs.end_ids
    for prompt in (ChatPrompt(), ChatPrompt("Be brief."), PlainPrompt("Q: {question}\nA:")):
        assert prompt.encode(ours, PROBLEM) == prompt.encode(theirs, PROBLEM)
        assert prompt.follow_up(ours, "Rate it.") == prompt.follow_up(theirs, "Rate it.")


def test_a_tokenizer_of_another_kind_is_refused(both):
    with pytest.raises(CheckpointError, match=r"of the kind 'llama' with the splits 'default'; read here are 'gpt2'"):
        both("gemma")
