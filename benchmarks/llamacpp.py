"""The llama.cpp engine against a bare loop over llama.cpp's C interface: same file, same threads, interleaved.

Run: ``python benchmarks/llamacpp.py MODEL.gguf [--threads 2] [--rounds 7] [--exact] [--profile]``. One round is a
prompt of 200 tokens and 64 tokens behind it, greedy. The bare loop only decodes, and picks by llama.cpp's own greedy
sampler; it keeps no log-probability and no text. It runs twice: with the engine's own settings (cache, attention,
sequences), where it must write the same tokens, and with llama.cpp's defaults. Ends with one JSON line: medians in
milliseconds, and the median over rounds of the engine's tokens per second over the loop's. ``--profile`` shows where
the engine's time goes.
"""

import argparse
import asyncio
import cProfile
import json
import pstats
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import llama_cpp

from arbitrage.core.ports import StepRequest
from arbitrage.core.types import Sampling, Source
from arbitrage.engines.llamacpp import LlamaEngine
from arbitrage.engines.prompt import PlainPrompt
from arbitrage.engines.session import LocalSession

TEXT = (
    "A shop sells 12 boxes of pencils on Monday and 3 times as many on Tuesday. Each box holds 24 pencils, and every "
    "pencil costs 15 cents. How much does the shop earn on both days together? Think step by step, and check it.\n"
)
DELIMITER = "\0 a delimiter that no model writes"


class BareLoop:
    """A context of its own on the engine's weights, and llama.cpp's greedy sampler."""

    def __init__(self, engine: LlamaEngine, *, has_defaults: bool) -> None:
        settings = engine.context.arithmetic
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch = 1024, 512
        parameters.n_threads, parameters.n_threads_batch = settings["threads"]
        if not has_defaults:
            exact = engine.context.is_batch_invariant
            numbers = {"float32": 0, "float16": 1, "bfloat16": 30}
            parameters.kv_unified, parameters.n_seq_max = False, settings["sequences"]
            parameters.n_ctx = engine.context.length * settings["sequences"]
            parameters.n_ubatch = settings["batch_at_once"]
            parameters.type_k = numbers[settings["cache"]]
            parameters.type_v = numbers["bfloat16" if exact else settings["cache"]]
            parameters.flash_attn_type = int(settings["flash_attention"])
        self._context = llama_cpp.llama_init_from_model(engine.context.model.pointer, parameters)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._sampler = llama_cpp.llama_sampler_init_greedy()

    def run(self, prompt: Sequence[int], num_tokens: int) -> tuple[list[int], float, float]:
        """Ids behind the prompt, seconds until the first of them, seconds for all others."""
        llama_cpp.llama_memory_seq_rm(self._memory, 0, 0, -1)
        started = time.perf_counter()
        ids = [self._next(prompt)]
        first = time.perf_counter()
        for _ in range(num_tokens):
            ids.append(self._next(ids[-1:]))
        return ids, first - started, time.perf_counter() - first

    def _next(self, ids: Sequence[int]) -> int:
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        assert llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(tokens, len(ids))) == 0
        return int(llama_cpp.llama_sampler_sample(self._sampler, self._context, -1))


async def engine_run(engine: LlamaEngine, prompt: list[int], num_tokens: int) -> tuple[list[int], float, float]:
    """The same by a session: one step of one token, and one of all others."""
    session = LocalSession(engine, prompt, Source.TARGET)
    ids: list[int] = []
    times = []
    for count in (1, num_tokens):
        started = time.perf_counter()
        request = StepRequest(max_tokens=count, delimiter=DELIMITER, sampling=Sampling(), seed=0)
        step = await session.propose(request)
        times.append(time.perf_counter() - started)
        await session.commit(step)
        ids += step.token_ids
    await session.close()
    return ids, times[0], times[1]


def on_its_thread(
    engine: LlamaEngine, loop: BareLoop, prompt: list[int], num_tokens: int
) -> tuple[list[int], float, float]:
    """Run a loop on the engine's thread: a second thread that computes would slow both down."""
    return engine.worker.call(partial(loop.run, prompt, num_tokens))


def ratios(rounds: list[dict[str, tuple[float, float]]], loop: str) -> dict[str, float]:
    """The engine's tokens per second over a loop's, for prompt and decoding."""
    return {
        part: round(statistics.median(one[loop][number] / one["engine"][number] for one in rounds), 3)
        for number, part in enumerate(("prompt", "decode"))
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prompt", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--flash-attention", action=argparse.BooleanOptionalAction)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--loops", nargs="+", choices=("same", "defaults"), default=["same", "defaults"])
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    engine = LlamaEngine.load(
        options.file,
        prompt=PlainPrompt("{question}"),
        threads=options.threads,
        dtype=options.dtype,
        flash_attention=options.flash_attention,
        exact=bool(options.exact),
    )
    text = engine.encode(TEXT)
    prompt = (text * (options.prompt // len(text) + 1))[: options.prompt]
    loops = {name: BareLoop(engine, has_defaults=name == "defaults") for name in options.loops}
    rounds: list[dict[str, tuple[float, float]]] = []
    for number in range(options.rounds + 1):
        runs = {"engine": lambda: asyncio.run(engine_run(engine, prompt, options.tokens))}
        for name, loop in loops.items():
            runs[name] = partial(on_its_thread, engine, loop, prompt, options.tokens)
        one: dict[str, Any] = {}
        texts = {}
        for name in sorted(runs, reverse=bool(number % 2)):  # Each is first in half of the rounds.
            texts[name], *one[name] = runs[name]()
        ids = texts["engine"]
        assert texts.get("same", ids) == ids, "the same tokens are compared"
        if number:  # The first round warms up.
            rounds.append(one)
            print(number, {name: ratios(rounds, name) for name in loops}, file=sys.stderr)
    if options.profile:
        profile(engine, prompt, options.tokens)
    medians = {
        name: {
            "prompt": round(statistics.median(one[name][0] for one in rounds) * 1e3, 1),
            "token": round(statistics.median(one[name][1] for one in rounds) * 1e3 / (len(ids) - 1), 2),
        }
        for name in ("engine", *loops)
    }
    record = {
        "file": options.file.name,
        "threads": engine.context.arithmetic["threads"],
        "exact": options.exact,
        "rounds": len(rounds),
        "prompt_tokens": len(prompt),
        "tokens": len(ids) - 1,
        "ms": medians,
        "speed_over": {name: ratios(rounds, name) for name in loops},
    }
    print(json.dumps(record))


def profile(engine: LlamaEngine, prompt: list[int], num_tokens: int) -> None:
    """Show what runs on the device's thread, by time spent in each function itself."""
    profiler = cProfile.Profile()
    engine.worker._executor.submit(profiler.enable).result()
    asyncio.run(engine_run(engine, prompt, num_tokens))
    engine.worker._executor.submit(profiler.disable).result()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(14)


if __name__ == "__main__":
    main()
