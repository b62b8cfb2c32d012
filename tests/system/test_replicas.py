"""Several servers of one model: problems stay where their cache is, and go on elsewhere when a server fails."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from arbitrage.core.errors import ConfigError, EngineError
from arbitrage.core.solve import solve
from arbitrage.core.turn import Pair
from arbitrage.core.types import Problem
from arbitrage.engines.dialects import SGLang
from arbitrage.engines.http import HTTPEngine
from arbitrage.engines.http_client import HTTPClient, HTTPOptions
from arbitrage.engines.replicas import RECHECK_S, Replicas
from arbitrage.pairs.addresses import addresses
from arbitrage.pairs.config import read_pair
from arbitrage.pairs.launch import servers
from arbitrage.pairs.served import VLLMModel
from arbitrage.policies import RandomEscalation
from helpers import setting
from servers import Hang, SGLangServer, local_server, response

QUICK = HTTPOptions(backoff_s=0.001, timeout_s=0.3, num_retries=4)
ABOUT = "/v1/models"
DOWN = b""
"""The connection breaks before an answer."""


class Stage:
    """Servers whose answers a test sets, and their group, on a clock that the test moves."""

    def __init__(self, urls):
        self.urls, self.answers, self.now = urls, [{"ok": True} for _ in urls], 0.0
        self.is_well = [True for _ in urls]
        self.requests = [0 for _ in urls]
        self.group = Replicas([HTTPClient(url, QUICK) for url in urls], ABOUT, clock=lambda: self.now)

    def handler(self, number):
        def answer(path, body):
            if path == ABOUT:
                return {"data": [{"id": "m", "max_model_len": 64}]} if self.is_well[number] else DOWN
            self.requests[number] += 1
            if self.answers[number] is Hang:
                raise Hang
            return {"by": number} if self.answers[number] == {"ok": True} else self.answers[number]

        return answer

    def kill(self, number):
        self.is_well[number], self.answers[number] = False, DOWN

    def revive(self, number):
        self.is_well[number], self.answers[number] = True, {"ok": True}

    @property
    def num_sessions(self):
        return [replica.num_sessions for replica in self.group.replicas]


@asynccontextmanager
async def staged(count=2):
    async with AsyncExitStack() as stack:
        handlers = [None] * count

        def forward(number):
            return lambda path, body: handlers[number](path, body)

        local = [await stack.enter_async_context(local_server(forward(number))) for number in range(count)]
        stage = Stage([server.url for server in local])
        handlers[:] = [stage.handler(number) for number in range(count)]
        yield stage
        assert stage.num_sessions == [0] * count


async def by(connection):
    return (await connection.post("/x", {}))["by"]


async def test_a_session_stays_at_the_server_that_had_the_fewest():
    async with staged(3) as stage:
        connections = [await stage.group.open() for _ in range(6)]
        assert stage.num_sessions == [2, 2, 2]
        homes = [await by(one) for one in connections]
        assert [await by(one) for one in connections] == homes
        await connections[homes.index(1)].release()
        another = await stage.group.open()
        assert await by(another) == 1
        for one in (another, *(one for one in connections if one is not connections[homes.index(1)])):
            await one.release()


async def test_a_server_that_fails_is_left_and_taken_back():
    async with staged() as stage:
        first, second = await stage.group.open(), await stage.group.open()
        assert (await by(first), await by(second)) == (0, 1)
        stage.kill(0)
        assert await by(first) == 1
        assert stage.num_sessions == [0, 2]
        third = await stage.group.open()
        assert await by(third) == 1
        stage.revive(0)
        fourth = await stage.group.open()  # Not asked again yet.
        assert await by(fourth) == 1
        stage.now += RECHECK_S
        fifth = await stage.group.open()
        assert await by(fifth) == 0
        assert await by(first) == 1  # Its cache is there by now.
        for one in (first, second, third, fourth, fifth):
            await one.release()


async def test_requests_of_one_session_at_a_time_move_it_once():
    async with staged() as stage:
        connection = await stage.group.open()
        stage.kill(0)
        assert await asyncio.gather(*(by(connection) for _ in range(8))) == [1] * 8
        assert stage.num_sessions == [0, 1]
        await connection.release()


async def test_a_server_that_is_busy_and_well_keeps_its_sessions():
    async with staged() as stage:
        connection = await stage.group.open()
        stage.answers[0] = response(429, "later")
        with pytest.raises(EngineError, match="429"):
            await by(connection)
        assert stage.requests == [QUICK.num_retries + 1, 0]
        await connection.release()


async def test_a_server_that_does_not_write_in_time_loses_the_session():
    async with staged() as stage:
        connection = await stage.group.open()
        stage.answers[0] = Hang
        assert await by(connection) == 1
        assert stage.group.replicas[0].is_up
        await connection.release()


async def test_when_all_fail_the_first_that_recovers_goes_on():
    async with staged() as stage:
        connection = await stage.group.open()
        stage.kill(0)
        stage.kill(1)
        waiting = asyncio.ensure_future(by(connection))
        while stage.group.replicas[0].is_up or stage.group.replicas[1].is_up:
            await asyncio.sleep(0)
            stage.now += 0.1
        stage.revive(1)
        stage.now += RECHECK_S
        assert await waiting == 1
        await connection.release()
        stage.kill(1)
        connection = await stage.group.open()
        with pytest.raises(EngineError, match="http://127"):
            await by(connection)
        await connection.release()


async def test_all_replicas_must_serve_the_same_model_and_one_may_be_away(tokenizer):
    async with staged() as stage:
        stage.is_well[0] = False

        async def connect(**values):
            return await asyncio.to_thread(
                HTTPEngine.connect, stage.group, SGLang(), tokenizer, name="m", context_length=64, **values
            )

        engine = await connect()
        assert (engine.model, engine.context_length) == ("m", 64)
        assert [replica.is_up for replica in stage.group.replicas] == [False, True]
        with pytest.raises(ConfigError, match=r"127.*serves 'm', not 'other'"):
            await connect(model="other")
        stage.is_well[1] = False
        with pytest.raises(EngineError, match=r"127\.0\.0\.1"):
            await connect()


async def test_a_server_killed_in_the_middle_changes_no_text(random_lm, tokenizer):
    """Twelve problems on two replicas of each model; one of the target's fails after its fifth request."""
    problems = [Problem(id=f"p{i}", question=f"Mia has {i} stamps. How many has Leo?") for i in range(12)]

    async def answers(fails_after):
        async with AsyncExitStack() as stack:
            counts = {}

            async def engine(role, seed):
                async def replica(number):
                    model = SGLangServer(random_lm(seed), tokenizer, role)

                    def handler(path, body):
                        key = (role, number)
                        counts[key] = counts.get(key, 0) + (path != ABOUT)
                        return DOWN if key == ("target", 0) and counts[key] > fails_after else model(path, body)

                    return (await stack.enter_async_context(local_server(handler))).url

                clients = [HTTPClient(await replica(number), QUICK) for number in range(2)]
                return HTTPEngine(Replicas(clients, ABOUT), SGLang(), tokenizer, name=role, context_length=512)

            pair = Pair(draft=await engine("draft", 2), target=await engine("target", 3))
            traces = await asyncio.gather(
                *(solve(one, pair, RandomEscalation(0.5), setting(max_tokens=60, max_steps=6)) for one in problems)
            )
            groups = (pair.draft.client, pair.target.client)
            assert all(one.num_sessions == 0 for group in groups for one in group.replicas)
            return [(trace.text, trace.finish, trace.error) for trace in traces], counts

    undisturbed, counts = await answers(10**9)
    assert counts["target", 0] > 5 < counts["target", 1]
    disturbed, counts = await answers(5)
    assert disturbed == undisturbed
    assert counts["target", 1] > counts["target", 0]


PAIR = """
[draft]
path = "small"
engine = "vllm"
url = {url}
{more}
[target]
path = "big"
engine = "vllm"
url = "http://127.0.0.1:9000"
"""


def pair(tmp_path, url, more=""):
    path = tmp_path / "pair.toml"
    path.write_text(PAIR.format(url=url, more=more))
    return read_pair(path)


def test_up_starts_every_replica(tmp_path):
    for config in (
        pair(tmp_path, '"http://127.0.0.1:8101"', "replicas = 2"),
        pair(tmp_path, '["http://127.0.0.1:8101", "http://127.0.0.1:8102"]'),
    ):
        started = servers(config)
        assert [server.role for server in started] == ["draft-1", "draft-2", "target"]
        assert [server.url for server in started[:2]] == ["http://127.0.0.1:8101", "http://127.0.0.1:8102"]
        assert "--port 8102" in str(started[1])
    with pytest.raises(ConfigError, match=r"draft-2 and target share http://127.0.0.1:9000 but are different models"):
        servers(pair(tmp_path, '"http://127.0.0.1:8999"', "replicas = 2"))


def test_addresses_stand_in_a_file_beside_the_pair_or_behind_a_name(tmp_path):
    (tmp_path / "drafts.txt").write_text("# two\nhttp://a:1\n\nhttp://b:2\n")
    assert pair(tmp_path, '"file:drafts.txt"').draft.urls == ("http://a:1", "http://b:2")
    named = addresses("dns:http://localhost:8101")
    assert "http://127.0.0.1:8101" in named
    assert VLLMModel(path="m", url="http://h:1").urls == ("http://h:1",)
    assert (
        VLLMModel(path="m", url=("http://h:1", "http://i:1")).identity == VLLMModel(path="m", url="http://j:1").identity
    )


@pytest.mark.parametrize(
    ("url", "more", "message"),
    [
        ('"http://h"', "replicas = 2", r"\[draft\]: replicas = 2 needs one url with a host and a port, got 'http://h'"),
        ('["http://h:1"]', "replicas = 2", "replicas = 2 needs one url"),
        ('"http://h:65535"', "replicas = 2", "replicas = 2 needs one url"),
        ('"http://h:1"', "replicas = 0", "replicas must be at least 1, got 0"),
        ("[1]", "", r"url must be a list of strings, got \[1\]"),
        ("3", "", "url must be a string, got 3"),
        ("[]", "", "needs url"),
        ('["http://h:1", "http://h:1"]', "", "none twice"),
        ('"file:nowhere.txt"', "", "cannot read the addresses in 'nowhere.txt': No such file"),
        ('"dns:http://h"', "", "url must be dns:http://NAME:PORT, got 'dns:http://h'"),
        ('"dns:http://no.invalid:1"', "", "url: no DNS entry for the host 'no.invalid'"),
    ],
)
def test_bad_addresses_are_one_clear_error(tmp_path, url, more, message):
    with pytest.raises(ConfigError, match=message):
        servers(pair(tmp_path, url, more))


async def test_a_single_server_needs_no_group():
    async with local_server(lambda path, body: {"by": 0}) as server:
        client = HTTPClient(server.url, QUICK)
        connection = await client.open()
        assert await by(connection) == 0
        await connection.release()
        with pytest.raises(EngineError, match="no open session"):
            await client.post("/x", {})
