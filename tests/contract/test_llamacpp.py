"""Exactness of the llama.cpp engine and of the GGUF export, against transformers on the same weights."""

import asyncio
import random
import subprocess
import sys
from dataclasses import replace
from itertools import chain

import pytest

llama_cpp = pytest.importorskip("llama_cpp")
gguf = pytest.importorskip("gguf")
np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

from arbitrage.core.errors import CheckpointError, ConfigError, ContextOverflow, EngineError  # noqa: E402
from arbitrage.core.solve import solve  # noqa: E402
from arbitrage.core.turn import Pair  # noqa: E402
from arbitrage.core.types import Finish, Problem, Sampling, Source  # noqa: E402
from arbitrage.engines.hf import HFEngine  # noqa: E402
from arbitrage.engines.llamacpp import LlamaEngine  # noqa: E402
from arbitrage.engines.llamacpp_native import LlamaModel  # noqa: E402
from arbitrage.engines.prompt import ChatPrompt, PlainPrompt  # noqa: E402
from arbitrage.policies import RandomEscalation, TargetOnly  # noqa: E402
from helpers import Watched, candidate, opened, request, setting  # noqa: E402

PROBLEM = Problem(id="p1", question="Compared to Leo Mia has 3 times as many stamps.")
NUMBERS = range(4)


@pytest.fixture
def engine(plain_lm, gguf_file):
    def build(number, **values):
        model = plain_lm(number, **{k: values.pop(k) for k in ("layers", "delimiter", "end") if k in values})
        return LlamaEngine.load(gguf_file(model), name=f"llamacpp-{number}", **{"threads": 1, **values})

    return build


@pytest.fixture
def twin(plain_lm, tokenizer):
    """The same model, run by transformers."""
    return lambda number, layers=1, **values: HFEngine(
        plain_lm(number, layers=layers), tokenizer, name=f"hf-{number}", **values
    )


async def answers(engine, *, draft=None, policy=None, **values):
    values = {"max_tokens": 48, "max_step_tokens": 10, "max_idle_steps": 99} | values
    pair = Pair(draft=draft or engine, target=Watched(engine))
    return await solve(PROBLEM, pair, policy or TargetOnly(), setting(**values))


def ids_of(trace):
    return tuple(chain(*(step.candidate.token_ids for step in trace.steps)))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("number", NUMBERS)
async def test_target_only_writes_what_transformers_writes(engine, twin, number, layers):
    trace, wanted = await answers(engine(number, layers=layers)), await answers(twin(number, layers=layers))
    assert (ids_of(trace), trace.text, trace.finish) == (ids_of(wanted), wanted.text, wanted.finish)
    for made, other in zip(trace.steps, wanted.steps, strict=True):
        assert made.candidate.logprobs == pytest.approx(other.candidate.logprobs, abs=1e-3)
        assert made.candidate.first_entropy == pytest.approx(other.candidate.first_entropy, abs=1e-3)


@pytest.mark.parametrize("keeps_hidden_state", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("number", NUMBERS)
async def test_rejected_drafts_as_proposals_change_nothing(engine, number, temperature, keeps_hidden_state):
    policy, sampling = RandomEscalation(0.6), Sampling(temperature=temperature, top_k=40, top_p=0.95, min_p=0.01)
    target = engine(number, keeps_hidden_state=keeps_hidden_state)
    plain, proposed = [
        await answers(target, draft=engine(number + 1), policy=policy, sampling=sampling, use_proposals=use)
        for use in (False, True)
    ]
    assert ids_of(proposed) == ids_of(plain)
    assert proposed.text == plain.text


@pytest.mark.parametrize("kind", ["f32", "q8_0"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("exact", [None, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_proposals_change_no_text_unless_exact_is_false(
    plain_lm, gguf_file, engine, kind, dtype, exact, temperature
):
    """Whatever the kernels of this build do with several tokens: the engine has measured it."""
    target = LlamaEngine.load(gguf_file(plain_lm(2), kind), threads=1, dtype=dtype, exact=exact)
    assert target.widths_agree or (kind, dtype) != ("f32", "float32")
    policy, sampling = RandomEscalation(0.6), Sampling(temperature=temperature)
    plain, proposed = [
        await answers(target, draft=engine(3), policy=policy, sampling=sampling, use_proposals=use)
        for use in (False, True)
    ]
    assert ids_of(proposed) == ids_of(plain)
    assert target.takes_proposals or proposed.usage["target"].num_reused == 0


async def test_exact_false_verifies_proposals_whatever_the_widths(engine, monkeypatch):
    target = engine(2, exact=False)
    monkeypatch.setattr(target, "_width_difference", 0.5)
    async with opened(target, PROBLEM) as session:
        own = await session.propose(request(24))
        assert (await session.propose(request(24, proposal=own))).cost.num_reused >= max(1, own.num_tokens - 1)


async def test_a_step_that_was_read_and_rejected_leaves_no_trace(engine):
    """To the last bit: its logits come from a pass of another width."""
    target = engine(2, dtype="float16", exact=True)
    assert target.is_strict
    async with opened(target, PROBLEM) as plain, opened(target, PROBLEM) as session:
        for _ in range(3):
            rejected = candidate("Leo has 14 stamps.\n\n")
            assert len((await session.likelihood(rejected)).logprobs) == len(target.encode(rejected.text))
            made, wanted = [await one.propose(request(24, proposal=rejected)) for one in (session, plain)]
            assert (made.token_ids, made.logprobs) == (wanted.token_ids, wanted.logprobs)
            for one in (session, plain):
                await one.commit(wanted)


async def test_the_likelihood_is_that_of_transformers(engine, twin):
    async with opened(engine(1), PROBLEM) as session, opened(twin(1), PROBLEM) as other:
        for text in ("Mia", " has 3", " stamps.\n\n", "She"):
            await session.likelihood(candidate("A rejected step of another length.\n\n"))
            read = await session.likelihood(candidate(text))
            assert read.logprobs == pytest.approx((await other.likelihood(candidate(text))).logprobs, abs=1e-3)
            for one in (session, other):
                await one.commit(candidate(text))


async def test_the_hidden_state_is_that_of_transformers(engine, twin):
    async with (
        opened(engine(1, keeps_hidden_state=True), PROBLEM) as session,
        opened(twin(1, keeps_hidden_state=True), PROBLEM) as other,
        opened(engine(1), PROBLEM) as plain,
    ):
        for step in range(3):
            made, wanted, without = [await one.propose(request(8)) for one in (session, other, plain)]
            assert made.hidden_state == pytest.approx(wanted.hidden_state, abs=1e-3)
            assert made.token_ids == without.token_ids
            assert made.cost.num_computed == (0 if step else without.cost.num_computed)
            for one in (session, other, plain):
                await one.commit(made)


async def test_sampling_follows_its_seed(engine):
    async with opened(engine(1), PROBLEM) as session:
        steps = [(await session.propose(request(12, temperature=1.5, seed=seed))).token_ids for seed in (1, 2, 1)]
    assert steps[0] == steps[2] != steps[1]


@pytest.mark.parametrize(("sequences", "exact"), [(2, None), (4, None), (2, True)])
async def test_sessions_in_turn_write_what_each_would_write_alone(engine, sequences, exact):
    """With a sequence for each they do to the last bit, and compute nothing twice; exact ones do at any number."""
    target = engine(1, sequences=sequences, exact=exact)
    problems = [replace(PROBLEM, id=str(i), question=f"{i} stamps?") for i in range(4)]
    alone, together = {}, {problem.id: [] for problem in problems}
    for problem in problems:
        async with opened(target, problem) as session:
            alone[problem.id] = [await _step(session) for _ in range(4)]
    sessions = {problem.id: await target.open(problem, Source.TARGET) for problem in problems}
    for _ in range(4):
        for id, session in sessions.items():
            together[id].append(await _step(session))
    for id, made in together.items():
        await sessions[id].close()
        is_enough = sequences == 4
        for one, other in zip(made, alone[id], strict=True):
            assert one.token_ids == other.token_ids
            assert one.logprobs == pytest.approx(other.logprobs, rel=0, abs=0 if is_enough or exact else 1e-4)
        computed, wanted = (sum(m.cost.num_computed for m in all_made) for all_made in (made, alone[id]))
        assert computed == wanted if is_enough else computed > wanted


async def _step(session):
    made = await session.propose(request(8))
    await session.commit(made)
    return made


async def test_branches_take_turns_where_sequences_are_few(engine):
    few, many = engine(1, sequences=2), engine(1, sequences=8)
    async with opened(few, PROBLEM) as session, opened(many, PROBLEM) as other:
        seeds, asked = range(5), request(12, temperature=1.0)
        made, wanted = await session.propose_many(asked, seeds), await other.propose_many(asked, seeds)
        assert [m.token_ids for m in made] == [m.token_ids for m in wanted]
        assert len({m.token_ids for m in made}) > 1


async def test_a_cache_that_cannot_be_cropped_is_computed_anew(engine, monkeypatch):
    """As the states of recurrent models are; llama.cpp then says so."""
    target, plain = engine(1), engine(1)
    crop, refused = target.context.crop, []
    monkeypatch.setattr(
        target.context, "crop", lambda place, length: crop(place, length) if length == 0 else refused.append(length)
    )
    async with opened(target, PROBLEM) as session, opened(plain, PROBLEM) as other:
        for _ in range(3):
            rejected = candidate("A rejected step.\n\n")
            await session.likelihood(rejected)
            made, wanted = [await one.propose(request(8, proposal=rejected)) for one in (session, other)]
            assert made.token_ids == wanted.token_ids
            assert made.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)
            assert made.cost.num_computed + made.cost.num_cached == len(session.token_ids)
            for one in (session, other):
                await one.commit(made)
    assert refused


async def test_a_failure_of_the_library_is_told_and_leaves_the_session_usable(engine, monkeypatch):
    target = engine(1)
    async with opened(target, PROBLEM) as session:
        wanted = await session.propose(request(8))
        with monkeypatch.context() as patch:
            patch.setattr("arbitrage.engines.llamacpp_context.llama_cpp.llama_decode", lambda *_: -3)
            with pytest.raises(EngineError, match=r"batch of \d+ tokens with status -3"):
                await session.likelihood(candidate("A foreign step.\n\n"))
        assert (await session.propose(request(8))).token_ids == wanted.token_ids


async def test_a_long_prompt_is_computed_in_parts_and_can_be_cancelled(plain_lm, gguf_file, twin):
    model = plain_lm(1, context=2048)
    target = LlamaEngine.load(gguf_file(model), threads=1)
    long = replace(PROBLEM, question="Mia has 3 stamps. " * 190)
    async with opened(target, long) as session:
        assert len(session.token_ids) > 1100
        parts, run = [], target.context.run

        def counted(tokens, *rest):
            parts.append(len(tokens))
            if len(parts) == 2:
                task.cancel()
            return run(tokens, *rest)

        target.context.run = counted
        task = asyncio.create_task(session.propose(request(2)))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert parts[0] == 512
        made = await session.propose(request(2))
        assert 512 <= made.cost.num_cached < len(session.token_ids)
    async with opened(HFEngine(model, twin(1).tokenizer, name="hf"), long) as other:
        wanted = await other.propose(request(2))
    assert made.token_ids == wanted.token_ids
    assert made.logprobs == pytest.approx(wanted.logprobs, abs=1e-3)


async def test_a_full_context_cuts_the_step_and_then_overflows(engine):
    probe = engine(0)
    length = len(probe.prompt.encode(probe.tokenizer, PROBLEM)) + 6
    target = engine(0, context=length, delimiter=-99.0, end=-99.0)
    async with opened(target, PROBLEM) as session:
        made = await session.propose(request(32))
        assert (made.finish, made.num_tokens) == (Finish.TOKEN_LIMIT, 6)
        await session.commit(made)
        with pytest.raises(ContextOverflow, match=f"{length} tokens fill the context"):
            await session.propose(request(32))
    with pytest.raises(ContextOverflow, match=r"'p1' has \d+ tokens, the context of llamacpp-0 has 8"):
        await engine(0, context=8).open(PROBLEM, Source.TARGET)


def texts(count, rng):
    """Words, numbers, white space and punctuation of all kinds, special tokens and characters of several bytes."""
    parts = (
        *("Mia", " has", " stamps", "don't", "WE'LL", "x1", "3.14", "1234567", "½", "²", "\u0663", "é", "e\u0301"),
        *(" ", "  ", "\t", "\n", "\n\n", ".\n\n", "\n\n\n", "\r\n", " \n ", "\u00a0", "\u3000", "\u2028", "\x85"),
        *(
            "<|user|>",
            "<|end|>",
            "<|draft|>",
            "<|",
            "\U0001f600",
            "\u4f60\u597d",
            "\u0939\u093f",
            "\\boxed{",
            "!?;",
            "—",
        ),
    )
    return ["".join(rng.choices(parts, k=rng.randrange(1, 12))) for _ in range(count)]


def test_texts_have_the_ids_that_transformers_gives_them(engine, tokenizer):
    ours = engine(0).tokenizer
    for text in ["", *texts(3000, random.Random(0))]:
        wanted = tokenizer.encode(text, add_special_tokens=False)
        assert ours.encode(text) == wanted, repr(text)
        assert ours.decode(wanted) == tokenizer.decode(wanted, clean_up_tokenization_spaces=False) == text


def test_any_ids_have_the_text_that_transformers_gives_them(engine, tokenizer):
    ours, rng = engine(0).tokenizer, random.Random(0)
    for _ in range(500):
        ids = rng.choices(range(len(tokenizer)), k=rng.randrange(1, 9))
        assert ours.decode(ids) == tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def test_prompts_are_those_of_transformers(engine, tokenizer):
    ours = engine(0)
    for prompt in (ChatPrompt(), ChatPrompt("Be brief."), PlainPrompt("Q: {question}\nA:")):
        assert prompt.encode(ours.tokenizer, PROBLEM) == prompt.encode(tokenizer, PROBLEM)
        assert prompt.follow_up(ours.tokenizer, "Rate it.") == prompt.follow_up(tokenizer, "Rate it.")
    assert ours.eos_ids == {tokenizer.eos_token_id}
    ours.tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(ConfigError, match=r"template of 'llamacpp-0' does not take this prompt: no system role"):
        ChatPrompt("Be brief.").encode(ours.tokenizer, PROBLEM)
    ours.tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="'llamacpp-0' has no chat template"):
        ChatPrompt().encode(ours.tokenizer, PROBLEM)
    with pytest.raises(ConfigError, match="'llamacpp-0' has no chat template"):
        ChatPrompt().follow_up(ours.tokenizer, "Rate it.")


def test_files_that_cannot_be_used_are_named(tmp_path, plain_lm, gguf_file):
    with pytest.raises(CheckpointError, match=r"no GGUF file at '.*none\.gguf'"):
        LlamaEngine.load(tmp_path / "none.gguf")
    (tmp_path / "broken.gguf").write_bytes(gguf_file(plain_lm(0)).read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"cannot load '.*broken\.gguf': \w+"):
        LlamaEngine.load(tmp_path / "broken.gguf")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"context": 513}, "context must be between 1 and the model's 512 tokens, got 513"),
        ({"sequences": 1}, r"sequences must be between 2 and \d+, got 1"),
        ({"context": -1}, "context must be between 1 and the model's 512 tokens, got -1"),
        ({"dtype": "int4"}, "dtype must be one of float32, float16, bfloat16, got 'int4'"),
        ({"threads": 0}, "threads must be between 1 and 512, got 0"),
        ({"threads": 513}, "threads must be between 1 and 512, got 513"),
        ({"threads_batch": 0}, "threads_batch must be between 1 and 512, got 0"),
        ({"gpu_layers": -1}, "gpu_layers must be at least 0, got -1"),
        ({"gpu_layers": 2}, "gpu_layers must be 0 on the device 'cpu', got 2"),
    ],
    ids=lambda value: str(value),
)
def test_bad_numbers_are_named(engine, values, told):
    with pytest.raises(ConfigError, match=told):
        engine(0, **values)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "metal"])
def test_an_accelerator_that_the_build_lacks_is_refused(engine, monkeypatch, device):
    monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda: False)
    with pytest.raises(ConfigError, match=f"device must be 'cpu', .* supports no accelerator, got '{device}'.*CMAKE"):
        engine(0, device=device)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"device": "cpu"}, (0, llama_cpp.LLAMA_SPLIT_MODE_LAYER, 0)),
        ({"device": "cpu", "gpu_layers": 0}, (0, llama_cpp.LLAMA_SPLIT_MODE_LAYER, 0)),
        ({"device": "cuda"}, (-1, llama_cpp.LLAMA_SPLIT_MODE_LAYER, 0)),
        ({"device": "cuda", "gpu_layers": 7}, (7, llama_cpp.LLAMA_SPLIT_MODE_LAYER, 0)),
        ({"device": "cuda:1"}, (-1, llama_cpp.LLAMA_SPLIT_MODE_NONE, 1)),
    ],
    ids=str,
)
def test_layers_and_device_reach_the_library(engine, monkeypatch, values, expected):
    seen, load = [], llama_cpp.llama_model_load_from_file

    def watched(path, parameters):
        seen.append((parameters.n_gpu_layers, parameters.split_mode, parameters.main_gpu))
        parameters.n_gpu_layers, parameters.main_gpu = 0, 0
        return load(path, parameters)

    monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda: True)
    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", watched)
    engine(0, **values)
    assert seen == [expected]


def test_a_device_number_that_is_none_is_named(engine, monkeypatch):
    monkeypatch.setattr(llama_cpp, "llama_supports_gpu_offload", lambda: True)
    with pytest.raises(ConfigError, match="number must be a whole number, got 'cuda:x'"):
        engine(0, device="cuda:x")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"threads": 2}, (2, 2, False)),
        ({"threads": 1, "threads_batch": 2}, (1, 2, False)),
        ({"flash_attention": True}, (1, 1, True)),
        ({"flash_attention": False}, (1, 1, False)),
    ],
    ids=str,
)
def test_threads_and_attention_reach_the_library(engine, monkeypatch, values, expected):
    seen, init = [], llama_cpp.llama_init_from_model

    def watched(model, parameters):
        is_flash = parameters.flash_attn_type == llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        seen.append((parameters.n_threads, parameters.n_threads_batch, is_flash))
        return init(model, parameters)

    monkeypatch.setattr(llama_cpp, "llama_init_from_model", watched)
    settings = engine(0, **values).arithmetic()
    assert seen == [expected]
    assert (*settings["threads"], settings["flash_attention"]) == expected


@pytest.mark.parametrize("number", NUMBERS)
async def test_flash_attention_writes_what_transformers_writes(engine, twin, number):
    trace, wanted = await answers(engine(number, flash_attention=True)), await answers(twin(number))
    assert (ids_of(trace), trace.text) == (ids_of(wanted), wanted.text)


BERT = {"embedding_length": 32, "feed_forward_length": 32, "block_count": 1, "context_length": 32}


def bert_file(path):
    """An encoder, as convert_hf_to_gguf.py writes it."""
    writer = gguf.GGUFWriter(path, "bert")
    for key, value in BERT.items():
        writer.add_uint32(f"bert.{key}", value)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2581a", "\u2581b", "\u2581c", "\u2581d"])
    writer.add_token_type_count(2)
    for name, id in (("pad", 0), ("unk", 1), ("sep", 3), ("bos", 2), ("eos", 3)):
        getattr(writer, f"add_{name}_token_id")(id)
    shapes = {"token_embd.weight": (8, 32), "token_types.weight": (2, 32), "position_embd.weight": (32, 32)}
    for norm in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        shapes |= {f"{norm}.weight": (32,), f"{norm}.bias": (32,)}
    for layer in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"):
        shapes |= {f"blk.0.{layer}.weight": (32, 32), f"blk.0.{layer}.bias": (32,)}
    for name, shape in shapes.items():
        writer.add_tensor(name, np.full(shape, 0.1, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_an_encoder_is_refused_at_load(tmp_path):
    with pytest.raises(CheckpointError, match=r"bert\.gguf' cannot generate text: 'bert' is an encoder"):
        LlamaEngine.load(bert_file(tmp_path / "bert.gguf"))


@pytest.mark.parametrize(("value", "is_refused"), [("0", False), ("1", True), ("4", True)])
def test_a_model_for_embeddings_or_ranking_is_refused_at_load(engine, monkeypatch, value, is_refused):
    metadata = LlamaModel.metadata
    monkeypatch.setattr(
        LlamaModel, "metadata", lambda self, key: value if key == "llama.pooling_type" else metadata(self, key)
    )
    if is_refused:
        with pytest.raises(CheckpointError, match="cannot generate text: it pools its states"):
            engine(0)
    else:
        assert engine(0).name == "llamacpp-0"


def test_an_encoder_decoder_is_refused_at_load(engine, monkeypatch):
    monkeypatch.setattr(llama_cpp, "llama_model_has_encoder", lambda pointer: True)
    with pytest.raises(CheckpointError, match="cannot generate text: 'llama' has an encoder"):
        engine(0)


def test_a_file_may_end_in_capitals(plain_lm, gguf_file, tmp_path):
    path = tmp_path / "MODEL.GGUF"
    path.write_bytes(gguf_file(plain_lm(0)).read_bytes())
    assert LlamaEngine.load(path, threads=1).name == "MODEL"


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("arbitrage.engines.llamacpp", "llama_cpp", "llamacpp"),
        ("arbitrage.engines.llamacpp", "numpy", "llamacpp"),
        ("arbitrage.engines.gguf_export", "gguf", "gguf"),
    ],
)
def test_without_its_package_the_extra_is_named(module, missing, extra):
    code = f"import sys; sys.modules['{missing}'] = None\ntry:\n import {module}\nexcept Exception as e: print(repr(e))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"MissingExtra(\"a package of the extra '{extra}' is not installed\"" in done.stdout


def test_neither_needs_torch():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = sys.modules['safetensors'] = None\n"
        "import arbitrage.engines.llamacpp, arbitrage.engines.gguf_export"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
