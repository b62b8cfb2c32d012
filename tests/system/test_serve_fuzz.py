"""Requests after the server's own OpenAPI schema, valid and not: every answer is one of the interface, none is a crash.

``ARBITRAGE_TEST_FUZZ=5000`` sets how many requests there are.
"""

import asyncio
import json
import os
from collections import Counter

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from arbitrage.serving.app import application
from arbitrage.serving.service import ServeOptions, Service
from serving_kit import NAME, open_sessions, scripted_pair

NUM = int(os.environ.get("ARBITRAGE_TEST_FUZZ", "150"))
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/tokenize")
STATUSES = {200, 400, 404, 413, 422, 429}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FURTHER = (
    "tools", "logprobs", "top_logprobs", "response_format", "logit_bias", "presence_penalty", "echo", "suffix",
    "best_of", "reasoning", "text", "tool_choice", "modalities", "previous_response_id", "metadata", "nonsense",
)  # fmt: skip
"""Fields that the schema does not name."""


async def _sent(method, path, **fields):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(APP), base_url="http://test") as client:
        return await client.request(method, path, **fields)


def _values(schema, definitions):
    """Values that fit a JSON schema as FastAPI writes it."""
    if "$ref" in schema:
        return _values(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return st.one_of(*(_values(one, definitions) for one in schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        required = set(schema.get("required", ()))
        fields = {name: _values(one, definitions) for name, one in schema["properties"].items()}
        optional = {name: one for name, one in fields.items() if name not in required}
        return st.fixed_dictionaries({name: fields[name] for name in required}, optional=optional)
    if kind == "array":
        return st.lists(_values(schema.get("items", {}), definitions), min_size=schema.get("minItems", 0), max_size=3)
    return {
        "null": st.none(),
        "boolean": st.booleans(),
        "string": st.text(min_size=schema.get("minLength", 0), max_size=12),
        "integer": st.integers(int(schema.get("minimum", -5)), int(min(schema.get("maximum", 50), 50))),
        "number": st.floats(schema.get("minimum", -2.0), schema.get("maximum", 3.0), allow_nan=False),
    }.get(kind, ANYTHING)


def _bodies(document):
    """Bodies of each path: most of them nearly right."""
    definitions = document["components"]["schemas"]
    models = st.sampled_from([NAME, f"{NAME}/draft", f"{NAME}/rsd@0.5", f"{NAME}/target", "other", f"{NAME}/"])
    own = st.sampled_from([None, {}, {"trace": True}, {"events": True}, {"threshold": 0.5}, {"method": "oracle"}])
    asked = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "What is 2 + 2 ?"}]},
        "/v1/completions": {"prompt": ["one", "two"]},
        "/v1/responses": {"input": "What is 2 + 2 ?"},
        "/tokenize": {"prompt": "one two", "messages": None},
    }
    bodies = {}
    for path in PATHS:
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        right, names = _values(schema, definitions), ["model", "messages", "stop", "n", "stream", "input", "prompt"]
        sound = st.builds(
            lambda body, model, own, path=path: {**body, **asked[path], "model": model, "arbitrage": own},
            right,
            models,
            own,
        )
        further = st.dictionaries(st.sampled_from(FURTHER), ANYTHING, max_size=1)
        wrong = st.dictionaries(st.sampled_from(names), ANYTHING, min_size=1, max_size=2)
        changed = st.builds(lambda body, other: {**body, **other}, sound, st.one_of(further, wrong))
        bodies[path] = st.one_of(sound, sound, changed, right, ANYTHING)
    return bodies


LOADED = scripted_pair()
SERVICE = Service(ServeOptions(only_loopback=False))
SERVICE.use(LOADED)
APP = application(SERVICE)
BODIES = _bodies(json.loads(asyncio.run(_sent("GET", "/openapi.json")).content))
SEEN = Counter[tuple[str, int]]()


@pytest.mark.parametrize("path", PATHS)
@given(data=st.data())
@settings(
    max_examples=max(1, NUM // len(PATHS)),
    phases=[Phase.generate],
    suppress_health_check=[*HealthCheck],
    derandomize=NUM <= 150,
)
def test_every_answer_is_one_of_the_interface(path, data):
    body = data.draw(BODIES[path])

    headers = {"content-type": "application/json"}
    answer = asyncio.run(_sent("POST", path, content=json.dumps(body), headers=headers))
    SEEN[path, answer.status_code] += 1
    assert answer.status_code in STATUSES, answer.text
    assert open_sessions(LOADED) == SERVICE.admission.num_running == SERVICE.admission.num_waiting == 0
    if answer.status_code != 200:
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    elif "event-stream" in answer.headers["content-type"]:
        assert "internal_error" not in answer.text
        assert answer.text.endswith("data: [DONE]\n\n")
    else:
        assert answer.json()


def test_requests_of_each_path_succeed_and_fail():
    if not SEEN:
        pytest.skip("runs behind the others")
    for path in PATHS:
        statuses = {status for seen, status in SEEN if seen == path}
        assert 200 in statuses
        assert statuses & {400, 404, 422}
    print(dict(sorted(SEEN.items())))
