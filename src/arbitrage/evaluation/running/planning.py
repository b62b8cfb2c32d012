"""What an evaluation will do: which settings decide its results, and how much work it is at most."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arbitrage.core.trace import SCHEMA
from arbitrage.core.turn import Setting
from arbitrage.core.types import Cost, Problem
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.folder import TRACES, read_run
from arbitrage.evaluation.running.solutions import Graded, Solution
from arbitrage.evaluation.running.sweep import Plan
from arbitrage.pairs.loaded import LoadedPair
from arbitrage.policies.spec import MethodSpec


def plan_of(
    pair: LoadedPair,
    problems: Sequence[Problem],
    methods: Sequence[MethodSpec],
    setting: Setting,
    *,
    attempts: int = 1,
    jobs: int = 1,
    audit: bool = True,
) -> Plan:
    """Build the methods of a comparison.

    Args:
        pair: The models.
        problems: The problems.
        methods: The methods, thresholds included.
        setting: Limits, sampling and seed.
        attempts: At each problem.
        jobs: Solutions in flight.
        audit: Whether to score all candidates, where there is a PRM.

    Raises:
        ConfigError: If the pair lacks what a method needs, or a number is out of range.
    """
    specs = [pair.resolved(method) for method in methods]  # Default thresholds are named: they may change.
    return Plan(
        problems=problems,
        methods={Entry(spec): pair.method(spec) for spec in specs},
        setting=setting,
        num_attempts=attempts,
        jobs=jobs,
        auditor=pair.auditor if audit else None,
    )


def run_settings(pair: LoadedPair, plan: Plan, dataset: str) -> dict[str, Any]:
    """Everything that changes an evaluation's results, timings included."""
    roles = ["draft", "target", "prm"]
    roles += dict.fromkeys(entry.method.rule_name for entry in plan.methods if entry.method.is_router)
    models = pair.identity(roles)
    return {
        "kind": "evaluation",
        "trace_schema": SCHEMA,
        "pair": pair.name,
        "models": {role: {**model, "texts": _texts(str(model.get("path", "")))} for role, model in models.items()},
        "policies": [[entry.policy, entry.threshold, *method.identity] for entry, method in plan.methods.items()],
        "is_audited": plan.auditor is not None,
        "dataset": dataset,
        "problems": {"count": len(plan.problems), "hash": problems_hash(plan.problems)},
        "setting": asdict(plan.setting),
        "samples": plan.num_attempts,
        "jobs": plan.jobs,
    }


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


def plan_lines(
    methods: Sequence[MethodSpec], problems: Sequence[Problem], setting: Setting, attempts: int, out: Path | None
) -> list[str]:
    """How much work an evaluation is: bounds by its limits, and an estimate from what a run folder holds already."""
    limits, num = setting.limits, len(problems) * attempts
    lines = [
        f"{num * len(methods)} solutions: {len(problems)} problems, {len(methods)} policies and thresholds, "
        f"{attempts} attempt{'s' if attempts > 1 else ''} each; 2 problems more of each to warm up"
    ]
    # A step costs at most a call of each writer and three scores: what the policy asks, and the audit of both steps.
    calls = sum(limits.max_steps * (5 if method.has_threshold else 1) for method in methods) * num
    lost = limits.max_steps * limits.max_step_tokens
    tokens = sum(limits.max_tokens + (lost if method.has_threshold else 0) for method in methods) * num
    lines.append(
        f"at most {calls:,} model calls and {tokens:,} generated tokens, by the limits of {limits.max_steps} steps and "
        f"{limits.max_tokens} tokens, for policies that make one step by each model and ask one scorer"
    )
    has_traces = out is not None and (out / TRACES).is_file() and (out / TRACES).stat().st_size > 0
    known = read_run(out).solutions if out is not None and has_traces else {}
    solved = {method: _solved(known, method) for method in methods}
    if missing := [str(method) for method, solutions in solved.items() if not solutions]:
        named = ", ".join(missing[:3]) + (f" and {len(missing) - 3} others" if len(missing) > 3 else "")
        return [*lines, f"no estimate: nothing is solved yet by {named}"]
    return [*lines, _estimate(solved, num)]


def _solved(known: Graded, method: MethodSpec) -> Sequence[Solution]:
    """A run's solutions by a method; without a threshold, at its first one, since a run names defaults."""
    for entry, solutions in known.items():
        if entry.method == method or (method.threshold is None and entry.method.at(None) == method):
            return solutions
    return ()


def _estimate(known: Mapping[MethodSpec, Sequence[Solution]], num: int) -> str:
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
