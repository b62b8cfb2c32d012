from dataclasses import dataclass, field, replace

import pytest

from arbitrage.core.boxes import last_boxed
from arbitrage.core.errors import ConfigError, ContextOverflow, EngineError, RowError
from arbitrage.core.solve import solve
from arbitrage.core.turn import Pair, Setting
from arbitrage.core.types import Finish, Limits, Problem, Sampling, Source
from arbitrage.grading import is_same
from arbitrage.policies import DraftOnly, TargetOnly
from arbitrage.runtime.store import GroupLog
from arbitrage.training.rollouts import Rollouts, score_by_rollouts
from arbitrage.training.rows import Past, read_rows
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
    rows = [logged("good\n\n", problem=name) for name in "abc"]
    _, report = await scored(rows, tmp_path, Solver(failing="b"))
    assert report.failures == {"b": "out of memory"}
    solver = Solver()
    scored_rows, report = await scored(rows, tmp_path, solver)
    assert [scored_row.problem.id for scored_row in scored_rows] == ["a", "c", "b"]
    assert (report.num_rows, len(solver.seeds)) == (1, 16)


async def test_one_text_is_continued_once(tmp_path):
    """The draft's step and the target's have the same text, so the same seeds give the same continuations."""
    solver = Solver()
    (only,), report = await scored([logged("doubt\n\n", "doubt\n\n")], tmp_path, solver)
    assert only.draft.score == only.targets[0].score
    assert 0.0 < only.draft.score < 1.0
    assert (len(solver.seeds), report.num_continuations) == (8, 8)
    (ended,), _ = await scored(
        [
            replace(
                logged(r"\boxed{8}"), draft=replace(logged("").draft, text=r"\boxed{8}", finish=Finish.END_OF_SEQUENCE)
            )
        ],
        tmp_path / "ended",
    )
    assert ended.draft.score == 0.0  # It ended the solution.


def solution(*steps, kept):
    """Rows of one solution: the draft's step and the target's at each position, and who wrote the kept ones."""
    rows, history = [], []
    for number, (draft, target) in enumerate(steps):
        a_row = logged(draft, target, step=number)
        a_row = replace(a_row, history=tuple(history), kept=kept[number], is_last=number == len(steps) - 1)
        rows.append(a_row)
        history.append(Past(source=kept[number], text=draft if kept[number] is Source.DRAFT else target))
    return rows


async def by_fresh_solutions(rows, pair, limits):
    """The scores of draft and target steps, each from a continuation of its own."""
    values = []
    for one in rows:
        history = [past.as_candidate() for past in one.history]
        for step in (one.draft.as_candidate(Source.DRAFT), one.targets[0].as_candidate(TARGET)):
            trace = await solve(one.problem, pair, TargetOnly(), Setting(limits=limits), start=[*history, step])
            text = "".join(part.text for part in (*history, step)) + trace.text
            values.append(float(is_same(last_boxed(text), one.problem.answer)))
    return values


@pytest.mark.parametrize(("max_tokens", "num_continuations"), [(64, 3), (2, 5)], ids=["whole", "cut by the limit"])
async def test_a_greedy_continuation_scores_the_steps_that_it_holds(tmp_path, max_tokens, num_continuations):
    """The target writes a b c \\boxed{7}: a row's kept step leads to the next row's target step."""
    target = scripted("a", "b", "c", r"\boxed{7}")
    rows = solution(("x\n\n", "a\n\n"), ("b\n\n", "b\n\n"), ("y\n\n", "c\n\n"), kept=(TARGET, Source.DRAFT, TARGET))
    limits = Limits(max_tokens=max_tokens)
    pair = Pair(draft=scripted("d"), target=target)
    greedy = rollouts(setting=Setting(limits=limits), num_continuations=1)
    with GroupLog(tmp_path, {}, id_field="problem_id") as log:
        report = await score_by_rollouts(rows, pair, greedy, log)
    scores = [score for one in read_rows(tmp_path) for score in (one.draft.score, one.targets[0].score)]
    assert scores == await by_fresh_solutions(rows, pair, limits)
    assert report.num_continuations == num_continuations
    assert target.open_sessions == 0


async def test_continuations_share_the_cache_of_their_steps(tmp_path):
    target = scripted("a", "b", "c", r"\boxed{7}")
    with GroupLog(tmp_path, {}, id_field="problem_id") as log:
        report = await score_by_rollouts([logged("x\n\n")], Pair(draft=scripted("d"), target=target), rollouts(), log)
    # The question's token is computed once, each step to score once, and the first two steps of each continuation.
    assert report.num_continuations == 16
    assert report.num_computed == 1 + 2 * 2 + 16 * (2 + 2)
    assert report.num_cached + report.num_computed == 16 * (3 + 5 + 7)


async def test_a_continuation_can_end_at_its_answer(tmp_path):
    target = scripted("a", r"so \boxed{7}", "but", r"\boxed{8}")
    scores = {}
    for stops in (False, True):
        target.calls.clear()
        setting = Setting(limits=Limits(stops_at_answer=stops))
        (only,), _ = await scored(
            [logged("x\n\n")], tmp_path / str(stops), target, setting=setting, num_continuations=1
        )
        scores[stops] = only.draft.score, len(target.calls)
    assert scores == {False: (0.0, 6), True: (1.0, 2)}
    boxed = logged("so \\boxed{7}\n\n", "so \\boxed{9}\n\n")
    target.calls.clear()
    setting = Setting(limits=Limits(stops_at_answer=True))
    (only,), _ = await scored([boxed], tmp_path / "boxed", target, setting=setting, num_continuations=1)
    assert (only.draft.score, only.targets[0].score, target.calls) == (1.0, 0.0, [])


async def test_a_solution_can_start_after_given_steps(tmp_path):
    draft = scripted("one", "two", "three")
    start = [candidate("other\n\n", TARGET)]
    trace = await solve(Problem(id="p", question="?"), Pair(draft=draft, target=Solver()), DraftOnly(), start=start)
    assert trace.text == "two\n\nthree"
    assert trace.finish is Finish.END_OF_SEQUENCE


async def test_bad_input_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="temperature 0 makes all 8 continuations equal"):
        rollouts(setting=Setting())
    with pytest.raises(ConfigError, match=r"^continuations must be at least 1, got 0"):
        rollouts(num_continuations=0)
    with pytest.raises(RowError, match="problem 'p1' has no gold answer"):
        await scored([logged("fine\n\n", answer=None)], tmp_path)
    with pytest.raises(RowError, match="num_target_samples is 3, but a row of problem 'p1' has 2 target samples"):
        await scored([logged("fine\n\n")], tmp_path, num_target_samples=3)
