"""Recorded passes: the model's own numbers, or the model itself."""

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
from arbitrage.engines.hf_trace import MAX_TOKENS, RecordedPasses, recorded  # noqa: E402

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
    memory = DynamicMemory(model, RecordedPasses(model, name="m"))
    fast, plain = memory.sequence(), DynamicSequence(model)
    # The widest pass calls the model, on the same cache.
    for part in ([3, 9, 4], [5], [6], [7, 8], [9, 1, 2, 3, 4, 5], [3] * MAX_TOKENS, [4] * (MAX_TOKENS + 1)):
        for num_last in {1, len(part)}:
            rows = [sequence.logits(part, num_last) for sequence in (fast, plain)]
            assert len(rows[0]) == num_last
            torch.testing.assert_close(*rows)
            for sequence in (fast, plain):
                sequence.crop(len(sequence) - len(part))
        for sequence in (fast, plain):
            sequence.logits(part)
    for sequence in (fast, plain):
        sequence.crop(5)
    torch.testing.assert_close(fast.logits([1, 2]), plain.logits([1, 2]))


@torch.inference_mode()
def test_branches_and_states_continue_a_recorded_cache(random_lm):
    model = random_lm(0)
    fast, plain = DynamicMemory(model, RecordedPasses(model, name="m")).sequence(), DynamicSequence(model)
    for sequence in (fast, plain):
        sequence.logits([5, 6])
        sequence.logits([7])
    assert torch.equal(*(sequence.branches(2).logits([8, 9]) for sequence in (fast, plain)))
    assert fast.look_ahead([4]) == plain.look_ahead([4])


def depending_on_length(forward):
    """A forward pass that adds the length of the cache, which is recorded as the number that it is."""

    def wrong(self, *given):
        logits, *rest = forward(self, *given)
        return logits + int(given[-1].shape[2]), *rest

    return wrong


def test_a_record_that_depends_on_its_length_is_not_used(random_lm, monkeypatch):
    monkeypatch.setattr(hf_trace._OneToken, "forward", depending_on_length(hf_trace._OneToken.forward))
    with pytest.warns(UserWarning, match="'m' runs without a recorded pass, .* computes other numbers than the model"):
        assert recorded(random_lm(0), name="m") is None


@torch.inference_mode()
def test_a_model_of_which_only_the_pass_over_one_token_is_recorded_is_called_for_others(random_lm, monkeypatch):
    monkeypatch.setattr(hf_trace._SeveralTokens, "forward", depending_on_length(hf_trace._SeveralTokens.forward))
    model = random_lm(0)
    passes = recorded(model, name="m")
    with pytest.warns(UserWarning, match="'m' runs without a recorded pass over several tokens, recording failed"):
        assert not passes.takes(1, 2)
    assert not passes.takes(3, 4)  # It is tried, and warned of, once.
    assert passes.takes(1, 1)
    sequence, plain = DynamicMemory(model, passes).sequence(), DynamicSequence(model)
    for part in ([5, 6], [7, 8], [9]):
        torch.testing.assert_close(sequence.logits(part), plain.logits(part))


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
