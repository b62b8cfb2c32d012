from dataclasses import dataclass, field, replace

import pytest

from arbitrage.core.errors import ConfigError, ContextOverflow, EngineError, RowError
from arbitrage.core.solve import solve
from arbitrage.core.turn import Pair, Setting
from arbitrage.core.types import Finish, Problem, Sampling, Source
from arbitrage.grading import is_same
from arbitrage.policies import DraftOnly, TargetOnly
from arbitrage.runtime.store import GroupLog
from arbitrage.training.rollouts import Rollouts, score_by_rollouts
from arbitrage.training.rows import read_rows
from helpers import candidate, row, scripted

TARGET = Source.TARGET
SAMPLED = Setting(sampling=Sampling(temperature=0.7))


@dataclass
class Solver:
    """Ends every solution at once; right, except after a wrong step, or with an odd seed after a step in doubt."""

    name: str = "solver"
    text: str = ""
    seeds: list[int] = field(default_factory=list)
    failing: str = "no such problem"

    async def open(self, problem, source):
        if problem.id == self.failing:
            raise EngineError("out of memory")
        return replace(self, seeds=self.seeds)

    async def commit(self, step):
        self.text += step.text

    async def propose(self, request):
        self.seeds.append(request.seed)
        if len(self.text) > 1000:
            raise ContextOverflow("the context is full")
        is_wrong = "wrong" in self.text or ("doubt" in self.text and request.seed % 2)
        return candidate(rf"\boxed{{{8 if is_wrong else 7}}}", TARGET, Finish.END_OF_SEQUENCE)

    async def close(self):
        pass


def logged(draft, target="fine\n\n", *, problem="p1", answer="7", step=0, history=(), finish=Finish.STEP_END):
    scored_row = row(0.5, 0.5, 0.5, problem=problem, step=step, history=history, text=draft, finish=finish)
    targets = tuple(replace(sample, text=target) for sample in scored_row.targets)
    with_answer = Problem(id=problem, question="?", answer=answer)
    return replace(scored_row, problem=with_answer, targets=targets, is_last=True)


def rollouts(**values):
    return Rollouts(**{"policy": TargetOnly(), "grade": is_same, "setting": SAMPLED, "num_continuations": 8, **values})


async def scored(rows, folder, solver=None, **values):
    pair = Pair(draft=scripted("d"), target=solver or Solver())
    with GroupLog(folder / "out", {}, id_field="problem_id") as log:
        report = await score_by_rollouts(rows, pair, rollouts(**values), log)
    return list(read_rows(folder / "out")), report


async def test_a_score_is_the_share_of_continuations_that_reach_the_answer(tmp_path):
    solver = Solver()
    rows = [
        logged("wrong\n\n", problem="a"),
        logged("doubt\n\n", problem="b"),
        logged("fine\n\n", "wrong\n\n", problem="c"),
    ]
    (a, b, c), report = await scored(rows, tmp_path, solver)
    assert (a.draft.score, [s.score for s in a.targets], a.advantage) == (0.0, [1.0], 1.0)
    assert (c.draft.score, c.advantage) == (1.0, -1.0)
    assert 0.0 < b.draft.score < 1.0
    assert report.num_rows == 3
    assert len(solver.seeds) == 3 * 2 * 8
    assert len(set(solver.seeds)) == 3 * 8  # The draft step and the target step get the same seeds.
    assert a.models["prm"] == "rollouts by target"


async def test_a_continuation_reads_the_history_too(tmp_path):
    (only,), _ = await scored([logged("fine\n\n", history=("wrong\n\n",))], tmp_path)
    assert (only.draft.score, only.advantage) == (0.0, 0.0)


async def test_a_step_that_fills_the_context_has_score_0(tmp_path):
    (only,), report = await scored([logged(f"{'long ' * 300}\n\n")], tmp_path)
    assert (only.draft.score, only.targets[0].score, report.failures) == (0.0, 1.0, {})


async def test_a_step_that_ends_the_solution_is_graded_as_it_is(tmp_path):
    solver = Solver()
    last = logged(r"\boxed{7}", finish=Finish.END_OF_SEQUENCE)
    last = replace(last, targets=tuple(replace(s, text=r"\boxed{9}", finish=last.draft.finish) for s in last.targets))
    (only,), _ = await scored([last], tmp_path, solver, num_target_samples=2)
    assert (only.draft.score, [s.score for s in only.targets]) == (1.0, [0.0, 0.0])
    assert not solver.seeds


async def test_a_run_skips_the_problems_that_are_done(tmp_path):
    rows = [logged("fine\n\n", problem=name) for name in "abc"]
    _, report = await scored(rows, tmp_path, Solver(failing="b"))
    assert report.failures == {"b": "out of memory"}
    solver = Solver()
    scored_rows, report = await scored(rows, tmp_path, solver)
    assert [scored_row.problem.id for scored_row in scored_rows] == ["a", "c", "b"]
    assert (report.num_rows, len(solver.seeds)) == (1, 16)


async def test_a_solution_can_start_after_given_steps(tmp_path):
    draft = scripted("one", "two", "three")
    start = [candidate("other\n\n", TARGET)]
    trace = await solve(Problem(id="p", question="?"), Pair(draft=draft, target=Solver()), DraftOnly(), start=start)
    assert trace.text == "two\n\nthree"
    assert trace.finish is Finish.END_OF_SEQUENCE


async def test_bad_input_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="temperature 0 makes all 8 continuations equal"):
        rollouts(setting=Setting())
    with pytest.raises(ConfigError, match="num_continuations must be at least 1, got 0"):
        rollouts(num_continuations=0)
    with pytest.raises(RowError, match="problem 'p1' has no gold answer"):
        await scored([logged("fine\n\n", answer=None)], tmp_path)
    with pytest.raises(RowError, match="num_target_samples is 3, but a row of problem 'p1' has 2 target samples"):
        await scored([logged("fine\n\n")], tmp_path, num_target_samples=3)
