"""Token-level speculation changes no token in float32, and saves what it promises."""

import asyncio
import random
import threading
from collections import Counter
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

from arbitrage.core.errors import ConfigError
from arbitrage.core.solve import solve
from arbitrage.core.turn import Pair, Setting
from arbitrage.core.types import Finish, Problem, Sampling, Source
from arbitrage.engines import pass_times
from arbitrage.engines.decoder import Guesser
from arbitrage.engines.guess_count import AdaptiveCount, Costs, FixedCount
from arbitrage.engines.hf import HFEngine
from arbitrage.engines.speculative import DraftGuesser, LookupGuesser, SpeculativeEngine
from arbitrage.engines.worker import CancelFlag, Cancelled, Worker
from arbitrage.pairs.config import PairConfig
from arbitrage.pairs.hf import HFModel
from arbitrage.pairs.loaded import LoadedPair
from arbitrage.policies import RandomEscalation, TargetOnly
from arbitrage.policies.table import Models
from helpers import candidate, measured, opened, request, scripted, setting

PROBLEM = Problem(id="p1", question="Compared to Leo Mia has 3 times as many stamps.")
PROBLEMS = [Problem(id=f"p{i}", question=f"Leo has {i} stamps, Mia {i * 7}.") for i in range(6)]
NUMBERS = range(4)
"""Random models of the fixtures, by number."""
LIMITS = {"max_tokens": 48, "max_step_tokens": 10, "max_idle_steps": 99}
GUESSING = {
    "draft": lambda engine, number, num: SpeculativeEngine.by_draft(engine(number), engine(number + 1), num),
    "itself": lambda engine, number, num: SpeculativeEngine.by_draft(engine(number), engine(number), num),
    "ngram": lambda engine, number, num: SpeculativeEngine.by_lookup(engine(number), num),
    "wrong": lambda engine, number, num: SpeculativeEngine(engine(number), lambda *_: Fixed([7] * (num or 3))),
}
"""What guesses: another model, one that is always right, a look-up, one that is wrong at once."""


class Fixed(Guesser):
    """Guesses the same whatever came before."""

    def __init__(self, tokens):
        self.tokens = tokens

    def guess(self, ids, limit, flag):
        return self.tokens[:limit]


class Changing:
    """Another number at each pass."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def choose(self, num_missing):
        return self.rng.choice([0, 0, 1, 2, 3, 7, 15])

    def read(self, num_tokens):
        pass

    def learn(self, is_right):
        pass


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    """Measure costs in as few rounds as possible."""
    monkeypatch.setattr(pass_times, "LONG_ENOUGH_S", 0.0)


@pytest.fixture
def hf_engine(random_lm, tokenizer):
    def build(number, *, hidden=False, exact=None, **values):
        engine = HFEngine(
            random_lm(number, **values), tokenizer, name=f"hf-{number}", keeps_hidden_state=hidden, exact=exact
        )
        return measured(engine)

    return build


@pytest.fixture
def llama_engine(plain_lm, gguf_file):
    if not all(map(find_spec, ("llama_cpp", "gguf"))):
        pytest.skip("llama.cpp is not installed")
    from arbitrage.engines.llamacpp import LlamaEngine

    def build(number, *, hidden=False, exact=None, sequences=4, dtype="float32", kind="f32", **values):
        file = gguf_file(plain_lm(number, **values), kind)
        name = f"llamacpp-{number}"
        options = {"threads": 1, "sequences": sequences, "dtype": dtype, "exact": exact}
        return LlamaEngine.load(file, name=name, keeps_hidden_state=hidden, **options)

    return build


@pytest.fixture(params=["hf", "llamacpp"])
def engine(request):
    """Engines of one library by number."""
    return request.getfixturevalue({"hf": "hf_engine", "llamacpp": "llama_engine"}[request.param])


async def answers(target, policy=None, draft=None, problem=PROBLEM, **values):
    values = LIMITS | values
    return await solve(problem, Pair(draft=draft or target, target=target), policy or TargetOnly(), setting(**values))


def essence(trace):
    """All steps without their costs."""
    return [(s.candidate.text, s.candidate.token_ids, s.candidate.finish, s.finish) for s in trace.steps]


def target_cost(trace):
    return trace.usage["target"]


def prompt_length(engine):
    return len(engine.prompt.encode(engine.tokenizer, PROBLEM))


@contextmanager
def counted(engine):
    """Counts forward passes and the tokens that went through them."""
    counts = Counter()

    def count(num_tokens):
        counts["passes"] += 1
        counts["tokens"] += num_tokens

    if isinstance(engine, HFEngine):
        hook = engine.model.register_forward_pre_hook(
            lambda module, args, kwargs: count(kwargs["input_ids"].shape[1]), with_kwargs=True
        )
        yield counts
        hook.remove()
        return
    run = engine.context.run
    engine.context.run = lambda tokens, *given: count(len(tokens)) or run(tokens, *given)
    yield counts
    del engine.context.run


def twin(engine):
    """The same engine with a counter of its own."""
    import copy

    if isinstance(engine, HFEngine):
        return HFEngine(copy.deepcopy(engine.model), engine.tokenizer, name="twin")
    return type(engine)(type(engine.context)(engine.context.model, threads=1), name="twin")


@pytest.fixture(scope="module")
def plain_answers():
    """Answers without guesses: each is written once for all ways to guess."""
    written = {}

    async def answer(engine, number, sampling):
        target = engine(number)
        key = target.name, number, sampling
        if key not in written:
            written[key] = await answers(target, sampling=sampling)
        return written[key]

    return answer


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("num_tokens", [1, 4, None])
@pytest.mark.parametrize("guessing", GUESSING)
@pytest.mark.parametrize("number", NUMBERS)
async def test_speculation_equals_target_only_token_for_token(
    engine, plain_answers, number, guessing, num_tokens, temperature
):
    sampling = Sampling(temperature=temperature, top_k=40)
    plain = await plain_answers(engine, number, sampling)
    guessed = await answers(GUESSING[guessing](engine, number, num_tokens), sampling=sampling)
    assert len(plain.steps) > 1
    assert essence(guessed) == essence(plain)
    for one, other in zip(guessed.steps, plain.steps, strict=True):
        assert one.candidate.logprobs == pytest.approx(other.candidate.logprobs, abs=1e-4)
        assert one.candidate.first_entropy == pytest.approx(other.candidate.first_entropy, abs=1e-4)
    cost, plainly = target_cost(guessed), target_cost(plain)
    assert 0 <= cost.num_confirmed <= cost.num_guessed
    assert (cost.num_guessed > 0) or guessing == "ngram" or num_tokens is None
    assert (cost.num_generated, cost.num_reused) == (plainly.num_generated, 0)
    assert (plainly.num_guessed, plainly.num_confirmed, plainly.guessing_s) == (0, 0, 0.0)
    assert 0.0 <= cost.guessing_s <= cost.seconds
    assert cost.num_confirmed > 0 or guessing != "itself" or temperature > 0.0 or num_tokens is None
    assert cost.num_confirmed == 0 or guessing != "wrong"


@pytest.mark.parametrize("max_step_tokens", range(1, 9))
@pytest.mark.parametrize("guessing", ["draft", "itself", "ngram"])
async def test_a_step_may_be_cut_anywhere(engine, guessing, max_step_tokens):
    values = {"max_step_tokens": max_step_tokens, "max_tokens": 33, "delimiter": "\n"}
    guessed = await answers(GUESSING[guessing](engine, 3, 5), **values)
    assert essence(guessed) == essence(await answers(engine(3), **values))


@pytest.mark.parametrize("context", range(1, 9))
async def test_a_full_context_cuts_the_same_step(engine, context):
    length = prompt_length(engine(0)) + context
    values = {"context": length, "delimiter": -99.0, "end": -99.0}
    target = engine(0, **values)
    for draft in (engine(0, **values), engine(0, delimiter=-99.0, end=-99.0), engine(0, context=8)):
        guessed = await answers(SpeculativeEngine.by_draft(target, draft, 4))
        assert essence(guessed) == essence(await answers(target))
        assert (guessed.finish, guessed.num_tokens) == (Finish.TOKEN_LIMIT, context)


@pytest.mark.parametrize("number", NUMBERS)
async def test_a_draft_that_is_always_right_spares_all_but_each_fifth_pass(engine, number):
    """Also over the ends of steps: what was guessed beyond one begins the next."""
    target, limits = engine(number), {"max_step_tokens": 48}
    with counted(target) as plainly:
        plain = await answers(target, **limits)
    guessing = SpeculativeEngine.by_draft(target, twin(target), 4)
    with counted(target) as guessed:
        trace = await answers(guessing, **limits)
    num_tokens, cost = target_cost(plain).num_generated, target_cost(trace)
    assert len(trace.steps) > (2 if isinstance(target, HFEngine) else 1)
    assert plainly["passes"] == num_tokens
    assert guessed["passes"] <= -(-num_tokens // 5) + 1
    assert cost.num_confirmed >= num_tokens - guessed["passes"]
    assert cost.num_guessed == cost.num_confirmed


@pytest.mark.parametrize("number", NUMBERS)
async def test_neither_model_computes_a_token_twice_but_for_wrong_guesses(engine, number):
    target, draft = engine(number), engine(number + 1)
    with counted(target) as verified, counted(draft) as drafted:
        trace = await answers(SpeculativeEngine.by_draft(target, draft, 4))
    cost, prompt = target_cost(trace), prompt_length(target)
    wrong = cost.num_guessed - cost.num_confirmed
    assert verified["tokens"] <= prompt + cost.num_generated + wrong
    assert drafted["tokens"] <= prompt + cost.num_generated + wrong
    assert drafted["passes"] <= cost.num_guessed + len(trace.steps) + verified["passes"]


async def test_wrong_guesses_cost_no_further_pass(engine):
    """One pass for each token, as without them."""
    guessing = GUESSING["wrong"](engine, 1, 4)
    with counted(guessing.target) as passes:
        trace = await answers(guessing)
    assert passes["passes"] == target_cost(trace).num_generated


@pytest.mark.parametrize("guessing", ["draft", "itself", "ngram"])
@pytest.mark.parametrize("use_proposals", [True, False])
async def test_under_a_router_the_target_writes_the_same(engine, guessing, use_proposals):
    policy, draft = RandomEscalation(0.6), engine(2)
    plain = await answers(engine(3), policy, draft)
    guessed = await answers(GUESSING[guessing](engine, 3, 4), policy, draft, use_proposals=use_proposals)
    assert {step.source for step in plain.steps} == {"draft", "target"}
    assert essence(guessed) == essence(plain)


@pytest.mark.parametrize("guessing", ["itself", "ngram"])
async def test_reading_and_foreign_steps_in_between_change_nothing(engine, guessing):
    foreign = candidate("A foreign step.\n\n")
    async with opened(GUESSING[guessing](engine, 3, 4)) as session, opened(engine(3)) as plain:
        for number in range(5):
            wanted = await plain.propose(request(10))
            made = await session.propose(request(10, proposal=foreign if number == 3 else None))
            assert (made.token_ids, made.finish) == (wanted.token_ids, wanted.finish)
            for step in (foreign, wanted):
                read, expected = await session.likelihood(step), await plain.likelihood(step)
                assert read.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
            for one in (session, plain):
                await one.commit(foreign if number % 2 else wanted)
            assert session.token_ids == plain.token_ids


@pytest.mark.parametrize("guessing", ["itself", "ngram"])
async def test_hidden_states_are_those_without_guesses(engine, guessing):
    def hidden(number):
        return engine(number, hidden=True)

    async with opened(GUESSING[guessing](hidden, 3, 4)) as session, opened(hidden(3)) as plain:
        for _ in range(4):
            wanted, made = await plain.propose(request(10)), await session.propose(request(10))
            assert made.token_ids == wanted.token_ids
            assert made.hidden_state == pytest.approx(wanted.hidden_state, abs=1e-4)
            for one in (session, plain):
                await one.commit(wanted)


def test_a_draft_of_another_vocabulary_is_refused(hf_engine, tokenizer):
    import copy

    other = copy.deepcopy(tokenizer)
    other.add_tokens(["<|other|>"])
    draft = HFEngine(hf_engine(0).model, other, name="stranger")
    with pytest.raises(ConfigError, match=r"those of 'stranger' and 'hf-1' differ.*use ngram"):
        SpeculativeEngine.by_draft(hf_engine(1), draft)


def test_a_draft_of_another_vocabulary_is_refused_across_libraries(hf_engine, llama_engine, tokenizer):
    import copy

    other = copy.deepcopy(tokenizer)
    other.add_tokens(["<|other|>"])
    stranger = HFEngine(hf_engine(0).model, other, name="stranger")
    with pytest.raises(ConfigError, match=r"those of 'stranger' and 'llamacpp-1' differ.*use ngram"):
        SpeculativeEngine.by_draft(llama_engine(1), stranger)
    with pytest.raises(ConfigError, match=r"those of 'llamacpp-1' and 'stranger' differ.*use ngram"):
        SpeculativeEngine.by_draft(stranger, llama_engine(1))


async def test_padding_of_the_embeddings_matters_to_nothing(hf_engine, random_lm, tokenizer):
    """Neither does a draft whose padding has the greatest logits: no guess lies beyond the target's embeddings."""
    import copy

    import torch

    padded = copy.deepcopy(random_lm(2))
    padded.resize_token_embeddings(len(tokenizer) + 64, mean_resizing=False)
    with torch.no_grad():
        padded.lm_head.bias[len(tokenizer) :] = 1e6
    draft = HFEngine(padded, tokenizer, name="padded")
    guessed = await answers(SpeculativeEngine.by_draft(hf_engine(1), draft, 4))
    usual = await answers(SpeculativeEngine.by_draft(hf_engine(1), hf_engine(2), 4))
    assert essence(guessed) == essence(usual)
    assert target_cost(guessed).num_confirmed == target_cost(usual).num_confirmed


@pytest.mark.parametrize(
    "build", [lambda e: SpeculativeEngine.by_draft(e, e, 0), lambda e: SpeculativeEngine.by_lookup(e, 0)]
)
def test_no_guesses_at_a_time_are_refused(hf_engine, build):
    with pytest.raises(ConfigError, match="guessed tokens must be at least 1, got 0"):
        build(hf_engine(0))


def test_speculation_is_lossless_where_the_targets_widths_agree(engine):
    target = engine(1)
    assert SpeculativeEngine.by_lookup(target, 2).target.widths_agree
    target._width_difference = 0.1  # As of a model in 16 bits.
    speculative = SpeculativeEngine.by_lookup(target, 2).target
    assert (speculative.widths_agree, speculative.takes_proposals) == (False, False)


async def test_guesses_are_verified_where_proposals_are_not(engine):
    target = engine(3)
    target._width_difference = 0.1
    trace = await answers(SpeculativeEngine.by_draft(target, engine(3), 4))
    assert target_cost(trace).num_confirmed > 0


def test_an_exact_target_refuses_guesses_that_it_would_round_otherwise(engine):
    exact = engine(1, exact=True)
    exact._width_difference = 1e-6
    with pytest.raises(ConfigError, match=rf"'ngram:2' verifies several tokens .* exact = true of '{exact.name}' for"):
        SpeculativeEngine.by_lookup(exact, 2)
    exact._width_difference = 0.0
    assert SpeculativeEngine.by_lookup(exact, 2).target.takes_proposals


def test_engines_are_told_apart_by_name(hf_engine):
    target = hf_engine(1)
    assert SpeculativeEngine.by_draft(target, hf_engine(2), 3).name == "hf-1+hf-2:3"
    assert SpeculativeEngine.by_draft(target, hf_engine(2)).name == "hf-1+hf-2"
    assert SpeculativeEngine.by_lookup(target, 5).name == "hf-1+ngram:5"


def loaded_pair(target, draft):
    model = HFModel(path="nowhere")
    models = Models(pair_name="test", pair=Pair(draft=draft, target=target), is_same_answer=str.__eq__)
    return LoadedPair(config=PairConfig(name="test", draft=model, target=model), models=models)


@pytest.mark.parametrize(
    ("name", "own_target"),
    [
        ("speculative", "hf-1+hf-2:6"),
        ("ngram", "hf-1+ngram:4"),
        ("speculative:3", "hf-1+hf-2:3"),
        ("random+speculative", "hf-1+hf-2:6"),
    ],
)
def test_runs_that_guessed_the_former_default_go_on(hf_engine, name, own_target):
    """Their keys hold the engine's name with the number."""
    method = loaded_pair(hf_engine(1), hf_engine(2)).method(name)
    assert method.identity[2] == own_target
    assert method.name == name


@pytest.mark.parametrize(
    ("ids", "guess"),
    [
        ([1, 2, 3, 9, 1, 2, 3], [9, 1, 2]),
        ([1, 2, 3, 8, 7, 2, 3, 9, 1, 2, 3], [8, 7, 2]),
        ([5, 3, 8, 6, 3, 9, 3], [9, 3]),
        ([4, 4, 4], [4]),
        ([1, 2, 3], []),
        ([1], []),
        ([], []),
    ],
    ids=["three", "longer first", "latest", "overlapping", "none", "one", "nothing"],
)
def test_the_look_up_goes_on_as_the_longest_latest_match_did(ids, guess):
    flag = CancelFlag()
    assert LookupGuesser(FixedCount(3)).guess(ids, 9, flag) == guess
    assert LookupGuesser(FixedCount(3)).guess(ids, 1, flag) == guess[:1]
    grown = LookupGuesser(FixedCount(3))
    assert [grown.guess(ids[:end], 9, flag) for end in range(len(ids) + 1)][-1] == guess
    assert grown.guess([8, 8, *ids[1:]], 9, flag) == LookupGuesser(FixedCount(3)).guess([8, 8, *ids[1:]], 9, flag)


@pytest.mark.parametrize("name", ["speculative", "ngram:2"])
def test_other_engines_cannot_verify_tokens(name):
    loaded = loaded_pair(scripted("8"), scripted("8"))
    with pytest.raises(ConfigError, match=f"'{name}' needs models in this process .*, got 'scripted'"):
        loaded.method(name)


def changing(target, draft, seed):
    """A target whose draft guesses another number of tokens at each pass."""

    def start(problem, prompt_ids):
        own = draft.prompt.encode(draft.tokenizer, problem)
        num_ids = target.num_embeddings
        return DraftGuesser(draft, own, len(prompt_ids), Changing(seed), num_ids=num_ids, ends=target.eos_ids)

    return SpeculativeEngine(target, start)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("number", [1, 3])
async def test_the_text_does_not_depend_on_the_number(engine, number, temperature):
    sampling = Sampling(temperature=temperature, top_k=40)
    plain = await answers(engine(number), sampling=sampling)
    for seed in range(2):
        for draft in (engine(number), engine(number + 1)):
            guessed = await answers(changing(engine(number), draft, seed), sampling=sampling)
            assert essence(guessed) == essence(plain)


@pytest.mark.parametrize("num_tokens", [1, 4, None])
@pytest.mark.parametrize("number", NUMBERS)
async def test_target_and_draft_may_be_of_different_libraries(hf_engine, llama_engine, number, num_tokens):
    for target, draft in ((hf_engine, llama_engine), (llama_engine, hf_engine)):
        plain = await answers(target(number))
        guessed = await answers(SpeculativeEngine.by_draft(target(number), draft(number + 1), num_tokens))
        assert essence(guessed) == essence(plain)


async def test_a_draft_of_the_other_library_is_right_where_it_is_the_same_model(plain_lm, llama_engine, tokenizer):
    target = HFEngine(plain_lm(3), tokenizer, name="hf-3")
    trace = await answers(SpeculativeEngine.by_draft(target, llama_engine(3), 4))
    cost = target_cost(trace)
    assert cost.num_confirmed == cost.num_guessed > 0


@pytest.mark.parametrize("use", ["alone", "under a rule"])
async def test_guessers_share_the_drafts_context_and_give_their_slots_back(llama_engine, use):
    """More sequences than slots: the drafts of six problems, and their guessers."""
    policy = RandomEscalation(0.6) if use == "under a rule" else None
    draft, target = llama_engine(2, sequences=2), llama_engine(3, sequences=2)
    guessing = SpeculativeEngine.by_draft(target, draft, 4)
    together = await asyncio.gather(*(answers(guessing, policy, draft, problem=one) for one in PROBLEMS))
    for trace, problem in zip(together, PROBLEMS, strict=True):
        assert essence(trace) == essence(await answers(llama_engine(3), policy, llama_engine(2), problem=problem))
    for engine in (draft, target):
        assert engine.context.slots.num_free == engine.context.num_sequences


async def test_measuring_gives_its_slots_back(llama_engine):
    draft, target = llama_engine(2, sequences=2), llama_engine(3, sequences=2)
    await SpeculativeEngine.by_draft(target, draft).prepare()
    for engine in (draft, target):
        assert engine.context.slots.num_free == engine.context.num_sequences


async def test_a_cancelled_guess_leaves_a_draft_that_guesses_on(engine):
    target, draft = engine(1), engine(2)
    prompt = draft.prompt.encode(draft.tokenizer, PROBLEM)
    options = {"num_ids": target.num_embeddings, "ends": frozenset()}
    guesser, other = (DraftGuesser(draft, prompt, len(prompt), FixedCount(4), **options) for _ in range(2))
    flag = CancelFlag()
    flag.set()
    with pytest.raises(Cancelled):
        guesser.guess(prompt, 9, flag)
    guesses = [one.guess(ids, 9, CancelFlag()) for ids in (prompt, [*prompt, 7]) for one in (guesser, other)]
    assert guesses[0] == guesses[1] != []
    assert guesses[2] == guesses[3]
    for one in (guesser, other):
        one.close()
        one.close()


async def test_a_draft_on_another_device_computes_on_its_thread(hf_engine):
    target, draft = hf_engine(1), twin(hf_engine(2))
    draft.worker = Worker("elsewhere")
    threads = {"draft": set(), "target": set()}
    hooks = [
        model.register_forward_hook(lambda *_, name=name: threads[name].add(threading.get_ident()))
        for name, model in (("draft", draft.model), ("target", target.model))
    ]
    trace = await answers(SpeculativeEngine.by_draft(target, draft))
    for hook in hooks:
        hook.remove()
    assert essence(trace) == essence(await answers(hf_engine(1)))
    assert [len(threads[name]) for name in threads] == [1, 1]
    assert threads["draft"] != threads["target"]


async def test_costs_are_measured_once_and_not_billed(engine):
    target, draft = engine(1), engine(2)
    speculative = SpeculativeEngine.by_draft(target, draft)
    assert not speculative.count.is_measured
    await asyncio.gather(speculative.prepare(), speculative.prepare())
    costs = speculative.count.costs
    assert list(costs.target_s) == [1, 2, 4, 6, 8, 16]
    assert all(0.0 < seconds < 10.0 for seconds in (*costs.target_s.values(), costs.guess_s, costs.read_s))
    with counted(target) as passes, counted(draft) as drafted:
        await speculative.prepare()
    assert (passes["passes"], drafted["passes"]) == (0, 0)


async def test_a_method_measures_before_its_clock_starts(hf_engine, monkeypatch):
    loaded, order = loaded_pair(hf_engine(1), hf_engine(2)), []
    method = loaded.method("speculative")
    target = method.pair.target
    monkeypatch.setattr(SpeculativeEngine, "_measure", lambda self, count, flag: order.append(count.set_costs(None)))
    trace = await method.solve(PROBLEM, setting(**LIMITS), watch=lambda trace: order.append(trace.wall_s))
    assert (target.count.is_measured, order[0]) == (True, None)
    assert trace.text == (await answers(hf_engine(1))).text


async def test_a_draft_as_dear_as_the_target_does_not_guess(engine):
    target = engine(3)
    speculative = SpeculativeEngine.by_draft(target, twin(target))
    dear = dict.fromkeys((1, 2, 4, 8, 16), 1.0)
    speculative.count.set_costs(Costs(target_s=dear, guess_s=1.0, read_s=0.1))
    trace = await answers(speculative)
    assert target_cost(trace).num_guessed == 0
    speculative.count.set_costs(Costs(target_s=dear, guess_s=0.05))
    again = await answers(speculative)
    assert target_cost(again).num_confirmed > 0
    assert essence(again) == essence(trace) == essence(await answers(engine(3)))


async def test_where_costs_cannot_be_measured_the_former_default_is_guessed(hf_engine):
    speculative = SpeculativeEngine.by_draft(hf_engine(1, context=60), hf_engine(2, context=60))
    await speculative.prepare()
    assert isinstance(speculative.count, AdaptiveCount)
    assert (speculative.count.is_measured, speculative.count.costs) == (True, None)
    assert speculative.count.choose(0) == 6


async def test_a_cancelled_measurement_is_made_again(engine):
    target = engine(1)
    speculative = SpeculativeEngine.by_lookup(target)
    flag = CancelFlag()
    flag.set()
    with pytest.raises(Cancelled):
        speculative._measure(speculative.count, flag)
    assert not speculative.count.is_measured
    await speculative.prepare()
    assert speculative.count.costs is not None
    async with opened(target, PROBLEM, Source.TARGET) as session:
        assert (await session.propose(request(10))).text


async def test_quantised_weights_guess_by_default(llama_engine):
    """Their text may differ from the plain one; it ends as any other does."""
    target, draft = llama_engine(3, kind="q8_0"), llama_engine(3)
    target._width_difference = 0.5
    trace = await loaded_pair(target, draft).method("speculative:4").solve(PROBLEM, Setting())
    assert trace.finish is Finish.END_OF_SEQUENCE
    assert target_cost(trace).num_confirmed > 0
