import copy
import json

import pytest

from arbitrage.core.errors import TraceError
from arbitrage.core.trace import SCHEMA, Trace
from arbitrage.core.types import Cost, Decision, Finish, Limits, Message, Problem, Score, Source
from helpers import PROBLEM, candidate, step

COST = Cost(num_calls=1, num_computed=3, num_cached=2, num_generated=4, num_reused=1, seconds=0.25)


def full_trace() -> Trace:
    """Every field filled: rejected candidates, scores, measurement, log-probabilities, an error."""
    draft = candidate("a\n\n", cost=COST, logprobs=(-0.5, -0.25, 0.0), token_ids=(1, 2, 3))
    target = candidate("\u00e9\n\n", Source.TARGET, cost=COST, token_ids=(4, 5))
    score = Score(scorer="prm", source=Source.DRAFT, value=0.125, cost=COST)
    measured = Decision(source=Source.DRAFT, score=0.1, measured=frozenset({"target", "prm"}))
    problem = Problem(id="p", question="q?", answer="4", metadata={"level": "3"})
    trace = Trace(problem=problem, policy="oracle")
    trace = trace.extend(step(draft, target, decision=measured, scores=(score,)), Limits(), 1.0)
    return trace.extend(step(target, draft), Limits(max_steps=2), 2.0)


@pytest.mark.parametrize(
    "trace",
    [
        full_trace(),
        Trace(problem=PROBLEM, policy="draft"),
        Trace(problem=PROBLEM, policy="draft", finish=Finish.FAILED, error="down", wall_s=0.5),
        Trace(problem=Problem(id="p", messages=[Message("user", "q?"), Message("assistant", "So ")]), policy="draft"),
        Trace(problem=Problem(id="\ud800", question="\udfff?"), policy="draft", error="\ud800"),
    ],
    ids=["full", "fresh", "failed", "conversation", "lone surrogates"],
)
def test_a_trace_survives_its_json_form(trace):
    record = json.loads(json.dumps(trace.to_json()))
    again = Trace.from_json(record)
    assert again == trace
    assert json.loads(json.dumps(again.to_json())) == record
    assert all(one.candidate in one.candidates for one in again.steps)


def test_messages_stand_in_the_record_only_of_a_conversation():
    plain = Trace(problem=PROBLEM, policy="draft").to_json()["problem"]
    assert list(plain) == ["id", "question", "answer", "metadata"]
    asked = Problem(id="p", messages=[Message("system", "Be brief."), Message("user", "q?")])
    record = Trace(problem=asked, policy="draft").to_json()["problem"]
    assert record["question"] == "q?"
    assert record["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q?"}]


def test_a_lone_surrogate_stands_escaped_in_a_file(tmp_path):
    trace = Trace(problem=Problem(id="p", question="\ud800?"), policy="draft")
    (tmp_path / "traces.jsonl").write_text(json.dumps(trace.to_json()), encoding="utf-8")
    assert r"\ud800?" in (tmp_path / "traces.jsonl").read_text(encoding="utf-8")
    assert Trace.from_json(json.loads((tmp_path / "traces.jsonl").read_text(encoding="utf-8"))) == trace


def test_json_leaves_hidden_states_out():
    trace = Trace(problem=PROBLEM, policy="draft").extend(step(candidate("a", hidden_state=(1.0, 2.0))), Limits(), 0.0)
    again = Trace.from_json(json.loads(json.dumps(trace.to_json())))
    assert again.steps[0].candidate.hidden_state is None
    assert again.text == "a"


@pytest.mark.parametrize("schema", [SCHEMA + 1, 0, None, "1", 1.5])
def test_a_record_of_another_schema_is_refused(schema):
    with pytest.raises(TraceError, match="trace schema must be between 1 and"):
        Trace.from_json({**full_trace().to_json(), "schema": schema})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["problem"], None),
        (["problem", "question"], ""),
        (["problem", "colour"], "blue"),
        (["finish"], "bored"),
        (["steps"], 5),
        (["steps", 0], None),
        (["steps", 0, "kept"], 7),
        (["steps", 0, "finish"], "bored"),
        (["steps", 0, "decision", "source"], "nobody"),
        (["steps", 0, "candidates"], []),
        (["steps", 0, "candidates", 0, "cost"], {"euros": 1}),
        (["steps", 0, "scores", 0, "cost"], None),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, list) and value else None,
)
def test_a_garbage_record_is_refused(path, value):
    record = copy.deepcopy(full_trace().to_json())
    place = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(TraceError):
        Trace.from_json(record)


@pytest.mark.parametrize("missing", ["problem", "policy", "steps", "finish", "wall_s", "error"])
def test_a_record_without_a_field_is_refused(missing):
    record = full_trace().to_json()
    del record[missing]
    with pytest.raises(TraceError, match=missing):
        Trace.from_json(record)


@pytest.mark.parametrize("record", [[], "trace", None, 3])
def test_what_is_no_object_is_no_trace(record):
    with pytest.raises(TraceError):
        Trace.from_json(record)


def test_shares_count_steps_and_tokens():
    trace = full_trace()
    assert trace.acceptance_rate == 0.5
    assert trace.num_tokens == 5
    assert trace.target_token_share == 2 / 5
    fresh = Trace(problem=PROBLEM, policy="draft")
    assert (fresh.acceptance_rate, fresh.target_token_share, fresh.answer) == (None, None, None)


def test_measurement_is_kept_apart_step_by_step():
    trace = full_trace()
    assert trace.usage == {"draft": COST + COST, "target": COST}
    assert trace.measurement == {"target": COST, "prm": COST}
    assert trace.model_s == 0.75
    assert trace.latency_s == 2.0 - 0.5


@pytest.mark.parametrize(
    ("text", "answer", "is_from_thinking"),
    [
        (r"so \boxed{4}", "4", False),
        (r"<think>\boxed{3}</think>so \boxed{4}", "4", False),
        (r"<think>\boxed{3}</think>so 4", "3", True),
        ("no box", None, False),
    ],
)
def test_a_trace_says_whether_its_answer_stands_only_in_thinking(text, answer, is_from_thinking):
    trace = Trace(problem=PROBLEM, policy="draft").extend(step(candidate(text)), Limits(), 1.0)
    for read in (trace, Trace.from_json(json.loads(json.dumps(trace.to_json())))):
        assert (read.answer, read.is_answer_from_thinking) == (answer, is_from_thinking)
    assert set(trace.to_json()) == {"schema", "problem", "policy", "steps", "finish", "wall_s", "error"}
    assert SCHEMA == 1
