"""Shared fixtures: random language models that end their steps, and the kits of the contract suite."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from arbitrage.config import ModelConfig, PairConfig
from arbitrage.core.errors import EngineError
from arbitrage.core.ports import Engine
from arbitrage.engines.scripted import RealClock, ScriptedEngine

NEVER = -1e4
"""A bias that no logit outweighs."""
LIVELY = (7, 13, 18, 63, 82)
"""Seeds of random models that write several steps of several tokens; most repeat a token or end at once."""
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
            bias = model.lm_head.bias.fill_(NEVER)
            for token in range(len(tokenizer)):
                text = tokenizer.decode([token])
                if token not in tokenizer.all_special_ids and "\ufffd" not in text:
                    bias[token] = delimiter if "\n\n" in text else 0.0
            bias[tokenizer.eos_token_id] = end
        return model

    return build


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


def _llama(tokenizer: Any, layers: int, context: int) -> Any:
    from torch import nn
    from transformers import LlamaForCausalLM

    from arbitrage.tiny.lm import Shape

    config = Shape(hidden=64, layers=layers, feed_forward=64).config(tokenizer, context)
    config.tie_word_embeddings = False
    model = LlamaForCausalLM(config)
    model.lm_head = nn.Linear(64, config.vocab_size)  # With a bias, to say what is never or often written.
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


def _hf_kit(tokenizer: Any, random_lm: Any) -> Kit:
    from arbitrage.engines.hf import HFEngine

    @contextmanager
    def slowed(engine: Any) -> Iterator[None]:
        hook = engine.model.register_forward_hook(lambda *_: time.sleep(0.01))
        yield
        hook.remove()

    return Kit(lambda number: HFEngine(random_lm(number), tokenizer, name=f"hf-{number}"), slowed)


def _served_kit(server: str, urls: Mapping[str, ModelConfig]) -> Kit:
    """Numbers below 3 are the tiny draft, others the tiny target, behind a real server."""
    from arbitrage.loading import load_engine

    @contextmanager
    def slowed(engine: Any) -> Iterator[None]:
        post = engine.client.post

        async def late(path: str, body: Any) -> Any:
            await asyncio.sleep(0.05)
            return await post(path, body)

        engine.client.post = late
        yield
        del engine.client.post

    return Kit(
        lambda number: load_engine(urls["draft" if number < 3 else "target"]),
        slowed,
        block=128,
        verifies=False,
        tells_likelihood=server != "llama-server",
    )


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Mapping[str, ModelConfig]]]:
    """The tiny draft and target behind a kind of server, started at the first use; skips where it is not installed.

    ``make integration`` installs the servers and names them in the environment: ARBITRAGE_VLLM is a Python that has
    vllm, ARBITRAGE_LLAMA_SERVER the binary.
    """
    with ExitStack() as stack:
        yield cache(lambda server: _start(server, tmp_path_factory.mktemp(server), stack))


def _start(server: str, folder: Path, stack: ExitStack) -> Mapping[str, ModelConfig]:
    from arbitrage.engines.http_client import HTTPClient
    from arbitrage.launch import servers
    from arbitrage.runtime.servers import running

    variable = f"ARBITRAGE_{server.upper().replace('-', '_')}"
    if not (command := os.environ.get(variable)):
        pytest.skip(f"{variable} is not set: `make integration` sets it")
    command = [command, "-m", "vllm.entrypoints.openai.api_server"] if server == "vllm" else [command]
    models = {role: _served_model(server, role, folder) for role in ("draft", "target")}
    config = PairConfig(name="tiny", **models, launch={server: tuple(command)})

    def is_ready(one: Any) -> bool:
        try:
            return bool(HTTPClient(one.url).get(one.about))
        except EngineError:
            return False

    stack.enter_context(running(servers(config), folder, is_ready=is_ready, timeout_s=300.0))
    return models


def _served_model(server: str, role: str, folder: Path) -> ModelConfig:
    from arbitrage.tiny import WEIGHTS

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    weights = str(WEIGHTS / role)
    common = {"name": f"tiny-{role}", "engine": server, "url": url, "context_length": 512}
    if server == "vllm":
        env = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
        return ModelConfig(path=weights, serve=("--enforce-eager", "--max-num-seqs", "32"), env=env, **common)
    from arbitrage.engines.gguf_export import export_gguf

    path = folder / f"{role}.gguf"
    export_gguf(WEIGHTS / role, path, kind="f32")
    return ModelConfig(path=str(path), tokenizer=weights, serve=("-np", "16", "-c", "8192"), **common)


KITS: dict[str, Callable[[pytest.FixtureRequest], Kit]] = {
    "scripted": lambda request: _scripted_kit(),
    "hf": lambda request: _hf_kit(request.getfixturevalue("tokenizer"), request.getfixturevalue("random_lm")),
    "vllm": lambda request: _served_kit("vllm", request.getfixturevalue("served")("vllm")),
    "llama-server": lambda request: _served_kit("llama-server", request.getfixturevalue("served")("llama-server")),
}
"""Every engine that must keep the contract; a new one is one line here."""


@pytest.fixture(params=KITS)
def kit(request: pytest.FixtureRequest) -> Kit:
    return KITS[request.param](request)
