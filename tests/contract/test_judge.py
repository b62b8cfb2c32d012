"""The target as a judge: its rating is what its own forward pass says, and costs no more than that."""

from itertools import pairwise

import pytest
import torch

from arbitrage.core.solve import solve
from arbitrage.core.turn import History, Pair
from arbitrage.core.types import Finish, Problem, Source
from arbitrage.engines.hf import HFEngine
from arbitrage.engines.prompt import ChatPrompt, PlainPrompt
from arbitrage.policies import Judge, TargetOnly
from arbitrage.scorers.judge import RATING, JudgeScorer
from helpers import Watched, candidate, setting

PROBLEM = Problem(id="p1", question="Compared to Leo Mia has 3 times as many stamps.")
STEPS = [
    candidate("Mia has 3 stamps.\n\n"),
    candidate("Leo has 4.\n\n", Source.TARGET, token_ids=()),
    candidate("So 7."),
]


@pytest.fixture
def target(random_lm, tokenizer):
    return HFEngine(random_lm(3, context=1024), tokenizer, name="hf")


@pytest.fixture
def judge(target):
    return JudgeScorer.of(target)


@pytest.fixture
def widths(target):
    """How many tokens went through the target in each forward pass."""
    assert target.widths_agree  # Measured by forward passes of its own, at the first question.
    found = []
    hook = target.model.register_forward_pre_hook(
        lambda module, args, kwargs: found.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    yield found
    hook.remove()


def from_scratch(target, steps, request):
    """The mean rating by a forward pass over the whole text."""
    ids = target.prompt.encode(target.tokenizer, PROBLEM)
    for step in steps[:-1]:
        ids = ids + target.encode(step.text)
    ids = ids + target.tokenizer.encode(steps[-1].text + request, add_special_tokens=False)
    digits = [target.encode(str(digit))[0] for digit in range(10)]
    with torch.inference_mode():
        weights = target.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1, digits].softmax(-1)
    return float((weights * torch.arange(10)).sum()) / 9


async def test_the_rating_is_read_off_one_distribution(target, judge, widths):
    history = History(PROBLEM, Pair(draft=target, target=target))
    session = await history.scoring(judge)
    for number, step in enumerate(STEPS):
        del widths[:]
        score = await session.score(step)
        assert len(widths) == 1
        assert score.cost.num_computed == widths[0]
        assert score.value == pytest.approx(from_scratch(target, STEPS[: number + 1], judge.request), abs=1e-5)
        await history.commit(step)
    await history.close()


async def test_a_rejected_step_was_read_once_and_the_target_writes_what_it_would(target, judge):
    draft, judged = Watched(target), Watched(target)
    limits = setting(max_tokens=40, max_step_tokens=10, max_idle_steps=99)
    alone = await solve(PROBLEM, Pair(draft=target, target=target), TargetOnly(), limits)
    trace = await solve(PROBLEM, Pair(draft=draft, target=judged), Judge(judge, 1.0), limits)
    assert trace.text == alone.text
    assert trace.acceptance_rate == 0.0
    assert all(made.cost.num_computed == 0 for made in judged.made)
    reads = [step.scores[0].cost for step in trace.steps]
    for step, (before, after) in zip(trace.steps, pairwise(reads), strict=False):
        assert after.num_cached >= before.num_cached + step.candidate.num_tokens - 1


@pytest.mark.parametrize("system", ["", "Be brief."])
def test_a_chat_is_asked_as_a_chat(tokenizer, system):
    asked = ChatPrompt(system).follow_up(tokenizer, RATING)
    assert asked == f"<|end|><|user|>{RATING}<|assistant|>"
    ids = tokenizer.encode(asked, add_special_tokens=False)
    assert [ids[0], ids[-1]] == tokenizer.convert_tokens_to_ids(["<|end|>", "<|assistant|>"])


def test_a_plain_prompt_is_asked_in_a_paragraph(tokenizer):
    assert PlainPrompt().follow_up(tokenizer, "Well?") == "\n\nWell?\n\n"


async def test_a_last_step_is_judged_too(target, judge):
    history = History(PROBLEM, Pair(draft=target, target=target))
    session = await history.scoring(judge)
    values = [(await session.score(candidate("So 7.", finish=finish))).value for finish in Finish]
    assert max(values) == pytest.approx(min(values), abs=1e-6)
    await history.close()
