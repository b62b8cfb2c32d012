"""A step that begins with another model's tokens, on every engine."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from arbitrage.core.solve import solve
from arbitrage.core.turn import Pair
from arbitrage.core.types import Finish, Problem, Source
from arbitrage.engines import text_parts
from arbitrage.policies import Repair
from arbitrage.policies.repair import READER
from arbitrage.scorers.scripted import ScriptedScorer
from helpers import Watched, candidate, opened, request, setting, total

PROBLEM = Problem(id="p1", question="Mia has 1 stamps and 7 marbles.")
LIMITS = {"max_tokens": 64, "max_step_tokens": 12}
ALWAYS = ScriptedScorer(value=lambda *_: 1.0)


def share_vocabulary(*engines):
    """Scripted engines number tokens as they meet them; the others of a kit share a tokenizer."""
    for engine in engines:
        if hasattr(engine, "vocabulary"):
            engine.vocabulary = engines[0].vocabulary


class Lenient:
    """Reads as the target does, but finds the first two tokens certain: random models agree on none."""

    name = READER.name

    async def open(self, solution):
        session = await READER.open(solution)
        read = session.score

        async def score(step):
            read_step = await read(step)
            return replace(read_step, logprobs=(0.0, 0.0, *read_step.logprobs[2:]))

        return SimpleNamespace(score=score, commit=session.commit, close=session.close)


def essence(made):
    return made.text, made.token_ids, made.finish


async def test_a_step_that_goes_on_from_its_own_beginning_is_the_same_step(kit):
    async with opened(kit.build(3), PROBLEM) as session:
        for num_taken in (1, 3):
            wanted = await session.propose(request(12))
            assert wanted.num_tokens > num_taken
            prompt = len(session.token_ids)
            made = await session.propose(request(12, proposal=wanted, num_taken=num_taken))
            assert essence(made) == essence(wanted)
            assert (made.num_taken, made.num_written) == (num_taken, wanted.num_tokens - num_taken)
            assert made.text[: made.num_taken_chars] == made.parts[0][1]
            assert made.cost.num_generated == wanted.cost.num_generated - num_taken
            assert made.cost.num_computed + made.cost.num_cached == prompt + num_taken
            if kit.tells_likelihood:
                assert made.logprobs == pytest.approx(wanted.logprobs, abs=kit.tolerance)
            await session.commit(made)
            assert session.token_ids[prompt:] == made.token_ids


@pytest.mark.parametrize("uses_proposals", [True, False])
async def test_a_repaired_step_keeps_the_ids_of_both_authors(kit, uses_proposals):
    if not kit.tells_likelihood:
        pytest.skip("this server cannot say how likely a given text is")
    engines = kit.build(1), kit.build(3)
    share_vocabulary(*engines)
    pair = Pair(draft=Watched(engines[0]), target=Watched(engines[1]))
    rule = Repair(ALWAYS, 0.5, 0.5, reader=Lenient())
    trace = await solve(PROBLEM, pair, rule, setting(**LIMITS, use_proposals=uses_proposals))
    repaired = [step for step in trace.steps if step.candidate.num_taken]
    assert repaired
    for step in repaired:
        kept, (draft, *_) = step.candidate, step.candidates
        (first, taken), (second, rest) = kept.parts
        assert (first, second, step.source) == (Source.DRAFT, Source.TARGET, Source.TARGET)
        assert taken + rest == kept.text
        assert draft.text.startswith(taken)
        assert draft.token_ids[: kept.num_taken] == kept.token_ids[: kept.num_taken]
        assert kept.logprobs[: kept.num_taken] == draft.logprobs[: kept.num_taken]
        assert len(kept.logprobs) == kept.num_tokens
        assert kept.cost.num_generated == kept.num_written + (kept.finish is Finish.END_OF_SEQUENCE)
        assert kept.num_tokens <= LIMITS["max_step_tokens"]
    for engine in (pair.draft, pair.target):
        (session,) = engine.sessions
        ids = session.token_ids
        for step in repaired:
            assert any(ids[i : i + step.candidate.num_tokens] == step.candidate.token_ids for i in range(len(ids)))
    generated = total(made.cost for made in pair.target.made).num_generated
    assert trace.usage["target"].num_generated == generated


async def test_a_cut_inside_a_character_moves_back_to_a_whole_one(kit):
    engine = kit.build(3)
    encode = getattr(engine, "target", engine).encode
    text = "7 \U0001f9ee\u2014\u00e9 = x"
    given = candidate(text, Source.TARGET, token_ids=tuple(encode(text)))
    for cut in range(1, given.num_tokens):
        async with opened(engine, PROBLEM) as session:
            made = await session.propose(request(40, proposal=given, num_taken=cut))
        taken = made.text[: made.num_taken_chars]
        assert made.num_taken <= cut
        assert text.startswith(taken)
        assert made.token_ids[: made.num_taken] == given.token_ids[: made.num_taken]
        assert made.num_taken == cut or cut - made.num_taken < 4


async def test_a_delimiter_may_begin_before_the_cut(kit, monkeypatch):
    engine = kit.build(3)
    model = getattr(engine, "target", engine)
    line_feed = model.encode("\n") if hasattr(model, "picker") else []
    if len(line_feed) != 1:
        pytest.skip("what the engine writes next cannot be chosen")
    monkeypatch.setattr(model, "picker", lambda sampling, seed: lambda row: (line_feed[0], row.max()))
    ids = (*model.encode("7 is right."), *line_feed)
    given = candidate("7 is right.\n", Source.TARGET, token_ids=(*ids, 5))
    async with opened(engine, PROBLEM) as session:
        made = await session.propose(request(40, proposal=given, num_taken=len(ids)))
    assert (made.text, made.finish) == ("7 is right.\n\n", Finish.STEP_END)
    assert made.num_written == 1


async def test_the_first_part_of_a_repaired_step_is_its_beginning(kit, monkeypatch):
    monkeypatch.setattr(text_parts, "INTERVAL_S", 0.0)
    async with opened(kit.build(3), PROBLEM) as session:
        given = await session.propose(request(12))
        for num_taken in range(1, given.num_tokens):
            parts = []
            made = await session.propose(request(12, proposal=given, num_taken=num_taken, on_text=parts.append))
            assert parts[0] == made.text[: made.num_taken_chars]
            assert "".join(parts) == made.text


async def test_a_beginning_leaves_room_for_one_token(kit):
    async with opened(kit.build(3), PROBLEM) as session:
        wanted = await session.propose(request(12))
        made = await session.propose(request(4, proposal=replace(wanted), num_taken=wanted.num_tokens))
        assert made.num_taken <= 3
        assert made.num_tokens <= 4


async def test_a_step_that_is_given_up_can_be_completed_to_the_whole_one(kit):
    async with opened(kit.build(3), PROBLEM) as session, opened(kit.build(3), PROBLEM) as plain:
        for _ in range(2):
            wanted = await plain.propose(request(12))
            assert wanted.num_tokens > 3
            seen = []
            made = await session.propose(request(12, stop=lambda p, seen=seen: seen.append(p) or p.num_tokens == 2))
            if not seen:
                pytest.skip("a step that a server writes is not stopped")
            assert [p.num_tokens for p in seen] == [1, 2]
            assert made.finish is Finish.GIVEN_UP
            assert made.token_ids == wanted.token_ids[:2]
            assert made.cost.num_generated == 2
            assert seen[-1].logprob == pytest.approx(min(sum(wanted.logprobs[:2]), wanted.logprobs[0]), abs=1e-3)
            assert seen[-1].first_entropy == pytest.approx(wanted.first_entropy, abs=1e-3)
            whole = await session.propose(request(12, proposal=made, num_taken=2))
            assert essence(whole) == essence(wanted)
            assert whole.cost.num_generated == wanted.cost.num_generated - 2
            for one in (session, plain):
                await one.commit(wanted)
