"""A GGUF file in fewer bits: the target's own weights as its draft."""

import pytest
from typer.testing import CliRunner

llama_cpp = pytest.importorskip("llama_cpp")
gguf = pytest.importorskip("gguf")
torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from arbitrage.cli.main import app  # noqa: E402
from arbitrage.core.errors import CheckpointError, ConfigError  # noqa: E402
from arbitrage.core.types import Problem  # noqa: E402
from arbitrage.engines.gguf_export import export_gguf  # noqa: E402
from arbitrage.engines.gguf_files import QUANTISED  # noqa: E402
from arbitrage.engines.llamacpp import LlamaEngine  # noqa: E402
from arbitrage.engines.llamacpp_quantise import requantise  # noqa: E402
from helpers import candidate, opened  # noqa: E402

PROBLEM = Problem(id="p1", question="Mia has 3 stamps.")
SHAPE = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def original(tokenizer, tmp_path_factory):
    """A file of 8 bits."""
    folder = tmp_path_factory.mktemp("original")
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), eos_token_id=1, **SHAPE))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(mean=float("norm" in name), std=0.1)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    export_gguf(folder, folder / "model.gguf", "q8_0")
    return folder / "model.gguf"


def tensors(path):
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def weights(path):
    return {name: gguf.dequantize(tensor.data, tensor.tensor_type) for name, tensor in tensors(path).items()}


@pytest.mark.parametrize("kind", QUANTISED)
def test_every_kind_is_written_and_keeps_the_rest_of_the_file(original, tmp_path, kind):
    requantise(original, tmp_path / "small.gguf", kind)
    before, after = LlamaEngine.load(original, threads=1), LlamaEngine.load(tmp_path / "small.gguf", threads=1)
    assert after.tokenizer.chat_template == before.tokenizer.chat_template
    assert after.tokenizer.control_tokens == before.tokenizer.control_tokens
    assert after.eos_ids == before.eos_ids
    assert (tmp_path / "small.gguf").stat().st_size <= original.stat().st_size
    old, new = weights(original), weights(tmp_path / "small.gguf")
    for name, values in old.items():
        error = np.abs(new[name] - values).mean() / np.abs(values).mean()
        assert error < 0.35, name
        assert (error > 0) == (values.ndim > 1 and kind != "q8_0"), name


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K_L", "Q4_0"])
async def test_fewer_bits_say_nearly_the_same(original, tmp_path, kind):
    requantise(original, tmp_path / "small.gguf", kind)
    step, read = candidate("She has 3 times as many.\n\n"), []
    for path in (original, tmp_path / "small.gguf"):
        async with opened(LlamaEngine.load(path, threads=1), PROBLEM) as session:
            read.append((await session.likelihood(step)).logprobs)
    gaps = [abs(a - b) for a, b in zip(*read, strict=True)]
    assert 0 < sum(gaps) / len(gaps) < 3.0


def test_plain_kinds_are_the_same_weights_unpacked(original, tmp_path):
    requantise(original, tmp_path / "plain.gguf", "f32")
    old, new = weights(original), weights(tmp_path / "plain.gguf")
    assert {
        name: tensor.tensor_type.name for name, tensor in tensors(tmp_path / "plain.gguf").items()
    } == dict.fromkeys(old, "F32")
    assert all(np.array_equal(old[name], new[name]) for name in old)


def test_an_existing_file_is_replaced_only_by_a_whole_one(original, tmp_path):
    out = tmp_path / "small.gguf"
    out.write_text("old")
    (tmp_path / "half.gguf").write_bytes(original.read_bytes()[: original.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"cannot quantise '.*half\.gguf' to q4_0: \w+"):
        requantise(tmp_path / "half.gguf", out, "q4_0")
    assert out.read_text() == "old"
    requantise(original, out, "q4_0")
    assert out.read_bytes()[:4] == b"GGUF"
    assert {path.name for path in tmp_path.iterdir()} == {"small.gguf", "half.gguf"}


def test_what_cannot_be_done_is_one_clear_error_before_anything_is_computed(original, tmp_path, monkeypatch):
    monkeypatch.setattr(llama_cpp, "llama_model_quantize", lambda *_: pytest.fail("weights were quantised"))
    out = tmp_path / "small.gguf"
    with pytest.raises(ConfigError, match=r"type must be one of f32, f16, q8_0, .*, q2_k, got 'int4'"):
        requantise(original, out, "int4")
    link = tmp_path / "link.gguf"
    link.symlink_to(original)
    for path in (original, link):
        with pytest.raises(ConfigError, match=r"the output file '.*\.gguf' is also the input file \(name another"):
            requantise(original, path, "q4_0")
    with pytest.raises(CheckpointError, match=r"cannot read '.*none\.gguf': No such file"):
        requantise(tmp_path / "none.gguf", out, "q4_0")
    (tmp_path / "text.gguf").write_text("Not a model.")
    with pytest.raises(CheckpointError, match=r"'.*text\.gguf' is no GGUF file: it begins with b'Not '"):
        requantise(tmp_path / "text.gguf", out, "q4_0")
    with pytest.raises(ConfigError, match=r"cannot write '.*none.small\.gguf': No such file"):
        requantise(original, tmp_path / "none" / "small.gguf", "q4_0")


def test_the_command_takes_a_file_too(original, tmp_path):
    out = tmp_path / "small.gguf"
    done = CliRunner().invoke(app, ["export-gguf", str(original), str(out), "--type", "Q4_0"], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output == f"{out}: {out.stat().st_size / 1e6:.1f} MB, q4_0\n"
    assert tensors(out)["blk.0.ffn_down.weight"].tensor_type.name == "Q4_0"
