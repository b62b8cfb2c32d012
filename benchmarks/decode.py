"""Greedy decoding of the hf engine against ``model.generate``: same model, same tokens, interleaved.

Run: ``python benchmarks/decode.py [--limit 40]``. Ends with one JSON line: the median over problems of
seconds per token of the engine over those of ``generate`` (below 1: the engine is faster).
"""

import argparse
import asyncio
import json
import statistics
import time

import torch

from arbitrage import Limits, Setting, load, solve
from arbitrage.datasets.named import problems
from arbitrage.engines.hf import HFEngine


def time_generate(engine: HFEngine, prompt: list[int]) -> tuple[list[int], float]:
    """Plain greedy generation: (new ids without end-of-sequence, seconds)."""
    started = time.perf_counter()
    with torch.inference_mode():
        ids = torch.tensor([prompt])
        out = engine.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=256, do_sample=False)
    seconds = time.perf_counter() - started
    return [i for i in out[0, len(prompt) :].tolist() if i not in engine.eos_ids], seconds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=40)
    limit = parser.parse_args().limit
    pair = load("tiny")
    record = {}
    for name, engine in (("draft", pair.pair.draft), ("target", pair.pair.target)):
        assert isinstance(engine, HFEngine)
        ratios, per_token = [], []
        setting = Setting(limits=Limits(max_tokens=256))
        for number, problem in enumerate(problems("tiny:test", limit + 2)):
            prompt = engine.prompt_ids(problem)
            trace = asyncio.run(solve(problem, pair.pair, pair.policy(name), setting))
            ids, seconds = time_generate(engine, prompt)
            assert [i for s in trace.steps for i in s.candidate.token_ids] == ids, "the same tokens are compared"
            if number >= 2:  # The first two warm up.
                ratios.append(trace.wall_s / seconds)
                per_token.append(trace.wall_s / trace.num_tokens * 1000)
        record[name] = {
            "engine_over_generate": round(statistics.median(ratios), 3),
            "engine_ms_per_token": round(statistics.median(per_token), 3),
            "problems": len(ratios),
        }
    record["cost_ratio"] = round(record["target"]["engine_ms_per_token"] / record["draft"]["engine_ms_per_token"], 2)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
