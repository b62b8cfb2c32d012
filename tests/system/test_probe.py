import json
import math
import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from arbitrage.core.errors import CheckpointError, ConfigError, RowError, ScorerError, StoreError
from arbitrage.core.turn import History, Pair
from arbitrage.core.types import Problem, Source
from arbitrage.pairs.catalogue import load_router
from arbitrage.scorers.format import InputFormat
from arbitrage.scorers.probe import NUM_FEATURES, Inputs, ProbeHead, ProbeScorer, features, is_probe
from arbitrage.training.probe import ProbeRecipe, rows_for_head, train_probe
from arbitrage.training.row_scores import score_rows
from command_line import command
from helpers import PROBLEM, Watched, candidate, row, score, scripted, solved, written
from helpers import step as step_of

FORMAT = InputFormat(kind="router", annotation={"draft": "a", "target": "b"})
STATE = ProbeRecipe(inputs=Inputs.STATE)


def rows(count, *, seed=0, size=6):
    """Rows whose advantage depends on the product of two state dimensions, and on the first entropy."""
    rng = random.Random(seed)
    logged = []
    for i in range(count):
        state = tuple(rng.gauss(0, 1) for _ in range(size))
        entropy = rng.random()
        has_gain = state[0] * state[1] + entropy > 0.5
        scores = (0.2, 0.8) if has_gain else (0.8, 0.2)
        logged.append(
            row(
                *scores,
                problem=f"p{i // 4}",
                step=i % 4,
                hidden_state=state,
                logprobs=(-0.1, -rng.random()),
                first_entropy=entropy,
            )
        )
    return logged


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    out = tmp_path_factory.mktemp("probe") / "out"
    report = train_probe(rows(1200), out, STATE, FORMAT, settings={"rows": "a"})
    return out, report


async def test_a_probe_learns_a_product_of_two_features(probe):
    out, report = probe
    unseen = rows(400, seed=1)
    scores = await score_rows(load_router(out)[0], unseen)
    assert roc_auc_score([r.advantage > 0 for r in unseen], scores) > 0.9
    assert len(report["held_out_problems"]) == 30
    assert report["num_rows_trained_on"] <= report["num_rows"] == 1200


async def test_a_probe_without_the_state_serves_any_engine_with_log_probabilities(tmp_path):
    recipe = ProbeRecipe(inputs=Inputs.CONFIDENCE)
    stateless = [replace(r, draft=replace(r.draft, hidden_state=None)) for r in rows(1200)]
    train_probe(stateless, tmp_path / "out", recipe, FORMAT, settings={})
    router, engines = load_router(tmp_path / "out")
    assert engines is None
    scores = await score_rows(
        router, [replace(r, draft=replace(r.draft, hidden_state=None)) for r in rows(400, seed=1)]
    )
    assert (
        0.55 < roc_auc_score([r.advantage > 0 for r in rows(400, seed=1)], scores) < 0.9
    )  # Only the entropy is informative.


def test_a_probe_is_a_checkpoint_like_any_router(probe):
    out, report = probe
    assert is_probe(out)
    assert InputFormat.load(out).annotation == {}
    assert json.loads((out / "training.json").read_text()) == json.loads(json.dumps(report))
    assert train_probe([], out, STATE, FORMAT, settings={"rows": "a"}) == json.loads(json.dumps(report))
    with pytest.raises(StoreError, match="another run: rows was 'a', now 'b'"):
        train_probe([], out, STATE, FORMAT, settings={"rows": "b"})


async def test_a_probe_routes_by_position_too(probe):
    head = ProbeHead(
        inputs=Inputs.STATE,
        mean=np.zeros(7, np.float32),
        scale=np.ones(7, np.float32),
        inner=np.eye(7, 1, k=-4, dtype=np.float32),  # The position alone.
        inner_bias=np.zeros(1, np.float32),
        outer=np.full(1, 2.0, np.float32),
        outer_bias=np.full(1, -3.0, np.float32),
    )
    scorer = ProbeScorer(head, name="router", input_format=FORMAT)
    drafted = candidate("a", hidden_state=(0.0,), logprobs=(-0.5,), first_entropy=0.1)
    session = await scorer.open(History(PROBLEM, None))
    values = []
    for _ in range(3):
        values.append((await session.score(drafted)).value)
        await session.commit(drafted)
    assert values == pytest.approx([1 / (1 + np.exp(3 - 2 * step)) for step in range(3)])


def test_features_need_values_that_only_some_engines_return():
    full = candidate("ab", hidden_state=(3.0, 4.0), logprobs=(-1.0, -3.0), first_entropy=0.5)
    assert features(full, 7, Inputs.STATE) == [-4.0, -2.0, -3.0, 2.0, 7.0, 0.5, 3.0, 4.0]
    assert features(replace(full, hidden_state=None), 7, Inputs.CONFIDENCE) == [-4.0, -2.0, -3.0, 2.0, 7.0, 0.5]
    for missing in ("hidden_state", "logprobs", "first_entropy"):
        with pytest.raises(ScorerError, match="a probe on state needs"):
            features(replace(full, **{missing: None}), 0, Inputs.STATE)
    for incomplete, likelihood in ((full, None), (replace(full, logprobs=None), 0.5)):
        with pytest.raises(ScorerError, match="a probe on likelihoods needs"):
            features(incomplete, 0, Inputs.LIKELIHOODS, likelihood)


def test_likelihoods_are_log_probabilities_of_the_whole_step():
    full = candidate("ab", logprobs=(-1.0, -3.0))
    score = 1 - math.exp(-2.0) ** 0.1
    assert features(full, 7, Inputs.LIKELIHOODS, score) == pytest.approx(
        [-4.0, -2.0, -3.0, 2.0, 7.0, -1.0, math.log(5), math.log(3)]
    )
    assert features(candidate("", logprobs=()), 0, Inputs.LIKELIHOODS, 0.0) == [0.0] * 8
    assert features(full, 0, Inputs.LIKELIHOODS, 1.0)[-1] == pytest.approx(math.log(370), abs=0.01)


@pytest.mark.parametrize("inputs", [Inputs.STEP, Inputs.STEP_LIKELIHOODS])
async def test_a_probe_reads_in_serving_what_it_read_in_training(tmp_path, inputs):
    """The target's step is better where the draft's step has a number that does not occur before."""
    rng = random.Random(0)

    def solution(number):
        history, logged = [], []
        for step in range(4):
            seen = f"take {number}" if step == 0 else history[-1].split()[-1]
            text = f"so {seen.split()[-1] if rng.random() < 0.5 else 1000 + 10 * number + step}\n\n"
            is_new = not any(text.split()[-1] in earlier for earlier in (f"take {number}", *history))
            scores = (0.2, 0.8) if is_new else (0.8, 0.2)
            values = {"text": text, "logprobs": (-0.1, -0.2), "first_entropy": 0.3}
            one = row(*scores, problem=f"p{number}", step=step, history=tuple(history), **values)
            logged.append(replace(one, problem=Problem(id=f"p{number}", question=f"take {number}")))
            history.append(text)
        return logged

    logged = [one for number in range(1, 200) for one in solution(number)]
    recipe = ProbeRecipe(inputs=inputs)
    out = tmp_path / "out"
    likelihoods = (lambda rows: [0.5] * len(rows)) if inputs.reads_target else None
    train_probe(logged, out, recipe, FORMAT, settings={}, likelihoods=likelihoods)
    head = ProbeHead.load(out)
    assert (head.inputs, len(head.mean)) == (inputs, NUM_FEATURES[inputs])
    unseen = [one for number in range(200, 260) for one in solution(number)]
    router = ProbeScorer(head, name="router", input_format=FORMAT)
    pair = Pair(draft=scripted("a"), target=scripted("a")) if inputs.reads_target else None
    scores = await score_rows(router, unseen, pair)
    assert roc_auc_score([one.advantage > 0 for one in unseen], scores) > 0.95


def test_features_of_a_step_need_the_entropy_and_for_likelihoods_the_target():
    full = candidate("ab", logprobs=(-1.0, -3.0), first_entropy=0.5)
    assert len(features(full, 0, Inputs.STEP)) + 1 == len(features(full, 0, Inputs.STEP_LIKELIHOODS, 0.5))
    for inputs, step, likelihood in (
        (Inputs.STEP, replace(full, first_entropy=None), None),
        (Inputs.STEP_LIKELIHOODS, replace(full, first_entropy=None), 0.5),
        (Inputs.STEP_LIKELIHOODS, full, None),
    ):
        with pytest.raises(ScorerError, match=f"a probe on {inputs} needs the draft's log-probabilities"):
            features(step, 0, inputs, likelihood)


async def test_a_likely_draft_step_is_kept_without_a_call_of_the_target():
    head = ProbeHead(
        inputs=Inputs.LIKELIHOODS,
        ask_above=0.02,
        mean=np.zeros(8, np.float32),
        scale=np.ones(8, np.float32),
        inner=np.eye(8, 1, k=-7, dtype=np.float32),  # The target's likelihood alone.
        inner_bias=np.zeros(1, np.float32),
        outer=np.ones(1, np.float32),
        outer_bias=np.zeros(1, np.float32),
    )
    target = Watched(scripted("a", "b"))
    history = History(PROBLEM, Pair(draft=scripted("a"), target=target))
    session = await history.scoring(ProbeScorer(head, name="router", input_format=FORMAT))
    sure, unsure = candidate("a", logprobs=(-0.1, -0.1)), candidate("b", logprobs=(-0.1, -0.11))
    assert (await session.score(sure)).value == pytest.approx(1 - math.exp(-0.2) ** 0.1)
    assert target.sessions == []
    score_of_unsure = await session.score(unsure)
    assert score_of_unsure.value >= 0.5
    assert (score_of_unsure.cost.num_calls, target.made) == (1, [])
    await history.close()
    rows_of_both = [row(0.1, 0.9, logprobs=step.logprobs) for step in (sure, unsure)]
    recipe = ProbeRecipe(ask_above=0.02)
    assert rows_for_head(rows_of_both, recipe) == rows_of_both[1:]
    with pytest.raises(ConfigError, match="ask_above with state"):
        ProbeRecipe(inputs=Inputs.STATE, ask_above=0.1)
    with pytest.raises(ConfigError, match=r"ask_above must be in \[0, 1\), got 1.5"):
        ProbeRecipe(ask_above=1.5)


async def test_a_probe_on_likelihoods_uses_both_models(tmp_path):
    """The draft's log-probability is noise here; the target's likelihood depends on the gain."""
    rng, logged, by_text = random.Random(0), [], {}
    for i in range(1200):
        has_gain = rng.random() < 0.4
        scores = (0.2, 0.8) if has_gain else (0.8, 0.2)
        logged.append(row(*scores, problem=f"p{i // 4}", step=i % 4, text=f"s{i}", logprobs=(-rng.random(),)))
        by_text[f"s{i}"] = min(1.0, rng.random() * 0.3 + 0.3 * has_gain)
    recipe = ProbeRecipe()
    likelihoods = [by_text[r.draft.text] for r in logged]
    train_probe(logged, tmp_path / "out", recipe, FORMAT, settings={}, likelihoods=lambda rows: likelihoods)
    again = train_probe(logged, tmp_path / "out", recipe, FORMAT, settings={}, likelihoods=lambda rows: 1 / 0)
    assert again["num_rows"] == 1200
    head = ProbeHead.load(tmp_path / "out")
    drafts = [r.draft.as_candidate(Source.DRAFT) for r in logged]
    scores = [
        head.probability(features(draft, 0, Inputs.LIKELIHOODS, likelihood))
        for draft, likelihood in zip(drafts, likelihoods, strict=True)
    ]
    assert roc_auc_score([r.advantage > 0 for r in logged], scores) > 0.9
    by_target, by_draft = (
        abs(float(np.corrcoef(scores, values)[0, 1]))
        for values in (likelihoods, [draft.logprobs[0] for draft in drafts])
    )
    assert by_target > 10 * by_draft
    with pytest.raises(ConfigError, match=r"the pair is not loaded.*load the scorer with its pair"):
        await score_rows(ProbeScorer(head, name="router", input_format=FORMAT), logged)


async def test_a_probe_serves_only_a_draft_of_its_size(probe):
    session = await load_router(probe[0])[0].open(History(PROBLEM, None))
    with pytest.raises(ScorerError, match="a hidden state of 6 numbers, the draft gave 2"):
        await session.score(candidate("a", hidden_state=(0.0, 0.0), logprobs=(-0.5,), first_entropy=0.1))


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^units must be at least 1, got 0"):
        ProbeRecipe(num_units=0)
    plain = [row(0.1, 0.9, problem=str(i), step=0) for i in range(10)]
    plain += [row(0.9, 0.1, problem=str(i), step=1) for i in range(10)]
    with pytest.raises(RowError, match=r"cannot train a probe.*--hidden-states"):
        train_probe(plain, tmp_path / "a", STATE, FORMAT, settings={})
    with pytest.raises(RowError, match="at least two classes"):
        train_probe([row(0.1, 0.9, problem=str(i)) for i in range(10)], tmp_path / "b", STATE, FORMAT, settings={})
    three = {name: np.ones(3, np.float32) for name in ("mean", "scale", "inner", "inner_bias", "outer", "outer_bias")}
    (tmp_path / "older").mkdir()
    ProbeHead(inputs=Inputs.LIKELIHOODS, **three).save(tmp_path / "older")
    with pytest.raises(
        CheckpointError,
        match=r"reads 3 features, this version has 8 for the inputs likelihoods \(train the probe again",
    ):
        ProbeHead.load(tmp_path / "older")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "arbitrage_probe"}')
    with pytest.raises(CheckpointError, match="cannot read the probe"):
        load_router(tmp_path / "broken")


def test_a_sample_becomes_a_candidate_with_its_text_and_features():
    sample = rows(1)[0].draft
    draft = sample.as_candidate(Source.DRAFT)
    assert (draft.text, draft.logprobs, draft.hidden_state) == (sample.text, sample.logprobs, sample.hidden_state)


def test_calibrate_gives_a_probe_its_floor(probe, tmp_path):
    folder, traces = tmp_path / "probe", tmp_path / "traces.jsonl"
    shutil.copytree(probe[0], folder)
    lines = []
    for number in range(80):
        is_doubtful = number % 2 == 0
        drafted = written(Source.DRAFT, 2)
        drafted = replace(drafted, logprobs=(0.0, -(2.0 + number / 100) if is_doubtful else -0.1 - number / 1000))
        one = step_of(drafted, scores=(score("router", Source.DRAFT, 0.4 if is_doubtful else 0.01),))
        lines.append(json.dumps(solved(one, problem=f"p{number}").to_json()))
    traces.write_text("\n".join(lines) + "\n")
    before = ProbeHead.load(folder)
    status, out, err = command("calibrate", traces, "--router", folder, "--floor", 1.0)
    assert status == 0, err
    assert "a step below a log-probability of -2.00 nats has a score of at least 0.305" in out
    head = ProbeHead.load(folder)
    assert dict(head.floor)[0.305] == pytest.approx(-2.0)
    assert 0.505 not in dict(head.floor)
    assert head.lowest(-2.5) == 0.305
    assert head.lowest(-1.0) == before.lowest(-2.5) == 0.0
    status, _, err = command("calibrate", traces, "--router", folder)
    assert (status, "neither --budget nor --floor" in err) == (2, True)
    status, _, err = command("calibrate", traces, "--router", folder, "--floor", 1.5)
    assert (status, "--floor must be in (0, 1], got 1.5" in err) == (2, True)


async def test_a_floor_raises_the_score_of_a_step_with_an_unlikely_beginning():
    likely = candidate("a b", logprobs=(-0.1, -0.1), first_entropy=0.0)
    unlikely = replace(likely, logprobs=(-3.0, 0.0))
    weights = {"mean": 6, "scale": 6, "inner": (6, 2), "inner_bias": 2, "outer": 2, "outer_bias": 1}
    zeros = {name: np.full(shape, name == "scale", np.float32) for name, shape in weights.items()}
    head = ProbeHead(inputs=Inputs.CONFIDENCE, **zeros)
    values = []
    for one in (head, replace(head, floor=((0.3, -1.0), (0.8, -2.0)))):
        scorer = ProbeScorer(one, name="router", input_format=InputFormat(kind="router"))
        session = await scorer.open(History(PROBLEM, None))
        values.append([(await session.score(step)).value for step in (likely, unlikely)])
    assert values == [[0.5, 0.5], [0.5, 0.8]]
