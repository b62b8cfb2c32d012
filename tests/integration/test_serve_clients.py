"""Clients of the endpoint, unmodified, in an environment of their own: ``make clients`` installs them and runs this.

``ARBITRAGE_CLIENTS`` names the Python that has lm-eval, inspect_ai and LiteLLM; ``ARBITRAGE_TEST_DATA`` a folder with
``gsm8k.jsonl``. The shipped pair cannot solve these problems: the tests compare what clients get with what it says.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from arbitrage.core.turn import Setting
from arbitrage.core.types import Limits
from arbitrage.pairs.loaded import load
from serving_kit import running

pytestmark = pytest.mark.integration

PYTHON = os.environ.get("ARBITRAGE_CLIENTS", "")
DATA = Path(os.environ.get("ARBITRAGE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "gsm8k.jsonl"
TASK = """
include: {gsm8k}
task: gsm8k_local
tag: []
dataset_path: json
dataset_name: null
dataset_kwargs: {{data_files: {{train: {data}, test: {data}}}}}
num_fewshot: 0
generation_kwargs: {{until: ["Question:", "</s>", "<|im_end|>"], do_sample: false, temperature: 0.0, max_gen_toks: 64}}
"""
INSPECT = """
import json, sys
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.scorer import match
from inspect_ai.solver import generate

url, folder, questions, responses = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4] == "responses"
samples = [Sample(input=question, target="42") for question in questions]
task = Task(dataset=samples, solver=generate(max_tokens=64), scorer=match(numeric=True))
(log,) = eval(task, model="openai/tiny", model_base_url=url, log_dir=folder, display="none",
              model_args={"responses_api": responses})
outputs = [sample.output.completion for sample in log.samples]
usage = [sample.output.usage.model_dump() for sample in log.samples]
print(json.dumps({"status": log.status, "outputs": outputs, "usage": usage}))
"""
LITELLM = """
import json, sys
import litellm

url, question = sys.argv[1:]
asked = {"model": "openai/tiny", "api_base": url, "api_key": "none", "max_tokens": 64}
asked["messages"] = [{"role": "user", "content": question}]
whole = litellm.completion(**asked)
parts = [part.choices[0].delta.content or "" for part in litellm.completion(**asked, stream=True)]
try:
    litellm.completion(**{**asked, "messages": [{"role": "user", "content": "stamps " * 3000}]})
    error = ""
except litellm.ContextWindowExceededError as failed:
    error = type(failed).__name__
text = whole.choices[0].message.content
print(json.dumps({"whole": text, "stream": "".join(parts), "tokens": whole.usage.completion_tokens, "error": error}))
"""


@pytest.fixture(scope="module")
def tiny():
    if not PYTHON:
        pytest.skip("ARBITRAGE_CLIENTS is not set: `make clients` sets it")
    return load("tiny", policies=["router"])


@pytest.fixture(scope="module")
def server(tiny):
    with running(tiny) as started:
        yield started


def questions(count):
    """The shortest of the first problems: the shipped pair has little context."""
    if not DATA.is_file():
        pytest.skip("ARBITRAGE_TEST_DATA holds no gsm8k.jsonl")
    lines = DATA.read_text().splitlines()[:200]
    return sorted((json.loads(line)["question"] for line in lines), key=len)[:count]


def run(*arguments, folder):
    """Run the clients' Python; returns what it prints."""
    own = {
        "OPENAI_API_KEY": "none",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONWARNINGS")}
    done = subprocess.run(
        [PYTHON, *map(str, arguments)], env=kept | own, capture_output=True, text=True, timeout=900, cwd=folder
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


async def said(tiny, question, max_tokens=64):
    """What the pair says when it is asked directly."""
    return (await tiny.solve_async(question, setting=Setting(limits=Limits(max_tokens=max_tokens)))).text


async def test_lm_eval_runs_gsm8k(tiny, server, tmp_path):
    asked = questions(20)
    gsm8k = run("-c", "import lm_eval, pathlib; print(pathlib.Path(lm_eval.__file__).parent)", folder=tmp_path).strip()
    records = [json.loads(line) for line in DATA.read_text().splitlines()]
    chosen = [record for record in records if record["question"] in asked]
    data = tmp_path / "problems.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in chosen))
    task = TASK.format(gsm8k=f"{gsm8k}/tasks/gsm8k/gsm8k.yaml", data=data)
    (tmp_path / "gsm8k_local.yaml").write_text(task)
    run(
        *("-m", "lm_eval", "--model", "local-chat-completions", "--tasks", "gsm8k_local", "--include_path", tmp_path),
        *("--model_args", f"model=tiny,base_url={server.url}/v1/chat/completions,num_concurrent=4"),
        *("--apply_chat_template", "--limit", "20", "--output_path", tmp_path / "out", "--log_samples"),
        folder=tmp_path,
    )
    (samples,) = (tmp_path / "out").rglob("samples_*.jsonl")
    answers = [json.loads(line) for line in samples.read_text().splitlines()]
    by_question = {answer["doc"]["question"]: answer["resps"][0][0] for answer in answers}
    assert len(by_question) == 20
    for question, answer in by_question.items():
        text = await said(tiny, f"Question: {question}\nAnswer:")
        assert answer == text.partition("Question:")[0]


@pytest.mark.parametrize("interface", ["chat", "responses"])
async def test_inspect_evaluates(tiny, server, tmp_path, interface):
    asked = questions(10)
    script = tmp_path / "script.py"
    script.write_text(INSPECT)
    out = run(script, f"{server.url}/v1", tmp_path / "logs", json.dumps(asked), interface, folder=tmp_path)
    result = json.loads(out.splitlines()[-1])
    assert result["status"] == "success"
    assert result["outputs"] == [await said(tiny, question) for question in asked]
    assert all(usage["input_tokens"] and usage["output_tokens"] for usage in result["usage"])


async def test_litellm_completes_streams_and_knows_the_error(tiny, server, tmp_path):
    (question,) = questions(1)
    script = tmp_path / "script.py"
    script.write_text(LITELLM)
    result = json.loads(run(script, f"{server.url}/v1", question, folder=tmp_path).splitlines()[-1])
    assert result["whole"] == result["stream"] == await said(tiny, question)
    assert result["tokens"] > 0
    assert result["error"] == "ContextWindowExceededError"
