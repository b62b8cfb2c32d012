"""Decoding speed of the hf engine on a GPU: ``python benchmarks/gpu.py [--shapes 0.5B,1.5B,7B] [--seconds 330]``.

Qwen2 shapes with random weights in bfloat16, batch 1, behind 200 tokens: times do not depend on the weights, so nothing
is downloaded. Then the shipped pair on the GPU beside the CPU. Needs torch with CUDA and transformers; from a checkout
run it with ``PYTHONPATH=src``. Every result is printed when it is measured; a table and one JSON line come last. What
does not fit into ``--seconds`` is left out and named.

``--device cpu`` with the shape ``tiny`` checks the script itself on a machine without a GPU.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import tokenizers
import torch
import transformers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from arbitrage import Problem, Sampling, Setting, load
from arbitrage.core.ports import StepRequest
from arbitrage.core.types import Source
from arbitrage.datasets.named import problems
from arbitrage.engines.cache_options import CacheOptions
from arbitrage.engines.hf import HFEngine
from arbitrage.engines.prompt import PlainPrompt
from arbitrage.engines.worker import CancelFlag
from arbitrage.pairs.catalogue import pair_config

# Layers, hidden size, feed-forward size, heads, key-value heads, tied embeddings: Qwen2.5's published configurations.
SHAPES: Final = {
    "0.5B": (24, 896, 4864, 14, 2, True),
    "1.5B": (28, 1536, 8960, 12, 2, True),
    "7B": (28, 3584, 18944, 28, 4, False),
    "tiny": (2, 64, 128, 4, 2, True),
}
LIMIT_MS: Final = {"0.5B": 2.2, "1.5B": 3.6, "7B": 7.8}
"""Milliseconds a token that the engine should need at most on an H100."""
VOCABULARY: Final = 151_936
CONTEXT: Final = 2048
PROMPT_TOKENS: Final = 200
STEP_TOKENS: Final = 128


def say(text: str) -> None:
    """Print at once: an interrupted run keeps what it has measured."""
    print(text, flush=True)


def build(shape: str, device: str) -> Qwen2ForCausalLM:
    """A model with random weights, made on the device."""
    layers, hidden, feed_forward, heads, key_values, is_tied = SHAPES[shape]
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_values,
        max_position_embeddings=32_768,
        tie_word_embeddings=is_tied,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=None,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return Qwen2ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one word for each id of the vocabulary; no word ends a step or an answer."""
    words = tokenizers.models.WordLevel({f"w{id}": id for id in range(VOCABULARY)}, unk_token="w0")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


class Watch:
    """Wall-clock of work on a device."""

    def __init__(self, device: str) -> None:
        self._is_gpu = device.startswith("cuda")
        self.milliseconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure one piece of work, to the end of its last kernel."""
        self._wait()
        started = time.perf_counter()
        yield
        self._wait()
        self.milliseconds = (time.perf_counter() - started) * 1000

    def _wait(self) -> None:
        if self._is_gpu:
            torch.cuda.synchronize()


def generate_ms(model: Qwen2ForCausalLM, watch: Watch) -> float:
    """Milliseconds a token of ``generate``, prompt included, after one warm-up."""
    ids = torch.arange(PROMPT_TOKENS, device=model.device)[None]
    for _ in range(2):
        with watch.running(), torch.inference_mode():
            model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, min_new_tokens=64, do_sample=False
            )
    return watch.milliseconds / 64


async def step_ms(engine: HFEngine, watch: Watch, temperature: float = 0.0) -> float:
    """Milliseconds a token of a session's step behind a prompt that is computed already; median of three."""
    request = StepRequest(max_tokens=STEP_TOKENS, delimiter="\n\n", sampling=Sampling(temperature=temperature), seed=0)
    problem = Problem(id="p", question=" ".join(f"w{id}" for id in range(PROMPT_TOKENS)))
    each = []
    session = await engine.open(problem, Source.TARGET)
    try:
        await session.propose(replace(request, max_tokens=2))
        for _ in range(3):
            with watch.running():
                step = await session.propose(request)
            each.append(watch.milliseconds / len(step.token_ids))
    finally:
        await session.close()
    return statistics.median(each)


def pass_ms(engine: HFEngine, watch: Watch) -> dict[str, Any]:
    """Milliseconds of forward passes of several widths, and of single tokens at several lengths."""
    with engine.computing(CancelFlag()):
        sequence = engine.sequence()
        sequence.logits(list(range(PROMPT_TOKENS)))
        widths = {}
        for width in (1, 2, 4, 8, 16, 32):
            each = []
            for _ in range(7):
                with watch.running():
                    sequence.logits(list(range(width)), width)
                each.append(watch.milliseconds)
                sequence.crop(PROMPT_TOKENS)
            widths[width] = statistics.median(each)
        lengths = {}
        for length in (201, 317, 450, 701, 1023, 1500, 1999):
            sequence.logits(list(range(length - len(sequence))))
            each = []
            for _ in range(5):
                with watch.running():
                    sequence.logits([1])
                each.append(watch.milliseconds)
                sequence.crop(length)
            lengths[length] = statistics.median(each)
        sequence.close()
        with watch.running():
            sequence.logits(list(range(PROMPT_TOKENS)))
        sequence.close()
        return {"widths": widths, "lengths": lengths, "prompt_200_ms": watch.milliseconds}


def measure(shape: str, device: str, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """One shape: ``generate``, the eager path, and captured graphs (on the CPU: caches of fixed size)."""
    model, watch = build(shape, device), Watch(device)
    is_gpu = device.startswith("cuda")
    record: dict[str, Any] = {"shape": shape, "generate_ms": generate_ms(model, watch)}
    say(f"{shape}: generate {record['generate_ms']:.2f} ms a token")
    for name, options in (
        ("eager", CacheOptions(compile=False)),
        ("fast", CacheOptions(static=not is_gpu, context_length=CONTEXT, sequences=1)),
    ):
        started = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            engine = HFEngine(
                model, tokenizer, name=shape, prompt=PlainPrompt("{question}"), cache=options, exact=False
            )
        record[name] = {
            "path": engine.path,
            "ready_s": time.perf_counter() - started,
            "ms": asyncio.run(step_ms(engine, watch)),
            "sampled_ms": asyncio.run(step_ms(engine, watch, 1.0)),
            "warnings": [str(warning.message) for warning in caught],
            **pass_ms(engine, watch),
        }
        say(f"{shape} {name}: {json.dumps(record[name])}")
    return record


def copy_bandwidth(device: str) -> float:
    """Bytes a second that a copy reads and writes, in TB/s."""
    size = 2**30 if device.startswith("cuda") else 2**26
    source, watch, each = torch.zeros(size, dtype=torch.uint8, device=device), Watch(device), []
    target = torch.empty_like(source)
    for _ in range(5):
        with watch.running():
            target.copy_(source)
        each.append(watch.milliseconds)
    return 2 * size / statistics.median(each) / 1e9


def compare_tiny(device: str, limit: int) -> dict[str, Any]:
    """The shipped pair on the device and on the CPU: texts that are equal, and seconds a problem."""
    config = pair_config("tiny")
    moved = replace(config, draft=_on(config.draft, device), target=_on(config.target, device))
    record: dict[str, Any] = {}
    texts: dict[tuple[str, str], list[str]] = {}
    for place, pair in (("cpu", load(config, policies=["router"])), (device, load(moved, policies=["router"]))):
        for policy in ("target", "draft", "router"):
            started = time.perf_counter()
            traces = [pair.solve(problem, policy=policy, setting=Setting()) for problem in problems("tiny:test", limit)]
            record[f"{policy} {place} s"] = (time.perf_counter() - started) / limit
            texts[policy, place] = [trace.text for trace in traces]
    for policy in ("target", "draft", "router"):
        equal = sum(map(str.__eq__, texts[policy, "cpu"], texts[policy, device]))
        record[f"{policy} equal"] = f"{equal}/{limit}"
    return record


def _on(model: Any, device: str) -> Any:
    return replace(model, device=device) if hasattr(model, "device") else model


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--shapes", default="0.5B,1.5B,7B")
    parser.add_argument("--seconds", type=float, default=330.0)
    parser.add_argument("--limit", type=int, default=20, help="problems of the shipped pair")
    arguments = parser.parse_args()
    ends = time.monotonic() + arguments.seconds
    is_gpu = arguments.device.startswith("cuda")
    name = torch.cuda.get_device_name(arguments.device) if is_gpu else "cpu"
    say(f"{name}, torch {torch.__version__}, transformers {transformers.__version__}, python {sys.version.split()[0]}")
    bandwidth = copy_bandwidth(arguments.device)
    say(f"copy bandwidth {bandwidth:.2f} TB/s")
    tokenizer, records, left_out, longest = word_tokenizer(), [], [], 0.0
    for shape in arguments.shapes.split(","):
        if time.monotonic() + longest > ends:
            left_out.append(shape)
            continue
        started = time.monotonic()
        try:
            records.append(measure(shape, arguments.device, tokenizer))
        except Exception as error:  # One shape that fails leaves the others.
            say(f"{shape} failed: {type(error).__name__}: {error}")
            left_out.append(shape)
        longest = max(longest, time.monotonic() - started)
        if is_gpu:
            torch.cuda.empty_cache()
    tiny: dict[str, Any] = {}
    if time.monotonic() + 30 < ends:
        try:
            tiny = compare_tiny(arguments.device, arguments.limit)
        except Exception as error:
            say(f"the shipped pair failed: {type(error).__name__}: {error}")
    say("")
    say("| shape | generate | eager | graphs | sampled | limit | 32 : 1 tokens | slowest : fastest length | path |")
    say("|---|---|---|---|---|---|---|---|---|")
    for record in records:
        fast, lengths = record["fast"], record["fast"]["lengths"].values()
        say(
            f"| {record['shape']} | {record['generate_ms']:.2f} | {record['eager']['ms']:.2f} | {fast['ms']:.2f} | "
            f"{fast['sampled_ms']:.2f} | {LIMIT_MS.get(record['shape'], float('nan'))} | "
            f"{fast['widths'][32] / fast['widths'][1]:.2f} | {max(lengths) / min(lengths):.2f} | {fast['path']} |"
        )
    if left_out:
        say(f"left out: {', '.join(left_out)}")
    say(json.dumps({"device": name, "bandwidth_tb_s": bandwidth, "shapes": records, "tiny": tiny}))


if __name__ == "__main__":
    main()
