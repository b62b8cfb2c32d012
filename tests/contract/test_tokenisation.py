"""No id changes by passing through a session, whoever wrote the step and with whichever tokenizer."""

import asyncio
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import vocabularies
from arbitrage.core.delimiter import step_end
from arbitrage.core.solve import solve
from arbitrage.core.turn import Pair
from arbitrage.core.types import Finish, Sampling, Source
from arbitrage.engines.hf import HFEngine
from arbitrage.engines.prompt import PlainPrompt
from arbitrage.engines.tokens import TokenText
from arbitrage.policies import RandomEscalation, TargetOnly
from helpers import PROBLEM, Watched, candidate, opened, request, setting

END = "<|end|>"
BOUNDARIES = ["\n\n", ".\n\n", "\n\n\n", ":\n\n\n", " \n\n", ".\n", "\n", "\r\n"]
PIECES = [*BOUNDARIES, *" \t.,:)!=+-0127", "step", " the", "x=10", "\u00e9", "\u20ac", "\U0001f600", "\u4e2d", "\u0301"]
"""What steps are made of here: line ends of every kind, digits, characters of one to four bytes, one that combines."""
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
PROPERTY = settings(max_examples=25)


@pytest.fixture(scope="session")
def bpe():
    """Qwen's kind: single digits; punctuation swallows the newlines behind it."""
    return vocabularies.byte_bpe(END, texts=[*vocabularies.TEXTS, *BOUNDARIES])


@pytest.fixture(scope="session")
def other_bpe():
    """Llama-3's kind, other merges: numbers up to three digits, few whole words."""
    return vocabularies.byte_bpe(END, vocab_size=300, pattern=vocabularies.LLAMA3_PATTERN)


@pytest.fixture(scope="session")
def scribe(random_lm, bpe):
    """An engine on the first tokenizer, for sessions in which nothing is generated."""
    return HFEngine(random_lm(0, tokenizer=bpe), bpe, name="scribe", prompt=PlainPrompt())


def plain(text, tokenizer):
    return tokenizer.encode(text, add_special_tokens=False)


def prompt_of(engine):
    return engine.prompt.encode(engine.tokenizer, PROBLEM)


def chained(chain_lm, tokenizer, ids):
    """An engine that writes exactly these ids and then ends."""
    prompt = PlainPrompt()
    first = prompt.encode(tokenizer, PROBLEM)[-1]
    model = chain_lm(first, [*ids, tokenizer.eos_token_id], tokenizer=tokenizer)
    return HFEngine(model, tokenizer, name="chain", prompt=prompt)


def can_chain(tokenizer, ids):
    """The chain follows from the last id alone, so none may come twice, the prompt's last included."""
    first = PlainPrompt().encode(tokenizer, PROBLEM)[-1]
    return ids and max(Counter([first, tokenizer.eos_token_id, *ids]).values()) == 1


def test_the_vocabularies_merge_punctuation_and_newlines_and_differ(bpe, other_bpe):
    assert all(len(plain(text, bpe)) == 1 for text in ("\n\n", ".\n\n", "\n\n\n"))
    assert len(plain("100", bpe)) == 3 > len(plain("100", other_bpe))
    assert plain("The answer is", bpe) != plain("The answer is", other_bpe)
    # A boundary inside a token, one over two tokens, and a character over three.
    assert [bpe.decode(id) for id in plain("So.\n\nA", bpe)][-2:] == [".\n\n", "A"]
    assert len(plain("\r\n", bpe)) <= 2
    assert len(plain("\u4e2d", bpe)) == 3


# --- a session's ids ---------------------------------------------------------------------------------


@PROPERTY
@given(data=st.data())
def test_own_steps_keep_the_ids_that_were_written(scribe, data):
    """Any ids: also those that no encoding of the text would give, and halves of characters."""
    size = len(scribe.tokenizer)
    steps = data.draw(st.lists(st.lists(st.integers(1, size - 1), min_size=1, max_size=8), max_size=4))

    async def kept():
        async with opened(scribe, source=Source.TARGET) as session:
            for ids in steps:
                text = scribe.decode(ids, session.token_ids)
                await session.commit(candidate(text, Source.TARGET, token_ids=tuple(ids)))
            return list(session.token_ids)

    assert asyncio.run(kept()) == [*prompt_of(scribe), *(id for ids in steps for id in ids)]


@PROPERTY
@given(steps=st.lists(TEXTS, max_size=4))
@example(steps=["One.\n\n", "two\n\n\n", "  \n\n", "three."])
@example(steps=["a\n", "\nb", "\n", "\n\n"])
def test_foreign_steps_are_encoded_once_and_alone(scribe, steps):
    encoded = []

    async def kept():
        original, scribe.encode = scribe.encode, lambda text: (encoded.append(text), original(text))[1]
        try:
            async with opened(scribe, source=Source.TARGET) as session:
                for text in steps:
                    await session.commit(candidate(text, Source.DRAFT, token_ids=(1 << 30,)))
                return list(session.token_ids)
        finally:
            scribe.encode = original

    ids, prompt = asyncio.run(kept()), prompt_of(scribe)
    assert encoded == steps
    assert ids == prompt + [id for text in steps for id in plain(text, scribe.tokenizer)]
    assert scribe.tokenizer.decode(ids) == scribe.tokenizer.decode(prompt) + "".join(steps)


@PROPERTY
@given(steps=st.lists(st.tuples(st.sampled_from(list(Source)), TEXTS), max_size=5))
def test_a_session_only_grows(scribe, steps):
    async def seen():
        async with opened(scribe, source=Source.TARGET) as session:
            lengths = [list(session.token_ids)]
            for source, text in steps:
                ids = plain(text, scribe.tokenizer)[::-1]  # Not what encoding gives: it must come from the candidate.
                await session.commit(candidate(text, source, token_ids=tuple(ids)))
                lengths.append(list(session.token_ids))
            return lengths

    states = asyncio.run(seen())
    for (before, after), (source, text) in zip(pairwise(states), steps, strict=True):
        ids = plain(text, scribe.tokenizer)
        assert after == before + (ids[::-1] if source is Source.TARGET else ids)


@PROPERTY
@given(text=st.text("\u7287\u730b\u9a89\u946b\u00e9a ", min_size=1, max_size=12))
@example(text="\u7287\u730b\u9a89\u946b is seven.")
def test_a_context_that_begins_inside_a_character_spoils_no_text(text):
    """Where a token is a single byte, the bytes beside half a character could not be decoded either."""
    tokenizer = vocabularies.mistral()
    model, ids = TokenText(tokenizer, "mistral", PlainPrompt()), plain(text, tokenizer)
    for start in range(1, len(ids)):
        before = tokenizer.decode(ids[:start])
        if "\ufffd" not in before:
            assert before + model.decode(ids[start:], ids[:start]) == tokenizer.decode(ids)


# --- steps that a model writes -----------------------------------------------------------------------


def written(engine, max_step_tokens=512):
    watched = Watched(engine)
    pair = Pair(draft=watched, target=watched)
    trace = asyncio.run(solve(PROBLEM, pair, TargetOnly(), setting(max_step_tokens=max_step_tokens, max_idle_steps=99)))
    return trace, list(watched.sessions[0].token_ids)


@PROPERTY
@given(text=TEXTS)
@example(text="So.\n\nA")
@example(text="So\n\n\nA")
@example(text="So.\n\n \n\nA")
@example(text="\u20ac\n\n\U0001f600")
def test_what_a_model_writes_is_what_its_session_holds(chain_lm, bpe, text):
    ids = plain(text, bpe)
    assume(can_chain(bpe, ids))
    engine = chained(chain_lm, bpe, ids)
    trace, held = written(engine)
    assert [id for step in trace.steps for id in step.candidate.token_ids] == ids
    assert held == prompt_of(engine) + ids
    assert trace.text == text
    assert trace.finish is Finish.END_OF_SEQUENCE
    assert all(step_end(step.text, "\n\n") for step in trace.steps[:-1])


@pytest.mark.parametrize(
    ("pieces", "steps"),
    [
        (["So", ".\n\n", "A"], ["So.\n\n", "A"]),
        (["So", "\n\n\n", "A"], ["So\n\n\n", "A"]),
        (["So", ".\n", "\n", "A"], ["So.\n\n", "A"]),
        (["So", ".\n", "\n\n", "A"], ["So.\n\n\n", "A"]),
        (["So", "\n", "\n\n\n", "A"], ["So\n\n\n\n", "A"]),
        (["So", ".\n\n", " ", "\n\n", "A"], ["So.\n\n", " \n\n", "A"]),
        (["So", ".\n", "\r", "\n", "A"], ["So.\n\r\n", "A"]),
        (["So", "\n", " ", ".\n", "x", "\n\n", "A"], ["So\n .\nx\n\n", "A"]),
        (["So", ".\n", " \n", "A"], ["So.\n \n", "A"]),
        (["So", "\n", "\t", ".", "\n\n", "A"], ["So\n\t.\n\n", "A"]),
        (["So", ".\n", "\t\n", "A"], ["So.\n\t\n", "A"]),
    ],
    ids=[
        *("inside a token", "with a newline more", "over two tokens", "over two, one more", "over both", "white space"),
        *("carriage returns", "a line that is not empty", "a space", "a tab before text", "a tab"),
    ],
)
def test_steps_end_with_the_token_that_completes_the_delimiter(chain_lm, bpe, pieces, steps):
    """Also where the tokens are not those that encoding the text would give."""
    ids = [id for piece in pieces for id in plain(piece, bpe)]
    trace, held = written(chained(chain_lm, bpe, ids))
    assert [step.text for step in trace.steps] == steps
    assert held[-len(ids) :] == ids
    if " \n\n" in steps:
        assert trace.steps[steps.index(" \n\n")].finish is Finish.EMPTY_STEP


@PROPERTY
@given(text=st.text("\u00e9\u20ac\U0001f600\u4e2da", min_size=1, max_size=4), limit=st.integers(1, 6))
@example(text="\U0001f600\u20ac", limit=5)
@example(text="a\u4e2d", limit=3)
def test_a_token_limit_cuts_between_characters_and_loses_no_id(chain_lm, bpe, text, limit):
    ids = plain(text, bpe)
    assume(can_chain(bpe, ids))
    engine = chained(chain_lm, bpe, ids)

    async def steps():
        async with opened(engine) as session:
            made = []
            while not made or (made[-1].token_ids and made[-1].finish is Finish.TOKEN_LIMIT):
                made.append(await session.propose(request(limit)))
                await session.commit(made[-1])
            return made, list(session.token_ids)

    made, held = asyncio.run(steps())
    joined, read = [id for step in made for id in step.token_ids], "".join(step.text for step in made)
    assert held == prompt_of(engine) + joined
    assert joined == ids[: len(joined)]
    assert text.startswith(read)
    assert "\ufffd" not in read
    if limit >= 4:  # There is room for any character, so none stops the answer.
        assert read == text


# --- draft and target with different tokenizers ------------------------------------------------------


def pair_of(random_lm, bpe, other_bpe, numbers):
    def engine(number, tokenizer, name):
        return Watched(HFEngine(random_lm(number, tokenizer=tokenizer), tokenizer, name=name, prompt=PlainPrompt()))

    return Pair(draft=engine(numbers[0], other_bpe, "draft"), target=engine(numbers[1], bpe, "target"))


@settings(PROPERTY, max_examples=15)
@given(
    numbers=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    seed=st.integers(0, 99),
    temperature=st.sampled_from([0.0, 1.0, 3.0]),
    max_step_tokens=st.integers(1, 9),
    policy=st.sampled_from([RandomEscalation(0.3), RandomEscalation(0.7)]),
)
def test_the_answer_is_the_chosen_steps_and_every_session_holds_them(
    random_lm, bpe, other_bpe, numbers, seed, temperature, max_step_tokens, policy
):
    pair = pair_of(random_lm, bpe, other_bpe, numbers)
    limits = setting(
        max_steps=8, max_step_tokens=max_step_tokens, max_idle_steps=99, seed=seed,
        sampling=Sampling(temperature=temperature),
    )  # fmt: skip
    trace = asyncio.run(solve(PROBLEM, pair, policy, limits))
    assert trace.finish is not Finish.FAILED
    assert trace.text == "".join(step.text for step in trace.steps)
    for source in Source:
        watched = pair.engine(source)
        for session in watched.sessions:
            wanted = prompt_of(watched.engine)
            for step in trace.steps:
                is_own = step.source is source and step.candidate.token_ids
                wanted += step.candidate.token_ids if is_own else plain(step.text, watched.engine.tokenizer)
            assert list(session.token_ids) == wanted
            assert watched.engine.tokenizer.decode(wanted).endswith(trace.text)
    for step in trace.steps:
        engine = pair.engine(step.source).engine
        assert engine.tokenizer.decode(step.candidate.token_ids) == step.text


@PROPERTY
@given(text=TEXTS, limit=st.integers(1, 6))
@example(text="So.\n\n\U0001f600 is 100.\n\nA", limit=3)
def test_a_draft_of_other_tokens_reaches_the_target_byte_for_byte(chain_lm, random_lm, bpe, other_bpe, text, limit):
    """Steps cut by their token limit too: the target gets whole characters, each encoded in its own tokens."""
    ids = plain(text, other_bpe)
    assume(can_chain(other_bpe, ids))
    draft = chained(chain_lm, other_bpe, ids)
    target = Watched(HFEngine(random_lm(0, tokenizer=bpe), bpe, name="target", prompt=PlainPrompt()))

    async def passed_on():
        async with opened(draft, source=Source.DRAFT) as own, opened(target) as foreign:
            texts = []
            while True:
                step = await own.propose(request(limit))
                await own.commit(step)
                await foreign.commit(step)
                texts.append(step.text)
                if step.finish is Finish.END_OF_SEQUENCE or not step.token_ids:
                    return texts, list(own.token_ids), list(foreign.token_ids)

    texts, own, foreign = asyncio.run(passed_on())
    assert own == prompt_of(draft) + ids[: len(own) - len(prompt_of(draft))]
    assert foreign == prompt_of(target.engine) + [id for part in texts for id in plain(part, bpe)]
    assert bpe.decode(foreign[len(prompt_of(target.engine)) :]) == "".join(texts)
    assert text.startswith("".join(texts))
