"""Sweeps: order, resumption, protocols; with scripted models."""

import asyncio
import pickle
from contextlib import contextmanager

import pytest

from arbitrage.core.errors import ConfigError
from arbitrage.core.turn import Pair, Setting
from arbitrage.core.types import Problem, Source
from arbitrage.evaluation.figures.metrics import all_figures
from arbitrage.evaluation.running.entry import TARGET
from arbitrage.evaluation.running.execute import Execution
from arbitrage.evaluation.running.folder import EvalFolder
from arbitrage.evaluation.running.plan import Plan, needs_audit
from arbitrage.evaluation.running.solutions import graded
from arbitrage.evaluation.running.sweep import sweep
from arbitrage.policies import DraftOnly, Oracle, RandomEscalation, TargetOnly
from arbitrage.policies.spec import methods
from arbitrage.scorers.scripted import ScriptedScorer
from helpers import entry_of, on_pair, scripted, swept

PROBLEMS = [Problem(id=f"p{i}", question="What is 2 + 2 ?", answer="4") for i in range(6)]
ENTRIES = {TARGET: TargetOnly(), entry_of("draft"): DraftOnly(), entry_of("random", 0.5): RandomEscalation(0.5)}


def models():
    return Pair(draft=scripted("2+2=4", r"\boxed{4}"), target=scripted("2+2=4", r"\boxed{4}"))


def judging(name="prm"):
    return ScriptedScorer(value=lambda _, candidate: 0.9 if candidate.source is Source.DRAFT else 0.1, name=name)


def plan(**values):
    return Plan(**{"problems": PROBLEMS, "entries": list(ENTRIES), "setting": Setting(), "num_warmup": 0, **values})


async def finished(plan, policies=ENTRIES, **values):
    done = []
    await sweep(plan, on_pair(policies, models()), done.append, **values)
    return done


def position(done):
    return done.entry, done.trace.problem.id, done.attempt


async def test_every_policy_solves_every_problem_once_an_attempt():
    whole = plan(num_attempts=2)
    done = await finished(whole)
    assert len(done) == len({position(one) for one in done}) == whole.num_solutions == 36


async def test_one_at_a_time_policies_take_turns_in_random_order():
    positions = [position(one) for one in await finished(plan())]
    blocks = [positions[start : start + 3] for start in range(0, 18, 3)]
    assert [{problem for _, problem, _ in block} for block in blocks] == [{problem.id} for problem in PROBLEMS]
    assert len({tuple(entry for entry, _, _ in block) for block in blocks}) > 1
    assert positions == [position(one) for one in await finished(plan())]


async def test_a_resumed_sweep_makes_what_is_missing_in_the_same_order():
    positions = [position(one) for one in await finished(plan(num_attempts=2))]
    known = set(positions[:20])
    rest = await finished(plan(num_attempts=2), is_done=lambda e, p, a: (e, p.id, a) in known)
    assert [position(one) for one in rest] == positions[20:]


async def test_attempts_have_seeds_of_their_own():
    tossed = {
        one.attempt: [step.decision.score for step in one.trace.steps]
        for one in await finished(plan(num_attempts=2, problems=PROBLEMS[:1]))
        if one.entry.policy == "random"
    }
    assert tossed[0] != tossed[1]


async def test_with_more_jobs_a_policy_runs_alone_and_so_many_at_a_time():
    running, most = [], 0

    class Slow(DraftOnly):
        async def decide(self, turn):
            nonlocal most
            running.append(self.name)
            most = max(most, len(running))
            assert len(set(running)) == 1
            await asyncio.sleep(0)
            running.remove(self.name)
            return await super().decide(turn)

    policies = {entry_of("a"): Slow(name="a"), entry_of("b"): Slow(name="b")}
    done = await finished(plan(entries=list(policies), jobs=3), policies)
    assert most == 3
    assert len(done) == 12
    assert [one.entry.policy for one in done] in (["a"] * 6 + ["b"] * 6, ["b"] * 6 + ["a"] * 6)


async def test_energy_is_read_around_a_solution_that_runs_alone():
    reading = iter(range(0, 1000, 5))
    done = await finished(plan(), energy=lambda: float(next(reading)))
    assert {one.energy_j for one in done} == {5.0}
    assert {one.energy_j for one in await finished(plan(jobs=2), energy=lambda: 1.0)} == {None}


async def test_energy_is_known_without_the_audit_and_unknown_where_a_policy_measures():
    policies = {entry_of("target"): TargetOnly(), entry_of("oracle"): Oracle(judging(), 0.0)}
    audited = plan(entries=list(policies))
    done = await finished(audited, policies, auditor=judging("audit"), energy=lambda: 1.0)
    assert {(one.entry.policy, one.energy_j) for one in done} == {("target", 0.0), ("oracle", None)}
    assert all("audit" in one.trace.measurement for one in done if one.entry.policy == "oracle")


async def test_times_of_beginning_are_those_of_the_clock():
    ticks = iter(float(i) for i in range(100))
    done = await finished(plan(problems=PROBLEMS[:1]), clock=lambda: next(ticks))
    assert [one.began_s for one in done] == [1.0, 2.0, 3.0]


async def test_warm_up_comes_before_the_count():
    pair, done = models(), []
    alone = {entry_of("draft"): DraftOnly()}
    await sweep(plan(num_warmup=2, entries=list(alone)), on_pair(alone, pair), done.append)
    assert len(pair.draft.calls) == (6 + 2) * 2
    assert len(done) == 6


@pytest.mark.parametrize(("name", "values"), [("samples", {"num_attempts": 0}), ("jobs", {"jobs": 0})])
def test_numbers_out_of_range_are_refused(name, values):
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
        plan(**values)


async def test_a_comparison_in_memory_is_graded():
    solutions = graded(await swept(plan(), on_pair(ENTRIES, models())))
    assert [(one.entry.policy, one.entry.threshold, one.accuracy) for one in all_figures(solutions)] == [
        ("target", None, 1.0),
        ("draft", None, 1.0),
        ("random", 0.5, 1.0),
    ]
    assert [len(of_entry) for of_entry in solutions.values()] == [6, 6, 6]
    assert entry_of("random", 0.5).label == "random@0.5"
    assert TARGET.label == "target"


def test_a_plan_holds_no_model_and_can_be_pickled():
    whole = plan(num_attempts=2, jobs=3)
    copy = pickle.loads(pickle.dumps(whole))
    assert copy == whole
    assert list(copy.blocks()) == list(whole.blocks())


@pytest.mark.parametrize(
    ("names", "jobs", "requested", "audits"),
    [
        (["target", "draft"], 1, True, False),
        (["router"], 1, None, True),
        (["router"], 1, False, False),
        (["router"], 4, None, False),
        (["target", "random"], 4, True, True),
    ],
)
def test_an_audit_is_for_methods_with_a_threshold_and_by_default_without_load(names, jobs, requested, audits):
    assert needs_audit(methods(names), jobs, requested) is audits


def executed(progress, **values):
    """An execution of a plan whose progress is written into a list."""

    @contextmanager
    def start(total, done):
        progress.append((total, done))
        yield progress.append

    return Execution(plan=plan(**values), methods=on_pair(ENTRIES, models()), progress=start)


def test_an_execution_in_a_folder_solves_only_what_is_missing_and_reports_progress(tmp_path):
    progress, copy = [], tmp_path / "copy.jsonl"
    with EvalFolder(tmp_path / "run", {"jobs": 1}, {}) as folder:
        for one in asyncio.run(finished(plan(problems=PROBLEMS[:2]))):
            folder.append(one)
    run = executed(progress).in_folder(tmp_path / "run", {"jobs": 1}, arguments=["eval"], traces=copy)
    assert progress[0] == (18, 6)
    assert len(progress[1:]) == 12
    assert progress[-1] == "solving · right: target 100%, others 100%"
    assert [len(solutions) for solutions in run.solutions.values()] == [6, 6, 6]
    assert [session.get("arguments") for session in run.sessions] == [None, ["eval"]]
    assert copy.read_text() == (tmp_path / "run" / "traces.jsonl").read_text()
    again = executed(progress := []).in_folder(tmp_path / "run", {"jobs": 1})
    assert (again.solutions, progress) == (run.solutions, [])


def test_an_execution_in_memory_writes_traces_where_asked(tmp_path):
    results = executed([], jobs=2).in_memory(tmp_path / "traces.jsonl")
    assert [len(traces) for traces in results.values()] == [6, 6, 6]
    assert len((tmp_path / "traces.jsonl").read_text().splitlines()) == 18
    with pytest.raises(ConfigError, match="cannot write traces to"):
        executed([]).in_memory(tmp_path)
