"""Where to cut a draft's step that the target repairs: ``python benchmarks/cuts.py [--limit 120] [--dataset …]``.

Compares on the tiny pair, problem by problem in random order: the first token below a fixed probability (the shipped
rule), the least likely token, the first token whose probability under the target is a small share of the draft's, the
first unlikely token with a stricter bound for digits and operators, and steps written anew as a whole. Prints one JSON
line for each.
"""

import argparse
import json
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import arbitrage as arb
from arbitrage.core.policy import Policy
from arbitrage.core.trace import Trace
from arbitrage.core.turn import Turn
from arbitrage.core.types import Candidate, Source
from arbitrage.datasets.named import problems
from arbitrage.evaluation.running.solutions import Fates
from arbitrage.grading import is_correct
from arbitrage.policies import Repair

Cut = Callable[[Candidate, Sequence[float]], int | None]


@dataclass(frozen=True, slots=True)
class Cutting(Repair):
    """Repair with another way to choose the cut."""

    choose: Cut = lambda draft, logprobs: None

    async def _cut(self, turn: Turn, draft: Candidate) -> int | None:
        read = await turn.scored(self.reader, draft)
        return self.choose(draft, read.logprobs or ())


def least_likely(epsilon: float) -> Cut:
    """The least likely token, if its probability is below ``epsilon``."""

    def choose(_: Candidate, logprobs: Sequence[float]) -> int | None:
        lowest = min(logprobs, default=0.0)
        return logprobs.index(lowest) if lowest < math.log(epsilon) else None

    return choose


def relative(share: float) -> Cut:
    """The first token whose probability is below a share of the draft's."""

    def choose(draft: Candidate, logprobs: Sequence[float]) -> int | None:
        pairs = zip(logprobs, draft.logprobs or (), strict=False)
        return next((i for i, (target, own) in enumerate(pairs) if target - own < math.log(share)), None)

    return choose


def by_kind(tokenizer: Any, epsilon: float, strict: float) -> Cut:
    """The first token below ``epsilon``, or below ``strict`` if it holds a digit or an operator."""

    def choose(draft: Candidate, logprobs: Sequence[float]) -> int | None:
        for index, (token, logprob) in enumerate(zip(draft.token_ids, logprobs, strict=False)):
            is_formal = any(character in "0123456789+-*/=<>^" for character in tokenizer.decode([token]))
            if logprob < math.log(strict if is_formal else epsilon):
                return index
        return None

    return choose


def rules(pair: Any, threshold: float) -> dict[str, Policy]:
    """Every rule by the name of its row."""
    router, tokenizer = pair.models.required_router(), pair.pair.target.tokenizer
    cuts: dict[str, Cut] = {f"least likely below {e:g}": least_likely(e) for e in (0.15,)}
    cuts |= {f"share {s:g} of the draft's": relative(s) for s in (0.15, 0.3)}
    cuts |= {f"{e:g}, digits {s:g}": by_kind(tokenizer, e, s) for e, s in ((0.05, 0.15), (0.1, 0.2), (0.15, 0.05))}
    named: dict[str, Policy] = {"whole steps": pair.policy("router", threshold)}
    named |= {f"first below {e:g}": Repair(router, threshold, e) for e in (0.05, 0.1, 0.12, 0.15)}
    return named | {name: Cutting(router, threshold, 0.0, choose=cut) for name, cut in cuts.items()}


def row(name: str, traces: Sequence[Trace]) -> dict[str, Any]:
    """One line: share of right answers, and tokens for each problem."""
    fates = [sum(map(Fates.of, trace.steps), Fates()) for trace in traces]
    return {
        "cut": name,
        "problems": len(traces),
        "accuracy": statistics.fmean(is_correct(trace) is True for trace in traces),
        "target_decoded": statistics.fmean(fate.target_kept - fate.reused for fate in fates),
        "target_kept": statistics.fmean(fate.target_kept for fate in fates),
        "draft_kept": statistics.fmean(fate.draft_accepted for fate in fates),
        "repaired": statistics.fmean(
            bool(step.candidate.num_taken) and step.source is Source.TARGET for trace in traces for step in trace.steps
        ),
        "median_s": statistics.median(trace.latency_s for trace in traces),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", default="tiny")
    parser.add_argument("--dataset", default="tiny:validation")
    parser.add_argument("--limit", type=int, default=120)
    parser.add_argument("--threshold", type=float, default=0.02)
    parser.add_argument("--only", default="", help="part of a name")
    arguments = parser.parse_args()
    pair = arb.load(arguments.pair, policies=["repair"])
    chosen = {name: rule for name, rule in rules(pair, arguments.threshold).items() if arguments.only in name}
    traces: dict[str, list[Trace]] = {name: [] for name in chosen}
    rng = random.Random(0)
    for problem in problems(arguments.dataset, arguments.limit, stratify="", fields=""):
        for name in rng.sample(list(chosen), len(chosen)):
            traces[name].append(pair.solve(problem, policy=chosen[name]))
    for name, of_rule in traces.items():
        print(json.dumps(row(name, of_rule)))


if __name__ == "__main__":
    main()
