"""What the http engine does with servers that fail; real servers are in tests/integration."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from arbitrage.core.delimiter import stop_strings
from arbitrage.core.errors import ConfigError, ContextOverflow, EngineError, EngineTimeout, ScorerError
from arbitrage.core.solve import solve
from arbitrage.core.turn import History, Pair
from arbitrage.core.types import Finish, Problem, Source
from arbitrage.engines.dialects import DIALECTS, VLLM, Served
from arbitrage.engines.http import HTTPEngine, served_model
from arbitrage.engines.http_client import HTTPClient, HTTPOptions, ServerBusy, ServerUnreachable
from arbitrage.engines.prompt import PlainPrompt
from arbitrage.policies import TargetOnly
from arbitrage.scorers.families import FAMILIES
from arbitrage.scorers.format import InputFormat
from arbitrage.scorers.http import FamilyLayout, FormatLayout, HTTPScorer
from helpers import candidate, request, setting
from servers import Hang, local_server, response

PROBLEM = Problem(id="p1", question="Mia has 3 stamps.")
QUICK = HTTPOptions(backoff_s=0.001, timeout_s=0.2, num_retries=3)


def written(tokenizer, text, reason="stop", stop="\n\n"):
    """What vLLM answers after it wrote ``text``."""
    ids = tokenizer.encode(text, add_special_tokens=False) + ([tokenizer.eos_token_id] if stop is None else [])
    choice = {"text": text, "token_ids": ids, "finish_reason": reason, "stop_reason": stop}
    choice["logprobs"] = {"token_logprobs": [-0.5] * len(ids)}
    return {"choices": [choice], "usage": {"prompt_tokens_details": {"cached_tokens": 3}}}


def in_turn(*answers):
    """A handler that gives these answers one after another, the last one for ever."""
    left = list(answers)

    def handler(path, body):
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer is Hang:
            raise Hang
        return answer

    return handler


@asynccontextmanager
async def connected(url, options=QUICK):
    client = HTTPClient(url, options)
    client.acquire()
    try:
        yield client
    finally:
        await client.release()


def engine(url, tokenizer, options=QUICK, **values):
    values = {"name": "served", "prompt": PlainPrompt(), "context_length": 256} | values
    return HTTPEngine(HTTPClient(url, options), VLLM(), tokenizer, **values)


FAULTS = {
    "reset": b"",
    "busy": response(429, "later"),
    "restarting": response(503, "loading"),
    "gateway": response(502),
    "truncated": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    "broken JSON": response(200, '{"choices": ['),
    "silent": Hang,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_temporary_errors_are_tried_again(fault):
    async with local_server(in_turn(fault, fault, {"ok": 1})) as server, connected(server.url) as client:
        assert await client.post("/x", {"a": 1}) == {"ok": 1}
        assert server.requests == [("/x", {"a": 1})] * 3


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (b"", ServerUnreachable, "start the server; `arbitrage up` starts those of a pair"),
        (Hang, EngineTimeout, r"did not answer within 0.2 s"),
        (response(429, "too many"), ServerBusy, "429: too many"),
    ],
)
async def test_retries_end(fault, kind, message):
    async with local_server(in_turn(fault)) as server, connected(server.url) as client:
        with pytest.raises(kind, match=message):
            await client.post("/x", {})
        assert len(server.requests) == 1 + QUICK.num_retries


@pytest.mark.parametrize("status", [400, 401, 404, 422, 500])
async def test_what_would_fail_again_is_not_tried_again(status):
    async with local_server(in_turn(response(status, "no " * 200))) as server, connected(server.url) as client:
        with pytest.raises(EngineError, match=rf"/x answered {status}: no no .*…") as caught:
            await client.post("/x", {})
        assert not caught.value.is_retryable
        assert len(server.requests) == 1


async def test_a_server_says_when_to_come_back():
    answers = in_turn(response(429, Retry_After="0.15"), {"ok": 1})
    async with local_server(answers) as server, connected(server.url) as client:
        started = asyncio.get_running_loop().time()
        await client.post("/x", {})
        assert asyncio.get_running_loop().time() - started >= 0.15


async def test_a_server_that_is_not_there_is_one_clear_error():
    async with local_server(in_turn({})) as server:
        pass
    async with connected(server.url) as client:
        with pytest.raises(ServerUnreachable, match="arbitrage up"):
            await client.post("/x", {})
    with pytest.raises(ServerUnreachable, match=f"no server answers at {server.url}"):
        HTTPClient(server.url).get("/v1/models")


async def test_a_cancelled_request_is_dropped_at_the_server(tokenizer):
    async with local_server(in_turn(Hang)) as server:
        made = engine(server.url, tokenizer, HTTPOptions(timeout_s=30.0))
        session = await made.open(PROBLEM, Source.TARGET)
        before = session.token_ids
        task = asyncio.create_task(session.propose(request(8)))
        while not server.requests:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not server.num_dropped:
            await asyncio.sleep(0.001)
        assert session.token_ids == before
        await session.close()


async def test_the_last_session_closes_the_connections(tokenizer):
    async with local_server(lambda path, body: written(tokenizer, "Yes.\n\n")) as server:
        made = engine(server.url, tokenizer)
        first, second = [await made.open(PROBLEM, Source.TARGET) for _ in range(2)]
        for session in (first, second, first):
            await session.propose(request(8))
        assert server.most_open == 1
        await first.close()
        await first.close()
        await second.propose(request(8))
        await second.close()
        while server.num_open:
            await asyncio.sleep(0.001)


async def test_connections_are_bounded(tokenizer):
    async with local_server(lambda path, body: written(tokenizer, "Yes.\n\n")) as server:
        made = engine(server.url, tokenizer, HTTPOptions(max_connections=2))
        session = await made.open(PROBLEM, Source.TARGET)
        await asyncio.gather(*(session.propose(request(8)) for _ in range(12)))
        assert len(server.requests) == 12
        assert server.most_open <= 2
        await session.close()


async def test_steps_come_by_their_ids(tokenizer):
    answers = in_turn(
        written(tokenizer, "Leo has 4.\n\n"),
        written(tokenizer, "So caf\u00e9 7", "length", None) | {},
        written(tokenizer, "The end.", stop=None),
    )
    async with local_server(answers) as server:
        made = engine(server.url, tokenizer)
        trace = await solve(PROBLEM, Pair(draft=made, target=made), TargetOnly(), setting(max_step_tokens=64))
    assert [step.finish for step in trace.steps] == [Finish.STEP_END, Finish.TOKEN_LIMIT, Finish.END_OF_SEQUENCE]
    assert trace.steps[0].text == "Leo has 4.\n\n"
    assert trace.steps[2].text == "The end."
    prompts = [body["prompt"] for _, body in server.requests]
    assert prompts[1] == [*prompts[0], *trace.steps[0].candidate.token_ids]
    assert prompts[2] == [*prompts[1], *trace.steps[1].candidate.token_ids]
    cost = trace.steps[0].candidate.cost
    assert (cost.num_cached, cost.num_computed) == (3, len(prompts[0]) - 3)
    assert server.requests[0][1]["stop"] == stop_strings("\n\n")
    assert "seed" not in server.requests[0][1]


@pytest.mark.parametrize("line", ["\n\n", "\r\n\r\n", "\n \n", "\n\t\n", "\n   \n", "\n \t \r\n"])
@pytest.mark.parametrize(("reason", "stop"), [("stop", "\n\n"), ("stop", None), ("length", None)])
async def test_a_step_ends_at_an_empty_line_where_the_server_went_on(tokenizer, line, reason, stop):
    async with local_server(in_turn(written(tokenizer, f"Leo has 4.{line}So 7 it is.\n\n", reason, stop))) as server:
        session = await engine(server.url, tokenizer).open(PROBLEM, Source.TARGET)
        made = await session.propose(request(64))
        await session.commit(made)
        await session.close()
    assert (made.text, made.finish) == (f"Leo has 4.{line}", Finish.STEP_END)
    assert len(made.logprobs) == made.num_tokens < made.cost.num_generated
    assert session.token_ids[-made.num_tokens :] == made.token_ids


async def test_an_own_delimiter_is_taken_as_it_is(tokenizer):
    async with local_server(in_turn(written(tokenizer, "One.\n\nTwo.\r\n", "length"))) as server:
        session = await engine(server.url, tokenizer).open(PROBLEM, Source.TARGET)
        made = await session.propose(replace(request(64), delimiter="\r\n"))
        await session.close()
        assert server.requests[0][1]["stop"] == ["\r\n"]
    assert (made.text, made.finish) == ("One.\n\nTwo.\r\n", Finish.STEP_END)


async def test_a_failing_server_is_a_failed_trace(tokenizer):
    async with local_server(in_turn(written(tokenizer, "Yes.\n\n"), response(500, "engine dead"))) as server:
        made = engine(server.url, tokenizer)
        trace = await solve(PROBLEM, Pair(draft=made, target=made), TargetOnly(), setting())
    assert trace.finish is Finish.FAILED
    assert "500: engine dead" in trace.error
    assert len(trace.steps) == 1


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": [{"text": "a"}]}, [], "text"])
async def test_wrong_fields_are_named(tokenizer, answer):
    async with local_server(
        in_turn(answer if isinstance(answer, dict) else response(200, json.dumps(answer)))
    ) as server:
        session = await engine(server.url, tokenizer).open(PROBLEM, Source.TARGET)
        with pytest.raises(EngineError, match="an answer of vllm cannot be read"):
            await session.propose(request(8))
        await session.close()


async def test_steps_of_several_seeds_are_asked_for_at_once(tokenizer):
    async with local_server(lambda path, body: written(tokenizer, f"It is {body['seed']}.\n\n")) as server:
        session = await engine(server.url, tokenizer).open(PROBLEM, Source.TARGET)
        made = await session.propose_many(request(8, temperature=0.7), [3, 4, 5])
        assert [step.text for step in made] == [f"It is {seed}.\n\n" for seed in (3, 4, 5)]
        assert server.requests[0][1]["top_k"] == -1
        server.handler = in_turn(response(400, "bad"))
        with pytest.raises(EngineError, match="400: bad"):
            await session.propose_many(request(8), [1, 2])
        await session.close()


async def test_contexts_are_respected(tokenizer):
    async with local_server(lambda path, body: written(tokenizer, "Yes.\n\n")) as server:
        with pytest.raises(ContextOverflow, match="the context of served has 4"):
            await engine(server.url, tokenizer, context_length=4).open(PROBLEM, Source.TARGET)
        session = await engine(server.url, tokenizer, context_length=40).open(PROBLEM, Source.TARGET)
        await session.propose(request(99))
        assert server.requests[0][1]["max_tokens"] == 40 - len(session.token_ids)
        await session.commit(candidate("word " * 40))
        for asked in (session.propose(request(8)), session.likelihood(candidate("a"))):
            with pytest.raises(ContextOverflow):
                await asked
        await session.close()


def model_list(*models, length=512):
    return {"data": [{"id": model, "max_model_len": length} for model in models]}


async def test_what_is_served_is_checked_at_the_start(tokenizer):
    async def connect(answer, **values):
        async with local_server(in_turn(answer)) as server:
            client = HTTPClient(server.url)
            return await asyncio.to_thread(
                HTTPEngine.connect, client, VLLM(), tokenizer, **{"name": "mine", "prompt": PlainPrompt()} | values
            )

    made = await connect(model_list("big"))
    assert (made.model, made.name, made.context_length) == ("big", "mine", 512)
    assert (await connect(model_list("big"), context_length=100)).context_length == 100
    assert (await connect(model_list("big", "small"), model="small")).model == "small"
    with pytest.raises(ConfigError, match=r"serves 'big', 'small', not ''.*served_name"):
        await connect(model_list("big", "small"))
    with pytest.raises(ConfigError, match="serves 'big', not 'other'"):
        await connect(model_list("big"), model="other")
    with pytest.raises(ConfigError, match="does not report its context length"):
        await connect(model_list("big", length=None))
    with pytest.raises(EngineError, match="404"):
        await connect(response(404))
    with pytest.raises(EngineError, match="cannot be read"):
        await connect({"object": "list"})
    assert served_model([Served(models=(), context_length=1)], "", "url") == ""


@pytest.mark.parametrize(
    ("served", "known_as", "is_it"),
    [
        ("Qwen/Qwen2.5-Math-7B-Instruct", ("big", "qwen2.5-math-7b-instruct"), True),
        ("/models/small-Q4.gguf", ("small-Q4", "/elsewhere/small-Q4.gguf"), True),
        ("mine", ("mine", "Qwen/Qwen2.5-Math-7B-Instruct"), True),
        ("Qwen/Qwen2.5-Math-1.5B-Instruct", ("Qwen2.5-Math-7B-Instruct", "Qwen/Qwen2.5-Math-7B-Instruct"), False),
    ],
)
def test_a_servers_only_model_must_bear_the_name_of_the_one_that_is_wanted(served, known_as, is_it):
    found = Served(models=(served,), context_length=1)
    if is_it:
        assert served_model([found], "", "url", known_as) == served
    else:
        with pytest.raises(ConfigError, match=rf"url serves '{served}', not '{known_as[0]}'.*served_name"):
            served_model([found], "", "url", known_as)


async def test_a_served_classifier_is_read_through_its_format(tokenizer):
    marks = {"draft": "D: ", "target": "T: "}
    read = InputFormat(kind="router", annotation=marks, prompt="{question}\n")
    async with local_server(
        in_turn({"data": [{"probs": [0.0, 2.0]}]}, {"data": [{"probs": [0.0, 2.0, 1.0]}]})
    ) as server:
        layout = FormatLayout(tokenizer, read)
        scorer = HTTPScorer(HTTPClient(server.url, QUICK), VLLM(), layout, name="router", model="m")
        session = await scorer.open(History(PROBLEM, None))
        await session.commit(candidate("One.\n\n", Source.TARGET))
        score = await session.score(candidate("Two.\n\n"))
        assert score.value == pytest.approx(0.8808, abs=1e-4)
        path, body = server.requests[0]
        assert (path, body["model"], body["use_activation"]) == ("/classify", "m", False)
        assert tokenizer.decode(body["input"][0]) == "Mia has 3 stamps.\nT: One.\n\nD: Two.\n\n"
        with pytest.raises(ScorerError, match="gives 3 outputs"):
            await session.score(candidate("Three."))
        server.handler = in_turn(response(500, "dead"))
        with pytest.raises(ScorerError, match=r"the scorer .router. failed: .* 500: dead"):
            await session.score(candidate("Three."))
        await session.close()
        await session.close()


async def test_a_served_language_model_is_read_at_its_label_tokens(tokenizer):
    family = replace(FAMILIES["rlhflow"], good="3", bad="4")  # The tokenizer of the tests has few tokens.
    good, bad = family.label_ids(tokenizer)
    answers = {"choices": [{"logprobs": {"top_logprobs": [{f"token_id:{good}": -1.0, f"token_id:{bad}": -2.0}]}}]}
    async with local_server(in_turn(answers)) as server:
        layout = FamilyLayout(tokenizer, family)
        scorer = HTTPScorer(HTTPClient(server.url, QUICK), VLLM(), layout, name="prm", model="m")
        session = await scorer.open(History(PROBLEM, None))
        first = candidate("One.\n\n")
        assert (await session.score(first)).value == pytest.approx(0.7311, abs=1e-4)
        await session.commit(first)
        await session.score(candidate("Two.\n\n"))
        await session.close()
    asked, again = [body["prompt"] for _, body in server.requests]
    closing = family.step_ids(tokenizer, PROBLEM, 0, first.text).closing
    assert again[: len(asked) + len(closing)] == [*asked, *closing]
    assert server.requests[0][1]["logprob_token_ids"] == [good, bad]


def test_keys_come_from_the_environment(monkeypatch):
    options = HTTPOptions(api_key_env="SOME_KEY")
    with pytest.raises(ConfigError, match="SOME_KEY is not set"):
        _ = options.headers
    monkeypatch.setenv("SOME_KEY", "secret")
    assert options.headers == {"Authorization": "Bearer secret"}
    assert "secret" not in repr(options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"timeout_s": 0.0}, "timeout_s must be above 0, got 0.0"),
        ({"num_retries": -1}, "num_retries must be at least 0, got -1"),
        ({"max_connections": 0}, "max_connections must be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        HTTPOptions(**values)


def test_a_url_needs_its_scheme():
    with pytest.raises(ConfigError, match=r"url must start with http:// or https://, got '127.0.0.1:8000'"):
        HTTPClient("127.0.0.1:8000")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://[::1:80", r"url 'http://\[::1:80' cannot be read: Invalid port.*write it as http://HOST:PORT"),
        ("http://host:port", "url 'http://host:port' cannot be read: Invalid port: 'port'"),
        ("http://host:99999", "port of a url must be between 1 and 65535, got 'http://host:99999'"),
        ("http://", "url must name a host, got 'http://'"),
        ("http:///v1", "url must name a host"),
        ("http://\ud800/", r"url 'http://\\ud800/' cannot be read: Invalid IDNA hostname"),
        (f"http://{'x' * 80}:80", "cannot be read: .*label"),
    ],
)
def test_a_url_that_no_server_can_have_is_refused_at_once(url, said):
    with pytest.raises(ConfigError, match=said):
        HTTPClient(url)


PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture
def proxies(monkeypatch):
    """Sets the proxies of the environment."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return lambda **values: [monkeypatch.setenv(name, value) for name, value in values.items()]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_server_on_this_machine_is_asked_without_the_proxy(proxies, tokenizer, host):
    async with local_server(in_turn({"ok": 1})) as server, local_server(in_turn(response(502))) as proxy:
        proxies(HTTP_PROXY=proxy.url, ALL_PROXY="socks://nowhere")
        url = server.url.replace("127.0.0.1", host)
        async with connected(url) as client:
            assert await client.post("/x", {}) == {"ok": 1}
        assert await asyncio.to_thread(HTTPClient(url).get, "/x") == {"ok": 1}
        assert len(server.requests) == 2
        assert not proxy.requests


@pytest.mark.parametrize("url", ["http://[::1]:80", "http://LOCALHOST:80", "http://localhost.", "https://127.9.8.7"])
def test_loopback_addresses_are_known_in_every_spelling(url):
    assert HTTPClient(url)._is_local


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1", "http://localhost.example.org", "http://[2001:db8::1]", "http://1270"]
)
def test_other_addresses_are_not_taken_for_loopback(url):
    assert not HTTPClient(url)._is_local


async def test_another_server_is_asked_through_the_proxy_of_the_environment(proxies):
    async with local_server(in_turn({"ok": 1})) as proxy:
        proxies(HTTP_PROXY=proxy.url)
        async with connected("http://models.invalid") as client:
            assert await client.post("/x", {}) == {"ok": 1}
        assert await asyncio.to_thread(HTTPClient("http://models.invalid").get, "/y") == {"ok": 1}
    assert [path for path, _ in proxy.requests] == ["http://models.invalid/x", "http://models.invalid/y"]


async def test_a_host_that_the_environment_exempts_is_asked_directly(proxies):
    async with local_server(in_turn({"ok": 1})) as proxy:
        proxies(HTTP_PROXY=proxy.url, NO_PROXY="models.invalid")
        with pytest.raises(ServerUnreachable, match=r"no server answers at http://models.invalid"):
            await asyncio.to_thread(HTTPClient("http://models.invalid").get, "/y")
        assert not proxy.requests


@pytest.mark.parametrize(
    ("name", "proxy", "said"),
    [
        ("ALL_PROXY", "socks://me:secret@10.0.0.1:1080", "Unknown scheme for proxy URL"),
        ("HTTP_PROXY", "http://me:secret@[::1:80", "Invalid port"),
        ("HTTPS_PROXY", "ftp://10.0.0.1", "Unknown scheme for proxy URL"),
        ("ALL_PROXY", "socks5://10.0.0.1:1080", r"pip install httpx\[socks\]"),
        ("all_proxy", "socks5h://10.0.0.1:1080", r"pip install httpx\[socks\]"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_one_clear_line_without_its_password(monkeypatch, proxies, name, proxy, said):
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv(name, proxy)
    client = HTTPClient("http://models.invalid")
    for ask in (client.acquire, lambda: client.get("/x")):
        with pytest.raises(ConfigError, match=rf"cannot be used for http://models.invalid: .*{said}") as caught:
            ask()
        assert "secret" not in str(caught.value)
        assert f"correct or unset {name}" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key", ["sch\u00fc\u00dfel", "secret\n", " secret", "sec\tret", "secret\udcff", "\u2018secret\u2019"]
)
def test_a_key_that_no_header_can_carry_is_one_clear_line_without_the_key(monkeypatch, key):
    monkeypatch.setenv("SOME_KEY", key)
    client = HTTPClient("http://models.invalid", HTTPOptions(api_key_env="SOME_KEY"))
    for ask in (client.acquire, lambda: client.get("/x")):
        with pytest.raises(
            ConfigError, match="API key in the environment variable SOME_KEY must be printable ASCII"
        ) as caught:
            ask()
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["sglang", "llama-server"])
def test_other_servers_are_asked_in_their_own_words(name):
    call = DIALECTS[name].generate("m", [1, 2], request(8, temperature=0.5, seed=7), 8)
    body = dict(call.body)
    sampling = body.pop("sampling_params", body)
    assert body[{"sglang": "input_ids", "llama-server": "prompt"}[name]] == [1, 2]
    assert sampling["stop"] == stop_strings("\n\n")
    assert sampling[{"sglang": "sampling_seed", "llama-server": "seed"}[name]] == 7
    assert sampling[{"sglang": "max_new_tokens", "llama-server": "n_predict"}[name]] == 8
