"""What every engine must keep; ``KITS`` in conftest.py names the engines."""

import asyncio
from dataclasses import replace
from itertools import chain

import pytest

from arbitrage.core.ports import Rewindable
from arbitrage.core.solve import solve
from arbitrage.core.turn import Pair
from arbitrage.core.types import Finish, Problem, Sampling, Source
from arbitrage.engines import text_parts
from arbitrage.policies import DraftOnly, Oracle, RandomEscalation, RouterPolicy, TargetOnly
from arbitrage.scorers.scripted import ScriptedScorer
from helpers import Watched, candidate, opened, request, setting

PROBLEMS = [Problem(id=f"p{i}", question=f"Mia has {i} stamps and {i * 7} marbles.") for i in range(6)]
PROBLEM = PROBLEMS[1]
LIMITS = {"max_tokens": 64, "max_step_tokens": 12}


@pytest.fixture
def pair(kit):
    return Pair(draft=Watched(kit.build(1)), target=Watched(kit.build(3)))


def essence(made):
    """A candidate without its cost."""
    return made.text, made.token_ids, made.finish


async def test_an_always_accepting_router_leaves_the_target_asleep(pair):
    policy = RouterPolicy(ScriptedScorer(value=lambda *_: 0.0), 0.5)
    trace = await solve(PROBLEM, pair, policy, setting(**LIMITS))
    assert len(trace.steps) > 1
    assert pair.target.sessions == []
    assert len(pair.draft.made) == len(trace.steps)
    alone = await solve(PROBLEM, pair, DraftOnly(), setting(**LIMITS))
    assert trace.text == alone.text


@pytest.mark.parametrize("source", Source)
async def test_own_ids_are_kept_as_generated(pair, source):
    policy = DraftOnly() if source is Source.DRAFT else TargetOnly()
    trace = await solve(PROBLEM, pair, policy, setting(**LIMITS))
    engine = pair.engine(source)
    async with opened(engine.engine, PROBLEM, source) as fresh:
        prompt = fresh.token_ids
    (session,) = engine.sessions
    assert session.token_ids == (*prompt, *chain(*(made.token_ids for made in engine.made)))
    assert trace.text == "".join(made.text for made in engine.made)
    assert {step.source for step in trace.steps} == {source}


async def test_every_step_ends_for_the_reason_it_gives(pair, kit):
    for problem in PROBLEMS:
        await solve(problem, pair, TargetOnly(), setting(**LIMITS))
    finishes = {made.finish for made in pair.target.made}
    assert finishes <= {Finish.STEP_END, Finish.END_OF_SEQUENCE, Finish.TOKEN_LIMIT}
    assert finishes >= {Finish.STEP_END, Finish.END_OF_SEQUENCE}
    for made in pair.target.made:
        assert ("\n\n" in made.text) == (made.finish is Finish.STEP_END)
        assert made.cost.num_generated == made.num_tokens + (made.finish is Finish.END_OF_SEQUENCE)
        assert made.num_tokens <= LIMITS["max_step_tokens"]
        assert made.logprobs is not None or not kit.tells_likelihood
        assert made.logprobs is None or len(made.logprobs) == made.num_tokens
        assert all(value <= 1e-5 for value in made.logprobs or ())


@pytest.mark.parametrize("policy", [RandomEscalation(0.5), TargetOnly()], ids=lambda policy: policy.name)
async def test_a_solution_does_not_depend_on_its_neighbours(pair, policy):
    wanted = setting(**LIMITS, sampling=Sampling(temperature=1.0), seed=3)
    several = PROBLEMS[:4]
    alone = {p.id: await solve(p, pair, policy, wanted) for p in several}
    together = await asyncio.gather(*(solve(p, pair, policy, wanted) for p in reversed(several)))
    assert {t.problem.id: t.text for t in together} == {id: t.text for id, t in alone.items()}
    assert len({t.text for t in together}) > 1


@pytest.mark.parametrize(
    "policy",
    [RandomEscalation(0.5), Oracle(ScriptedScorer(value=lambda i, c: len(c.text) % 3 / 2), 0.0)],
    ids=lambda policy: policy.name,
)
async def test_computed_and_cached_tokens_add_up_to_the_prompt(pair, policy, kit):
    await solve(PROBLEM, pair, policy, setting(**LIMITS))
    for engine in (pair.draft, pair.target):
        prompts = [made.cost.num_computed + made.cost.num_cached for made in engine.made]
        assert prompts == engine.prompt_lengths
        assert kit.remembers or engine.made[0].cost.num_cached == 0
        assert all(made.cost.num_calls == 1 for made in engine.made)


async def test_only_what_is_new_is_computed(kit):
    async with opened(kit.build(1), PROBLEM) as session:
        own = await session.propose(request(12))
        again = await session.propose(request(12))
        assert essence(again) == essence(own)
        assert again.cost.num_computed <= kit.block
        for step in (own, candidate("A foreign step.\n\n")):
            known = len(session.token_ids)
            await session.commit(step)
            made = await session.propose(request(12))
            assert 0 < made.cost.num_computed <= len(session.token_ids) - known + kit.block - 1


async def test_a_foreign_step_is_encoded_once(kit, monkeypatch):
    engine, encoded = kit.build(1), []
    model = getattr(engine, "target", engine)  # A target that guesses reads by the engine that it wraps.
    encode = type(model).encode
    foreign = candidate("She has 3 stamps \u2014 \u00e9.\n\n", Source.DRAFT)
    async with opened(engine, PROBLEM) as session:
        prompt = session.token_ids
        monkeypatch.setattr(type(model), "encode", lambda self, text: encoded.append(text) or encode(self, text))
        await session.commit(foreign)
        for _ in range(2):
            await session.commit(await session.propose(request(4)))
        assert encoded == [foreign.text]
        assert session.token_ids[len(prompt) :][: len(encode(model, foreign.text))] == tuple(
            encode(model, foreign.text)
        )


async def test_proposing_commits_nothing(kit):
    async with opened(kit.build(1), PROBLEM) as session:
        before = session.token_ids
        made = await session.propose(request(12))
        assert session.token_ids == before
        await session.commit(made)
        assert session.token_ids == (*before, *made.token_ids)


async def test_a_session_that_goes_back_writes_the_same_again(kit):
    engine = kit.build(1)
    async with opened(engine, PROBLEM) as session:
        if not isinstance(session, Rewindable):
            pytest.skip("opened anew instead")
        steps, lengths = [await session.propose(request(12)), candidate("A foreign step.\n\n")], []
        for step in steps:
            lengths.append(len(session.token_ids))
            await session.commit(step)
        third = await session.propose(request(12))
        await session.rewind(0)
        assert essence(await session.propose(request(12))) == essence(third)
        await session.rewind(2)
        assert len(session.token_ids) == lengths[0]
        again = await session.propose(request(12))
        assert essence(again) == essence(steps[0])
        assert again.cost.num_computed <= kit.block or engine.is_strict  # It repeats its forward passes.
        for step in steps:
            await session.commit(step)
        await session.rewind(1)
        assert len(session.token_ids) == lengths[1]
        await session.commit(steps[1])
        assert essence(await session.propose(request(12))) == essence(third)


@pytest.mark.parametrize("is_own", [True, False], ids=["own", "foreign"])
async def test_drafting_ahead_equals_committing_first(kit, is_own):
    engine = kit.build(0)
    async with opened(engine, PROBLEM) as ahead, opened(engine, PROBLEM) as plain:
        step = await plain.propose(request(12)) if is_own else candidate("A foreign step.\n\n")
        early = await ahead.propose(request(12, after=step))
        await plain.commit(step)
        late = await plain.propose(request(12))
        assert essence(early) == essence(late)
        await ahead.commit(step)
        assert ahead.token_ids == plain.token_ids
        assert essence(await ahead.propose(request(12))) == essence(late)


async def test_a_rejected_look_ahead_leaves_no_trace(kit):
    engine = kit.build(0)
    async with opened(engine, PROBLEM) as session:
        first = await session.propose(request(12))
        await session.propose(request(12, after=first))
        assert essence(await session.propose(request(12))) == essence(first)


async def test_a_cancelled_proposal_leaves_the_session_usable(kit):
    engine = kit.build(1)
    async with opened(engine, PROBLEM) as session, opened(engine, PROBLEM) as other:
        whole = await other.propose(request(12))
        for one in (session, other):
            await one.commit(whole)
        wanted = await other.propose(request(12))
        assert wanted.num_tokens >= 2
        before = session.token_ids
        with kit.slowed(engine):
            task = asyncio.create_task(session.propose(request(12)))
            await asyncio.sleep(0.015)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert session.token_ids == before
        assert essence(await session.propose(request(12))) == essence(wanted)


@pytest.mark.parametrize("cut", [None, 0, 2], ids=["agreeing", "disagreeing", "part"])
async def test_proposals_change_the_cost_but_not_the_step(kit, cut):
    async with opened(kit.build(3), PROBLEM) as plain:
        wanted = await plain.propose(request(12))
    assert wanted.num_tokens > 2
    ids = wanted.token_ids if cut is None else wanted.token_ids[:cut]
    other = (*ids, wanted.token_ids[0] + 1, *wanted.token_ids[len(ids) + 1 :]) if cut is not None else ids
    async with opened(kit.build(3), PROBLEM) as session:
        made = await session.propose(request(12, proposal=replace(wanted, token_ids=other)))
        assert essence(made) == essence(wanted)
        assert made.cost.num_generated == wanted.cost.num_generated
        if kit.verifies:
            assert made.cost.num_reused >= (wanted.num_tokens - 1 if cut is None else cut)
        assert wanted.cost.num_reused == 0
        await session.commit(made)
        assert (await session.propose(request(12))).cost.num_computed <= made.num_tokens + kit.block - 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_steps_made_together_are_those_made_alone(kit, temperature):
    async with opened(kit.build(3), PROBLEM) as session, opened(kit.build(3), PROBLEM) as alone:
        for _ in range(3):
            asked = request(12, temperature=temperature)
            together = await session.propose_many(asked, [3, 4, 5])
            single = [await alone.propose(replace(asked, seed=seed)) for seed in (3, 4, 5)]
            assert [essence(made) for made in together] == [essence(made) for made in single]
            for a, b in zip(together, single, strict=True):
                if a.logprobs is not None and b.logprobs is not None:
                    assert a.logprobs == pytest.approx(b.logprobs, abs=kit.tolerance)
                assert (a.first_entropy is None) is (b.first_entropy is None)
                if a.first_entropy is not None:
                    assert a.first_entropy == pytest.approx(b.first_entropy, abs=1e-4)
                assert a.cost.num_computed + a.cost.num_cached == len(session.token_ids)
            for one in (session, alone):
                await one.commit(single[0])


async def test_own_steps_are_as_likely_as_they_said_and_others_less(kit):
    if not kit.tells_likelihood:
        pytest.skip("this server cannot say how likely a given text is")
    async with opened(kit.build(3), PROBLEM) as session:
        for _ in range(3):
            before = session.token_ids
            own = await session.propose(request(12))
            read = await session.likelihood(own)
            assert read.logprobs == pytest.approx(own.logprobs, abs=kit.tolerance)
            other = await session.likelihood(candidate("A foreign step.\n\n"))
            assert sum(other.logprobs) < sum(read.logprobs)
            assert read.cost.num_computed <= own.num_tokens + kit.block
            assert (read.cost.num_calls, read.cost.num_generated) == (1, 0)
            assert session.token_ids == before
            await session.commit(own)
        assert (await session.likelihood(candidate(""))).logprobs == ()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_reading_a_step_changes_no_later_one(kit, temperature):
    if not kit.tells_likelihood:
        pytest.skip("this server cannot say how likely a given text is")
    engine = kit.build(3)
    async with opened(engine, PROBLEM) as session, opened(engine, PROBLEM) as alone:
        foreign = candidate("A foreign step.\n\n")
        for proposal in (None, foreign, foreign):
            asked = request(12, temperature=temperature)
            await session.likelihood(foreign)
            made = await session.propose(replace(asked, proposal=proposal))
            assert essence(made) == essence(await alone.propose(asked))
            for one in (session, alone):
                await one.commit(made)


async def test_closing_twice_is_safe(kit):
    session = await kit.build(0).open(PROBLEM, Source.TARGET)
    await session.propose(request(4))
    await session.close()
    await session.close()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_the_parts_of_a_step_join_to_its_text_and_change_nothing(kit, temperature, monkeypatch):
    monkeypatch.setattr(text_parts, "INTERVAL_S", 0.0)
    async with opened(kit.build(3), PROBLEM) as session, opened(kit.build(3), PROBLEM) as plain:
        proposal, numbers = None, []
        for max_tokens in (12, 12, 3, 1, 12):
            asked, parts = request(max_tokens, temperature=temperature, proposal=proposal), []
            made = await session.propose(replace(asked, on_text=parts.append))
            assert "".join(parts) == made.text
            assert all(part and not part.endswith("\ufffd") for part in parts[:-1])
            numbers.append(len(parts))
            assert essence(made) == essence(await plain.propose(asked))
            proposal = candidate("A foreign step.\n\n")
            for one in (session, plain):
                await one.commit(made)
        assert max(numbers) > 1 or not kit.streams


async def test_parts_of_a_fast_model_are_sent_together(kit, monkeypatch):
    monkeypatch.setattr(text_parts, "INTERVAL_S", 1000.0)
    async with opened(kit.build(3), PROBLEM) as session:
        for _ in range(3):
            parts = []
            made = await session.propose(request(12, on_text=parts.append))
            assert "".join(parts) == made.text
            await session.commit(made)


async def test_only_a_step_that_is_sure_to_be_kept_is_shown_early(pair):
    shown, lengths = [], []
    policy = RandomEscalation(0.5)

    def watch(trace):
        lengths.append(len(shown))

    trace = await solve(
        PROBLEM, pair, policy, setting(**LIMITS), watch=watch, on_text=lambda source, text: shown.append((source, text))
    )
    escalated = [step for step in trace.steps if step.source is Source.TARGET]
    assert escalated
    assert {source for source, _ in shown} == {Source.TARGET}
    assert "".join(text for _, text in shown) == "".join(step.text for step in escalated)
    assert trace.text == (await solve(PROBLEM, pair, policy, setting(**LIMITS))).text


async def test_no_part_arrives_after_a_cancellation(kit):
    engine, parts = kit.build(1), []
    async with opened(engine, PROBLEM) as session, opened(engine, PROBLEM) as other:
        whole = await other.propose(request(12))
        for one in (session, other):
            await one.commit(whole)
        wanted = await other.propose(request(12))
        with kit.slowed(engine):
            task = asyncio.create_task(session.propose(request(12, on_text=parts.append)))
            await asyncio.sleep(0.015)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        num_parts = len(parts)
        await asyncio.sleep(0.02)
        assert len(parts) == num_parts
        assert wanted.text.startswith("".join(parts))
