"""The settings of an evaluation: everything that decides its results, for the manifest and the run key."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arbitrage.core.trace import SCHEMA
from arbitrage.core.turn import Setting
from arbitrage.core.types import Problem
from arbitrage.evaluation.running.plan import Plan, SolvingPair, solvers_of


def run_settings(pair: SolvingPair, plan: Plan, dataset: str, *, is_audited: bool) -> dict[str, Any]:
    """Everything that changes an evaluation's results, timings included.

    Args:
        pair: The models, identified by fingerprints of their files.
        plan: The work.
        dataset: The dataset's name as the user gave it.
        is_audited: Whether the PRM scores all candidates of finished solutions.
    """
    scorers = (role for entry in plan.entries for role in entry.method.scorer_roles)
    models = pair.identity(list(dict.fromkeys(("draft", "target", "prm", *scorers))))
    return {
        "kind": "evaluation",
        "trace_schema": SCHEMA,
        "pair": pair.name,
        "models": {
            role: {**model, "texts": _hash_of_texts(str(model.get("path", "")))} for role, model in models.items()
        },
        "policies": [
            [entry.policy, entry.threshold, *solver.identity] for entry, solver in solvers_of(pair, plan).items()
        ],
        "is_audited": is_audited,
        "dataset": dataset,
        "problems": {"count": len(plan.problems), "hash": problems_hash(plan.problems)},
        "setting": _setting(plan.setting),
        "samples": plan.num_attempts,
        "jobs": plan.jobs,
    }


def _setting(setting: Setting) -> dict[str, Any]:
    """The setting; what it changes in nothing but seconds stands only where it is off, as in runs made before it."""
    values = asdict(setting)
    return {name: value for name, value in values.items() if name != "gives_up" or not value}


def problems_hash(problems: Sequence[Problem]) -> str:
    """Hash of ids, questions and gold answers, and of the messages of conversations."""
    content = [[problem.id, problem.question, problem.answer, *_conversation(problem)] for problem in problems]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _conversation(problem: Problem) -> list[list[dict[str, str]]]:
    return [] if problem.is_plain else [[message.to_json() for message in problem.messages]]


def _hash_of_texts(path: str) -> str:
    """Hash of the files that decide how a checkpoint reads its input: tokenizer, chat template, a router's format."""
    digest, folder = hashlib.sha256(), Path(path)
    is_local = bool(path) and folder.is_dir()
    files = sorted(file for file in folder.iterdir() if file.suffix in (".json", ".jinja")) if is_local else []
    for file in files:
        digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16] if files else ""
