"""Token-level speculation changes no token in float32, and saves what it promises."""

from collections import Counter
from contextlib import contextmanager

import pytest

from arbitrage.core.errors import ConfigError
from arbitrage.core.solve import solve
from arbitrage.core.turn import Pair
from arbitrage.core.types import Finish, Problem, Sampling
from arbitrage.engines.hf import HFEngine
from arbitrage.engines.speculative import LookupGuesser, SpeculativeEngine
from arbitrage.pairs.config import PairConfig
from arbitrage.pairs.hf import HFModel
from arbitrage.pairs.loaded import LoadedPair
from arbitrage.policies import RandomEscalation, TargetOnly
from arbitrage.policies.table import Models
from helpers import candidate, measured, opened, request, scripted, setting

PROBLEM = Problem(id="p1", question="Compared to Leo Mia has 3 times as many stamps.")
NUMBERS = range(4)
"""Random models of the fixture, by number."""
LIMITS = {"max_tokens": 48, "max_step_tokens": 10, "max_idle_steps": 99}
GUESSING = {
    "draft": lambda engine, number, num: SpeculativeEngine.by_draft(engine(number), engine(number + 1), num),
    "itself": lambda engine, number, num: SpeculativeEngine.by_draft(engine(number), engine(number), num),
    "ngram": lambda engine, number, num: SpeculativeEngine.by_lookup(engine(number), num),
    "wrong": lambda engine, number, num: SpeculativeEngine(engine(number), lambda *_: Fixed([7] * num)),
}
"""What guesses: another model, one that is always right, a look-up, one that is wrong at once."""


class Fixed:
    """Guesses the same whatever came before."""

    def __init__(self, tokens):
        self.tokens = tokens

    def guess(self, ids, limit):
        return self.tokens[:limit]


@pytest.fixture
def engine(random_lm, tokenizer):
    return lambda number, *, hidden=False, **values: measured(
        HFEngine(random_lm(number, **values), tokenizer, name=f"hf-{number}", keeps_hidden_state=hidden)
    )


async def answers(target, policy=None, draft=None, **values):
    values = LIMITS | values
    return await solve(PROBLEM, Pair(draft=draft or target, target=target), policy or TargetOnly(), setting(**values))


def essence(trace):
    """All steps without their costs."""
    return [(s.candidate.text, s.candidate.token_ids, s.candidate.finish, s.finish) for s in trace.steps]


def target_cost(trace):
    return trace.usage["target"]


@contextmanager
def counted(model):
    """Counts forward passes and the tokens that went through them."""
    counts = Counter()

    def count(module, args, kwargs):
        counts["passes"] += 1
        counts["tokens"] += kwargs["input_ids"].shape[1]

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    yield counts
    hook.remove()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("num_tokens", [1, 4])
@pytest.mark.parametrize("guessing", GUESSING)
@pytest.mark.parametrize("number", NUMBERS)
async def test_speculation_equals_target_only_token_for_token(engine, number, guessing, num_tokens, temperature):
    sampling = Sampling(temperature=temperature, top_k=40)
    plain = await answers(engine(number), sampling=sampling)
    guessed = await answers(GUESSING[guessing](engine, number, num_tokens), sampling=sampling)
    assert len(plain.steps) > 1
    assert essence(guessed) == essence(plain)
    for one, other in zip(guessed.steps, plain.steps, strict=True):
        assert one.candidate.logprobs == pytest.approx(other.candidate.logprobs, abs=1e-4)
        assert one.candidate.first_entropy == pytest.approx(other.candidate.first_entropy, abs=1e-4)
    cost, plainly = target_cost(guessed), target_cost(plain)
    assert 0 <= cost.num_confirmed <= cost.num_guessed
    assert (cost.num_guessed > 0) or guessing == "ngram"
    assert (cost.num_generated, cost.num_reused) == (plainly.num_generated, 0)
    assert (plainly.num_guessed, plainly.num_confirmed, plainly.guessing_s) == (0, 0, 0.0)
    assert 0.0 <= cost.guessing_s <= cost.seconds
    assert cost.num_confirmed > 0 or guessing != "itself" or temperature > 0.0
    assert cost.num_confirmed == 0 or guessing != "wrong"


@pytest.mark.parametrize("max_step_tokens", range(1, 9))
@pytest.mark.parametrize("guessing", ["draft", "itself", "ngram"])
async def test_a_step_may_be_cut_anywhere(engine, guessing, max_step_tokens):
    values = {"max_step_tokens": max_step_tokens, "max_tokens": 33, "delimiter": "\n"}
    guessed = await answers(GUESSING[guessing](engine, 3, 5), **values)
    assert essence(guessed) == essence(await answers(engine(3), **values))


@pytest.mark.parametrize("context", range(1, 9))
async def test_a_full_context_cuts_the_same_step(engine, context):
    length = len(engine(0).prompt.encode(engine(0).tokenizer, PROBLEM)) + context
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
    with counted(target.model) as plainly:
        plain = await answers(target, **limits)
    guessing = SpeculativeEngine.by_draft(target, HFEngine(_copy(target.model), target.tokenizer, name="twin"), 4)
    with counted(target.model) as guessed:
        trace = await answers(guessing, **limits)
    num_tokens, cost = target_cost(plain).num_generated, target_cost(trace)
    assert len(trace.steps) > 2
    assert plainly["passes"] == num_tokens
    assert guessed["passes"] <= -(-num_tokens // 5) + 1
    assert cost.num_confirmed >= num_tokens - guessed["passes"]
    assert cost.num_guessed == cost.num_confirmed


def _copy(model):
    """Other weights in memory, so that hooks tell the two apart."""
    import copy

    return copy.deepcopy(model)


@pytest.mark.parametrize("number", NUMBERS)
async def test_neither_model_computes_a_token_twice_but_for_wrong_guesses(engine, number):
    target, draft = engine(number), engine(number + 1)
    with counted(target.model) as verified, counted(draft.model) as drafted:
        trace = await answers(SpeculativeEngine.by_draft(target, draft, 4))
    cost, prompt = target_cost(trace), len(target.prompt.encode(target.tokenizer, PROBLEM))
    wrong = cost.num_guessed - cost.num_confirmed
    assert verified["tokens"] <= prompt + cost.num_generated + wrong
    assert drafted["tokens"] <= prompt + cost.num_generated + wrong
    assert drafted["passes"] <= cost.num_guessed + len(trace.steps) + verified["passes"]


async def test_wrong_guesses_cost_no_further_pass(engine):
    """One pass for each token, as without them."""
    target = GUESSING["wrong"](engine, 1, 4)
    with counted(engine(1).model) as passes:
        trace = await answers(target)
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


def test_a_draft_of_another_vocabulary_is_refused(engine, tokenizer):
    import copy

    other = copy.deepcopy(tokenizer)
    other.add_tokens(["<|other|>"])
    draft = HFEngine(engine(0).model, other, name="stranger")
    with pytest.raises(ConfigError, match="those of 'stranger' and 'hf-1' differ"):
        SpeculativeEngine.by_draft(engine(1), draft)


@pytest.mark.parametrize(
    "build", [lambda e: SpeculativeEngine.by_draft(e, e, 0), lambda e: SpeculativeEngine.by_lookup(e, 0)]
)
def test_no_guesses_at_a_time_are_refused(engine, build):
    with pytest.raises(ConfigError, match="guessed tokens must be at least 1, got 0"):
        build(engine(0))


def test_speculation_is_lossless_where_the_targets_widths_agree(engine):
    target = engine(1)
    assert SpeculativeEngine.by_lookup(target, 2).widths_agree
    target._width_difference = 0.1  # As of a model in 16 bits.
    speculative = SpeculativeEngine.by_lookup(target, 2)
    assert (speculative.widths_agree, speculative.takes_proposals) == (False, False)


def test_an_exact_target_refuses_guesses_that_it_would_round_otherwise(random_lm, tokenizer):
    exact = HFEngine(random_lm(1), tokenizer, name="hf-1", exact=True)
    with pytest.raises(ConfigError, match=r"'ngram:2' verifies several tokens .* exact = true of 'hf-1' forbids"):
        SpeculativeEngine.by_lookup(exact, 2)
    exact._width_difference = 0.0
    assert SpeculativeEngine.by_lookup(exact, 2).takes_proposals


def test_engines_are_told_apart_by_name(engine):
    target = engine(1)
    assert SpeculativeEngine.by_draft(target, engine(2), 3).name == "hf-1+hf-2:3"
    assert SpeculativeEngine.by_lookup(target, 5).name == "hf-1+ngram:5"


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
    assert LookupGuesser(3).guess(ids, 9) == guess
    assert LookupGuesser(3).guess(ids, 1) == guess[:1]


@pytest.mark.parametrize("name", ["speculative", "ngram:2"])
def test_other_engines_cannot_verify_tokens(name):
    model, engine = HFModel(path="nowhere"), scripted("8")
    config = PairConfig(name="test", draft=model, target=model)
    models = Models(pair_name="test", pair=Pair(draft=engine, target=engine), is_same_answer=str.__eq__)
    loaded = LoadedPair(config=config, models=models)
    with pytest.raises(ConfigError, match=f"'{name}' needs models of the hf engine, got 'scripted'"):
        loaded.method(name)
