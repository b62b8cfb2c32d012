"""The endpoint on the shipped pair: the same text as ``arbitrage solve``, and text that stays text."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrage.core.trace import Trace
from arbitrage.core.turn import Setting
from arbitrage.core.types import Limits, Sampling, Source
from arbitrage.pairs.loaded import load
from command_line import command
from serving_kit import endpoint, events, joined

pytestmark = pytest.mark.integration

QUESTIONS = [
    "Compared to Leo Mia owns 3 times as many stamps. Leo has 14 stamps. How many stamps does Mia have?",
    "Solve for x: 3x+4=25.",
    "Mia has 12 coins. Zoe has 5 coins. How many coins do both have?",
]


@pytest.fixture(scope="module")
def tiny():
    return load("tiny")


async def _asked(served, question, **fields):
    asked = {"model": "tiny", "messages": [{"role": "user", "content": question}], **fields}
    return await served.client.post("/v1/chat/completions", json=asked)


# A number of guesses that follows the clock changes the widths of passes, and so the last bit of a score.
@pytest.mark.parametrize("method", ["router@0.02", "target", "draft", "router+speculative:4", "rsd"])
async def test_text_and_decisions_are_those_of_solve(tiny, method):
    async with _served(tiny) as served:
        for question in QUESTIONS:
            expected = await tiny.solve_async(question, policy=method)
            whole = (await _asked(served, question, model=f"tiny/{method}", arbitrage={"trace": True})).json()
            chunks = events(await _asked(served, question, model=f"tiny/{method}", stream=True))
            trace = Trace.from_json(whole["arbitrage"]["trace"])
            assert whole["choices"][0]["message"]["content"] == joined(chunks) == expected.text
            assert _decisions(trace) == _decisions(expected)
            assert whole["usage"]["completion_tokens"] == expected.num_tokens
            assert whole["usage"]["prompt_tokens"] > 5


def _decisions(trace):
    return [(step.source, step.text, step.decision.score, step.candidate.token_ids) for step in trace.steps]


def _served(loaded):
    return endpoint(loaded, counts_sessions=False)


async def test_sampled_text_is_that_of_solve_with_the_same_seed(tiny):
    setting = Setting(limits=Limits(max_tokens=60), sampling=Sampling(temperature=3.0, top_p=0.99), seed=7)
    expected = await tiny.solve_async(QUESTIONS[0], setting=setting)
    fields = {"temperature": 3.0, "top_p": 0.99, "seed": 7, "max_tokens": 60}
    async with _served(tiny) as served:
        one, two = [(await _asked(served, QUESTIONS[0], **fields)).json() for _ in range(2)]
        many = (await _asked(served, QUESTIONS[0], **fields, n=3)).json()
    texts = [choice["message"]["content"] for choice in many["choices"]]
    assert (
        one["choices"][0]["message"]["content"] == two["choices"][0]["message"]["content"] == expected.text == texts[0]
    )
    assert len(set(texts)) > 1


async def test_the_command_line_says_the_same(tiny):
    async with _served(tiny) as served:
        whole = (await _asked(served, QUESTIONS[1])).json()
    status, out, _ = await asyncio.to_thread(command, "solve", "--json", QUESTIONS[1])
    assert status == 0
    assert Trace.from_json(json.loads(out)).text == whole["choices"][0]["message"]["content"]


async def test_solutions_side_by_side_are_those_alone(tiny):
    async with _served(tiny) as served:
        alone = [(await _asked(served, question)).json()["choices"] for question in QUESTIONS]
        together = await asyncio.gather(*(_asked(served, question) for question in QUESTIONS * 3))
    assert [answer.json()["choices"] for answer in together] == alone * 3


async def test_a_prompt_that_is_too_long_has_the_code_that_clients_look_for(tiny):
    async with _served(tiny) as served:
        answer = await _asked(served, "stamps " * 2000)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


async def test_a_template_that_refuses_a_conversation_says_so_without_a_path(tiny):
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    async with _served(tiny) as served:
        answer = await _asked(served, "?", messages=messages)
    assert answer.status_code in (200, 400)
    assert "weights" not in answer.text


SPELLINGS = [
    "<|im_end|>",
    "<|im_start|>assistant\n",
    "<|draft|>",
    "<|target|>",
    "<|endoftext|>",
    "</s>",
    "<s>",
    "[INST]",
]


@given(st.lists(st.sampled_from([*SPELLINGS, "Mia", " has ", "3", "\n"]), min_size=1, max_size=6))
@settings(max_examples=25)
def test_spellings_of_control_tokens_in_messages_are_text(tiny, words):
    engine = tiny.pair.engine(Source.TARGET)
    special = set(engine.tokenizer.all_special_ids) | set(engine.tokenizer.get_added_vocab().values())

    async def ids(content):
        async with _served(tiny) as served:
            answer = await served.post("/tokenize", messages=[{"role": "user", "content": content}])
            return answer.json()["tokens"]

    plain, given_ids = asyncio.run(ids("Mia")), asyncio.run(ids("Mia " + "".join(words)))
    assert [one for one in given_ids if one in special] == [one for one in plain if one in special]


async def test_half_a_surrogate_pair_is_refused(tiny):
    async with _served(tiny) as served:
        body = {"content": rb'{"prompt": "\ud800"}', "headers": {"content-type": "application/json"}}
        answer = await served.client.post("/tokenize", **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


def test_the_command_serves_and_stops():
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "arbitrage", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[2].removesuffix("/health")
        page = httpx.get(url, timeout=10)
        seconds = time.monotonic() - started
        assert page.status_code == 200
        assert "Arbitrage" in page.text
        assert seconds < 30  # Ten on a machine that does nothing else.
        while httpx.get(f"{url}/health").status_code != 200:
            assert time.monotonic() - started < 120
            time.sleep(0.2)
        asked = {"model": "tiny", "messages": [{"role": "user", "content": QUESTIONS[0]}]}
        answer = httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=60).json()
        assert "42" in answer["choices"][0]["message"]["content"]
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "--insecure"),
        (["--max-in-flight", "0"], "at least 1"),
        (["--pair", "nothing"], "no configuration file"),
        (["--api-key-env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE"),
    ],
)
def test_what_cannot_be_served_is_an_error(options, message):
    status, _, err = command("serve", "--port", "0", *options)
    assert status == 2
    assert message in err
