"""What an evaluation will do: which settings decide its results, and how much work it is at most."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arbitrage.core.errors import ConfigError
from arbitrage.core.policy import Policy, Solver
from arbitrage.core.trace import SCHEMA
from arbitrage.core.turn import Setting
from arbitrage.core.types import Cost, Problem
from arbitrage.evaluation.running.folder import TRACES, read_run
from arbitrage.evaluation.running.solutions import Solution
from arbitrage.evaluation.running.sweep import Entry, Graded, Plan
from arbitrage.pairs.loaded import FIXED, POLICIES, SOLVERS, LoadedPair, check_name
from arbitrage.policies import OnPair


def plan_of(
    pair: LoadedPair,
    found: Sequence[Problem],
    wanted: Sequence[Entry],
    setting: Setting,
    *,
    attempts: int = 1,
    jobs: int = 1,
    audit: bool = True,
) -> Plan:
    """Build the policies of a comparison.

    Args:
        pair: The models.
        found: The problems.
        wanted: The policies and thresholds.
        setting: Limits, sampling and seed.
        attempts: At each problem.
        jobs: Solutions in flight.
        audit: Whether to score all candidates, where there is a PRM.

    Raises:
        ConfigError: If a policy is unknown, or a number out of range.
    """
    made = [(entry.policy, pair.method(entry.policy, entry.threshold)) for entry in wanted]
    rules = {Entry(name, threshold_of(rule)): rule for name, rule in made}  # Defaults are named: they may change.
    return Plan(
        problems=found,
        policies=rules,
        setting=setting,
        num_attempts=attempts,
        jobs=jobs,
        auditor=pair.auditor if audit else None,
    )


def run_settings(pair: LoadedPair, plan: Plan, dataset: str) -> dict[str, Any]:
    """Everything that changes an evaluation's results, timings included."""
    roles = ["draft", "target", "prm"]
    rules = [entry.policy.partition("+")[0] for entry in plan.policies]
    roles += dict.fromkeys(rule for rule in rules if rule.startswith("router"))
    models = pair.identity(roles)
    return {
        "kind": "evaluation",
        "trace_schema": SCHEMA,
        "pair": pair.name,
        "models": {role: {**model, "texts": _texts(str(model.get("path", "")))} for role, model in models.items()},
        "policies": [
            [entry.policy, entry.threshold, type(_inner(rule)).__name__, threshold_of(rule), _own_target(rule)]
            for entry, rule in plan.policies.items()
        ],
        "is_audited": plan.auditor is not None,
        "dataset": dataset,
        "problems": {"count": len(plan.problems), "hash": problems_hash(plan.problems)},
        "setting": asdict(plan.setting),
        "samples": plan.num_attempts,
        "jobs": plan.jobs,
    }


def threshold_of(policy: Policy | Solver) -> float | None:
    """The threshold in force, a default included."""
    rule = _inner(policy)
    value: float | None = getattr(rule, "threshold", getattr(rule, "probability", None))
    return value


def _inner(policy: Policy | Solver) -> Policy | Solver:
    """The rule itself, without the engines that it brings along."""
    return policy.policy if isinstance(policy, OnPair) else policy


def _own_target(policy: Policy | Solver) -> str | None:
    """The target that a solver brings along: its name says what guesses, and how many tokens."""
    return policy.pair.target.name if isinstance(policy, OnPair) else None


def problems_hash(found: Sequence[Problem]) -> str:
    """Hash of ids, questions and gold answers, and of the messages of conversations."""
    content = json.dumps([[problem.id, problem.question, problem.answer, *_conversation(problem)] for problem in found])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _conversation(problem: Problem) -> list[list[dict[str, str]]]:
    return [] if problem.is_plain else [[message.to_json() for message in problem.messages]]


def _texts(path: str) -> str:
    """Hash of what decides how a checkpoint reads its input: tokenizer, chat template, a router's format."""
    digest, folder = hashlib.sha256(), Path(path)
    is_local = bool(path) and folder.is_dir()
    files = sorted(file for file in folder.iterdir() if file.suffix in (".json", ".jinja")) if is_local else []
    for file in files:
        digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16] if files else ""


def check_policies(wanted: Sequence[Entry]) -> None:
    """Refuse an unknown policy and an impossible threshold before anything is loaded.

    Raises:
        ConfigError: If one is unknown or out of range, or none is given.
    """
    if not wanted:
        raise ConfigError("no policies to compare", hint=f"choose from {', '.join([*POLICIES, *SOLVERS])}")
    for entry in wanted:
        check_name(entry.policy)
        if entry.threshold is not None and not 0.0 <= entry.threshold <= 1.0:
            raise ConfigError(f"threshold must be in [0, 1], got {entry.threshold:g} for {entry.policy!r}")


def plan_lines(
    wanted: Sequence[Entry], found: Sequence[Problem], setting: Setting, attempts: int, out: Path | None
) -> list[str]:
    """How much work an evaluation is: bounds by its limits, and an estimate from what a run folder holds already."""
    limits, num = setting.limits, len(found) * attempts
    lines = [
        f"{num * len(wanted)} solutions: {len(found)} problems, {len(wanted)} policies and thresholds, "
        f"{attempts} attempt{'s' if attempts > 1 else ''} each; 2 problems more of each to warm up"
    ]
    # A step costs at most a call of each writer and three scores: what the policy asks, and the audit of both steps.
    calls = sum(limits.max_steps * (1 if entry.policy in FIXED else 5) for entry in wanted) * num
    lost = limits.max_steps * limits.max_step_tokens
    tokens = sum(limits.max_tokens + (0 if entry.policy in FIXED else lost) for entry in wanted) * num
    lines.append(
        f"at most {calls:,} model calls and {tokens:,} generated tokens, by the limits of {limits.max_steps} steps and "
        f"{limits.max_tokens} tokens, for policies that make one step by each model and ask one scorer"
    )
    has_traces = out is not None and (out / TRACES).is_file() and (out / TRACES).stat().st_size > 0
    known = read_run(out).solutions if out is not None and has_traces else {}
    solved = {entry: _solved(known, entry) for entry in wanted}
    if missing := [entry.label for entry, solutions in solved.items() if not solutions]:
        named = ", ".join(missing[:3]) + (f" and {len(missing) - 3} others" if len(missing) > 3 else "")
        return [*lines, f"no estimate: nothing is solved yet by {named}"]
    return [*lines, _estimate(solved, num)]


def _solved(known: Graded, entry: Entry) -> Sequence[Solution]:
    """What a run holds of an entry; without a threshold, of its policy's first, since a run names defaults."""
    for other, solutions in known.items():
        if other == entry or (entry.threshold is None and other.policy == entry.policy):
            return solutions
    return ()


def _estimate(known: "dict[Entry, Sequence[Solution]]", num: int) -> str:
    def total(figure: Callable[[Cost], int]) -> float:
        return sum(
            num * sum(figure(cost) for s in solutions for cost in s.usage.values()) / len(solutions)
            for solutions in known.values()
        )

    seconds = sum(num * sum(s.seconds + s.measured_s for s in found) / len(found) for found in known.values())
    calls, tokens = total(lambda cost: cost.num_calls), total(lambda cost: cost.num_generated)
    return (
        f"about {calls:,.0f} calls and {tokens:,.0f} generated tokens in {seconds / 60:,.1f} minutes, "
        "by the mean of what is solved"
    )
