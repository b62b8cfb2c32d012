"""A recorded pass over one token: the model's own numbers, or the model itself."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import (  # noqa: E402
    FalconMambaConfig,
    FalconMambaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from arbitrage.engines import hf_trace  # noqa: E402
from arbitrage.engines.cache_options import CacheOptions  # noqa: E402
from arbitrage.engines.hf import HFEngine  # noqa: E402
from arbitrage.engines.hf_cache import DynamicMemory, DynamicSequence  # noqa: E402
from arbitrage.engines.hf_memory import memory_for  # noqa: E402
from arbitrage.engines.hf_static import language_pass  # noqa: E402
from arbitrage.engines.hf_trace import TracedToken, traced  # noqa: E402

QWEN = Qwen2Config(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
GPT2 = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2)


@pytest.mark.parametrize("build", [lambda: Qwen2ForCausalLM(QWEN), lambda: GPT2LMHeadModel(GPT2)])
@torch.inference_mode()
def test_tokens_have_the_models_own_logits(build):
    model = build().eval()
    memory = DynamicMemory(model, TracedToken(model))
    recorded, plain = memory.sequence(), DynamicSequence(model)
    for part in ([3, 9, 4], [5], [6], [7, 8], [9]):  # Several tokens at once call the model, on the same cache.
        torch.testing.assert_close(recorded.logits(part), plain.logits(part))
    for other in (recorded, plain):
        other.crop(5)
    torch.testing.assert_close(recorded.logits([1]), plain.logits([1]))


@torch.inference_mode()
def test_branches_and_states_continue_a_recorded_cache(random_lm):
    model = random_lm(0)
    recorded, plain = DynamicMemory(model, TracedToken(model)).sequence(), DynamicSequence(model)
    for other in (recorded, plain):
        other.logits([5, 6])
        other.logits([7])
    assert torch.equal(*(other.branches(2).logits([8, 9]) for other in (recorded, plain)))
    assert recorded.look_ahead([4]) == plain.look_ahead([4])


def test_a_record_that_depends_on_its_length_is_not_used(random_lm, monkeypatch):
    forward = hf_trace._OneToken.forward

    def wrong(self, ids, positions, *memory):
        length = memory[0].shape[2]  # A number of Python's is recorded as it is.
        logits, *rest = forward(self, ids, positions, *memory)
        return logits + (torch.zeros(1) if int(length) == 3 else torch.ones(1)), *rest

    monkeypatch.setattr(hf_trace._OneToken, "forward", wrong)
    with pytest.warns(
        UserWarning, match="'m' runs without a recorded pass, .*: it computes other numbers than the model"
    ):
        assert traced(random_lm(0), name="m") is None


def test_a_model_whose_state_does_not_grow_is_called_for_every_pass():
    config = FalconMambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, state_size=4)
    memory = memory_for(
        FalconMambaForCausalLM(config).eval(), language_pass, CacheOptions(traces=True), name="m"
    )  # fmt: skip
    assert memory.path == "eager"


def test_a_loaded_engine_records_unless_it_is_told_not_to(tmp_path, random_lm, tokenizer):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert HFEngine.load(tmp_path, exact=False).path == "traced"
    assert HFEngine.load(tmp_path, exact=False, cache=CacheOptions(compile=False)).path == "eager"
