"""Repair: which tokens of the draft's step stay, and how a step with two authors is counted and shown."""

import json
import math
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

import pytest

from arbitrage.cli.show import step_line
from arbitrage.core.errors import ConfigError
from arbitrage.core.solve import solve
from arbitrage.core.trace import Trace
from arbitrage.core.turn import Pair
from arbitrage.core.types import Source
from arbitrage.evaluation.figures.metrics import figures_of
from arbitrage.evaluation.running.solutions import Fates, StepFacts, TracePosition, condense
from arbitrage.policies import Repair
from arbitrage.policies.repair import first_unlikely
from arbitrage.scorers.scripted import ScriptedScorer
from helpers import PROBLEM, candidate, entry_of, scripted, setting, solved, step, written

DRAFT, TARGET = Source.DRAFT, Source.TARGET
ROUTER = ScriptedScorer(value=lambda i, _: 0.9 if i else 0.1, name="router")
"""Rejects every step but the first."""
DRAFTS = ("one one", "two and two is five , I think", "three is three", "wrong")
TARGETS = ("ONE", "two and two is four , I think", "three is three", "four is right")


async def repaired(on_text=None, **values):
    draft, target = scripted(*DRAFTS), scripted(*TARGETS)
    target.vocabulary = draft.vocabulary
    pair = Pair(draft=draft, target=target)
    trace = await solve(PROBLEM, pair, Repair(ROUTER, 0.5, 0.5), setting(**values), on_text=on_text)
    return trace, target


async def test_only_the_tokens_behind_the_first_unlikely_one_are_written_anew():
    trace, target = await repaired()
    assert [s.text for s in trace.steps] == [
        "one one\n\n",
        "two and two is four , I think\n\n",
        "three is three\n\n",
        "four is right",
    ]
    assert [s.source for s in trace.steps] == [DRAFT, TARGET, DRAFT, TARGET]
    second, third = trace.steps[1:3]
    assert second.candidate.parts == ((DRAFT, "two and two is"), (TARGET, " four , I think\n\n"))
    assert (second.candidate.num_taken, second.candidate.num_written) == (4, 5)
    assert second.candidate.cost.num_generated == 5
    assert third.decision.score == 0.9
    # The target reads three steps and writes two: the third has nothing to object to, and of the last nothing stays.
    assert len(target.calls) == 2
    assert [score.scorer for score in third.scores] == ["router", "likelihood"]
    assert third.scores[1].logprobs == (0.0,) * third.candidate.num_tokens
    assert trace.steps[3].candidate.num_taken == 0


async def test_each_part_is_shown_as_its_authors():
    shown = []
    await repaired(lambda author, text: shown.append((author, text)))
    parts = [(author, "".join(text for _, text in group)) for author, group in groupby(shown, key=itemgetter(0))]
    assert parts == [(DRAFT, "two and two is"), (TARGET, " four , I think\n\nfour is right")]


async def test_tokens_are_counted_by_their_authors():
    trace, _ = await repaired()
    fates = [Fates.of(one) for one in trace.steps]
    assert [(f.draft_accepted, f.draft_discarded, f.target_kept, f.target_discarded) for f in fates] == [
        (3, 0, 0, 0),
        (4, 5, 5, 0),
        (4, 0, 0, 0),
        (0, 1, 3, 0),
    ]
    assert trace.acceptance_rate == 0.5
    assert trace.target_token_share == 8 / 19
    assert trace.usage["target"].num_generated == 5 + 3 + 1
    assert [StepFacts.of(one).num_target_tokens for one in trace.steps] == [0, 5, 0, 3]
    figures = figures_of(entry_of("repair"), [condense(trace, TracePosition(entry=entry_of("repair")))], None)
    assert (figures.acceptance_rate, figures.repair_rate) == (0.5, 0.25)
    assert figures.token_acceptance_rate == 11 / 19


async def test_a_proposal_is_used_only_if_the_setting_says_so():
    (with_rest, target), (alone, plain) = await repaired(), await repaired(use_proposals=False)
    assert with_rest.text == alone.text
    assert [call.num_taken for call in target.calls] == [call.num_taken for call in plain.calls] == [4, 0]
    assert target.calls[0].proposal.num_tokens > plain.calls[0].proposal.num_tokens == 4
    assert plain.calls[1].proposal is None


async def test_a_step_with_two_authors_survives_its_file():
    trace, _ = await repaired()
    record = json.loads(json.dumps(trace.to_json()))
    assert Trace.from_json(record) == trace
    for one in record["steps"]:
        del one["decision"]["num_taken"]
        for part in one["candidates"]:
            del part["num_taken"], part["num_taken_chars"]
        for score in one["scores"]:
            del score["logprobs"]
    earlier = Trace.from_json(record)
    assert earlier.text == trace.text
    assert earlier.target_token_share > trace.target_token_share


async def test_a_terminal_shows_both_authors():
    trace, _ = await repaired()
    line = step_line(trace.steps[1])
    assert "two and two is four , I think" in line.plain
    assert "9 tokens, 4 by the draft" in line.plain
    colours = {str(span.style) for span in line.spans}
    assert {"cyan", "magenta"} <= colours


def test_wasted_tokens_are_those_that_the_target_wrote():
    kept = replace(written(TARGET, 10), num_taken=6, num_taken_chars=1)
    drafted = written(DRAFT, 8)
    fates = Fates.of(step(kept, drafted))
    assert (fates.draft_accepted, fates.draft_discarded, fates.target_kept) == (6, 2, 4)
    trace = solved(step(kept, drafted), answer="7")
    assert trace.target_token_share == 4 / 11


@pytest.mark.parametrize(
    ("probabilities", "epsilon", "cut"),
    [((0.9, 0.2, 0.05), 0.1, 2), ((0.05, 0.9), 0.1, 0), ((0.9, 0.1), 0.1, None), ((1e-9,), 0.0, None), ((), 0.5, None)],
)
def test_the_first_unlikely_token_is_the_first_below_epsilon(probabilities, epsilon, cut):
    assert first_unlikely([math.log(p) for p in probabilities], epsilon) == cut


@pytest.mark.parametrize("values", [(1.5, 0.1), (0.1, -0.1)])
def test_numbers_out_of_range_are_refused(values):
    with pytest.raises(ConfigError, match=r"(threshold|epsilon) must be in \[0, 1\]"):
        Repair(ROUTER, *values)


def test_only_steps_with_two_authors_have_ids_of_both():
    own = candidate("a", DRAFT)
    assert own.has_ids_of(DRAFT)
    assert not own.has_ids_of(TARGET)
    both = replace(own, source=TARGET, num_taken=1)
    assert both.has_ids_of(DRAFT)
    assert both.has_ids_of(TARGET)
    assert not replace(own, token_ids=()).has_ids_of(DRAFT)
