"""Caches of fixed size: the same results as growing ones, handed over between sessions, compiled without breaks."""

import warnings

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM  # noqa: E402

from arbitrage.core.errors import ConfigError  # noqa: E402
from arbitrage.engines import hf_graphs  # noqa: E402
from arbitrage.engines.cache_options import CacheOptions  # noqa: E402
from arbitrage.engines.hf import HFEngine  # noqa: E402
from arbitrage.engines.hf_cache import DynamicMemory, DynamicSequence  # noqa: E402
from arbitrage.engines.hf_graphs import compile_pass  # noqa: E402
from arbitrage.engines.hf_memory import memory_for  # noqa: E402
from arbitrage.engines.hf_static import (  # noqa: E402
    LONGEST_IN_PIECES,
    WIDTHS,
    StaticMemory,
    backbone_pass,
    language_pass,
)
from helpers import PROBLEM, opened, request  # noqa: E402

LENGTHS = (1, 2, 7, 8, 9, 31, 32, 33, 70, LONGEST_IN_PIECES + 1)


@pytest.fixture
def model(random_lm):
    return random_lm(0, layers=2)


def static(model, *, length=512, sequences=2, keeps_states=True):
    run = language_pass(model, keeps_states=keeps_states)
    return StaticMemory(model, run, length=length, num_sequences=sequences)


def ids_of(length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, 90, (length,), generator=generator).tolist()


@pytest.mark.parametrize("num_last", [1, 3])
@pytest.mark.parametrize("length", LENGTHS)
@torch.inference_mode()
def test_any_number_of_tokens_has_the_logits_of_a_growing_cache(model, length, num_last):
    sequence, growing = static(model).sequence(), DynamicSequence(model)
    for other in (sequence, growing):
        other.logits(ids_of(40))
    num_last = min(num_last, length)
    rows, expected = (other.logits(ids_of(length, 1), num_last) for other in (sequence, growing))
    assert rows.shape == expected.shape
    torch.testing.assert_close(rows, expected, atol=1e-4, rtol=1e-4)
    one = [other.logits([7]) for other in (sequence, growing)]  # Padding left nothing behind that is visible.
    torch.testing.assert_close(*one, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_cropping_hides_what_lies_behind(model):
    sequence, growing = static(model).sequence(), DynamicSequence(model)
    for other in (sequence, growing):
        other.logits(ids_of(60))
        other.crop(23)
    assert len(sequence) == 23
    rows = [other.logits(ids_of(9, 2), 9) for other in (sequence, growing)]
    torch.testing.assert_close(*rows, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_states_are_those_of_a_growing_cache(model):
    ids = ids_of(45)
    alone = StaticMemory(model, backbone_pass(model), length=512, num_sequences=1)
    torch.testing.assert_close(alone.sequence().states(ids), DynamicSequence(model).states(ids), atol=1e-4, rtol=1e-4)
    sequence, growing = static(model).sequence(), DynamicSequence(model)
    assert sequence.look_ahead(ids) == pytest.approx(growing.look_ahead(ids), abs=1e-4)
    rows = [other.rows_behind(ids, 1) for other in (sequence, growing)]
    torch.testing.assert_close(*rows, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_sequence_fills_its_cache_to_the_last_token(model):
    sequence, growing = static(model, length=48).sequence(), DynamicSequence(model)
    for part in (ids_of(40), ids_of(3, 1), ids_of(5, 2)):  # A padded pass would reach beyond the end.
        rows = [other.logits(part, len(part)) for other in (sequence, growing)]
        torch.testing.assert_close(*rows, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_third_sequence_takes_the_longest_unused_slot(model):
    memory = static(model)
    first, second, third = (memory.sequence() for _ in range(3))
    for number, sequence in enumerate((first, second, third)):
        sequence.logits(ids_of(20, number))
    assert [len(sequence) for sequence in (first, second, third)] == [0, 20, 20]
    torch.testing.assert_close(
        first.logits(ids_of(20)), DynamicSequence(model).logits(ids_of(20)), atol=1e-4, rtol=1e-4
    )
    assert len(second) == 0
    third.close()
    second.logits(ids_of(5))
    assert len(first) == 20  # The free slot is taken first.


@torch.inference_mode()
def test_branches_leave_the_sequence_as_it_is(model):
    sequence, growing = static(model).sequence(), DynamicSequence(model)
    for other in (sequence, growing):
        other.logits(ids_of(20))
    branches = [other.branches(3) for other in (sequence, growing)]
    for tokens in ([13, 14, 15], [16, 17, 18]):
        torch.testing.assert_close(*(each.logits(tokens) for each in branches), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(*(other.logits([9]) for other in (sequence, growing)), atol=1e-4, rtol=1e-4)


class Replayed:
    """Stands for a captured pass: fixed inputs, and outputs that the next replay overwrites."""

    calls = 0

    def __init__(self, run, width, layers):
        self._run, self._layers, self._width, self._outputs = run, layers, width, None

    def __call__(self, tokens, start):
        assert len(tokens) == self._width
        Replayed.calls += 1
        positions = torch.arange(start, start + len(tokens))
        outputs = self._run(torch.tensor([tokens]), positions, self._layers, len(tokens))
        if self._outputs is None:
            self._outputs = outputs
        for buffer, new in ((self._outputs.logits, outputs.logits), (self._outputs.states, outputs.states)):
            buffer.copy_(new)
        return self._outputs


@torch.inference_mode()
def test_rows_of_a_captured_pass_survive_the_next_one(model):
    memory = static(model)
    memory.capture(lambda width, layers: Replayed(memory.run_eagerly, width, layers))
    assert memory.path == "graphs"
    sequence, growing = memory.sequence(), DynamicSequence(model)
    ids = ids_of(LONGEST_IN_PIECES)
    rows, expected = (other.logits(ids, len(ids)) for other in (sequence, growing))
    sequence.logits([7])
    torch.testing.assert_close(rows, expected, atol=1e-4, rtol=1e-4)
    assert Replayed.calls >= 4


@torch.inference_mode()
def test_one_compilation_for_each_width_serves_all_sequences(random_lm):
    compiled = []

    def count(graph, inputs):
        compiled.append(graph)
        return graph.forward

    torch._dynamo.reset()
    models = [random_lm(number, layers=number + 1) for number in range(2)]
    with torch._dynamo.config.patch(recompile_limit=2):
        for model in models:
            memory = static(model, keeps_states=False)
            _capture_with(compile_pass(memory.run_eagerly, backend=count), memory)
            for sequence in (memory.sequence(), memory.sequence()):
                growing = DynamicSequence(model)
                for part in (ids_of(33), ids_of(8, 1), ids_of(1, 2), ids_of(20, 3)):
                    torch.testing.assert_close(sequence.logits(part), growing.logits(part), atol=1e-4, rtol=1e-4)
    # A break would make more graphs, and so would a second sequence; torch's own limit of versions would make fewer.
    assert len(compiled) == len(models) * len(WIDTHS)


def _capture_with(run, memory):
    def record(width, layers):
        return lambda tokens, start: run(
            torch.tensor([tokens]), torch.arange(start, start + width), layers, width
        )  # fmt: skip

    memory.capture(record)


async def test_a_capture_that_fails_leaves_the_eager_path_with_one_warning(model, tokenizer, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no driver\nand more")

    memory = static(model)
    monkeypatch.setattr(hf_graphs, "_capture", fails)
    with pytest.warns(UserWarning, match="no driver$") as caught:
        assert not hf_graphs.capture(memory, name="m", report=lambda line: None)
    assert len(caught) == 2  # Without the compiler, then without graphs.
    assert memory.path == "static"


def test_a_model_with_a_sliding_window_runs_with_a_growing_cache():
    config = MistralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=8,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="'m' runs without a cache of fixed size: it has layers of the kind"):
        memory = memory_for(MistralForCausalLM(config).eval(), language_pass, CacheOptions(static=True), name="m")
    assert isinstance(memory, DynamicMemory)


def test_graphs_on_a_cpu_are_one_error(model, tokenizer):
    with pytest.raises(ConfigError, match="compile = true needs a CUDA device, got 'cpu'"):
        HFEngine(model, tokenizer, name="m", cache=CacheOptions(compile=True))


def test_a_context_beyond_the_model_is_one_error(model, tokenizer):
    with pytest.raises(ConfigError, match="context_length must be between 1 and the model's 512 tokens, got 513"):
        HFEngine(model, tokenizer, name="m", cache=CacheOptions(static=True, context_length=513))


async def test_the_context_is_that_of_the_cache(model, tokenizer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        options = CacheOptions(static=True, context_length=96, sequences=1)
        engine = HFEngine(model, tokenizer, name="m", cache=options)
    assert engine.context_length == 96
    async with opened(engine, PROBLEM) as session:
        step = await session.propose(request())
        assert len(session.token_ids) + len(step.token_ids) <= 96


def test_grouped_heads_take_their_own_shape():
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=16, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    memory = static(LlamaForCausalLM(config).eval(), length=10, sequences=2)
    assert [tuple(keys.shape) for keys, _ in memory.layers[0]] == [(1, 2, 16, 8)] * 3
    assert memory.num_bytes == 2 * 16 * 3 * 2 * 2 * 8 * 4
