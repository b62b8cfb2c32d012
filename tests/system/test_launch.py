"""``arbitrage up``: commands by kind of server, and processes that never outlive it."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from arbitrage.core.errors import ConfigError, EngineError
from arbitrage.engines.http_client import HTTPClient
from arbitrage.pairs.config import PairConfig, read_pair
from arbitrage.pairs.launch import servers
from arbitrage.pairs.served import LlamaServerModel, ServedModel
from arbitrage.runtime.servers import Server, running
from command_line import command

ANSWERS = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
print("child", child.pid, flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"data": []}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print("port", server.server_port, flush=True)
server.serve_forever()
"""


def pair(tmp_path, text):
    path = tmp_path / "pair.toml"
    path.write_text(text)
    return read_pair(path)


SERVED = """
[draft]
path = "small"
engine = "vllm"
url = "http://127.0.0.1:8101"
context_length = 4096
server_args = ["--gpu-memory-utilization", "0.3"]
server_env = {CUDA_VISIBLE_DEVICES = "0"}
[target]
path = "org/big"
engine = "sglang"
url = "http://127.0.0.1:8102"
[prm]
path = "judge"
engine = "vllm"
url = "http://127.0.0.1:8103"
dtype = "bfloat16"
[launch]
vllm = ["python", "-m", "vllm.entrypoints.openai.api_server"]
"""


def test_each_kind_of_server_gets_the_flags_that_the_loop_needs(tmp_path):
    draft, target, prm = servers(pair(tmp_path, SERVED))
    assert str(draft).startswith("CUDA_VISIBLE_DEVICES=0 python -m vllm.entrypoints.openai.api_server --model small ")
    assert "--enable-prefix-caching --max-model-len 4096 --enable-prompt-tokens-details" in str(draft)
    assert str(draft).endswith("--gpu-memory-utilization 0.3")
    assert str(target).startswith("python -m sglang.launch_server --model-path org/big --served-model-name big --host")
    assert '--dtype bfloat16 --enable-prefix-caching --runner pooling --pooler-config \'{"task": "classify"}\'' in str(
        prm
    )
    assert [(s.role, s.models_path) for s in (draft, target)] == [("draft", "/v1/models"), ("target", "/v1/models")]


@pytest.mark.parametrize(("family", "classifies"), [("rlhflow", False), ("math-shepherd", False), ("skywork", True)])
def test_a_prm_that_says_its_score_as_a_token_is_served_as_a_language_model(tmp_path, family, classifies):
    config = pair(tmp_path, SERVED)
    config = replace(config, prm=replace(config.prm, format=family))
    *_, prm = servers(config)
    assert ("--runner pooling" in str(prm)) is classifies


def test_the_server_of_a_further_router_classifies_and_has_a_log_of_its_own(tmp_path):
    text = SERVED + '[routers.second]\npath = "c"\nengine = "vllm"\nurl = "http://127.0.0.1:8104"\n'
    *_, second = servers(pair(tmp_path, text))
    assert (second.role, "--runner pooling" in str(second)) == ("router-second", True)


def test_a_server_that_wants_a_key_is_asked_with_it(tmp_path):
    config = pair(tmp_path, SERVED)
    config = replace(config, draft=replace(config.draft, api_key_env="MY_KEY"))
    assert [server.api_key_env for server in servers(config)] == ["MY_KEY", "", ""]


def test_one_server_may_play_two_roles_but_not_two_models(tmp_path):
    model = LlamaServerModel(path="m.gguf", url="http://127.0.0.1:8101", context_length=512)
    (only,) = servers(PairConfig(name="p", draft=model, target=model))
    assert str(only) == "llama-server -m m.gguf --alias m --host 127.0.0.1 --port 8101 -c 512"
    other = LlamaServerModel(path="n.gguf", url=model.url)
    with pytest.raises(ConfigError, match=r"draft and target share http://127.0.0.1:8101 but are different models"):
        servers(PairConfig(name="p", draft=model, target=other))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[draft]\npath = "a"\n[target]\npath = "b"', "the pair 'pair' names no server"),
        (SERVED.replace(":8101", ""), r"\[draft\] url needs a host and a port"),
        (SERVED.replace(":8101", ":http"), r"\[draft\] url needs a host and a port .*got 'http://127.0.0.1:http'"),
        (SERVED.replace('url = "http://127.0.0.1:8102"', ""), "engine 'sglang' needs url, got ''"),
        (SERVED.replace('engine = "sglang"', ""), "engine 'hf' takes no url"),
        (SERVED.replace('"sglang"', '"sgl"'), "engine must be one of .*, got 'sgl' .did you mean 'sglang'"),
        (SERVED.replace("[launch]\nvllm", "[launch]\nvlm"), r"\[launch\] unknown server 'vlm'"),
        (
            SERVED.replace('server_args = ["--gpu-memory-utilization", "0.3"]', 'server_args = "x"'),
            "server_args must be a list of strings",
        ),
        (
            SERVED.replace(
                '"vllm"\nurl = "http://127.0.0.1:8103"\ndtype = "bfloat16"', '"llama-server"\nurl = "http://h:1"'
            ),
            "classifiers",
        ),
    ],
)
def test_bad_configurations_are_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        servers(pair(tmp_path, text))


def server(code, role="draft"):
    return Server(role=role, url="http://127.0.0.1:1", models_path="/v1/models", command=[sys.executable, "-c", code])


def is_alive(pid):
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text().splitlines()[2]
    except OSError:
        return False


def read_log(log, word):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines() if log.exists() else ():
            if line.startswith(word):
                return int(line.split()[1])
        time.sleep(0.01)
    raise AssertionError(f"no {word} in {log}")


def test_servers_run_until_the_context_ends_with_all_that_they_started(tmp_path):
    def is_ready(one):
        port = read_log(tmp_path / "draft.log", "port")
        return HTTPClient(f"http://127.0.0.1:{port}").get("/v1/models") == {"data": []}

    with running([server(ANSWERS)], tmp_path, is_ready=is_ready, poll_s=0.01) as (started,):
        child = read_log(started.log, "child")
        assert is_alive(child)
        started.check()
    assert started.process.poll() is not None
    deadline = time.monotonic() + 5
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(child)


def test_a_server_that_dies_is_quoted_and_takes_the_others_along(tmp_path):
    sleeper, told = server("import time; time.sleep(300)", "target"), []
    with (
        pytest.raises(EngineError, match=r"(?s)server of the draft ended with status 3; its log .*no memory"),
        running(
            [sleeper, server("print('no memory'); raise SystemExit(3)")],
            tmp_path,
            is_ready=lambda one: one.role == "target",
            on_ready=told.append,
            poll_s=0.01,
        ),
    ):
        pass
    assert told[0].process.poll() is not None


def test_a_server_that_never_answers_is_given_up(tmp_path):
    with (
        pytest.raises(EngineError, match=r"did not answer at http://127.0.0.1:1 within 0 s.*--timeout"),
        running(
            [server("import time; time.sleep(300)")], tmp_path, is_ready=lambda one: False, timeout_s=0.1, poll_s=0.01
        ),
    ):
        pass


def test_a_command_that_is_missing_is_named(tmp_path):
    missing = Server(role="draft", url="", models_path="", command=["no-such-server"])
    with (
        pytest.raises(EngineError, match=r"cannot start the server of the draft, 'no-such-server'.*\[launch\]"),
        running([missing], tmp_path, is_ready=lambda one: True),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is asked for on Linux only")
def test_servers_die_with_a_parent_that_was_killed(tmp_path):
    code = f"""
import time
from pathlib import Path
from arbitrage.runtime.servers import Server, running
one = Server(role="draft", url="", models_path="", command=[{sys.executable!r}, "-c", "import time; time.sleep(300)"])
with running([one], Path({str(tmp_path)!r}), is_ready=lambda one: True) as (started,):
    Path({str(tmp_path / "pid")!r}).write_text(f"pid {{started.process.pid}}")
    time.sleep(300)
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    pid = read_log(tmp_path / "pid", "pid")
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 5
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(pid)


@pytest.mark.parametrize("option", ["--pair", "--config"])
def test_up_shows_the_commands_of_a_pair(tmp_path, option):
    config = pair(tmp_path, SERVED)
    status, out, _ = command("up", option, tmp_path / "pair.toml", "--print")
    assert (status, out.splitlines()) == (0, [str(server) for server in servers(config)])


def test_up_without_a_pair_names_the_option():
    status, _, err = command("up")
    assert (status, err) == (2, "error: no pair is given (name its TOML file by --pair)\n")


CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_are_complete(path):
    config = read_pair(path)
    without = {"prm"} if path.stem == "qwen2.5-coder" else set()  # Its router is trained on rollouts.
    assert set(config.models) == {"draft", "target", "prm", "router"} - without
    assert "Memory" in path.read_text()
    if any(isinstance(model, ServedModel) for model in config.models.values()):
        assert len({server.url for server in servers(config)}) == 4


def test_configurations_are_there():
    assert len(CONFIGS) >= 3
