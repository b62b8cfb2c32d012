"""Exactness of the transformers engine, against transformers' own generation."""

import asyncio
import copy
import functools
import subprocess
import sys
import time
from dataclasses import replace
from itertools import chain

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

from arbitrage.core.errors import CheckpointError, ConfigError, ContextOverflow, EngineError
from arbitrage.core.solve import solve
from arbitrage.core.turn import Pair
from arbitrage.core.types import Finish, Problem, Sampling, Source
from arbitrage.engines.hf import HFEngine
from arbitrage.engines.hf_cache import DynamicSequence
from arbitrage.engines.prompt import ChatPrompt, PlainPrompt
from arbitrage.engines.worker import Worker
from arbitrage.policies import RandomEscalation, TargetOnly
from arbitrage.tiny import WEIGHTS
from helpers import Watched, candidate, opened, request, setting

PROBLEM = Problem(id="p1", question="Compared to Leo Mia has 3 times as many stamps.")
NUMBERS = range(4)
"""Random models of the fixture, by number."""


@pytest.fixture
def engine(random_lm, tokenizer):
    return lambda number, **values: HFEngine(
        random_lm(number, **{k: v for k, v in values.items() if k in ("layers", "context", "delimiter", "end")}),
        tokenizer,
        name=f"hf-{number}",
        **{k: v for k, v in values.items() if k in ("prompt", "keeps_hidden_state")},
    )


async def answers(engine, *, draft=None, policy=None, **values):
    """The steps of a whole solution, and the target's prompt."""
    target = Watched(engine)
    values = {"max_tokens": 48, "max_step_tokens": 10, "max_idle_steps": 99} | values
    policy = policy or TargetOnly()
    return await solve(PROBLEM, Pair(draft=draft or engine, target=target), policy, setting(**values))


def generated(engine, max_tokens):
    """What transformers itself writes greedily, end-of-sequence dropped."""
    prompt = torch.tensor([engine.prompt.encode(engine.tokenizer, PROBLEM)])
    out = engine.model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=max_tokens
    )
    new = out[0, prompt.shape[1] :].tolist()
    return tuple(new[:-1] if new[-1] == engine.tokenizer.eos_token_id else new)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("number", NUMBERS)
async def test_target_only_equals_plain_greedy_generation(engine, number, layers):
    target = engine(number, layers=layers)
    trace = await answers(target)
    ids = tuple(chain(*(step.candidate.token_ids for step in trace.steps)))
    assert ids == generated(target, 48)
    assert trace.text == target.tokenizer.decode(ids)


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
    assert [step.candidate.token_ids for step in proposed.steps] == [s.candidate.token_ids for s in plain.steps]
    assert proposed.text == plain.text
    assert plain.usage.get("target").num_reused == 0


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("change", ["none", "first", "middle", "shorter", "longer", "end", "no end", "early end"])
@pytest.mark.parametrize("number", NUMBERS)
async def test_any_proposal_is_lossless(engine, number, change, temperature):
    """Step by step through a whole answer, the last step included."""
    target = engine(number)
    async with opened(target, PROBLEM) as plain, opened(target, PROBLEM) as session:
        for seed in range(4):
            wanted = await plain.propose(request(10, temperature=temperature, seed=seed))
            proposal = _changed(wanted, change)
            made = await session.propose(request(10, temperature=temperature, seed=seed, proposal=proposal))
            assert (made.token_ids, made.text, made.finish) == (wanted.token_ids, wanted.text, wanted.finish)
            assert made.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)
            if change == "none":
                assert made.cost.num_reused >= wanted.cost.num_generated - 1
            for one in (plain, session):
                await one.commit(made)
            assert session.token_ids == plain.token_ids
            if made.finish is Finish.END_OF_SEQUENCE:
                break


def _changed(step, change):
    ids, end = step.token_ids, Finish.END_OF_SEQUENCE
    middle = len(ids) // 2
    return {
        "none": step,
        "first": replace(step, token_ids=(7, *ids[1:])),
        "middle": replace(step, token_ids=(*ids[:middle], 7, *ids[middle + 1 :])),
        "shorter": replace(step, token_ids=ids[:-1]),
        "longer": replace(step, token_ids=(*ids, 7, 8, 9)),
        "end": replace(step, finish=end),
        "no end": replace(step, finish=Finish.STEP_END),
        "early end": replace(step, token_ids=ids[:middle], finish=end),
    }[change]


STAMPS = replace(PROBLEM, question="Mia has 3 times as many stamps as Leo. Leo has 14 stamps. How many does Mia have?")


@pytest.fixture(scope="module")
def tiny():
    """The shipped pair's models in any data type, measured anew."""

    @functools.cache
    def load(role, dtype):
        return HFEngine.load(WEIGHTS / role, dtype=dtype)

    def build(role, dtype, exact=None, **values):
        engine = load(role, dtype)
        return HFEngine(engine.model, engine.tokenizer, name=role, exact=exact, **values)

    return build


@pytest.mark.parametrize("role", ["draft", "target"])
@pytest.mark.parametrize(("dtype", "agree"), [("float32", True), ("bfloat16", False), ("float16", False)])
def test_an_engine_says_whether_its_widths_agree(tiny, role, dtype, agree):
    engine = tiny(role, dtype)
    assert engine.widths_agree is engine.takes_proposals is agree
    assert tiny(role, dtype, exact=False).takes_proposals
    assert tiny(role, dtype, exact=True).is_strict


@pytest.mark.parametrize(
    ("dtype", "exact", "reuses"),
    [
        ("float32", None, True),
        ("float32", False, True),
        ("float32", True, False),
        ("bfloat16", None, False),
        ("bfloat16", True, False),
        ("float16", None, False),
        ("float16", True, False),
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
async def test_proposals_change_no_text_unless_exact_is_false(tiny, dtype, exact, reuses, temperature):
    """Greedy and sampled, against the same engine without proposals; the draft nearly always agrees."""
    values = {"max_tokens": 24, "max_step_tokens": 12, "sampling": Sampling(temperature=temperature)}
    target, policy = tiny("target", dtype, exact), RandomEscalation(1.0)
    pair = Pair(draft=tiny("target", "bfloat16"), target=target)
    proposed, plain = [await solve(STAMPS, pair, policy, setting(**values, use_proposals=use)) for use in (True, False)]
    assert [step.candidate.token_ids for step in proposed.steps] == [step.candidate.token_ids for step in plain.steps]
    assert (proposed.usage["target"].num_reused > 0) is reuses


async def test_exact_false_verifies_proposals_of_any_data_type(tiny):
    async with opened(tiny("target", "bfloat16", exact=False), STAMPS) as session:
        own = await session.propose(request(24))
        assert (await session.propose(request(24, proposal=own))).cost.num_reused > 0


@pytest.mark.parametrize(("dtype", "exact"), [("bfloat16", None), ("bfloat16", True), ("float32", True)])
@pytest.mark.parametrize("keeps_hidden_state", [False, True])
async def test_a_step_that_was_read_and_rejected_leaves_no_trace(tiny, dtype, exact, keeps_hidden_state):
    """To the last bit: its logits come from a pass of another width."""
    engine = tiny("target", dtype, exact, keeps_hidden_state=keeps_hidden_state)
    async with opened(engine, STAMPS) as plain, opened(engine, STAMPS) as session:
        for _ in range(3):
            rejected = candidate("Leo has 14 stamps, and Mia 42.\n\n")
            read = await session.likelihood(rejected)
            assert len(read.logprobs) == len(engine.encode(rejected.text))
            made, wanted = [await one.propose(request(24, proposal=rejected)) for one in (session, plain)]
            assert (made.token_ids, made.logprobs) == (wanted.token_ids, wanted.logprobs)
            assert (made.first_entropy, made.hidden_state) == (wanted.first_entropy, wanted.hidden_state)
            for one in (session, plain):
                await one.commit(wanted)


async def test_an_exact_engine_repeats_forward_passes_as_they_were(tiny):
    """After a lost cache, and when a second step is written from the same prefix."""
    engine = tiny("target", "bfloat16", exact=True)
    async with opened(engine, STAMPS) as plain, opened(engine, STAMPS) as session:
        steps = [await plain.propose(request(16))]
        assert await _essence(session, 16) == _bits(steps[0])
        for step in (steps[0], candidate("Mia has 42 stamps.\n\n")):
            for one in (plain, session):
                await one.commit(step)
            wanted = _bits(await plain.propose(request(16)))
            assert await _essence(session, 16) == wanted
            assert await _essence(session, 16) == wanted
            session._sequence.close()
            assert await _essence(session, 16) == wanted


async def _essence(session, max_tokens):
    return _bits(await session.propose(request(max_tokens)))


def _bits(step):
    return step.token_ids, step.logprobs, step.first_entropy


@pytest.mark.parametrize("exact", [None, True])
async def test_steps_of_an_exact_engine_written_together_are_those_written_alone(tiny, exact):
    engine = tiny("target", "bfloat16", exact)
    async with opened(engine, STAMPS) as session:
        seeds, asked = (1, 2, 3), request(16, temperature=1.0)
        together = await session.propose_many(asked, seeds)
        alone = [await session.propose(replace(asked, seed=seed)) for seed in seeds]
    assert len(together) == 3
    assert exact is None or [_bits(made) for made in together] == [_bits(made) for made in alone]


async def test_a_proposal_of_another_tokenizer_goes_by_its_text(engine):
    target = engine(3)
    async with opened(target, PROBLEM) as session:
        made = await session.propose(request(10, proposal=candidate("Leo has 12.\n\n", token_ids=(1 << 30,))))
        assert (made.token_ids, made.cost.num_reused) == ((await session.propose(request(10))).token_ids, 0)


async def test_a_foreign_step_gets_no_special_tokens(random_lm, tokenizer):
    begin = tokenizer.convert_tokens_to_ids("<|user|>")
    eager = copy.deepcopy(tokenizer)
    eager.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|user|> $A", special_tokens=[("<|user|>", begin)]
    )
    async with opened(HFEngine(random_lm(0), eager, name="eager", prompt=PlainPrompt()), PROBLEM) as session:
        await session.commit(candidate("Leo has 12.\n\n"))
        assert eager.decode(session.token_ids) == f"<|user|>{PROBLEM.question}\n\nLeo has 12.\n\n"


async def test_sampling_follows_its_seed(engine):
    async with opened(engine(1), PROBLEM) as session:
        steps = [(await session.propose(request(12, temperature=1.5, seed=seed))).token_ids for seed in (1, 2, 1)]
    assert steps[0] == steps[2] != steps[1]


async def test_the_hidden_state_is_that_of_the_last_token(engine):
    target = engine(1, keeps_hidden_state=True)
    async with opened(target, PROBLEM) as session:
        for _ in range(2):
            made = await session.propose(request(8))
            ids = [*session.token_ids, *made.token_ids]
            with torch.inference_mode():
                states = target.model.model(torch.tensor([ids])).last_hidden_state
            assert made.hidden_state == pytest.approx(states[0, -1].tolist(), abs=1e-4)
            await session.commit(made)


@pytest.mark.parametrize("number", NUMBERS)
async def test_a_step_behind_a_kept_one_needs_no_forward_for_what_the_hidden_state_cost(engine, number):
    async with (
        opened(engine(number), PROBLEM) as plain,
        opened(engine(number, keeps_hidden_state=True), PROBLEM) as session,
    ):
        for step in range(4):
            wanted, made = await plain.propose(request(8)), await session.propose(request(8))
            assert made.token_ids == wanted.token_ids
            assert made.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)
            assert made.cost.num_computed == (0 if step else wanted.cost.num_computed)
            for one in (plain, session):
                await one.commit(made)


async def test_the_likelihood_is_what_the_model_says_of_each_token(engine, tokenizer):
    made, steps = engine(0), [candidate("Mia"), candidate(" has 3"), candidate(" stamps")]
    async with opened(made, PROBLEM) as session:
        for step in steps:
            await session.likelihood(candidate("A rejected step of another length.\n\n"))
            read, ids, wanted = await session.likelihood(step), list(session.token_ids), made.encode(step.text)
            with torch.inference_mode():
                logits = made.model(torch.tensor([[*ids, *wanted]]), use_cache=False).logits[0].log_softmax(-1)
            plain = [logits[len(ids) + i - 1, token].item() for i, token in enumerate(wanted)]
            assert read.logprobs == pytest.approx(plain, abs=1e-4)
            assert read.cost.num_computed + read.cost.num_cached == len(ids) + len(wanted)
            await session.commit(step)
        with pytest.raises(ContextOverflow, match=r"\d+ tokens do not fit the context of"):
            await session.likelihood(candidate("word " * 600))


@pytest.mark.parametrize("finish", [Finish.STEP_END, Finish.END_OF_SEQUENCE])
async def test_a_step_that_was_read_is_proposed_without_another_forward_pass(engine, finish):
    made, passes = engine(0), []
    async with opened(made, PROBLEM) as plain:
        own = await plain.propose(request(12))
    agreeing = len(made.encode(own.text[: len(own.text) // 2])) - 1
    drafted = candidate(made.decode([*own.token_ids[:agreeing], own.token_ids[-1] - 1], ()), finish=finish)
    async with opened(made, PROBLEM) as session:
        await session.likelihood(drafted)
        with_hook = made.model.register_forward_hook(lambda *_: passes.append(1))
        written = await session.propose(request(12, proposal=drafted))
        with_hook.remove()
    assert written.token_ids == own.token_ids
    assert len(passes) == own.num_tokens - written.cost.num_reused - 1  # One for each new token but the last.
    assert written.cost.num_computed == 0


def chain_engine(chain_lm, tokenizer, text, **values):
    """An engine that writes ``text``, whose token ids are all different, and its prompt's last id."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    first = ChatPrompt().encode(tokenizer, PROBLEM)[-1]
    assert len({first, *ids}) == len(ids) + 1
    return HFEngine(chain_lm(first, [*ids, tokenizer.eos_token_id], **values), tokenizer, name="chain")


@pytest.mark.parametrize("max_tokens", range(1, 12))
async def test_a_cut_never_leaves_half_a_character(chain_lm, tokenizer, max_tokens):
    text = "\U0001f600 is \u20ac\u00e9.\n\n"
    engine = chain_engine(chain_lm, tokenizer, text)
    async with opened(engine, PROBLEM) as session:
        made = await session.propose(request(max_tokens))
        assert text.startswith(made.text)
        assert "\ufffd" not in made.text
        assert engine.encode(made.text) == list(made.token_ids)
        assert made.num_tokens <= max_tokens
        await session.commit(made)
        if made.token_ids:
            rest = await session.propose(request(32))
            assert made.text + rest.text == text


@pytest.mark.parametrize("max_tokens", range(1, 9))
async def test_a_budget_that_ends_inside_a_character_ends_the_answer_before_it(chain_lm, tokenizer, max_tokens):
    text = "\U0001f600 is \u20ac\u00e9"
    trace = await answers(chain_engine(chain_lm, tokenizer, text), max_tokens=max_tokens)
    assert text.startswith(trace.text)
    assert trace.finish is Finish.TOKEN_LIMIT
    assert trace.num_tokens <= max_tokens


@pytest.mark.parametrize(
    ("delimiter", "steps"),
    [("\n\n", ["One.\n\n", "two"]), ("\r\n", ["One\r\n", "two"]), ("\n\n", ["a\n"])],
    ids=["inside a token", "over two tokens", "half a delimiter"],
)
async def test_a_step_ends_with_the_token_that_completes_the_delimiter(chain_lm, tokenizer, delimiter, steps):
    trace = await answers(chain_engine(chain_lm, tokenizer, "".join(steps)), delimiter=delimiter)
    assert [step.text for step in trace.steps] == steps
    assert trace.finish is Finish.END_OF_SEQUENCE


async def test_a_prompt_longer_than_the_context_is_refused(engine):
    with pytest.raises(ContextOverflow, match=r"'p1' has \d+ tokens, the context of hf-0 has 8"):
        await engine(0, context=8).open(PROBLEM, Source.TARGET)


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
    trace = await answers(target)
    assert (trace.finish, trace.num_tokens) == (Finish.TOKEN_LIMIT, 6)


def test_prompts(tokenizer):
    chat = tokenizer.decode(ChatPrompt("Be brief.").encode(tokenizer, Problem(id="p", question="2+2?")))
    assert chat == "Be brief.<|user|>2+2?<|assistant|>"
    plain = PlainPrompt("Q: {question}\nA:").encode(tokenizer, Problem(id="p", question="{x}?"))
    assert tokenizer.decode(plain) == "Q: {x}?\nA:"
    with pytest.raises(ConfigError, match=r"must contain \{question\}, got 'Q'"):
        PlainPrompt("Q")


async def test_a_window_that_has_slid_is_computed_anew_behind_a_rejected_step(tokenizer, monkeypatch):
    """Its cache cannot be cropped: every forward pass must still say what one without a cache says."""
    window, append, kept = 24, DynamicSequence._append, []

    def checked(self, model, ids, **options):
        before, kept_before = [*self._ids, *ids], self._num_computed
        output = append(self, model, ids, **options)
        wanted = self._model(torch.tensor([before]), use_cache=False).logits[0, -1]
        torch.testing.assert_close(output.logits[0, -1], wanted, atol=1e-4, rtol=1e-4)
        kept.append((len(before), kept_before))
        return output

    monkeypatch.setattr(DynamicSequence, "_append", checked)
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=window,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    sliding = HFEngine(MistralForCausalLM(config), tokenizer, name="sliding")
    trace = await answers(sliding, policy=RandomEscalation(0.5))
    assert trace.error is None
    assert {step.source for step in trace.steps} == set(Source)
    assert any(length > window and not num_kept for length, num_kept in kept)  # Begun anew behind the window.
    assert any(num_kept > window for _, num_kept in kept)  # And reused there, where nothing was rejected.


def _saved(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _small(kind, tokenizer, **values):
    """A configuration of a few weights."""
    return kind(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
        **values,
    )


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda t: BertForMaskedLM(_small(BertConfig, t)), "it is a BertForMaskedLM"),
        (lambda t: BertLMHeadModel(_small(BertConfig, t)), "BertLMHeadModel is an encoder"),
        (
            lambda t: Qwen2ForSequenceClassification(
                _small(Qwen2Config, t, num_key_value_heads=2, tie_word_embeddings=True)
            ),
            "it is a Qwen2ForSequenceClassification",
        ),
    ],
    ids=["masked", "encoder", "classifier"],
)
def test_a_model_that_cannot_generate_is_refused_at_load(build, reason, tokenizer, tmp_path):
    with pytest.raises(CheckpointError, match=rf"cannot generate text: {reason}.*causal language model"):
        HFEngine.load(_saved(build(tokenizer), tokenizer, tmp_path))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_causal_model_is_loaded(dtype, tokenizer, tmp_path):
    model = BertLMHeadModel(_small(BertConfig, tokenizer, is_decoder=True))
    assert HFEngine.load(_saved(model, tokenizer, tmp_path), dtype=dtype).name == tmp_path.name


async def test_log_probabilities_are_not_rounded_to_the_dtype_of_the_weights(random_lm, tokenizer):
    """Sixteen bits know no number between -0.0625 and 0 at logits of 16."""
    model = copy.deepcopy(random_lm(0)).to(torch.bfloat16)
    model.lm_head.weight.data *= 8.0
    half = HFEngine(model, tokenizer, name="half")
    async with opened(half) as writing, opened(half) as reading:
        made = await writing.propose(request(8))
        read = await reading.likelihood(made)
    assert made.logprobs == pytest.approx(read.logprobs, abs=2e-2)


async def test_a_call_that_finds_no_memory_fails_alone(engine, monkeypatch):
    full = engine(0)

    def fail(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(full.model, "forward", fail)
    with pytest.raises(EngineError, match=r"'hf-0' ran out of memory.*lower the number of problems in flight"):
        async with opened(full) as session:
            await session.propose(request(8))


@pytest.mark.parametrize("num_cancels", [1, 2])
async def test_a_cancelled_call_has_left_the_thread(num_cancels):
    worker, running = Worker("test"), []

    def call(flag):
        running.append(True)
        time.sleep(0.03)
        running.clear()
        flag.check()

    task = asyncio.create_task(worker.run(call))
    while not running:
        await asyncio.sleep(0.001)
    for _ in range(num_cancels):
        task.cancel()
        await asyncio.sleep(0.002)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert running == []
    assert await worker.run(lambda flag: "next") == "next"


async def test_a_call_cancelled_in_the_queue_never_runs():
    worker, started, ran = Worker("test"), asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def busy(flag):
        loop.call_soon_threadsafe(started.set)
        time.sleep(0.02)

    first = asyncio.create_task(worker.run(busy))
    await started.wait()
    queued = asyncio.create_task(worker.run(lambda flag: ran.append(True)))
    await asyncio.sleep(0)
    queued.cancel()
    await asyncio.gather(first, queued, return_exceptions=True)
    assert queued.cancelled()
    assert ran == []


@pytest.mark.parametrize("module", ["arbitrage.engines.hf", "arbitrage.scorers.hf"])
def test_without_torch_the_extra_is_named(module):
    code = f"import sys; sys.modules['torch'] = None\ntry:\n import {module}\nexcept Exception as e: print(repr(e))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "MissingExtra" in done.stdout
