"""The loop on real servers: the tiny pair behind vLLM and llama-server; `make integration` installs both."""

import asyncio
import itertools
import os
import random
import signal
from collections import Counter
from contextlib import ExitStack

import httpx
import pytest

import arbitrage as arb
from arbitrage.core.types import Finish
from arbitrage.datasets.named import problems
from arbitrage.engines.http_client import HTTPClient, HTTPOptions
from arbitrage.evaluation.running.audit import audited
from arbitrage.pairs.hf import HFModel
from arbitrage.pairs.loading import load_engine, load_prm, load_router_model
from arbitrage.policies import RandomEscalation, TargetOnly
from arbitrage.runtime.pool import each
from arbitrage.tiny import WEIGHTS
from servers import Hang, local_server, response

pytestmark = pytest.mark.integration
SERVERS = ("vllm", "llama-server")
BLOCK = 128
"""vLLM's cache block on a CPU."""


@pytest.fixture(params=SERVERS)
def pair(request, served):
    models = served(request.param)
    return arb.Pair(draft=load_engine(models["draft"]), target=load_engine(models["target"]))


async def solved(found, pair, policy, *, jobs=8):
    traces = {}

    async def work(problem):
        traces[problem.id] = await arb.solve(problem, pair, policy)

    await each(found, work, max_in_flight=jobs)
    return [traces[problem.id] for problem in found]


async def test_greedy_text_is_that_of_transformers(pair):
    """A served model may differ in a near-tie of logits; the benchmark on more problems explains each."""
    found, tiny = problems("tiny:test", 20), arb.load("tiny")
    served = await solved(found, pair, TargetOnly())
    local = [await arb.solve(problem, tiny.pair, TargetOnly()) for problem in found]
    same = [a.text == b.text for a, b in zip(served, local, strict=True)]
    assert sum(same) >= 19
    ids = [[step.candidate.token_ids for step in trace.steps] for trace in (served[0], local[0])]
    assert ids[0] == ids[1]


async def test_mixed_answers_do_not_depend_on_what_runs_beside_them(pair):
    found = problems("tiny:validation", 12)
    together = await solved(found, pair, RandomEscalation(0.5), jobs=12)
    alone = await solved(found, pair, RandomEscalation(0.5), jobs=1)
    assert [a.text for a in together] == [b.text for b in alone]
    assert all(trace.finish is Finish.END_OF_SEQUENCE for trace in together)


async def test_only_the_last_cache_block_is_computed_again(pair):
    for trace in await solved(problems("tiny:validation", 8), pair, TargetOnly(), jobs=1):
        for before, step in itertools.pairwise(trace.steps):
            assert step.candidate.cost.num_computed <= BLOCK + before.candidate.num_tokens


@pytest.mark.parametrize("kind", ["prm", "router"])
async def test_a_served_classifier_says_what_it_says_in_process(serve, kind):
    own = HFModel(path=str(WEIGHTS / kind))
    load = load_prm if kind == "prm" else load_router_model
    there, here = load(serve("vllm", {kind: own})[kind], "there"), load(own, "here")
    pair = arb.load("tiny").pair
    for problem in problems("tiny:validation", 6):
        trace = await arb.solve(problem, pair, RandomEscalation(0.9))
        for scorer in (there, here):
            trace = await audited(trace, scorer)
        scores = {
            name: [score.value for step in trace.steps for score in step.scores if score.scorer == name]
            for name in ("there", "here")
        }
        assert len(scores["here"]) >= len(trace.steps)
        assert scores["there"] == pytest.approx(scores["here"], abs=1e-3)


async def test_a_slow_problem_delays_no_other(pair):
    """One problem waits at its second step until all others, side by side with it, have ended."""
    found, others_ended, ended = problems("tiny:validation", 8), asyncio.Event(), []

    class Late:
        name = "late"

        async def decide(self, turn):
            if turn.history.problem.id == found[0].id and turn.index == 1:
                await others_ended.wait()
            return await TargetOnly().decide(turn)

    async def work(problem):
        trace = await arb.solve(problem, pair, Late())
        ended.append((problem.id, trace.finish))
        if len(ended) == len(found) - 1:
            others_ended.set()

    async with asyncio.timeout(300):
        await each(found, work, max_in_flight=4)
    assert ended[-1] == (found[0].id, Finish.END_OF_SEQUENCE)


async def test_a_thousand_faults_lose_nothing_and_hang_nowhere(served):
    """A proxy before the real server spoils every second answer in a way drawn by lot, until it has spoilt 1,000."""
    model, rng, spoilt = served("vllm")["draft"], random.Random(0), Counter()
    faults = {
        "reset": b"",
        "busy": response(429, "later"),
        "restarting": response(503, "loading"),
        "error": response(500, "dead"),
        "truncated": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        "broken": response(200, '{"choices": ['),
        "wrong fields": {"choices": [{"text": "hello"}]},
        "silent": None,
    }
    async with httpx.AsyncClient(base_url=model.url, timeout=60.0) as server:

        async def handler(path, body):
            if rng.random() < 0.5 and spoilt.total() < 1000:
                kind = rng.choices(list(faults), [6, 6, 6, 1, 6, 6, 1, 2])[0]
                spoilt[kind] += 1
                if kind == "silent":
                    raise Hang
                return faults[kind]
            return (await server.post(path, json=body)).json()

        async with local_server(handler) as proxy:
            engine = load_engine(model)
            options = HTTPOptions(timeout_s=1.0, num_retries=12, backoff_s=0.002, max_backoff_s=0.02)
            engine.client = HTTPClient(proxy.url, options)
            pair, traces, found = arb.Pair(draft=engine, target=engine), [], iter(problems("tiny:train", 2000))
            while spoilt.total() < 1000:
                batch = list(itertools.islice(found, 32))
                async with asyncio.timeout(120):
                    traces += await solved(batch, pair, TargetOnly(), jobs=32)
    assert spoilt.total() == 1000
    assert set(spoilt) == set(faults)
    outcomes = Counter(trace.finish for trace in traces)
    assert set(outcomes) <= {Finish.END_OF_SEQUENCE, Finish.FAILED}
    assert outcomes[Finish.END_OF_SEQUENCE] > outcomes[Finish.FAILED] > 0
    failed = [trace.error for trace in traces if trace.finish is Finish.FAILED]
    assert all("500: dead" in error or "cannot be read" in error or "did not answer" in error for error in failed)
    alone = await solved([traces[0].problem], arb.Pair(draft=load_engine(model), target=engine), TargetOnly())
    assert alone[0].finish is not None


@pytest.mark.parametrize("server", SERVERS)
async def test_a_server_that_is_killed_and_started_again_loses_nothing(server, start_again):
    model, start = start_again(server)
    found = problems("tiny:train", 24)
    with ExitStack() as stack:
        first = stack.enter_context(start())
        engine = load_engine(model)
        engine.client = HTTPClient(model.url, HTTPOptions(num_retries=200, backoff_s=0.05, max_backoff_s=1.0))
        pair, ended = arb.Pair(draft=engine, target=engine), []

        async def work(problem):
            ended.append(await arb.solve(problem, pair, TargetOnly()))
            if len(ended) == 6:
                os.killpg(first[0].process.pid, signal.SIGKILL)

        async with asyncio.timeout(400), asyncio.TaskGroup() as tasks:
            tasks.create_task(each(found, work, max_in_flight=8))
            await asyncio.to_thread(first[0].process.wait)
            assert len(ended) < len(found)
            await asyncio.to_thread(stack.enter_context, start())
    assert {trace.problem.id for trace in ended} == {problem.id for problem in found}
    assert {trace.finish for trace in ended} == {Finish.END_OF_SEQUENCE}


async def test_a_server_that_is_not_there_is_a_named_failure(served):
    engine = load_engine(served("vllm")["draft"])
    engine.client = HTTPClient("http://127.0.0.1:9", HTTPOptions(num_retries=1, backoff_s=0.01))
    (trace,) = await solved(problems("tiny:test", 1), arb.Pair(draft=engine, target=engine), TargetOnly())
    assert trace.finish is Finish.FAILED
    assert "arbitrage up" in trace.error
