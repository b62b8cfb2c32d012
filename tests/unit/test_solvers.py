"""Ways to solve whole problems: on engines of their own, and by a vote."""

import json
from dataclasses import dataclass, field

import pytest

from arbitrage.core.errors import ConfigError, EngineError
from arbitrage.core.policy import Policy
from arbitrage.core.solve import solve
from arbitrage.core.trace import Trace
from arbitrage.core.turn import Pair, Setting
from arbitrage.core.types import Finish, Sampling, Source
from arbitrage.engines.scripted import RealClock, ScriptedEngine
from arbitrage.evaluation.running.plan import Plan
from arbitrage.grading import is_same
from arbitrage.pairs.config import PairConfig
from arbitrage.pairs.hf import HFModel
from arbitrage.pairs.loaded import LoadedPair
from arbitrage.policies import DraftOnly, Majority, RuleSolver, TargetOnly
from arbitrage.policies.spec import methods
from arbitrage.policies.table import METHODS, Models
from helpers import PROBLEM, entry_of, scripted, swept, total

GREEDY = Setting()


@dataclass
class InTurn:
    """Opens another engine for each solution."""

    engines: list[ScriptedEngine]
    name: str = "in turn"
    num_opened: int = 0
    target: ScriptedEngine = field(default_factory=scripted)

    async def open(self, problem, source):
        self.num_opened += 1
        return await self.engines[self.num_opened - 1].open(problem, source)


def saying(*answers):
    """Engines that say one answer each, behind as many steps as their number; None says none."""
    return InTurn(
        [
            scripted(*[f"step {i}" for i in range(number)], "no idea" if said is None else rf"so \boxed{{{said}}}")
            for number, said in enumerate(answers)
        ]
    )


def majority(engine, **values):
    return Majority(
        **{"pair": Pair(draft=engine, target=engine.target), "is_same": is_same, "num": len(engine.engines), **values}
    )


@pytest.mark.parametrize(
    ("answers", "elected"),
    [
        (["7", "8", "7"], 0),
        (["8", "7", "7.0"], 1),
        (["8", "7", "9"], 0),
        ([None, None, "7"], 2),
        ([None, "8", "7", None, "7"], 2),
        ([None, None], 0),
        (["7"], 0),
    ],
)
async def test_the_first_solution_with_the_commonest_answer_is_kept(answers, elected):
    engine = saying(*answers)
    trace = await majority(engine).solve(PROBLEM, GREEDY)
    assert (trace.answer, trace.policy, trace.finish) == (answers[elected], "majority", Finish.END_OF_SEQUENCE)
    assert len(trace.steps) == elected + 1
    assert {step.candidate.sample for step in trace.steps} == {elected} == {s.decision.sample for s in trace.steps}
    assert engine.target.calls == []


@pytest.mark.parametrize("answers", [["7", "8", "8"], ["8", "9", "8"], [None, "8", None]])
async def test_the_kept_solution_bears_the_cost_of_all(answers):
    engine = saying(*answers)
    alone = [
        await solve(PROBLEM, Pair(draft=one, target=engine.target), DraftOnly()) for one in saying(*answers).engines
    ]
    trace = await majority(engine).solve(PROBLEM, GREEDY)
    made = [candidate for step in trace.steps for candidate in step.candidates]
    assert len(made) == sum(len(one.steps) for one in alone) == 1 + 2 + 3
    assert trace.usage["draft"] == total(one.usage["draft"] for one in alone)
    assert trace.acceptance_rate == 1.0
    for number in range(3):
        assert "".join(c.text for c in made if c.sample == number) == alone[number].text
    assert Trace.from_json(json.loads(json.dumps(trace.to_json()))) == trace


async def test_seconds_add_up():
    engine = saying(None, None)
    engine.engines[0].faults = {0: EngineError("out of memory")}
    assert (await majority(engine).solve(PROBLEM, GREEDY)).finish is Finish.END_OF_SEQUENCE
    engine = saying("7", "7")
    for one in engine.engines:
        one.clock, one.seconds_per_token = RealClock(), 0.002
    trace = await majority(engine).solve(PROBLEM, GREEDY)
    assert trace.model_s >= 0.002 * (2 + 4)
    assert trace.wall_s >= trace.model_s


@pytest.mark.parametrize(("temperature", "used"), [(0.0, 0.7), (1.3, 1.3)])
async def test_each_solution_is_sampled_with_seeds_of_its_own(temperature, used):
    engine = saying("7", "7", "7")
    setting = Setting(sampling=Sampling(temperature=temperature), attempt=1)
    await majority(engine).solve(PROBLEM, setting)
    calls = [call for one in engine.engines for call in one.calls]
    assert {call.sampling.temperature for call in calls} == {used}
    assert len({call.seed for call in calls}) == len(calls) == 6
    again = saying("7", "7", "7")
    await majority(again).solve(PROBLEM, Setting(attempt=2))
    assert not {call.seed for call in calls} & {call.seed for one in again.engines for call in one.calls}


async def test_a_solution_that_fails_has_no_vote_and_all_failing_is_a_failure():
    engine = saying(None, "7")
    engine.engines[0].faults = {0: EngineError("out of memory")}
    assert (await majority(engine).solve(PROBLEM, GREEDY)).answer == "7"
    engine = saying("7", "7")
    for one in engine.engines:
        one.faults = {0: EngineError("out of memory")}
    trace = await majority(engine).solve(PROBLEM, GREEDY)
    assert (trace.finish, trace.error, trace.steps) == (Finish.FAILED, "out of memory", ())


def test_a_vote_of_none_is_refused():
    with pytest.raises(ConfigError, match="number of drafts must be at least 1, got 0"):
        majority(saying(), num=0)


async def test_a_policy_can_have_engines_of_its_own():
    given, own = (Pair(draft=scripted("a"), target=scripted(text)) for text in ("b", "c"))
    method, seen = RuleSolver(policy=TargetOnly(), pair=own, name="other"), []
    assert isinstance(TargetOnly(), Policy)
    assert not isinstance(method, Policy)
    trace = await method.solve(PROBLEM, GREEDY, watch=seen.append)
    assert (trace.text, trace.policy, seen[-1]) == ("c", "other", trace)
    assert given.target.calls == []
    assert (await RuleSolver(policy=TargetOnly(), pair=given).solve(PROBLEM, GREEDY)).text == "b"


async def test_solvers_are_compared_with_policies():
    pair = Pair(draft=scripted(r"\boxed{7}"), target=scripted(r"\boxed{8}"))
    methods = {
        entry_of("target"): RuleSolver(policy=TargetOnly(), pair=pair),
        entry_of("majority"): Majority(pair=pair, is_same=is_same, num=3),
        entry_of("other"): RuleSolver(
            policy=TargetOnly(), pair=Pair(draft=pair.draft, target=scripted("9")), name="other"
        ),
    }
    results = await swept(Plan(problems=[PROBLEM], entries=list(methods), setting=GREEDY), methods)
    said = {entry.policy: [(trace.policy, trace.text) for trace in traces] for entry, traces in results.items()}
    assert said == {
        "target": [("target", r"\boxed{8}")],
        "majority": [("majority", r"\boxed{7}")],
        "other": [("other", "9")],
    }


# --- by name ----------------------------------------------------------------------------------------


@pytest.fixture
def loaded():
    model = HFModel(path="nowhere")
    config = PairConfig(name="test", draft=model, target=model)
    pair = Pair(draft=scripted(r"\boxed{7}"), target=scripted("8"))
    return LoadedPair(config=config, models=Models(pair_name="test", pair=pair, is_same_answer=is_same))


def test_a_number_behind_the_name_is_the_solvers(loaded):
    assert (loaded.method("majority").num, loaded.method("majority").name) == (5, "majority")
    assert (loaded.method("majority:3").num, loaded.method("majority:3").name) == (3, "majority:3")
    assert loaded.method("target").policy == TargetOnly()
    assert set(METHODS) <= set(loaded.policies)
    trace = loaded.solve("?", policy="majority:2")
    assert (trace.answer, trace.usage["draft"].num_calls) == ("7", 2)
    assert trace.steps[0].source is Source.DRAFT


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda pair: pair.method("majority:many"), "number in 'majority:many' must be a whole number, got 'many'"),
        (lambda pair: pair.method("majority:0"), "number of drafts must be at least 1, got 0"),
        (lambda pair: pair.method("telepathy"), "unknown policy 'telepathy'.*majority"),
        (lambda pair: pair.policy("majority:3"), "policy must be a rule for single steps, got 'majority:3'"),
        (lambda pair: pair.method("random+majority"), "a rule cannot be combined with 'majority'"),
        (lambda pair: pair.method("random+telepathy"), r"unknown policy 'random\+telepathy'"),
    ],
    ids=["text", "zero", "unknown", "policy", "vote", "rule"],
)
def test_a_name_that_cannot_be_is_refused(loaded, call, told):
    with pytest.raises(ConfigError, match=told):
        call(loaded)


def test_solvers_have_no_threshold():
    assert [str(spec) for spec in methods(["majority:3", "ngram", "rsd"], [0.1])] == ["majority:3", "ngram", "rsd@0.1"]


@pytest.mark.parametrize(("name", "threshold"), [("confidence", 0.3), ("entropy", 0.3), ("judge", 0.3)])
def test_gates_have_a_threshold_and_a_default(loaded, name, threshold):
    assert loaded.policy(name, threshold).threshold == threshold
    assert 0.0 < loaded.policy(name).threshold < 1.0
    assert loaded.policy(name).name == name
