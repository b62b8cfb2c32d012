"""A real server on scripted models, asked by the real ``openai`` SDK, by raw sockets, and by many clients at once."""

import asyncio
import json
import random
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from arbitrage.core.hosts import is_loopback
from arbitrage.engines.scripted import RealClock
from serving_kit import NAME, expected, open_sessions, running, scripted_pair

QUESTION = "What is 2 + 2 ?"
ASKED = {"model": NAME, "messages": [{"role": "user", "content": QUESTION}]}


@pytest.fixture(scope="module")
def server():
    with running(scripted_pair()) as started:
        yield started
        assert open_sessions(started.loaded) == 0


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def settle(server, seconds=5.0):
    """Wait until nothing runs."""
    end = time.monotonic() + seconds
    while (server.service.admission.num_running or open_sessions(server.loaded)) and time.monotonic() < end:
        time.sleep(0.01)
    assert server.service.admission.num_running == 0
    assert open_sessions(server.loaded) == 0


def test_the_sdk_gets_an_answer(client):
    answer = client.chat.completions.create(**ASKED)
    assert answer.choices[0].message.content == expected(QUESTION)
    assert answer.usage.completion_tokens_details.accepted_prediction_tokens == 14
    assert answer.model_extra["arbitrage"]["steps"] == {"draft": 2, "target": 2}


def test_the_sdk_streams(client):
    with client.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == expected(QUESTION)
    assert chunks[-1].usage.completion_tokens == 24
    with client.chat.completions.stream(**ASKED) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == expected(QUESTION)


def test_the_sdk_gets_several_answers(client):
    answer = client.chat.completions.create(**ASKED, n=3)
    assert [choice.message.content for choice in answer.choices] == [expected(QUESTION)] * 3


def test_the_sdk_lists_models_and_completes_prompts(client):
    assert client.models.list().data[0].id == NAME
    assert client.models.retrieve(f"{NAME}/rsd@0.5").id == f"{NAME}/rsd@0.5"
    assert client.completions.create(model=NAME, prompt=QUESTION).choices[0].text == expected(QUESTION)


def test_the_sdk_gets_and_streams_responses(client):
    whole = client.responses.create(model=NAME, input=QUESTION)
    assert (whole.output_text, whole.status) == (expected(QUESTION), "completed")
    events = list(client.responses.create(model=NAME, input=QUESTION, stream=True))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == expected(QUESTION)
    assert events[-1].response.output_text == expected(QUESTION)
    with client.responses.stream(model=NAME, input=QUESTION) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == expected(QUESTION)


def test_the_sdk_raises_its_own_errors(client):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(**{**ASKED, "model": "other"})
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**ASKED, logprobs=True)
    assert refused.value.param == "logprobs"
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(**ASKED, temperature=-1)


async def test_the_asynchronous_sdk(server):
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        answers = await asyncio.gather(*(client.chat.completions.create(**ASKED) for _ in range(20)))
        assert {answer.choices[0].message.content for answer in answers} == {expected(QUESTION)}
        stream = await client.chat.completions.create(**ASKED, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == expected(QUESTION)


def test_a_wrong_key_is_an_authentication_error(monkeypatch):
    from arbitrage.serving.keys import Keys

    with running(scripted_pair(), keys=Keys((b"right",))) as server:
        for key, fails in (("wrong", True), ("right", False)):
            with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
                if fails:
                    with pytest.raises(openai.AuthenticationError) as caught:
                        client.models.list()
                    assert caught.value.code == "invalid_api_key"
                else:
                    assert client.models.list().data


async def test_a_client_that_closes_its_stream_stops_both_models():
    with running(scripted_pair(clock=RealClock(), seconds_per_token=0.05)) as server:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            stream = await client.chat.completions.create(**ASKED, stream=True)
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
            assert server.service.admission.num_running == 1
            await stream.close()
            task = asyncio.ensure_future(client.chat.completions.create(**ASKED))
            await asyncio.sleep(0.2)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(settle, server, 2.0)
        assert 'outcome="cancelled"' in httpx.get(f"{server.url}/metrics").text


def test_an_error_in_a_stream_raises_in_the_sdk():
    with (
        running(scripted_pair(clock=RealClock(), seconds_per_token=0.2), deadline_s=1.5) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(openai.APIError, match="not complete") as caught:
            list(client.chat.completions.create(**ASKED, stream=True))
        assert caught.value.code == "deadline_exceeded"
        settle(server)


GARBAGE = [
    b"\x00\x01\x02",
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 4\r\n\r\nnull",
]


async def _stream(server, question, rng):
    """One stream of a client that reads at its own pace, or goes away."""
    url = urlsplit(server.url)
    body = json.dumps({**ASKED, "messages": [{"role": "user", "content": question}], "stream": True}).encode()
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        kind = rng.random()
        if kind < 0.2:  # It vanishes.
            await asyncio.sleep(rng.random() * 0.2)
            return None
        data = b""
        while part := await reader.read(64 if kind < 0.3 else 65536):
            data += part
            if kind < 0.3:  # It reads slowly.
                await asyncio.sleep(0.001)
        return data
    finally:
        writer.transport.abort()


def _text(data):
    lines = [line for line in data.decode().splitlines() if line.startswith("data: {")]
    chunks = [json.loads(line[6:]) for line in lines]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


async def test_many_streams_with_slow_vanishing_and_broken_clients():
    rng = random.Random(0)
    loaded = scripted_pair(clock=RealClock(), seconds_per_token=0.001)
    with running(loaded, max_in_flight=64, max_queue=1000) as server:
        url = urlsplit(server.url)

        async def broken(data):
            reader, writer = await asyncio.open_connection(url.hostname, url.port)
            writer.write(data)
            writer.write_eof()
            await asyncio.wait_for(reader.read(), 10)
            writer.close()

        questions = [f"question {i}" for i in range(200)]
        streams = [_stream(server, question, rng) for question in questions]
        garbage = [broken(GARBAGE[i % len(GARBAGE)]) for i in range(30)]
        async with asyncio.timeout(60):
            results = await asyncio.gather(*streams, *garbage, return_exceptions=True)
        read = list(zip(questions, results, strict=False))
        assert not [
            result for result in results if isinstance(result, BaseException) and not isinstance(result, OSError)
        ]
        complete = [(question, data) for question, data in read if isinstance(data, bytes)]
        assert len(complete) > 120
        for question, data in complete:
            assert b"data: [DONE]" in data
            assert _text(data) == expected(question)
        await asyncio.to_thread(settle, server)
        assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}


def test_a_server_whose_pair_cannot_be_loaded_ends_with_its_error():
    from arbitrage.core.errors import CheckpointError
    from arbitrage.serving.server import bound, serve
    from arbitrage.serving.service import ServeOptions, Service

    def load():
        raise CheckpointError("no such folder")

    with pytest.raises(CheckpointError, match="no such folder"):
        asyncio.run(asyncio.wait_for(serve(Service(ServeOptions()), load, bound("127.0.0.1", 0)), 20))


def test_a_port_that_is_taken_and_a_host_that_is_none_are_errors():
    from arbitrage.core.errors import ConfigError
    from arbitrage.serving.server import bound

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="cannot serve"):
        bound("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConfigError, match=r"cannot serve at a\.\.b:80: .*--host"):
        bound("a..b", 80)


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True),
        ("127.8.0.2", True),
        ("LocalHost.", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
    ],
)
def test_loopback(host, is_local):
    assert is_loopback(host) is is_local


@pytest.mark.parametrize("package", ["uvicorn", "fastapi", "prometheus_client"])
def test_without_the_extra_the_command_says_what_to_install(package):
    code = f"import sys; sys.modules[{package!r}] = None; sys.argv[1:] = ['serve', '--port', '0']; "
    code += "from arbitrage.cli.main import run; run()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: a package of the extra 'serve' is not installed")
