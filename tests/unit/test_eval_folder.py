"""A run's folder: written solution by solution, read back, and compared with others."""

import json
from dataclasses import replace

import pytest

from arbitrage.core.errors import ConfigError, StoreError, TraceError
from arbitrage.core.types import Message, Source
from arbitrage.evaluation.figures.compare import differences, merged, named
from arbitrage.evaluation.running.entry import TARGET
from arbitrage.evaluation.running.folder import EvalFolder, check_same_problems, read_run, read_sessions, trace_record
from arbitrage.evaluation.running.sweep import Finished
from arbitrage.report.export import plain, step_records, summary_records, trace_records
from helpers import entry_of, score, solved, step, written

ROUTER = entry_of("router", 0.5)
SETTINGS = {"pair": "tiny", "dataset": "tiny:test", "problems": {"count": 3}, "samples": 1, "jobs": 1}


def finished(entry, problem, answer="7", *, attempt=0, wall_s=1.0, **values):
    trace = solved(answer=answer, problem=problem, policy=entry.policy, wall_s=wall_s, **values)
    return Finished(entry=entry, attempt=attempt, trace=trace, began_s=0.5, energy_j=2.0)


def write(folder, *done, **settings):
    with EvalFolder(folder, {**SETTINGS, **settings}, {"commit": "abc"}) as run:
        for one in done:
            run.append(one)
    return folder


def both(problem, target="7", router="7"):
    return finished(TARGET, problem, target, wall_s=2.0), finished(ROUTER, problem, router)


def test_what_is_written_is_read_back(tmp_path):
    run = read_run(write(tmp_path / "run", *both("a"), *both("b", router="8")))
    assert list(run.solutions) == [TARGET, ROUTER]
    assert [solution.is_correct for solution in run.solutions[ROUTER]] == [True, False]
    first = run.solutions[TARGET][0]
    assert (first.seconds, first.began_s, first.energy_j, first.session) == (2.0, 0.5, 2.0, 0)
    assert list(run.problems) == ["a", "b"]
    assert (run.name, run.jobs, run.settings["dataset"]) == ("run", 1, "tiny:test")
    assert run.sessions == [{"commit": "abc"}]


def test_a_second_session_goes_on_and_knows_what_is_done(tmp_path):
    write(tmp_path, *both("a"))
    with EvalFolder(tmp_path, SETTINGS, {}) as run:
        assert run.num_done == 2
        known = finished(TARGET, "a").trace.problem
        assert run.is_done(TARGET, known, 0)
        assert not run.is_done(TARGET, known, 1)
        assert not run.is_done(entry_of("target", 0.5), known, 0)
        run.append(finished(TARGET, "b"))
    lines = (tmp_path / "traces.jsonl").read_text().splitlines()
    assert [json.loads(line)["session"] for line in lines] == [0, 0, 1]
    assert len(read_sessions(tmp_path)) == 2


def test_other_settings_are_refused_by_what_differs(tmp_path):
    write(tmp_path, *both("a"))
    with pytest.raises(StoreError, match=r"dataset was 'tiny:test', now 'tiny:ood'"):
        write(tmp_path, dataset="tiny:ood")


def test_problems_that_only_some_policies_have_solved_are_left_out(tmp_path):
    run = read_run(write(tmp_path, *both("a"), finished(TARGET, "b")))
    assert list(run.problems) == ["a"]
    assert [len(found) for found in run.solutions.values()] == [1, 1]
    with pytest.raises(TraceError, match="no problem is solved by all 2 policies"):
        read_run(write(tmp_path / "none", finished(TARGET, "a"), finished(ROUTER, "b")))


def test_solutions_are_in_one_order_whatever_kills_there_were(tmp_path):
    run = read_run(write(tmp_path, *both("a"), finished(ROUTER, "c"), *both("b"), finished(TARGET, "c")))
    assert [[s.problem for s in found] for found in run.solutions.values()] == [["a", "c", "b"]] * 2


def test_a_file_of_traces_is_a_run_too(tmp_path):
    path = tmp_path / "traces.jsonl"
    records = [trace_record(one.entry, one.trace) for one in both("a")]
    for record in records:
        del record["entry"], record["attempt"]  # As earlier versions wrote it.
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    run = read_run(path)
    assert list(run.solutions) == [TARGET, ROUTER]
    assert (run.key, run.sessions, run.name) == (None, [], "traces")


def test_a_trace_of_a_newer_schema_is_one_clear_error(tmp_path):
    folder = write(tmp_path, *both("a"))
    lines = (folder / "traces.jsonl").read_text().splitlines()
    newer = json.dumps({**json.loads(lines[1]), "schema": 99})
    (folder / "traces.jsonl").write_text(f"{lines[0]}\n{newer}\n")
    with pytest.raises(TraceError, match=r"traces.jsonl:2: trace schema must be between 1 and \d+, got 99 .*update"):
        read_run(folder)


def test_a_folder_without_traces_is_one_clear_error(tmp_path):
    with pytest.raises(StoreError, match="no records"):
        read_run(tmp_path)
    (tmp_path / "traces.jsonl").write_text("")
    with pytest.raises(TraceError, match="holds no traces"):
        read_run(tmp_path)
    (tmp_path / "sessions.json").write_text("{}")
    with pytest.raises(TraceError, match="no list of sessions"):
        read_sessions(tmp_path)


def test_two_problems_with_one_id_are_refused(tmp_path):
    other = finished(ROUTER, "a", gold="8")
    with pytest.raises(TraceError, match="two problems have the id 'a'"):
        read_run(write(tmp_path, finished(TARGET, "a"), other))


def test_two_conversations_with_one_last_question_are_two_problems(tmp_path):
    done = finished(ROUTER, "a")
    talk = replace(done.trace.problem, messages=[Message("system", "Be brief."), *done.trace.problem.messages])
    other = replace(done, trace=replace(done.trace, problem=talk))
    with pytest.raises(TraceError, match="two problems have the id 'a'"):
        read_run(write(tmp_path, finished(TARGET, "a"), other))


def test_runs_on_other_problems_are_not_compared_and_the_message_says_how_they_differ(tmp_path):
    first = read_run(write(tmp_path / "first", *both("a"), *both("b"), *both("c")))
    fewer = read_run(write(tmp_path / "fewer", *both("a"), *both("d")))
    with pytest.raises(TraceError) as told:
        check_same_problems([first, fewer])
    assert "2 ('b', 'c') only in 'first'; 1 ('d') only in 'fewer'" in str(told.value)
    regraded = [finished(entry, problem, gold="8") for entry in (TARGET, ROUTER) for problem in "abc"]
    other = read_run(write(tmp_path / "other", *regraded))
    with pytest.raises(TraceError, match=r"3 \('a', 'b', 'c'\) with another answer"):
        check_same_problems([first, other])
    check_same_problems([first, first])


def test_runs_are_compared_policy_by_policy(tmp_path):
    ids = [f"q{i}" for i in range(20)]
    first = write(tmp_path / "first", *(one for i in ids for one in both(i)))
    second = [finished(ROUTER, i, "7" if n >= 6 else "8", wall_s=0.5) for n, i in enumerate(ids)]
    runs = named([read_run(first), read_run(write(tmp_path / "second", *second))])
    (found,) = differences(runs)
    assert (found.entry, found.first, found.second) == (ROUTER, "first", "second")
    assert found.accuracy == pytest.approx((1.0, 0.7))
    assert found.gap.interval.low < -0.3 < found.gap.interval.high < 0.0
    assert found.p_value == pytest.approx(2 / 2**6)
    assert found.gap.value == pytest.approx(-0.3)
    assert found.speedup.value == pytest.approx(2.0)
    assert found.speedup.interval.low == pytest.approx(2.0)
    assert [entry.label for entry in merged(runs)] == ["target · first", "router@0.5 · first", "router@0.5 · second"]


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    runs = [read_run(write(tmp_path / name / "run", *both("a"))) for name in ("x", "y")]
    assert list(named(runs)) == ["x/run", "y/run"]
    with pytest.raises(ConfigError, match="given twice"):
        named([runs[0], runs[0]])


def test_traces_load_as_flat_records(tmp_path):
    escalated = step(
        written(Source.TARGET, 5, 0.5),
        written(Source.DRAFT, 3, 0.25, text="y"),
        scores=(score("audit", Source.DRAFT, 0.75), score("audit", Source.TARGET, 0.5)),
    )
    trace = solved(escalated, answer="7", problem="a", level="3")
    done = Finished(entry=ROUTER, attempt=1, trace=trace, began_s=0.0)
    folder = write(tmp_path, done)
    (record,) = trace_records(folder)
    assert (
        record
        | {
            "policy": "router",
            "threshold": 0.5,
            "problem": "a",
            "level": "3",
            "attempt": 1,
            "is_correct": True,
            "num_steps": 2,
            "num_escalations": 1,
            "num_wasted": 1,
            "tokens.target_kept": 5,
            "tokens.draft_discarded": 3,
            "role_s.target": 0.5,
            "role_s.outside": 0.25,
        }
        == record
    )
    first, second = step_records(str(folder))
    assert (first["source"], first["draft_text"], first["advantage"], first["is_wasted"]) == (
        "target",
        "y",
        -0.25,
        True,
    )
    assert first["seconds"] == pytest.approx(0.75)
    assert (second["step"], second["text"]) == (1, r"\boxed{7}")
    (summary,) = summary_records(folder)
    assert (summary["policy"], summary["accuracy"], summary["tokens.target_kept"]) == ("router", 1.0, 5)


def test_what_json_cannot_hold_becomes_none():
    assert plain({"a": [float("inf"), 1.5], "b": (float("nan"),)}) == {"a": [None, 1.5], "b": [None]}
