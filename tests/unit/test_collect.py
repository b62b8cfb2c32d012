from dataclasses import replace

import pytest

from arbitrage.core.errors import ConfigError, EngineError, RowError, StoreError
from arbitrage.core.solve import solve
from arbitrage.core.turn import Pair, Setting
from arbitrage.core.types import Finish, Limits, Message, Problem, Sampling, Source
from arbitrage.policies import DraftOnly, Oracle, RandomEscalation, RouterPolicy, TargetOnly
from arbitrage.runtime.store import GroupLog
from arbitrage.scorers.scripted import ScriptedScorer
from arbitrage.training.collect import Collecting, collect
from arbitrage.training.parquet import write_parquet
from arbitrage.training.rows import Past, Row, read_rows, rows_from_trace
from helpers import scripted

DRAFT, TARGET = Source.DRAFT, Source.TARGET
PROBLEMS = [Problem(id=f"p{i}", question=f"What is {i} + {i} ?", metadata={"level": str(i % 2)}) for i in range(5)]
MODELS = {"draft": "d", "target": "t", "prm": "prm"}


def prm(draft=0.25, targets=(0.5, 0.75, 0.5)):
    """The draft's score, and each target sample's by its number."""
    return ScriptedScorer(value=lambda _, c: draft if c.source is DRAFT else targets[c.sample], name="prm")


def pair(**faults):
    return Pair(draft=scripted("d1", "d2", "d3", name="d"), target=scripted("t1", "t2", "t3", name="t", **faults))


def collecting(behaviour=None, scorer=None, **values):
    scorer = scorer or prm()
    values = {"num_target_samples": 3, **values}
    return Collecting(prm=scorer, behaviour=behaviour or DraftOnly(), **values)


async def rows(policy, models=None):
    models = models or pair()
    return rows_from_trace(await solve(PROBLEMS[0], models, policy), MODELS, policy.prm.name)


async def test_a_row_holds_the_draft_every_target_sample_and_their_scores():
    models = pair()
    logged = await rows(collecting(), models)
    assert [row.step for row in logged] == [0, 1, 2]
    assert [row.is_last for row in logged] == [False, False, True]
    assert [row.draft.text for row in logged] == ["d1\n\n", "d2\n\n", "d3"]
    assert all(len(row.targets) == 3 for row in logged)
    assert logged[0].targets[0].text == "t1\n\n"
    assert logged[0].draft.score == 0.25
    assert [sample.score for sample in logged[0].targets] == [0.5, 0.75, 0.5]
    assert logged[0].advantage == pytest.approx(7 / 12 - 0.25)
    assert logged[0].advantage_se == pytest.approx(1 / 12)  # The values' deviation is 1/(4√3), over √3.
    assert logged[2].history == (Past(source=DRAFT, text="d1\n\n"), Past(source=DRAFT, text="d2\n\n"))
    assert logged[2].draft.finish is Finish.END_OF_SEQUENCE
    assert logged[0].models == MODELS
    seeds = [call.seed for call in models.target.calls]
    assert len(set(seeds)) == len(seeds) == 9
    assert {call.sampling.temperature for call in models.target.calls} == {0.7}
    assert {call.sampling.temperature for call in models.draft.calls} == {0.0}


async def test_without_a_prm_rows_have_no_scores_until_they_are_labelled(tmp_path):
    policy = Collecting(behaviour=RandomEscalation(0.5), num_target_samples=2)
    with GroupLog(tmp_path, {}, id_field="problem_id") as log:
        report = await collect(PROBLEMS[:2], pair(), policy, Setting(), log)
    assert report.failures == {}
    (first, *_) = logged = list(read_rows(tmp_path))
    assert {(row.is_scored, row.draft.score) for row in logged} == {(False, None)}
    assert first.models == {"draft": "d", "target": "t"}
    for value in (lambda: first.advantage, lambda: first.advantage_se, lambda: first.draft_score):
        with pytest.raises(
            RowError, match=r"the rows have no scores, first step 0 of .* \(score them by rollouts with"
        ):
            value()
    half = replace(first, draft=replace(first.draft, score=0.5))
    with pytest.raises(RowError, match="the rows have no scores"):
        half.advantage_of(1)
    whole = replace(half, targets=tuple(replace(sample, score=1.0) for sample in half.targets))
    assert (whole.is_scored, whole.advantage, Row.from_json(whole.to_json())) == (True, 0.5, whole)
    pytest.importorskip("pyarrow")
    assert write_parquet(logged, tmp_path / "rows.parquet") == len(logged)


async def test_one_sample_has_no_standard_error():
    (row, *_) = await rows(collecting(num_target_samples=1))
    assert row.advantage_se is None


@pytest.mark.parametrize(
    ("behaviour", "kept"),
    [
        (DraftOnly(), DRAFT),
        (TargetOnly(), TARGET),
        (Oracle(prm(), 0.0), TARGET),
        (Oracle(prm(0.9), 0.0), DRAFT),
        (RouterPolicy(ScriptedScorer(value=lambda *_: 0.6, name="router"), 0.5), TARGET),
        (RouterPolicy(ScriptedScorer(value=lambda *_: 0.4, name="router"), 0.5), DRAFT),
        (RandomEscalation(0.0), DRAFT),
        (RandomEscalation(1.0), TARGET),
    ],
)
async def test_any_policy_can_be_the_behaviour_and_makes_no_call_of_its_own(behaviour, kept):
    models = pair()
    scorer = getattr(behaviour, "prm", prm())
    logged = await rows(collecting(behaviour, scorer), models)
    assert {row.kept for row in logged} == {kept}
    assert {past.source for row in logged for past in row.history} == {kept}
    assert len(models.draft.calls) == len(logged)
    assert len(models.target.calls) == 3 * len(logged)
    assert scorer.num_calls == 4 * len(logged)


async def test_keeping_the_draft_follows_its_probability_and_nothing_else():
    long = Pair(draft=scripted(*map(str, range(200))), target=scripted(*map(str, range(200))))
    limits = Setting(limits=Limits(max_steps=200))
    policy = collecting(TargetOnly(), keep_draft=0.3, num_target_samples=1)
    first, again = [await solve(PROBLEMS[0], long, policy, limits) for _ in range(2)]
    assert [step.source for step in first.steps] == [step.source for step in again.steps]
    assert 0.2 < first.acceptance_rate < 0.4
    of_another_problem = await solve(PROBLEMS[1], long, policy, limits)
    assert [step.source for step in first.steps] != [step.source for step in of_another_problem.steps]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_target_samples": 0}, r"^samples must be at least 1, got 0"),
        ({"keep_draft": 1.5}, r"keep_draft must be in \[0, 1\], got 1.5"),
        ({"target_sampling": Sampling()}, "temperature 0 makes all 3 target samples equal"),
    ],
)
def test_settings_out_of_range_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        collecting(**values)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
async def test_a_prm_score_that_is_not_a_probability_fails_the_problem_with_a_clear_error(value):
    trace = await solve(PROBLEMS[0], pair(), collecting(scorer=prm(value)))
    assert trace.finish is Finish.FAILED
    assert f"must be in [0, 1], got {value}" in trace.error


async def test_rows_survive_the_round_trip(tmp_path):
    for row in await rows(collecting()):
        row = replace(row, draft=replace(row.draft, hidden_state=(1.0, -0.5, 2.0**-10)))
        assert Row.from_json(row.to_json()) == row
        assert "messages" not in row.to_json()
        conversation = replace(row.problem, messages=[Message("system", "Be brief."), *row.problem.messages])
        conversation_row = replace(row, problem=conversation)
        assert Row.from_json(conversation_row.to_json()) == conversation_row


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record | {"schema": 2},
        lambda record: {k: v for k, v in record.items() if k != "targets"},
        lambda record: record | {"question": ""},
        lambda record: record | {"kept": "neither"},
    ],
)
async def test_an_invalid_row_is_named_with_file_and_line(tmp_path, spoil):
    (row, *_) = await rows(collecting())
    with GroupLog(tmp_path, {}, id_field="problem_id") as log:
        log.append([{**spoil(row.to_json()), "is_last": True}])
    with pytest.raises(RowError, match=r"rows.jsonl:1: "):
        list(read_rows(tmp_path))


async def collected(folder, policy=None, problems=PROBLEMS, models=None, jobs=2):
    with GroupLog(folder, {"seed": 0}, id_field="problem_id") as log:
        return await collect(problems, models or pair(), policy or collecting(), Setting(), log, max_in_flight=jobs)


async def test_a_stopped_collection_continues(tmp_path):
    await collected(tmp_path / "whole")
    await collected(tmp_path / "parts", problems=PROBLEMS[:2])
    models = pair()
    report = await collected(tmp_path / "parts", models=models)
    assert report.num_rows == 9
    assert len(models.draft.calls) == 9
    undisturbed, resumed = (sorted(read_rows(tmp_path / name), key=str) for name in ("whole", "parts"))
    assert undisturbed == resumed
    assert len(undisturbed) == 15


async def test_a_failed_problem_is_named_and_tried_again(tmp_path):
    report = await collected(tmp_path, models=pair(faults={4: EngineError("lost")}), jobs=1)
    assert report.failures == {"p0": "lost"}
    assert {row.problem.id for row in read_rows(tmp_path)} == {"p1", "p2", "p3", "p4"}
    report = await collected(tmp_path)
    assert (report.failures, report.num_rows) == ({}, 3)
    assert len(list(read_rows(tmp_path))) == 15


async def test_an_unfinished_solution_at_the_end_is_left_out(tmp_path):
    await collected(tmp_path, problems=PROBLEMS[:2], jobs=1)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert {row.problem.id for row in read_rows(tmp_path)} == {"p0"}


def test_a_folder_without_rows_is_named(tmp_path):
    with pytest.raises(StoreError, match="no records"):
        list(read_rows(tmp_path))


async def test_parquet_has_the_same_values_as_the_rows(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    await collected(tmp_path)
    logged = list(read_rows(tmp_path))
    assert write_parquet(logged, tmp_path / "rows.parquet", batch_size=4) == len(logged)
    table = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [record["advantage"] for record in table] == [row.advantage for row in logged]
    assert table[2]["targets"][1]["score"] == 0.75
    assert table[2]["history"][1] == {"source": "draft", "text": "d2\n\n", "num_taken_chars": None}
