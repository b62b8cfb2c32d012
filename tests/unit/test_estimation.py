"""Seconds that follow from the tokens of traces and the costs of a machine, and the files that hold such costs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from arbitrage.bench.by_hand import read_costs
from arbitrage.bench.costs import Figure, ModelCosts, PairCosts, Runtime, ScorerCosts, Settings, Timed
from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Cost, Decision, Source
from arbitrage.estimation.calls import Calls
from arbitrage.estimation.run import estimated
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.folder import trace_record
from helpers import candidate, score, solved, step

D, T = Source.DRAFT, Source.TARGET
RUNTIME = Runtime(engine="hf")
H100 = Path(__file__).parents[2] / "benchmarks" / "costs" / "h100-qwen2.toml"


def model(generated, prompt, passes, *, call=0.0, **values):
    return ModelCosts(
        name="m",
        runtime=RUNTIME,
        context_tokens=200,
        generated_ms=Figure.exactly(generated),
        call_ms=Figure.exactly(call),
        prompt_ms=Figure.exactly(prompt),
        verified=tuple(Timed(tokens=width, ms=Figure.exactly(ms)) for width, ms in passes.items()),
        **values,
    )


def pair(draft=None, target=None, **scorers):
    return PairCosts(
        pair="p",
        settings=Settings(),
        environment={"source": "a test"},
        draft=draft or model(1.0, 0.1, {1: 1.0, 4: 2.0, 8: 3.0}),
        target=target or model(10.0, 0.5, {1: 10.0, 4: 14.0, 8: 20.0}),
        scorers=scorers,
    )


def scorer(step_ms, token_ms, *, asks_target=False):
    scored = (Timed(tokens=8, ms=Figure.exactly(step_ms)),)
    return ScorerCosts(
        name="s", runtime=RUNTIME, asks_target=asks_target, scored=scored, token_ms=Figure.exactly(token_ms)
    )


def written(source, generated, computed=1, cached=100, seconds=0.0, **tokens):
    cost = Cost(
        num_calls=1, num_computed=computed, num_cached=cached, num_generated=generated, seconds=seconds, **tokens
    )
    return candidate("x", source, token_ids=tuple(range(generated)), cost=cost)


def calls(costs=None, **values):
    return Calls(costs=costs or pair(), **({"verifies_proposals": True} | values))


def ms(trace, costs=None, **values):
    """Milliseconds of a solution without those outside models."""
    return 1000.0 * calls(costs, outside_ms=0.0, **values).timed(trace).latency_s


def test_a_pass_is_interpolated_by_its_width():
    target = pair().target
    assert [target.pass_ms(n) for n in (0, 0.5, 1, 2.5, 4, 6, 8, 10)] == pytest.approx(
        [0.0, 10.0, 10.0, 12.0, 14.0, 17.0, 20.0, 21.0]
    )
    assert model(2.0, 0.5, {}).pass_ms(5) == pytest.approx(4.0)
    assert model(2.0, 0.5, {4: 99.0}, reads_whole_context=True).pass_ms(5) == pytest.approx(4.0)


def test_a_token_takes_a_pass_each():
    assert ms(solved(step(written(T, 6)))) == pytest.approx(60.0)
    assert ms(solved(step(written(D, 6)))) == pytest.approx(6.0)


def test_the_prefix_is_read_in_one_pass_that_gives_the_first_token():
    assert ms(solved(step(written(T, 6, computed=8)))) == pytest.approx(20.0 + 50.0)


def test_a_call_has_a_time_of_its_own():
    assert ms(solved(step(written(T, 6))), pair(target=model(10.0, 0.5, {}, call=3.0))) == pytest.approx(63.0)


def test_a_proposal_is_verified_with_the_prefix_and_its_tokens_cost_no_pass():
    rejected = written(D, 7)
    taken = solved(step(written(T, 7, num_reused=7), rejected))
    assert ms(taken) == pytest.approx(7.0 + 20.0)
    in_part = solved(step(written(T, 7, num_reused=3), rejected))
    assert ms(in_part) == pytest.approx(7.0 + 20.0 + 3 * 10.0)


def test_a_target_that_takes_no_proposals_verifies_none():
    plain = solved(step(written(T, 7), written(D, 7)))
    assert ms(plain, verifies_proposals=False) == pytest.approx(7.0 + 70.0)


def test_what_a_likelihood_has_read_takes_no_pass_again():
    drafted, read = written(D, 7), Cost(num_calls=1, num_computed=8, num_cached=100)
    scores = (replace(score("likelihood", D, 0.5), cost=read),)
    after = solved(step(written(T, 7, computed=0, num_reused=3), drafted, scores=scores))
    assert ms(after) == pytest.approx(7.0 + 20.0 + 3 * 10.0)


def test_where_widths_disagree_prefix_and_step_are_read_in_passes_of_their_own():
    read = Cost(num_calls=1, num_computed=8, num_cached=100)
    trace = solved(step(written(D, 5), scores=(replace(score("likelihood", D, 0.5), cost=read),)))
    assert ms(trace) == pytest.approx(5.0 + 20.0)
    assert ms(trace, verifies_proposals=False) == pytest.approx(5.0 + 14.0 + 14.0)


@pytest.mark.parametrize(("guessed", "confirmed"), [(9, 9), (24, 0)])
def test_guesses_cost_the_draft_its_tokens_and_the_target_wider_passes(guessed, confirmed):
    """Where all were right, the draft reads two tokens before it guesses again."""
    cost = written(T, 12, num_guessed=guessed, num_confirmed=confirmed)
    num_picked = 12 - confirmed
    num_passes = 1 + num_picked - num_picked / 12  # A step's last token, which needs no pass, may be a guessed one.
    target, draft = pair().target, pair().draft
    verifying = num_passes * target.pass_ms(1 + guessed / num_passes)
    reading = num_passes * (draft.pass_ms(2) - draft.pass_ms(1)) if confirmed else 0.0
    result = calls(outside_ms=0.0).timed(
        solved(step(replace(cost, cost=replace(cost.cost, num_cached=1))), policy="speculative:3")
    )
    assert result.usage["target"].guessing_s == pytest.approx((guessed + reading) / 1000.0)
    assert result.latency_s == pytest.approx((verifying + guessed + reading) / 1000.0)


def test_a_guesser_reads_what_others_wrote_before():
    first = step(written(T, 4, cached=7, num_guessed=16))
    later = step(written(T, 4, cached=11 + 4, num_guessed=16))
    result = calls(outside_ms=0.0).timed(solved(first, later, policy="speculative:4"))
    guessing = [1000.0 * one.candidate.cost.guessing_s for one in result.steps]
    assert guessing == pytest.approx([(3.0 - 1.0) + 16.0, (2.0 - 1.0) + 16.0])
    assert ms(solved(first, policy="ngram:4")) == pytest.approx(ms(solved(first, policy="speculative:4")) - 18.0)


def test_a_scorer_costs_its_line_and_reads_the_question_first():
    costs = pair(prm=scorer(4.0, 0.25))
    computed = [Cost(num_calls=1, num_computed=40), Cost(num_calls=1, num_computed=12, num_cached=40)]
    steps = [step(written(D, 8), scores=(replace(score("prm", D, 0.5), cost=cost),)) for cost in computed]
    assert ms(solved(steps[0]), costs) == pytest.approx(8.0 + 12.0)
    assert ms(solved(*steps), costs) == pytest.approx(2 * 8.0 + 12.0 + 5.0)


def test_a_scorer_without_a_cache_was_measured_as_it_runs():
    costs = pair(prm=scorer(4.0, 0.25))
    cost = Cost(num_calls=1, num_computed=90)
    steps = [step(written(D, 8), scores=(replace(score("prm", D, 0.5), cost=cost),)) for _ in range(2)]
    assert ms(solved(*steps), costs) - ms(solved(steps[0]), costs) == pytest.approx(8.0 + 4.0)


def test_a_probe_costs_what_the_target_reads():
    costs = pair(router=scorer(20.0, 1.0, asks_target=True))
    asked = (replace(score("router", D, 0.5), cost=Cost(num_calls=1, num_computed=4, num_cached=100)),)
    unasked = (replace(score("router", D, 0.5), cost=Cost(num_calls=1)),)
    assert ms(solved(step(written(D, 5), scores=asked)), costs) == pytest.approx(5.0 + 14.0)
    assert ms(solved(step(written(D, 5), scores=unasked)), costs) == pytest.approx(5.0)


def test_calls_that_only_measure_take_no_time():
    decision = Decision(source=D, measured=frozenset({"target", "prm"}))
    scores = (score("prm", D, 0.5, 0.3), score("prm", T, 0.6, 0.3))
    trace = solved(step(written(D, 5), written(T, 9), decision=decision, scores=scores))
    assert ms(trace) == pytest.approx(5.0)


def test_time_outside_models_is_that_of_the_run_or_a_parameter():
    trace = solved(step(written(D, 5, seconds=0.2)), step(written(D, 5, seconds=0.3)), wall_s=0.53)
    assert calls().timed(trace).latency_s == pytest.approx(0.010 + 0.03)
    assert calls(outside_ms=2.0).timed(trace).latency_s == pytest.approx(0.010 + 0.004)


def test_a_scorer_without_costs_is_one_clear_error():
    with pytest.raises(ConfigError, match=r"the costs of 'p' lack 'prm', which the run used.*\[scorers.prm\]"):
        ms(solved(step(written(D, 5), scores=(score("prm", D, 0.5),))))


def run_file(tmp_path, *records):
    file = tmp_path / "traces.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def test_a_run_keeps_its_answers_and_gets_other_seconds(tmp_path):
    wrong = solved(step(written(D, 5, seconds=0.1)), answer="8", policy="draft", wall_s=0.1)
    right = solved(step(written(T, 5, seconds=0.1)), answer="7", policy="target", wall_s=0.1)
    file = run_file(tmp_path, *(trace_record(Entry.recorded(one.policy), one) for one in (wrong, right)))
    result = estimated(file, pair(), outside_ms=1.0)
    by_name = {entry.policy: solutions[0] for entry, solutions in result.run.solutions.items()}
    assert [by_name[name].is_correct for name in ("draft", "target")] == [False, True]
    assert by_name["target"].seconds == pytest.approx((50.0 + 2.0) / 1000.0)
    assert [one.measured_s for one in result.beside] == [0.1, 0.1]
    assert "1 ms for each step" in result.assumption
    assert "batch 1, no overlap" in result.assumption


def test_a_run_without_traces_is_one_clear_error(tmp_path):
    with pytest.raises(Exception, match=r"holds no traces"):
        estimated(run_file(tmp_path), pair())


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_time_outside_models_out_of_range_is_refused(tmp_path, value):
    with pytest.raises(ConfigError, match="outside-ms must be at least 0"):
        estimated(run_file(tmp_path), pair(), outside_ms=value)


def test_the_shipped_costs_choose_models_by_name():
    costs = read_costs(H100)
    assert (costs.draft.generated_ms.value, costs.target.generated_ms.value) == (1.62, 2.93)
    assert read_costs(H100, target="7B").target.pass_ms(32) == pytest.approx(8.65)
    assert costs.scorers["router"].asks_target
    assert costs.scorers["router"].step_ms == pytest.approx(costs.target.pass_ms(32))
    with pytest.raises(ConfigError, match=r"no model '3B' for the draft \(choose from 0.5B, 1.5B, 7B\)"):
        read_costs(H100, draft="3B")


def test_models_are_named_by_role_or_by_name(tmp_path):
    file = tmp_path / "costs.toml"
    file.write_text("[draft]\ngenerated_ms = 2\nprompt_ms = 1\n[target]\ngenerated_ms = 5.0\nprompt_ms = 1\n")
    costs = read_costs(file)
    assert (costs.draft.name, costs.draft.generated_ms.value, costs.target.pass_ms(3)) == ("draft", 2, 7.0)
    assert costs.environment["source"] == "costs.toml"


TARGET = "[target]\ngenerated_ms = 5.0\nprompt_ms = 1\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("draft", "not TOML"),
        (TARGET, r"missing draft \(add a table \[draft\], or give --draft NAME\)"),
        ("draft = 'a'\n" + TARGET, r"no model 'a' for the draft \(add a table \[models.a\]\)"),
        ("drafts = 'a'\n" + TARGET, "unknown key 'drafts' .did you mean 'draft'"),
        ("[draft]\nprompt_ms = 1\n" + TARGET, "draft: missing generated_ms"),
        (
            "[draft]\ngenerated_ms = 0\nprompt_ms = 1\n" + TARGET,
            "generated_ms must be a number of milliseconds above 0",
        ),
        ("[draft]\ngenerated_ms = 1\nprompt_ms = nan\n" + TARGET, "prompt_ms must be a number of milliseconds of at"),
        ("[draft]\ngenerated_ms = 'x'\nprompt_ms = 1\n" + TARGET, "generated_ms must be a number, got 'x'"),
        (
            "[draft]\ngenerated_ms = 1\nprompt_ms = 1\nverified_ms = { two = 1 }\n" + TARGET,
            "verified_ms must name whole numbers of tokens of at least 1, got 'two'",
        ),
        (
            "[draft]\ngenerated_ms = 1\nprompt_ms = 1\nverified_ms = { 2 = -1 }\n" + TARGET,
            "verified_ms.2 must be a number of milliseconds above 0, got -1",
        ),
        (
            "[draft]\ngenerated_ms = 1\nprompt_ms = 1\n[scorers.prm]\n" + TARGET,
            "scorers.prm: missing step_ms .or set asks_target = true",
        ),
    ],
)
def test_wrong_files_are_one_clear_error(tmp_path, content, told):
    file = tmp_path / "costs.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=told):
        read_costs(file)


def test_names_need_a_file_with_several_models(tmp_path):
    with pytest.raises(ConfigError, match=r"holds the costs of one pair, got --target"):
        read_costs(tmp_path / "costs.json", target="7B")
    with pytest.raises(ConfigError, match=r"cannot read the costs in .*No such file"):
        read_costs(tmp_path / "none.toml")
