"""Sweeps: order, resumption, protocols; with scripted models."""

import asyncio

import pytest

from arbitrage.core.errors import ConfigError
from arbitrage.core.turn import Pair, Setting
from arbitrage.core.types import Problem
from arbitrage.evaluation.run import TARGET, Entry, Plan, compare, graded, rows_of, sweep, table_of
from arbitrage.policies import DraftOnly, RandomEscalation, TargetOnly
from helpers import scripted

PROBLEMS = [Problem(id=f"p{i}", question="What is 2 + 2 ?", answer="4") for i in range(6)]
ENTRIES = {TARGET: TargetOnly(), Entry("draft"): DraftOnly(), Entry("random", 0.5): RandomEscalation(0.5)}


def models():
    return Pair(draft=scripted("2+2=4", r"\boxed{4}"), target=scripted("2+2=4", r"\boxed{4}"))


def plan(**values):
    return Plan(**{"problems": PROBLEMS, "policies": ENTRIES, "setting": Setting(), "num_warmup": 0, **values})


async def swept(wanted, **values):
    done = []
    await sweep(wanted, models(), done.append, **values)
    return done


def place(finished):
    return finished.entry, finished.trace.problem.id, finished.attempt


async def test_every_policy_solves_every_problem_once_an_attempt():
    wanted = plan(num_attempts=2)
    done = await swept(wanted)
    assert len(done) == len({place(one) for one in done}) == wanted.num_solutions == 36


async def test_one_at_a_time_policies_take_turns_in_random_order():
    places = [place(one) for one in await swept(plan())]
    blocks = [places[start : start + 3] for start in range(0, 18, 3)]
    assert [{problem for _, problem, _ in block} for block in blocks] == [{problem.id} for problem in PROBLEMS]
    assert len({tuple(entry for entry, _, _ in block) for block in blocks}) > 1
    assert places == [place(one) for one in await swept(plan())]


async def test_a_resumed_sweep_makes_what_is_missing_in_the_same_order():
    places = [place(one) for one in await swept(plan(num_attempts=2))]
    known = set(places[:20])
    rest = await swept(plan(num_attempts=2), is_done=lambda e, p, a: (e, p.id, a) in known)
    assert [place(one) for one in rest] == places[20:]


async def test_attempts_have_seeds_of_their_own():
    tossed = {
        one.attempt: [step.decision.score for step in one.trace.steps]
        for one in await swept(plan(num_attempts=2, problems=PROBLEMS[:1]))
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

    policies = {Entry("a"): Slow(name="a"), Entry("b"): Slow(name="b")}
    done = await swept(plan(policies=policies, jobs=3))
    assert most == 3
    assert len(done) == 12
    assert [one.entry.policy for one in done] in (["a"] * 6 + ["b"] * 6, ["b"] * 6 + ["a"] * 6)


async def test_energy_is_read_around_a_solution_that_runs_alone():
    reading = iter(range(0, 1000, 5))
    done = await swept(plan(), energy=lambda: float(next(reading)))
    assert {one.energy_j for one in done} == {5.0}
    assert {one.energy_j for one in await swept(plan(jobs=2), energy=lambda: 1.0)} == {None}


async def test_times_of_beginning_are_those_of_the_clock():
    ticks = iter(float(i) for i in range(100))
    done = await swept(plan(problems=PROBLEMS[:1]), clock=lambda: next(ticks))
    assert [one.began_s for one in done] == [1.0, 2.0, 3.0]


async def test_warm_up_comes_before_the_count():
    pair, done = models(), []
    await sweep(plan(num_warmup=2, policies={Entry("draft"): DraftOnly()}), pair, done.append)
    assert len(pair.draft.calls) == (6 + 2) * 2
    assert len(done) == 6


@pytest.mark.parametrize(("name", "values"), [("samples", {"num_attempts": 0}), ("jobs", {"jobs": 0})])
def test_numbers_out_of_range_are_refused(name, values):
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
        plan(**values)


async def test_a_comparison_in_memory_is_graded():
    results = await compare(PROBLEMS, models(), ENTRIES, Setting(), num_warmup=0)
    rows = rows_of(results)
    assert [(row.policy, row.threshold, row.accuracy) for row in rows] == [
        ("target", None, 1.0),
        ("draft", None, 1.0),
        ("random", 0.5, 1.0),
    ]
    assert rows == table_of(graded(results))
    assert Entry("random", 0.5).label == "random@0.5"
    assert TARGET.label == "target"
