"""Solutions on the actors of a Ray cluster: the answers of this process, and none lost with an actor or a node."""

import asyncio
import random
import sys
from contextlib import contextmanager

import pytest

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

from arbitrage.cluster.ray_pair import RayPair  # noqa: E402
from arbitrage.core.errors import ConfigError  # noqa: E402
from arbitrage.core.turn import Pair, Setting  # noqa: E402
from arbitrage.core.types import Problem  # noqa: E402
from arbitrage.engines.scripted import RealClock, ScriptedEngine  # noqa: E402
from arbitrage.evaluation.running.execute import Execution  # noqa: E402
from arbitrage.evaluation.running.folder import read_traces  # noqa: E402
from arbitrage.evaluation.running.plan import Plan, resolved_entries, solvers_of  # noqa: E402
from arbitrage.evaluation.running.settings import run_settings  # noqa: E402
from arbitrage.grading import is_same  # noqa: E402
from arbitrage.pairs.config import PairConfig, RayOptions  # noqa: E402
from arbitrage.pairs.hf import HFModel  # noqa: E402
from arbitrage.pairs.loaded import LoadedPair  # noqa: E402
from arbitrage.policies.spec import methods  # noqa: E402
from arbitrage.policies.table import Models  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:::ray", "ignore::ResourceWarning", "ignore::FutureWarning")
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Actors cannot import a test.
PROBLEMS = [Problem(id=f"p{i}", question=f"What is {i} + {i}?", answer=str(i)) for i in range(40)]
SPECS = methods(["draft", "random@0.5"])


def scripted_pair(seconds=0.0):
    """Engines that answer each problem in its own words, at so many seconds a word."""

    def engine(name):
        script = {p.id: "\n\n".join(f"{name} {p.id} step {i} says so" for i in range(4)) for p in PROBLEMS}
        return ScriptedEngine(script=script, name=name, clock=RealClock(), seconds_per_token=seconds)

    config = PairConfig(name="scripted", draft=HFModel(path="d"), target=HFModel(path="t"))
    pair = Pair(draft=engine("d"), target=engine("t"))
    models = Models(pair_name="scripted", pair=pair, is_same_answer=is_same, configured=frozenset(config.models))
    return LoadedPair(config=config, models=models)


def slow_pair():
    return scripted_pair(seconds=0.01)


def unloadable():
    raise ConfigError("the draft is away", hint="bring it back")


@contextmanager
def remote(load=scripted_pair, actors=2, address="local", **options):
    with RayPair(load, RayOptions(actors=actors, **options), address) as pair:
        yield pair


@pytest.fixture
def cluster():
    """Four nodes of one CPU each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    yield cluster, nodes
    cluster.shutdown()


def plan_of(pair, problems=PROBLEMS, jobs=8):
    entries = resolved_entries(pair, SPECS)
    return Plan(problems=problems, entries=entries, setting=Setting(), jobs=jobs, num_warmup=0)


def facts(trace):
    """Everything that a seed determines."""
    steps = [(step.source, step.decision.score, [one.text for one in step.candidates]) for step in trace.steps]
    return trace.problem.id, trace.text, trace.finish, steps


@contextmanager
def quiet(total, done):
    yield lambda words="": None


def execution_of(pair, plan):
    return Execution(plan=plan, methods=solvers_of(pair, plan), progress=quiet)


def solved(pair):
    results = execution_of(pair, plan_of(pair)).in_memory()
    return {entry.policy: sorted(map(facts, traces)) for entry, traces in results.items()}


def test_answers_and_settings_are_those_of_this_process():
    local = scripted_pair()
    with remote() as pair:
        assert (pair.name, pair.num_actors, pair.auditor) == ("scripted", 2, None)
        assert solved(pair) == solved(local)
        plan = plan_of(local)
        settings = [run_settings(one, plan, "set", is_audited=False) for one in (pair, local)]
        assert settings[0] == settings[1]
        with pytest.raises(ConfigError, match="has no prm"):
            pair.method(methods(["rsd"])[0])


def test_actors_and_a_node_are_lost_and_no_solution_is(cluster, tmp_path):
    nodes = cluster[1]
    rng = random.Random(0)
    with remote(slow_pair, actors=3, address=cluster[0].address) as pair:
        plan = plan_of(pair)
        execution = execution_of(pair, plan)

        async def disturb():
            for number in range(8):
                await asyncio.sleep(rng.uniform(0.2, 0.8))
                if number == 4:
                    cluster[0].remove_node(nodes[0])
                else:
                    ray.kill(rng.choice(pair._actors).handle, no_restart=False)

        def run():
            return execution.in_folder(tmp_path / "run", run_settings(pair, plan, "set", is_audited=False))

        async def both():
            await asyncio.gather(asyncio.to_thread(run), disturb())

        asyncio.run(both())
    traces = [(position.entry.policy, facts(trace)) for position, trace in read_traces(tmp_path / "run")]
    local = solved(scripted_pair())
    assert len(traces) == len(SPECS) * len(PROBLEMS)
    assert {policy: sorted(facts for of, facts in traces if of == policy) for policy in local} == local


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_cpus": 1000.0}, "0 actors of 1000 CPUs and 0 GPUs fit into the Ray cluster.*change actors"),
        ({"num_gpus": 9.0}, "0 actors of 1 CPUs and 9 GPUs fit into the Ray cluster"),
        ({"load": unloadable}, "the draft is away.*bring it back"),
        ({"address": "127.0.0.1:1"}, "no Ray cluster at '127.0.0.1:1'.*'local' starts one"),
    ],
)
def test_what_cannot_start_is_one_clear_error(options, message):
    with pytest.raises(ConfigError, match=message), remote(**options):
        pass
    assert not ray.is_initialized()


def test_bad_numbers_are_refused():
    for values, message in (({"actors": 0}, "actors must be at least 1, got 0"), ({"num_cpus": -1.0}, "num_cpus")):
        with pytest.raises(ConfigError, match=message):
            RayOptions(**values)
