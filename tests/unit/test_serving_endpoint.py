"""The endpoint without a socket, on scripted models: what clients get."""

import asyncio
import json
from dataclasses import replace

import pytest

from arbitrage.core.errors import ConfigError, EngineError
from arbitrage.engines.scripted import RealClock
from arbitrage.pairs.loaded import LoadedPair
from arbitrage.scorers.scripted import ScriptedScorer
from arbitrage.serving.keys import Keys
from serving_kit import NAME, Echo, answer_of, endpoint, events, expected, joined, scripted_pair

QUESTION = "What is 2 + 2 ?"
THINKING = "<think>\nFirst a thought\n\nthen STOP another\n</think>\n\nThe answer: \\boxed{4} STOP no more"


async def test_an_answer_has_text_usage_and_provenance():
    async with endpoint() as served:
        body = (await served.chat(QUESTION)).json()
    assert body["choices"][0]["message"]["content"] == expected(QUESTION)
    assert body["choices"][0]["finish_reason"] == "stop"
    usage, about = body["usage"], body["arbitrage"]
    assert usage["prompt_tokens"] == 6
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    details = usage["completion_tokens_details"]
    assert details["accepted_prediction_tokens"] == 14
    assert details["rejected_prediction_tokens"] == 10
    assert about["steps"] == {"draft": 2, "target": 2}
    assert about["target_share"] == pytest.approx(1 - 14 / usage["completion_tokens"])
    assert (about["method"], about["threshold"], about["finish"]) == ("rsd", 0.7, "end_of_sequence")
    assert about["seconds"].keys() == {"draft", "target", "prm"}
    assert "trace" not in about


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
async def test_joined_deltas_are_the_whole_text(path):
    asked = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": QUESTION}]},
        "/v1/completions": {"prompt": QUESTION},
        "/v1/responses": {"input": QUESTION},
    }[path]
    async with endpoint() as served:
        whole = (await served.post(path, model=NAME, **asked)).json()
        parts = events(await served.post(path, model=NAME, stream=True, **asked))
    if path == "/v1/responses":
        text = whole["output"][0]["content"][0]["text"]
        deltas = [part["delta"] for part in parts if part["type"] == "response.output_text.delta"]
        assert [part["sequence_number"] for part in parts] == list(range(len(parts)))
        assert parts[-1]["type"] == "response.completed"
        assert parts[-1]["response"]["output"][0]["content"] == whole["output"][0]["content"]
        assert whole["status"] == "completed"
    elif path == "/v1/completions":
        text = whole["choices"][0]["text"]
        deltas = [part["choices"][0]["text"] for part in parts]
    else:
        text = whole["choices"][0]["message"]["content"]
        deltas = [joined(parts)]
    assert "".join(deltas) == text == expected(QUESTION)


async def test_a_stream_names_authors_and_shows_target_steps_token_by_token():
    async with endpoint() as served:
        chunks = events(await served.chat(QUESTION, stream=True))
    written = [(chunk["arbitrage"]["author"], joined([chunk])) for chunk in chunks if joined([chunk])]
    by_author = {author: "".join(text for a, text in written if a == author) for author in ("draft", "target")}
    steps = expected(QUESTION).split("\n\n")
    assert by_author["draft"] == f"{steps[0]}\n\n{steps[2]}\n\n"
    assert by_author["target"] == f"{steps[1]}\n\n{steps[3]}"
    assert sum(author == "draft" for author, _ in written) == 2
    assert sum(author == "target" for author, _ in written) > 4
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["arbitrage"]["steps"] == {"draft": 2, "target": 2}


async def test_events_describe_each_decided_step():
    async with endpoint() as served:
        chunks = events(await served.chat(QUESTION, stream=True, arbitrage={"events": True, "threshold": 0.5}))
    steps = [chunk["arbitrage"]["step"] for chunk in chunks if "step" in chunk.get("arbitrage", {})]
    assert [step["index"] for step in steps] == [0, 1, 2, 3]
    assert [step["author"] for step in steps] == ["draft", "target", "draft", "target"]
    assert "".join(step["text"] for step in steps) == expected(QUESTION)
    assert [one["author"] for one in steps[1]["candidates"]] == ["draft", "target"]
    assert [one["kept"] for one in steps[1]["candidates"]] == [False, True]
    assert steps[1]["candidates"][0]["text"] == answer_of(QUESTION).split("\n\n")[1] + "\n\n"
    assert steps[1]["scores"] == [{"scorer": "prm", "author": "draft", "value": 0.0}]
    assert {step["threshold"] for step in steps} == {0.5}
    assert all(step["ms"] >= 0 and one["tokens"] > 0 for step in steps for one in step["candidates"])


async def test_usage_comes_last_where_it_is_asked_for():
    async with endpoint() as served:
        chunks = events(await served.chat(QUESTION, stream=True, stream_options={"include_usage": True}))
        whole = (await served.chat(QUESTION)).json()
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


async def test_thinking_goes_apart_and_stops_wait_for_its_end():
    async with endpoint(scripted_pair(THINKING, THINKING)) as served:
        whole = (await served.chat(stop="STOP")).json()
        chunks = events(await served.chat(stop=["STOP"], stream=True))
        plain = (await served.post("/v1/responses", model=NAME, input="?")).json()
    message = whole["choices"][0]["message"]
    assert message["reasoning_content"] == message["reasoning"] == "\nFirst a thought\n\nthen STOP another\n"
    assert message["content"] == "\n\nThe answer: \\boxed{4} "
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["arbitrage"]["finish"] == "stop_string"
    assert 0 < whole["usage"]["completion_tokens_details"]["reasoning_tokens"] < whole["usage"]["completion_tokens"]
    assert joined(chunks, "reasoning_content") == joined(chunks, "reasoning") == message["reasoning"]
    assert joined(chunks) == message["content"]
    assert [item["type"] for item in plain["output"]] == ["reasoning", "message"]


async def test_a_length_stop_in_thinking_leaves_the_content_empty():
    async with endpoint(scripted_pair(THINKING, THINKING)) as served:
        whole = (await served.chat(max_tokens=3)).json()
        chunks = events(await served.chat(max_completion_tokens=3, stream=True))
        response = (await served.post("/v1/responses", model=NAME, input="?", max_output_tokens=3)).json()
    assert whole["choices"][0]["message"]["content"] == ""
    assert whole["choices"][0]["message"]["reasoning"]
    assert whole["choices"][0]["finish_reason"] == chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert joined(chunks) == ""
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["type"] for item in response["output"]] == ["reasoning", "message"]


@pytest.mark.parametrize("streams", [False, True])
async def test_a_stop_string_across_steps_ends_the_solution(streams):
    async with endpoint() as served:
        text = expected(QUESTION)
        stop = text[text.index("\n\n") - 4 : text.index("\n\n") + 8]  # From the draft's step into the target's.
        answer = await served.chat(QUESTION, stop=stop, stream=streams)
        assert len(served.loaded.pair.target.calls) == 1
    content = joined(events(answer)) if streams else answer.json()["choices"][0]["message"]["content"]
    assert content == text[: text.index(stop)]


async def test_tokens_of_a_step_that_a_stop_string_cuts_are_counted():
    async with endpoint() as served:
        body = (await served.chat(QUESTION, model=f"{NAME}/target", stop="says")).json()
    content = body["choices"][0]["message"]["content"]
    assert content == answer_of(QUESTION, "target").partition("says")[0]
    assert body["usage"]["completion_tokens"] == len(content.split()) + 1


async def test_several_answers_are_several_choices():
    async with endpoint(max_in_flight=2) as served:
        whole = (await served.chat(QUESTION, n=5, temperature=0.7)).json()
        chunks = events(await served.chat(QUESTION, n=3, stream=True, temperature=0.7))
        many = (await served.post("/v1/completions", model=NAME, prompt=["a", "b"], n=2)).json()
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3, 4]
    assert {choice["message"]["content"] for choice in whole["choices"]} == {expected(QUESTION)}
    assert whole["usage"]["prompt_tokens"] == 6
    assert whole["usage"]["completion_tokens"] == 5 * 24
    assert len(whole["arbitrage"]["choices"]) == 5
    for index in range(3):
        assert joined(chunks, index=index) == expected(QUESTION)
    assert [choice["text"] for choice in many["choices"]] == [expected(q) for q in ("a", "a", "b", "b")]


async def test_the_model_id_or_the_extension_chooses_the_method():
    async with endpoint() as served:
        ids = [model["id"] for model in (await served.client.get("/v1/models")).json()["data"]]
        assert ids[0] == NAME
        assert {f"{NAME}/{method}" for method in ("draft", "target", "rsd", "random")} <= set(ids)
        assert f"{NAME}/router" not in ids
        assert (await served.client.get(f"/v1/models/{NAME}/rsd@0.95")).json()["id"] == f"{NAME}/rsd@0.95"
        for fields, author in (
            ({"model": f"{NAME}/draft"}, "draft"),
            ({"model": f"{NAME}/rsd@0.95"}, "target"),
            ({"arbitrage": {"method": "target"}}, "target"),
            ({"model": f"{NAME}/draft", "arbitrage": {"method": "rsd@0.95"}}, "target"),
            ({"arbitrage": {"threshold": 0.95}}, "target"),
        ):
            body = (await served.chat(QUESTION, **fields)).json()
            assert body["choices"][0]["message"]["content"] == answer_of(QUESTION, author), fields


async def test_the_trace_holds_every_candidate():
    async with endpoint() as served:
        trace = (await served.chat(QUESTION, arbitrage={"trace": True})).json()["arbitrage"]["trace"]
    assert len(trace["steps"]) == 4
    assert [len(step["candidates"]) for step in trace["steps"]] == [1, 2, 1, 2]
    assert trace["problem"]["question"] == QUESTION


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"model": "other"}, 404, "model", "model_not_found"),
        ({"model": f"{NAME}/nonsense"}, 404, "model", "model_not_found"),
        ({"model": f"{NAME}/router"}, 404, "model", "model_not_found"),
        ({"model": f"{NAME}/majority:9999999"}, 404, "model", "model_not_found"),
        ({"tools": [{"type": "function"}]}, 400, "tools", "unsupported_parameter"),
        ({"logprobs": True}, 400, "logprobs", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format", "unsupported_parameter"),
        ({"frequency_penalty": 0.5}, 400, "frequency_penalty", "unsupported_parameter"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].role", "unsupported_parameter"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            400,
            "messages[0].content[0].type",
            "unsupported_parameter",
        ),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "messages", None),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "messages", None),
        ({"messages": []}, 422, "messages", "invalid_value"),
        ({"temperature": -1}, 422, "temperature", "invalid_value"),
        ({"temperature": 1e-40}, 400, "temperature", None),
        ({"max_tokens": 0}, 422, "max_tokens", "invalid_value"),
        ({"stop": ""}, 422, "stop.constrained-str", "invalid_value"),
        ({"n": 1000}, 422, "n", "invalid_value"),
        ({"arbitrage": {"treshold": 0.1}}, 422, "arbitrage.treshold", "invalid_value"),
        ({"arbitrage": {"method": "nonsense"}}, 400, "arbitrage.method", None),
        ({"arbitrage": {"method": "draft", "threshold": 0.1}}, 400, "arbitrage.threshold", None),
        ({"arbitrage": {"budget": "x"}}, 400, "arbitrage.budget", None),
        ({"messages": [{"role": "user", "content": "lone \ud800"}]}, 400, "messages", None),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(fields, status, param, code):
    async with endpoint() as served:
        asked = {"model": NAME, "messages": [{"role": "user", "content": QUESTION}], **fields}
        answer = await served.client.post(
            "/v1/chat/completions", content=json.dumps(asked), headers={"content-type": "application/json"}
        )
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert (error["param"], error["code"]) == (param, code)
        assert "/secret" not in answer.text
        assert served.loaded.pair.draft.calls == []


async def test_neutral_values_of_refused_fields_are_accepted_and_others_ignored_by_name():
    neutral = {"tools": [], "tool_choice": "auto", "logprobs": False, "presence_penalty": 0, "response_format": None}
    async with endpoint() as served:
        answer = await served.chat(QUESTION, **neutral, metadata={"a": "b"}, safety_identifier="x", **{"bad\nname": 1})
    assert answer.status_code == 200
    assert answer.headers["x-arbitrage-ignored"] == "metadata, safety_identifier, ?"


@pytest.mark.parametrize("content", [b"", b"{", b"[1", b"\xff", b"[" * 5000, b'"text"', b"null", b"1" * 5000])
async def test_garbage_is_refused(content):
    async with endpoint() as served:
        answer = await served.client.post(
            "/v1/chat/completions", content=content, headers={"content-type": "application/json"}
        )
        assert answer.status_code in (400, 422)
        assert answer.json()["error"]["message"]


async def test_unknown_paths_and_methods_answer_in_the_same_form():
    async with endpoint() as served:
        for answer, status in (
            (await served.client.get("/v1/nothing"), 404),
            (await served.client.get("/v1/chat/completions"), 405),
            (await served.client.get("/docs"), 404),
            (await served.client.get("/v1/models/other"), 404),
        ):
            assert answer.status_code == status
            assert answer.json()["error"]["message"]


async def test_too_large_a_body_is_refused_with_and_without_its_length():
    async def parts():
        for _ in range(40):
            yield b" " * 1000

    async with endpoint(max_request_bytes=20_000) as served:
        for content in (b" " * 40_000, parts()):
            answer = await served.client.post("/v1/chat/completions", content=content)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "request_too_large"
        assert (await served.chat(QUESTION)).status_code == 200


async def test_keys_are_asked_for_everywhere_but_at_the_page_and_the_health():
    async with endpoint(keys=Keys((b"secret",))) as served:
        for path in ("/v1/models", "/metrics", "/status", "/openapi.json", "/nothing"):
            answer = await served.client.get(path)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
        assert (await served.chat(QUESTION)).status_code == 401
        for path in ("/", "/health"):
            assert (await served.client.get(path)).status_code == 200
        served.client.headers["Authorization"] = "Bearer secret"
        assert (await served.chat(QUESTION)).status_code == 200


async def test_other_hosts_are_refused_without_keys():
    async with endpoint(only_loopback=True) as served:
        for host in ("evil.example", "evil.example:80", "[2001:db8::1]"):
            answer = await served.client.get("/v1/models", headers={"host": host})
            assert answer.status_code == 403
            assert answer.json()["error"]["message"].startswith(
                f"the host {host.removesuffix(':80').strip('[]')!r} is not"
            )
        for host in ("localhost:8000", "127.0.0.1", "127.0.0.2:80", "[::1]:80", "[::1]"):
            assert (await served.client.get("/v1/models", headers={"host": host})).status_code == 200


async def test_messages_that_a_scorer_refuses_are_the_requests_own_fault():
    class Refusing(ScriptedScorer):
        def prompt_ids(self, problem):
            raise ConfigError("the template refuses") from ValueError("no system messages")

    plain = scripted_pair()
    models = replace(plain.models, prm=Refusing(value=lambda *_: 0.0, name="prm"))
    async with endpoint(LoadedPair(config=plain.config, models=models)) as served:
        answer = await served.chat()
        alone = await served.post("/v1/completions", model=f"{NAME}/target", prompt=QUESTION)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")
    assert "no system messages" in answer.json()["error"]["message"]
    assert alone.status_code == 200


async def test_a_full_queue_says_when_to_come_again():
    async with endpoint(
        scripted_pair(clock=RealClock(), seconds_per_token=0.01), max_in_flight=1, max_queue=1
    ) as served:
        answers = await asyncio.gather(*(served.chat(f"q{i}") for i in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize("streams", [False, True])
async def test_the_deadline_ends_a_request(streams):
    async with endpoint(scripted_pair(clock=RealClock(), seconds_per_token=0.05), deadline_s=0.2) as served:
        answer = await served.chat(QUESTION, stream=streams)
    if streams:
        assert events(answer)[-1]["error"]["code"] == "deadline_exceeded"
    else:
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "deadline_exceeded"


async def test_a_client_that_goes_away_ends_its_solution():
    async with endpoint(scripted_pair(clock=RealClock(), seconds_per_token=0.2)) as served:
        task = asyncio.ensure_future(served.chat(QUESTION, n=2))
        while len(served.service.running) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class Failing(Echo):
    """Fails at its first step."""

    async def open(self, problem, source):
        session = await super().open(problem, source)

        async def propose(request):
            raise EngineError("http://10.0.0.7:8101 with /secret/folder refused")

        session.propose = propose
        return session


def with_target(target) -> LoadedPair:
    return scripted_pair(target=target)


@pytest.mark.parametrize("streams", [False, True])
async def test_a_failing_model_is_an_error_that_reveals_nothing(streams, caplog):
    async with endpoint(with_target(Failing(script=""))) as served:
        answer = await served.chat(QUESTION, stream=streams)
    if streams:
        chunks = events(answer)
        assert joined(chunks) == expected(QUESTION).split("\n\n")[0] + "\n\n"
        error = chunks[-1]["error"]
    else:
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "engine_failed")
    assert "10.0.0.7" not in answer.text
    assert "/secret" not in answer.text
    assert "10.0.0.7" in caplog.text
    assert answer.headers["x-request-id"] in caplog.text


class Broken(Echo):
    """Has a bug."""

    async def open(self, problem, source):
        raise RuntimeError("/secret/folder: a bug")


async def test_a_bug_is_an_error_that_reveals_nothing(caplog):
    async with endpoint(with_target(Broken(script=""))) as served:
        answer = await served.chat(QUESTION)
    assert answer.status_code == 503
    assert "secret" not in answer.text
    assert "a bug" in caplog.text


async def test_status_says_what_runs_without_saying_what_was_asked():
    async with endpoint(scripted_pair(clock=RealClock(), seconds_per_token=0.01)) as served:
        task = asyncio.ensure_future(served.chat("a private question"))
        text = ""
        while '"steps":["draft"]' not in text:
            assert not task.done()
            await asyncio.sleep(0.01)
            text = (await served.client.get("/status")).text
        status = json.loads(text)
        await task
        after = (await served.client.get("/status")).json()
        counted = (await served.client.get("/metrics")).text
    assert status["num_running"] == 1
    assert status["running"][0]["steps"] == ["draft"]
    assert status["running"][0]["model"] == NAME
    assert "private" not in text
    assert after["running"] == []
    assert (after["num_steps"], after["acceptance"]) == (4, 0.5)
    assert after["target_share"] == pytest.approx(10 / 24)
    assert after["tokens_per_s"] > 0
    assert {"name": "rsd", "id": f"{NAME}/rsd", "threshold": 0.7} in after["methods"]
    assert 'arbitrage_requests_total{outcome="ok",path="/v1/chat/completions"} 1.0' in counted
    assert 'arbitrage_steps_total{author="draft"} 2.0' in counted


async def test_tokenize_counts_as_the_target_reads():
    async with endpoint() as served:
        text = (await served.post("/tokenize", model=NAME, prompt="one two three")).json()
        chat = (await served.post("/tokenize", messages=[{"role": "user", "content": "one two"}])).json()
        neither = await served.post("/tokenize")
    assert text["count"] == len(text["tokens"]) == 3
    assert chat["count"] == 2
    assert neither.status_code == 400


async def test_the_beginning_of_an_answer_is_continued():
    async with endpoint() as served:
        answer = await served.chat(
            messages=[{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "<think>so"}]
        )
    message = answer.json()["choices"][0]["message"]
    assert message["reasoning"] == expected(QUESTION)
    assert message["content"] == ""


async def test_a_conversation_of_the_responses_interface_is_read():
    items = [
        {"role": "developer", "content": "Be short."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "one"}]},
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "two"}]},
        {"role": "user", "content": "three"},
    ]
    async with endpoint() as served:
        body = (await served.post("/v1/responses", model=NAME, input=items, instructions="Think.")).json()
        refused = await served.post("/v1/responses", model=NAME, input=[{"type": "function_call_output"}])
    assert body["output"][0]["content"][0]["text"] == expected("three")
    assert body["usage"]["input_tokens"] == 11
    assert refused.json()["error"]["param"] == "input[0].type"


async def test_while_the_models_load_the_server_says_so():
    async with endpoint() as served:
        served.service._ready = None
        for path in ("/v1/models", "/health"):
            assert (await served.client.get(path)).status_code == 503
        answer = await served.chat(QUESTION)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "loading")
        assert (await served.client.get("/")).status_code == 200


async def test_the_page_may_load_nothing_from_elsewhere():
    async with endpoint() as served:
        answer = await served.client.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers
