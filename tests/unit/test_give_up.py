"""The draft stops within a step that the rule rejects however it goes on; decisions and texts stay the same."""

import math

import pytest

from arbitrage.core.solve import solve
from arbitrage.core.turn import Pair
from arbitrage.core.types import Finish, Progress, Sampling, Source
from arbitrage.evaluation.floors import floor_of
from arbitrage.evaluation.running.solutions import Fates
from arbitrage.policies import Confidence, Repair, RouterPolicy
from arbitrage.scorers.scripted import ScriptedScorer
from helpers import PROBLEM, scripted, setting

DRAFT, TARGET = Source.DRAFT, Source.TARGET
STEPS = ("two and two is five , surely", "so it is four or five", "done and done")
TARGETS = ("two and two is four , I think", "so it is four or five", "done")


class Bounded(ScriptedScorer):
    """Scores 0.9 below a log-probability of -3, and knows it within the step."""

    def lowest(self, progress):
        return 0.9 if progress.logprob < -3.0 else 0.0


ROUTER = Bounded(value=lambda _, c: 0.9 if sum(c.logprobs) < -3.0 else 0.1, name="router")


def unsure(token):
    return -4.0 if "five" in token or "it" in token else -0.01


async def solved(rule, **values):
    draft, target = scripted(*STEPS, logprob=unsure), scripted(*TARGETS)
    target.vocabulary = draft.vocabulary
    return await solve(PROBLEM, Pair(draft=draft, target=target), rule, setting(**values))


def essence(trace):
    return [(s.text, s.source, s.candidate.num_taken_chars) for s in trace.steps]


def drafted(trace):
    return sum((Fates.of(step) for step in trace.steps), Fates())


async def test_a_router_that_is_sure_stops_the_draft_and_changes_no_text():
    on, off = await solved(RouterPolicy(ROUTER, 0.5)), await solved(RouterPolicy(ROUTER, 0.5), gives_up=False)
    assert essence(on) == essence(off)
    first = on.steps[0].candidates[0]
    assert (first.finish, first.text) == (Finish.GIVEN_UP, "two and two is five")
    assert on.steps[0].source is TARGET
    assert on.steps[0].decision.score == 0.9
    assert on.steps[0].scores == ()
    assert drafted(on).draft_discarded < drafted(off).draft_discarded
    assert on.usage["draft"].num_generated == drafted(on).draft_discarded + drafted(on).draft_accepted + 1


async def test_a_repair_completes_a_step_that_the_target_does_not_object_to():
    rule = Repair(ROUTER, 0.5, 0.5)
    on, off = await solved(rule), await solved(rule, gives_up=False)
    assert [(s.text, s.source) for s in on.steps] == [(s.text, s.source) for s in off.steps]
    assert [s.text for s in on.steps] == ["two and two is four , I think\n\n", "so it is four or five\n\n", STEPS[2]]
    repaired, completed = on.steps[0], on.steps[1]
    assert repaired.candidate.parts[0] == (DRAFT, "two and two is")
    assert repaired.candidates[0].finish is Finish.GIVEN_UP
    assert completed.source is DRAFT
    begun, whole = completed.candidates
    assert begun.finish is Finish.GIVEN_UP
    assert whole.text.startswith(begun.text)
    assert whole.num_written == whole.num_tokens - begun.num_tokens
    # No token of a completed step is lost, and none is counted twice.
    assert Fates.of(completed).draft_accepted == whole.num_tokens
    assert Fates.of(completed).draft_discarded == 0


async def test_a_sampled_step_is_not_given_up_by_repair():
    trace = await solved(Repair(ROUTER, 0.5, 0.5), sampling=Sampling(temperature=1.0))
    assert all(c.finish is not Finish.GIVEN_UP for step in trace.steps for c in step.candidates)


@pytest.mark.parametrize(("logprob", "is_rejected"), [(-0.9, False), (-1.1, True)])
def test_confidence_gives_up_only_where_certain_tokens_would_not_help(logprob, is_rejected):
    progress = Progress(num_tokens=3, max_tokens=10, logprob=logprob, first_entropy=0.0)
    assert Confidence(math.exp(-0.1))._is_rejected(progress) is is_rejected


async def test_confidence_gives_up_and_decides_the_same():
    rule = Confidence(0.9)
    on, off = await solved(rule, max_step_tokens=20), await solved(rule, max_step_tokens=20, gives_up=False)
    assert essence(on) == essence(off)
    assert any(c.finish is Finish.GIVEN_UP for step in on.steps for c in step.candidates)


def test_a_floor_is_the_highest_bound_below_which_nearly_all_steps_are_rejected():
    steps = [(-5.0 + i / 10, 0.9) for i in range(40)] + [(-1.0 + i / 50, 0.0) for i in range(50)]
    floor = dict(floor_of(steps, purity=1.0))
    assert floor[0.505] == pytest.approx(-1.1)
    assert floor_of(steps[:20], purity=0.9) == ()
    assert floor_of([(-1.0, 0.0)] * 100, purity=0.9) == ()
