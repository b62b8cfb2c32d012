"""Do two engines write the same greedy text? Every difference is shown with how near the best two tokens were.

Run: ``python benchmarks/parity.py REFERENCE.toml OTHER.toml [--dataset tiny:test] [--limit 100]``. A pair is a
configuration file or ``tiny``. Draft and target solve alone, by both engines. Where a text differs, the first differing
token's gap is the difference of the two candidates' log-probabilities to the reference: a near-tie may fall either way
in another order of summation, a wide gap is a fault. Ends with one JSON line for each model.
"""

import argparse
import asyncio
import json
from dataclasses import replace
from itertools import chain

from arbitrage import Limits, Setting, load, solve
from arbitrage.core.ports import Engine
from arbitrage.core.trace import Trace
from arbitrage.core.types import Candidate, Cost, Finish, Problem, Source
from arbitrage.datasets.named import problems


def ids_of(trace: Trace) -> list[int]:
    """Ids of a whole answer; a step's last token may be end-of-sequence, which ids leave out: -1 stands for it."""
    ids = list(chain(*(step.candidate.token_ids for step in trace.steps)))
    return [*ids, *([-1] if trace.finish is Finish.END_OF_SEQUENCE else [])]


async def gap(engine: Engine, problem: Problem, before: list[int], tokens: list[int]) -> float:
    """How much likelier the engine finds the first of two tokens behind the same ids."""
    session = await engine.open(problem, Source.TARGET)
    blank = Candidate(source=Source.TARGET, text="", token_ids=(), finish=Finish.STEP_END, cost=Cost())
    if before:
        await session.commit(replace(blank, token_ids=tuple(before)))
    ends = sorted(engine.eos_ids)[0]  # type: ignore[attr-defined]
    read = [await session.likelihood(replace(blank, token_ids=(ends if token < 0 else token,))) for token in tokens]
    await session.close()
    return read[0].logprobs[0] - read[1].logprobs[0]


async def compare(policy: str, pairs: list, found: list[Problem], max_tokens: int) -> dict:
    """Solve all problems by both pairs with one of their models."""
    setting, differences, widest = Setting(limits=Limits(max_tokens=max_tokens)), [], 0.0
    seconds = [0.0, 0.0]
    for problem in found:
        traces = [await solve(problem, pair.pair, pair.policy(policy), setting) for pair in pairs]
        seconds = [total + trace.wall_s for total, trace in zip(seconds, traces, strict=True)]
        one, other = map(ids_of, traces)
        for step, twin in zip(*(trace.steps for trace in traces), strict=False):
            if step.candidate.token_ids != twin.candidate.token_ids:
                break
            logprobs = zip(step.candidate.logprobs or (), twin.candidate.logprobs or (), strict=True)
            widest = max([widest, *(abs(a - b) for a, b in logprobs)])
        if one != other:
            first = next(i for i, (a, b) in enumerate(zip([*one, -2], [*other, -2], strict=False)) if a != b)
            engine = pairs[0].pair.engine(Source(policy))
            near = await gap(engine, problem, one[:first], [one[first], other[first]])
            differences.append({"problem": problem.id, "token": first, "gap": round(near, 5)})
    return {
        "model": policy,
        "reference": pairs[0].name,
        "other": pairs[1].name,
        "problems": len(found),
        "identical": len(found) - len(differences),
        "differences": differences,
        "widest_logprob_difference": round(widest, 6),
        "seconds": [round(total, 2) for total in seconds],
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs=2)
    parser.add_argument("--dataset", default="tiny:test")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--max-tokens", type=int, default=256)
    arguments = parser.parse_args()
    pairs = [load(name) for name in arguments.pairs]
    found = problems(arguments.dataset, arguments.limit)
    for policy in ("draft", "target"):
        print(json.dumps(asyncio.run(compare(policy, pairs, found, arguments.max_tokens))))


if __name__ == "__main__":
    main()
