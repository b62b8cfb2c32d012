"""Shared fixtures: random language models that end their steps, and the kits of the contract suite."""

import asyncio
import atexit
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from arbitrage.core.ports import Engine
from arbitrage.engines.cache_options import CacheOptions
from arbitrage.engines.scripted import RealClock, ScriptedEngine
from arbitrage.pairs.hf import HFModel
from arbitrage.pairs.launch import answers, servers_for
from arbitrage.pairs.model import ModelConfig
from arbitrage.pairs.served import LlamaServerModel, ServedModel, VLLMModel
from arbitrage.runtime.servers import Started, running
from helpers import measured
from servers import SGLangServer, in_a_thread

NEVER = -1e4
"""A bias that no logit outweighs."""
LIVELY = (7, 13, 18, 63, 82)
"""Seeds of random models that write several steps of several tokens; most repeat a token or end at once."""
LIVELY_PLAIN = (234, 239, 246, 286, 288)
"""Of those without a bias."""
os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Tiny models gain nothing from threads, and two that share a core wait for each other at every operation."""
_CACHE = tempfile.TemporaryDirectory(prefix="arbitrage-tests-")
os.environ["ARBITRAGE_CACHE"] = _CACHE.name
"""Measurements of models are not kept for the user's own runs."""
atexit.register(_CACHE.cleanup)
settings.register_profile("arbitrage", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("arbitrage")
"""On a fresh clone the first example waits for tables of Unicode that hypothesis writes once."""
_CORES = cycle(range(os.cpu_count() or 1))
TEXTS = [
    "Mia has 3 times as many stamps as Leo. Leo has 14 stamps. How many stamps does Mia have?",
    "Leo has 14 stamps.\n\nMia has 14*3=42 stamps.\n\nThe answer is \\boxed{42}.\n\n",
    "Zoe: 5+90=95.\n\nSubtract 7 on both sides: 6x=60.\n\nDivide both sides by 6: x=10.\n\n",
    "A train covers 120 miles in each hour. The price falls by 25 percent.\n\n",
]


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A tokenizer like the tiny models', but trained on ``TEXTS``: what the random models write stays as it is."""
    return pytest.importorskip("arbitrage.tiny.tokenizer").train_tokenizer(TEXTS)


@pytest.fixture(scope="session")
def random_lm(tokenizer: Any) -> Callable[..., Any]:
    """Builds lively Llamas by number: random weights that write whole characters, end steps and their answer."""
    import torch

    @cache  # Nobody changes a weight: a model may serve many tests.
    def build(
        number: int,
        *,
        layers: int = 1,
        context: int = 512,
        delimiter: float = 5.0,
        end: float = 4.0,
        tokenizer: Any = tokenizer,
    ) -> Any:
        model = _llama(tokenizer, layers, context)
        generator = torch.Generator().manual_seed(LIVELY[number])
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.dim() == 2:
                    weight.normal_(std=1.0 if "embed" in name else 0.4, generator=generator)
            _set_bias(tokenizer, model.lm_head.bias, delimiter, end)
        return model

    return build


@pytest.fixture(scope="session")
def engine_with(tmp_path_factory: pytest.TempPathFactory, random_lm: Callable[..., Any]) -> Callable[[str, str], Any]:
    """Builds engines of a kind (hf, http, gguf) with a published model's tokenizer by name; for sessions' ids only."""
    import chat_models

    @cache
    def build(kind: str, name: str) -> Any:
        from arbitrage.engines.hf import HFEngine

        tokenizer = chat_models.MODELS[name]()
        if kind == "hf":
            made = HFEngine(random_lm(0, tokenizer=tokenizer), tokenizer, name=name)
            made.context_length = 1 << 20
            return made
        from arbitrage.engines.dialects import VLLM
        from arbitrage.engines.http import HTTPEngine
        from arbitrage.engines.http_client import HTTPClient

        if kind == "gguf":
            if not all(map(find_spec, ("llama_cpp", "gguf"))):
                pytest.skip("llama.cpp is not installed")
            import gguf_vocabularies

            tokenizer = gguf_vocabularies.load(name, tokenizer, tmp_path_factory.mktemp(name))
        client = HTTPClient("http://127.0.0.1:1")
        return HTTPEngine(client, VLLM(), tokenizer, name=name, context_length=1 << 20)

    return build


@pytest.fixture(scope="session")
def plain_lm(tokenizer: Any) -> Callable[..., Any]:
    """Builds lively Llamas without a bias, which no GGUF file of Llama has, by number.

    One dimension of the residual stream is the same at every token, and large: behind the last norm it is 1, so that
    the head's weights for it are what a bias would be.
    """
    import torch

    @cache
    def build(number: int, *, layers: int = 1, context: int = 512, delimiter: float = 5.0, end: float = 4.0) -> Any:
        model = _llama(tokenizer, layers, context, has_bias=False)
        generator = torch.Generator().manual_seed(LIVELY_PLAIN[number])
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.dim() == 1:  # A norm, which divides by about 8: the large dimension is most of its input.
                    weight.fill_(8.0)[0] = 1 / 8 if name == "model.norm.weight" else 0.0
                elif name.endswith(("o_proj.weight", "down_proj.weight")):
                    weight.normal_(std=0.05, generator=generator)[0] = 0.0
                else:
                    weight.normal_(
                        std={"embed": 1.0, "lm_he": 0.1}.get(name.removeprefix("model.")[:5], 0.4), generator=generator
                    )
            model.model.embed_tokens.weight[:, 0] = 64.0
            _set_bias(tokenizer, model.lm_head.weight[:, 0], delimiter, end)
        return model

    return build


def _set_bias(tokenizer: Any, bias: Any, delimiter: float, end: float) -> None:
    """Whole characters only, no special token but the end; the delimiter and the end more often than others."""
    bias.fill_(NEVER)
    for token in range(len(tokenizer)):
        text = tokenizer.decode([token])
        if token not in tokenizer.all_special_ids and "\ufffd" not in text:
            bias[token] = delimiter if "\n\n" in text else 0.0
    bias[tokenizer.eos_token_id] = end


@pytest.fixture(scope="session")
def gguf_file(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a model of ``plain_lm`` as a GGUF file."""
    pytest.importorskip("gguf")
    from arbitrage.engines.gguf_export import export_gguf

    @cache
    def write(model: Any, kind: str = "f32") -> Path:
        folder = tmp_path_factory.mktemp("gguf")
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        export_gguf(folder, folder / "model.gguf", kind)
        return folder / "model.gguf"

    return write


@pytest.fixture(scope="session")
def chain_lm(tokenizer: Any) -> Callable[..., Any]:
    """Builds a Llama that writes exactly the given ids behind the prompt's last one: no id may come twice."""
    import torch

    def build(first: int, ids: list[int], *, context: int = 512, tokenizer: Any = tokenizer) -> Any:
        model = _llama(tokenizer, 1, context)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    weight.zero_()  # Nothing but the last token reaches the head.
            generator = torch.Generator().manual_seed(0)
            table = model.model.embed_tokens.weight.normal_(generator=generator)
            model.lm_head.weight.zero_()
            model.lm_head.bias.zero_()
            for before, after in pairwise([first, *ids]):
                model.lm_head.weight[after] = table[before]
        return model

    return build


def _llama(tokenizer: Any, layers: int, context: int, *, has_bias: bool = True) -> Any:
    from torch import nn
    from transformers import LlamaForCausalLM

    from arbitrage.tiny.lm import Shape

    config = Shape(hidden=64, layers=layers, feed_forward=64).config(tokenizer, context)
    config.tie_word_embeddings = False
    model = LlamaForCausalLM(config)
    # A bias says what is never or often written.
    model.lm_head = nn.Linear(64, config.vocab_size, bias=has_bias)
    return model.eval()


@dataclass
class Kit:
    """What the contract suite needs to know of one kind of engine."""

    build: Callable[[int], Engine]
    """A new engine by number; different numbers write different answers."""
    slowed: Callable[[Engine], Any]
    """A context manager under which a step takes long enough to be interrupted."""
    block: int = 1
    """Tokens of a cache block: fewer of a prompt's end may be computed again."""
    verifies: bool = True
    """Whether tokens of a proposal are taken over."""
    tells_likelihood: bool = True
    streams: bool = True
    """Whether a step's text arrives in parts."""
    remembers: bool = False
    """Whether a cache outlives a session, so that a new one may find its prompt computed."""
    tolerance: float = 1e-4
    """Of log-probabilities that were computed in another batch; a cache of 16 bits needs more."""


def _scripted_kit() -> Kit:
    def build(number: int) -> Engine:
        def script(problem: int) -> str:
            return "\n\n".join(f"e{number} p{problem} s{i} has some words" for i in range(5))

        return ScriptedEngine(script={f"p{i}": script(i) for i in range(6)}, name=f"scripted-{number}")

    @contextmanager
    def slowed(engine: Any) -> Iterator[None]:
        clock, engine.clock, engine.seconds_per_token = engine.clock, RealClock(), 1.0
        yield
        engine.clock, engine.seconds_per_token = clock, 0.0

    return Kit(build, slowed)


def _hf_kit(request: pytest.FixtureRequest) -> Kit:
    from arbitrage.engines.hf import HFEngine

    random_lm, tokenizer = request.getfixturevalue("random_lm"), request.getfixturevalue("tokenizer")

    @contextmanager
    def slowed(engine: Any) -> Iterator[None]:
        hook = engine.model.register_forward_hook(lambda *_: time.sleep(0.01))
        yield
        hook.remove()

    def build(number: int) -> Engine:
        return measured(HFEngine(random_lm(number), tokenizer, name=f"hf-{number}"))

    return Kit(build, slowed)


def _exact_hf_kit(request: pytest.FixtureRequest) -> Kit:
    from arbitrage.engines.hf import HFEngine

    random_lm, tokenizer = request.getfixturevalue("random_lm"), request.getfixturevalue("tokenizer")

    def build(number: int) -> Engine:
        engine = HFEngine(random_lm(number), tokenizer, name=f"hf-exact-{number}", exact=True)
        assert engine.is_strict
        return engine

    return replace(_hf_kit(request), build=build, verifies=False)


def _hf_builder(request: pytest.FixtureRequest, path: str, **options: Any) -> Callable[[int], Engine]:
    """Builds engines whose forward passes run in one way."""
    from arbitrage.engines.hf import HFEngine

    random_lm, tokenizer = request.getfixturevalue("random_lm"), request.getfixturevalue("tokenizer")

    def build(number: int) -> Engine:
        cache = CacheOptions(**options)
        engine = measured(HFEngine(random_lm(number), tokenizer, name=f"hf-{path}-{number}", cache=cache))
        assert engine.path == path
        return engine

    return build


def _static_hf_kit(request: pytest.FixtureRequest) -> Kit:
    """Caches of fixed size, and passes of the widths that are captured on a GPU."""
    return replace(_hf_kit(request), build=_hf_builder(request, "static", static=True, sequences=8))


@cache
def _recorded_once(model: Any, *, name: str) -> Any:
    from arbitrage.engines.hf_trace import recorded

    return recorded(model, name=name)


def _traced_hf_kit(request: pytest.FixtureRequest) -> Kit:
    """Passes over few tokens are recorded, once for each model."""
    from arbitrage.engines import hf_memory
    from arbitrage.engines.hf_trace import RecordedPasses

    request.getfixturevalue("monkeypatch").setattr(hf_memory, "recorded", _recorded_once)

    @contextmanager
    def slowed(engine: Any) -> Iterator[None]:
        call = RecordedPasses.__call__
        RecordedPasses.__call__ = lambda *given: time.sleep(0.01) or call(*given)
        yield
        RecordedPasses.__call__ = call

    return Kit(_hf_builder(request, "traced", traces=True), slowed)


def _guessing_kit(target: Kit, draft: Kit | None, num_tokens: int | None = 3) -> Kit:
    """Targets that guess by the draft of the next number; by look-up without one."""
    from arbitrage.engines.local import LocalEngine
    from arbitrage.engines.speculative import SpeculativeEngine

    def build(number: int) -> Engine:
        engine = target.build(number)
        assert isinstance(engine, LocalEngine)
        if draft is None:
            return SpeculativeEngine.by_lookup(engine, num_tokens)
        guesser = draft.build(number + 1)
        assert isinstance(guesser, LocalEngine)
        return SpeculativeEngine.by_draft(engine, guesser, num_tokens)

    return replace(target, build=build, slowed=lambda engine: target.slowed(engine.target))


@contextmanager
def _late_answers(engine: Any) -> Iterator[None]:
    """A served engine whose answers come late."""
    post = engine.client.post

    async def late(path: str, body: Any) -> Any:
        await asyncio.sleep(0.05)
        return await post(path, body)

    engine.client.post = late
    yield
    del engine.client.post


def _served_kit(server: str, urls: Mapping[str, ModelConfig]) -> Kit:
    """Numbers below 3 are the tiny draft, others the tiny target, behind a real server."""
    from arbitrage.pairs.loading import load_engine

    return Kit(
        lambda number: load_engine(urls["draft" if number < 3 else "target"]),
        _late_answers,
        block=128,
        verifies=False,
        streams=False,
        tells_likelihood=server != "llama-server",
        remembers=True,
        tolerance=1e-4 if server == "vllm" else 2e-3,
    )


def _sglang_kit(request: pytest.FixtureRequest) -> Kit:
    """Random models behind a server of ours that answers as SGLang's source says, since SGLang needs a GPU."""
    from arbitrage.engines.dialects import SGLang
    from arbitrage.engines.http import HTTPEngine
    from arbitrage.engines.http_client import HTTPClient

    random_lm, tokenizer = request.getfixturevalue("random_lm"), request.getfixturevalue("tokenizer")
    stack = ExitStack()
    request.addfinalizer(stack.close)

    def build(number: int) -> Engine:
        name = f"sglang-{number}"
        server = stack.enter_context(in_a_thread(SGLangServer(random_lm(number), tokenizer, name)))
        return HTTPEngine.connect(HTTPClient(server.url), SGLang(), tokenizer, name=name)

    return Kit(build, _late_answers, verifies=False, streams=False, remembers=True)


Serve = Callable[[str, Mapping[str, ModelConfig]], Mapping[str, ServedModel]]


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Puts models behind a kind of server until the session ends; skips where it is not installed.

    ``make integration`` installs the servers and names them in the environment: ARBITRAGE_VLLM is a Python that has
    vllm, ARBITRAGE_LLAMA_SERVER the binary.
    """
    with ExitStack() as stack:

        def start(server: str, models: Mapping[str, ModelConfig]) -> Mapping[str, ServedModel]:
            wanted = {role: _at_server(server, model) for role, model in models.items()}
            stack.enter_context(_started(wanted, tmp_path_factory.mktemp(server)))
            return wanted

        yield start


def _started(models: Mapping[str, ServedModel], logs: Path) -> AbstractContextManager[list[Started]]:
    commands = [
        server
        for role, model in models.items()
        for server in servers_for(role, model, {model.engine: _installed(model.engine)})
    ]
    return running(commands, logs, is_ready=answers, timeout_s=400.0)


@pytest.fixture
def start_again(
    served: Callable[[str], Mapping[str, ServedModel]], tmp_path: Path
) -> Callable[[str], tuple[ServedModel, Callable[[], AbstractContextManager[list[Started]]]]]:
    """By kind of server: the tiny draft at an address of its own, and what starts its server there, time and again."""

    def prepare(server: str) -> tuple[ServedModel, Callable[[], AbstractContextManager[list[Started]]]]:
        model = _at_server(server, served(server)["draft"])
        return model, lambda: _started({"draft": model}, tmp_path)

    return prepare


def _installed(server: str) -> list[str]:
    """What starts a kind of server here."""
    variable = f"ARBITRAGE_{server.upper().replace('-', '_')}"
    if not (command := os.environ.get(variable)):
        pytest.skip(f"{variable} is not set: `make integration` sets it")
    return [command, "-m", "vllm.entrypoints.openai.api_server"] if server == "vllm" else [command]


def _at_server(server: str, model: ModelConfig) -> ServedModel:
    """The model at a free address; a checkpoint behind vLLM, a GGUF file that is served already as it is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    if isinstance(model, LlamaServerModel):
        return replace(model, url=url, server_args=("-np", "16", "-c", "8192"))
    assert server == "vllm"
    own_core = str(next(_CORES))  # Servers that choose for themselves choose the same.
    env = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": own_core, "HF_HUB_OFFLINE": "1"}
    return VLLMModel(
        path=model.path, name=model.name, url=url, context_length=512, server_args=("--enforce-eager",), server_env=env
    )


@pytest.fixture(scope="session")
def served(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Mapping[str, ServedModel]]:
    """The tiny draft and target behind a kind of server, started at the first use."""
    from arbitrage.tiny import WEIGHTS

    def model(server: str, role: str) -> ModelConfig:
        _installed(server)
        if server == "vllm":
            return HFModel(path=str(WEIGHTS / role), name=f"tiny-{role}")
        from arbitrage.engines.gguf_export import export_gguf

        path = tmp_path_factory.mktemp(server) / f"{role}.gguf"
        export_gguf(WEIGHTS / role, path, kind="f32")
        address = "http://127.0.0.1"  # The port is chosen at the start.
        return LlamaServerModel(path=str(path), tokenizer=str(WEIGHTS / role), name=f"tiny-{role}", url=address)

    return cache(lambda server: serve(server, {role: model(server, role) for role in ("draft", "target")}))


def _llamacpp_kit(request: pytest.FixtureRequest) -> Kit:
    for module in ("llama_cpp", "gguf"):
        pytest.importorskip(module)
    from arbitrage.engines.llamacpp import LlamaEngine

    plain_lm, gguf_file = (request.getfixturevalue(name) for name in ("plain_lm", "gguf_file"))

    @contextmanager
    def slowed(engine: Any) -> Iterator[None]:
        run = engine.context.run
        engine.context.run = lambda *given: time.sleep(0.01) or run(*given)
        yield
        engine.context.run = run

    def build(number: int) -> Engine:
        return LlamaEngine.load(gguf_file(plain_lm(number)), name=f"llamacpp-{number}", threads=1)

    return Kit(build, slowed)


def _exact_llamacpp_kit(request: pytest.FixtureRequest) -> Kit:
    """A cache of sixteen bits, which is read with other kernels for several tokens than for one."""
    kit = _llamacpp_kit(request)
    from arbitrage.engines.llamacpp import LlamaEngine

    plain_lm, gguf_file = (request.getfixturevalue(name) for name in ("plain_lm", "gguf_file"))

    def build(number: int) -> Engine:
        file = gguf_file(plain_lm(number))
        name = f"llamacpp-exact-{number}"
        engine = LlamaEngine.load(file, name=name, threads=1, dtype="float16", exact=True)
        assert engine.is_strict
        return engine

    return replace(kit, build=build, verifies=False, tolerance=1e-2)


KITS: dict[str, Callable[[pytest.FixtureRequest], Kit]] = {
    "scripted": lambda request: _scripted_kit(),
    "hf": _hf_kit,
    "speculative": lambda request: _guessing_kit(_hf_kit(request), _hf_kit(request)),
    "speculative-adaptive": lambda request: _guessing_kit(_hf_kit(request), _hf_kit(request), None),
    "speculative-llamacpp": lambda request: _guessing_kit(_llamacpp_kit(request), _llamacpp_kit(request)),
    "speculative-mixed": lambda request: _guessing_kit(_llamacpp_kit(request), _hf_kit(request)),
    "ngram": lambda request: _guessing_kit(_hf_kit(request), None),
    "ngram-llamacpp": lambda request: _guessing_kit(_llamacpp_kit(request), None),
    "vllm": lambda request: _served_kit("vllm", request.getfixturevalue("served")("vllm")),
    "llama-server": lambda request: _served_kit("llama-server", request.getfixturevalue("served")("llama-server")),
    "sglang": _sglang_kit,
    "llamacpp": _llamacpp_kit,
    "hf-exact": _exact_hf_kit,
    "hf-static": _static_hf_kit,
    "hf-traced": _traced_hf_kit,
    "llamacpp-exact": _exact_llamacpp_kit,
}
"""Every engine that must keep the contract; a new one is one line here."""


@pytest.fixture(params=KITS)
def kit(request: pytest.FixtureRequest) -> Kit:
    return KITS[request.param](request)


def pytest_unconfigure() -> None:
    """Close two files that llama_cpp leaves open for good: at the very end they would count as errors."""
    if utils := sys.modules.get("llama_cpp._utils"):
        utils.outnull_file.close()
        utils.errnull_file.close()
