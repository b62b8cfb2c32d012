"""What ``exact`` means on llama.cpp: the same logits, to the last bit, however many tokens are computed together."""

import os
import platform
import subprocess
import sys

import pytest

llama_cpp = pytest.importorskip("llama_cpp")
pytest.importorskip("gguf")
torch = pytest.importorskip("torch")

from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from arbitrage.core.types import Problem  # noqa: E402
from arbitrage.engines.gguf_export import export_gguf  # noqa: E402
from arbitrage.engines.llamacpp import LlamaEngine  # noqa: E402
from helpers import candidate, opened, request  # noqa: E402

PROBLEM = Problem(id="p1", question="Compared to Leo Mia has 3 times as many stamps.")
SHAPE = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2}
BFLOAT16, FLOAT32, FLOAT16 = 30, 0, 1

on_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="kernels of x86-64")


@pytest.fixture(scope="module")
def file(tokenizer, tmp_path_factory):
    """A random model whose rows are long enough for K-quants, in the given kind."""
    folder = tmp_path_factory.mktemp("exact")
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=1024, eos_token_id=1, **SHAPE)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(mean=float("norm" in name), std=0.2)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))

    def write(kind):
        path = folder / f"{kind}.gguf"
        if not path.exists():
            export_gguf(folder, path, kind)
        return path

    return write


@on_x86
@pytest.mark.parametrize("kind", ["q4_k_m", "q8_0"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("threads", [1, 2])
def test_quantised_weights_need_no_passes_of_their_own(file, kind, dtype, threads):
    target = LlamaEngine.load(file(kind), dtype=dtype, threads=threads, exact=True)
    assert target.width_difference == 0.0
    assert target.takes_proposals
    assert not target.is_strict


@on_x86
def test_without_exact_they_round_otherwise(file):
    assert LlamaEngine.load(file("q4_k_m"), threads=1).width_difference > 0.0


@on_x86
@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_rejected_steps_and_proposals_leave_no_trace(file, temperature):
    """To the last bit, over more tokens than one part of the cache that attention reads at once."""
    target = LlamaEngine.load(file("q4_k_m"), threads=2, exact=True)
    reused = 0
    async with opened(target, PROBLEM) as plain, opened(target, PROBLEM) as session:
        for number in range(9):
            rejected = candidate(f"Leo has {number} stamps.\n\n" * 3)
            await session.likelihood(rejected)
            asked = {"temperature": temperature, "seed": number}
            wanted = await plain.propose(request(40, **asked))
            made = await session.propose(request(40, proposal=rejected, **asked))
            again = await session.propose(request(40, proposal=wanted, **asked))
            assert made.token_ids == again.token_ids == wanted.token_ids
            assert made.logprobs == again.logprobs == wanted.logprobs
            reused += again.cost.num_reused
            for one in (session, plain):
                await one.commit(wanted)
        assert len(session.token_ids) > 300
    assert reused > 200


@on_x86
async def test_steps_written_together_are_those_written_alone(file):
    target = LlamaEngine.load(file("q4_k_m"), threads=1, sequences=12, exact=True)
    async with opened(target, PROBLEM) as session:
        together = await session.propose_many(request(12, temperature=1.0), range(10))
        for seed, made in enumerate(together):
            alone = await session.propose(request(12, temperature=1.0, seed=seed))
            assert (made.token_ids, made.logprobs) == (alone.token_ids, alone.logprobs)


async def test_weights_that_no_setting_makes_exact_keep_the_usual_one(file):
    """Products of unquantised weights depend on the number of tokens: each token gets a forward pass of its own."""
    usual = LlamaEngine.load(file("f16"), threads=1)
    target = LlamaEngine.load(file("f16"), threads=1, exact=True)
    assert target.is_strict == (target.width_difference > 0.0)
    assert target.context.is_batch_invariant == (not target.is_strict)
    if target.is_strict:
        assert target.arithmetic() == usual.arithmetic()


@pytest.mark.parametrize("flash_attention", [None, False, True])
@pytest.mark.parametrize(("dtype", "number"), [("float32", FLOAT32), ("float16", FLOAT16), ("bfloat16", BFLOAT16)])
def test_the_settings_reach_the_library(file, monkeypatch, dtype, number, flash_attention):
    seen = []
    load, init = llama_cpp.llama_model_load_from_file, llama_cpp.llama_init_from_model

    def loaded(path, parameters):
        seen.append([parameters.use_extra_bufts])
        return load(path, parameters)

    def opened(model, parameters):
        is_flash = parameters.flash_attn_type == llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        seen[-1] += [parameters.n_ubatch, parameters.type_k, parameters.type_v, is_flash]
        return init(model, parameters)

    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", loaded)
    monkeypatch.setattr(llama_cpp, "llama_init_from_model", opened)
    options = {"threads": 1, "dtype": dtype, "flash_attention": flash_attention}
    LlamaEngine.load(file("q4_k_m"), exact=True, **options)
    assert seen[0] == [False, 7, number, BFLOAT16, flash_attention is not False]
    del seen[:]
    LlamaEngine.load(file("q4_k_m"), **options)
    assert seen == [[True, 512, number, number, flash_attention is True]]


@pytest.mark.parametrize(("has_tiles", "expected"), [(True, 7), (False, 63)])
def test_without_tiled_products_more_tokens_are_computed_at_once(file, monkeypatch, tmp_path, has_tiles, expected):
    """In this process they are on: the engine measures it, and each token gets a pass of its own."""
    monkeypatch.setenv("ARBITRAGE_CACHE", str(tmp_path))
    monkeypatch.setattr("arbitrage.engines.llamacpp_context._HAS_TILES", has_tiles)
    seen, init = [], llama_cpp.llama_init_from_model
    monkeypatch.setattr(
        llama_cpp, "llama_init_from_model", lambda model, given: seen.append(given.n_ubatch) or init(model, given)
    )
    target = LlamaEngine.load(file("q4_k_m"), threads=1, exact=True)
    assert seen[0] == expected
    assert target.arithmetic()["tiled_products"] == has_tiles
    assert target.is_strict == (target.width_difference > 0.0)


@on_x86
def test_tiled_products_that_were_off_from_the_start_leave_the_engine_exact(file):
    code = (
        "import sys; from arbitrage.engines.llamacpp import LlamaEngine\n"
        "target = LlamaEngine.load(sys.argv[1], threads=1, exact=True)\n"
        "print(target.width_difference, target.is_strict, target.context.batch_at_once)"
    )
    environment = {**os.environ, "GGML_CPU_TILED_MM": "0"}
    command = [sys.executable, "-c", code, str(file("q4_k_m"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["0.0", "False", "63"]


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_an_accelerator_keeps_its_kernels(file, monkeypatch, device):
    """It has others than the processor, and may have none for these types of the cache."""
    seen, load = [], llama_cpp.llama_model_load_from_file

    def loaded(path, parameters):
        seen.append(parameters.use_extra_bufts)
        parameters.n_gpu_layers = parameters.main_gpu = 0
        return load(path, parameters)

    monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda: True)
    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", loaded)
    target = LlamaEngine.load(file("q4_k_m"), device=device, threads=1, exact=True)
    assert seen == [True]
    assert not target.context.is_batch_invariant
