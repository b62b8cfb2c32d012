"""A model server behind the endpoint is killed while it writes."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest

from arbitrage.engines.dialects import SGLang
from arbitrage.engines.http import HTTPEngine
from arbitrage.engines.http_client import HTTPClient, HTTPOptions
from serving_kit import NAME, running, scripted_pair

UPSTREAM = Path(__file__).parents[1] / "upstream.py"
TEXTS = ["Leo has 14 stamps.\n\n", "Mia has 42 stamps.\n\n", "The answer is \\boxed{42}."]
NUM_STREAMS = 32


@contextmanager
def upstream(port, steps, seconds=0.15):
    """The server process, ready to answer; it may be dead already at the end."""
    command = [sys.executable, str(UPSTREAM), str(port), str(seconds), json.dumps(steps)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def steps(tokenizer):
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    return [*ids[:-1], [*ids[-1], tokenizer.eos_token_id]]


def connected(port, tokenizer, num_retries):
    options = HTTPOptions(timeout_s=2.0, num_retries=num_retries, backoff_s=0.1, max_backoff_s=0.5)
    client = HTTPClient(f"http://127.0.0.1:{port}", options)
    return HTTPEngine.connect(client, SGLang(), tokenizer, name="stub")


async def ask(client):
    """One stream: its text, and the code of its error."""
    asked = {"model": f"{NAME}/random@0.5", "messages": [{"role": "user", "content": "What is 2 + 2 ?"}]}
    text = ""
    try:
        async for chunk in await client.chat.completions.create(**asked, stream=True):
            text += chunk.choices[0].delta.content or ""
    except openai.APIError as error:
        return text, error.code
    return text, None


async def test_a_killed_server_ends_streams_by_name_and_serves_again_when_it_is_back(port, steps, tokenizer, caplog):
    whole = "".join(TEXTS)
    with upstream(port, steps) as first:
        engines = [await asyncio.to_thread(connected, port, tokenizer, 1) for _ in range(2)]
        with running(scripted_pair(*engines), max_in_flight=NUM_STREAMS) as server:
            client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
            async with client:
                assert await ask(client) == (whole, None)
                streams = [asyncio.ensure_future(ask(client)) for _ in range(NUM_STREAMS)]
                await asyncio.sleep(0.35)
                first.kill()
                started = time.monotonic()
                ended = await asyncio.wait_for(asyncio.gather(*streams), 20)
                assert time.monotonic() - started < 10
                assert {code for _, code in ended} <= {None, "engine_failed"}
                assert any(code for _, code in ended)
                for text, code in ended:
                    assert whole.startswith(text)
                    assert (text == whole) or code == "engine_failed"
                refused = httpx.get(f"{server.url}/status").json()
                assert refused["running"] == []
                with upstream(port, steps):
                    again = await asyncio.gather(*(ask(client) for _ in range(NUM_STREAMS)))
                assert again == [(whole, None)] * NUM_STREAMS
            assert all(engine.client._users == 0 for engine in engines)


async def test_streams_go_on_where_the_server_is_back_in_time(port, steps, tokenizer):
    with upstream(port, steps) as first:
        engines = [await asyncio.to_thread(connected, port, tokenizer, 30) for _ in range(2)]
        with running(scripted_pair(*engines), max_in_flight=NUM_STREAMS) as server:
            async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
                streams = [asyncio.ensure_future(ask(client)) for _ in range(NUM_STREAMS)]
                await asyncio.sleep(0.35)
                first.kill()
                with upstream(port, steps):
                    ended = await asyncio.wait_for(asyncio.gather(*streams), 30)
    assert ended == [("".join(TEXTS), None)] * NUM_STREAMS
