"""The data of the report's trace browser: problems with the solutions of every entry, as many as fit."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from typing import Any, Final

from arbitrage.core.trace import Trace
from arbitrage.core.types import Problem, Source, Step
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.folder import Run, read_traces
from arbitrage.evaluation.running.solutions import Solution, StepFacts

BUDGET: Final = 2_500_000
"""Bytes; a report with its plots stays under 5 MB."""
MOST_SOLUTIONS: Final = 10_000
"""Solutions that are encoded at most, so that a run need not fit in memory."""
AUTHORS: Final = (Source.DRAFT, Source.TARGET)


def embedded(runs: Mapping[str, Run], *, budget: int = BUDGET, seed: int = 0) -> dict[str, Any]:
    """Choose problems and encode their solutions of the first attempt.

    Problems are drawn in equal shares from each level, and within a level from each pattern of right and wrong
    answers, until the budget is spent.

    Args:
        runs: By the run's name in labels; an empty name for a single run.
        budget: Bytes of JSON.
        seed: Seed of the choice.

    Returns:
        The data for ``page.js``: each text once, under ``texts``, and numbers that refer to them.
    """
    encoder = _Encoder(entries=[_label(name, entry) for name, run in runs.items() for entry in run.solutions])
    order = stratified_order(runs, seed=seed)[: max(1, MOST_SOLUTIONS // len(encoder.entries))]
    first = next(iter(runs.values()))
    encoded: dict[str, list[list[Any]]] = {problem: [] for problem in order}
    for name, run in runs.items():
        solutions = {(e, s.problem): s for e, group in run.solutions.items() for s in group if s.attempt == 0}
        for position, trace in read_traces(run.path):
            solution = solutions.get((position.entry, trace.problem.id))
            if position.attempt == 0 and trace.problem.id in encoded and solution:
                encoded[trace.problem.id].append(encoder.solution(_label(name, position.entry), trace, solution))
    shown: list[dict[str, Any]] = []
    for problem in order:
        record = encoder.problem(first.problems[problem], encoded.pop(problem))
        if encoder.num_bytes > budget and shown:
            break
        shown.append(record)
    return {"entries": encoder.entries, "scorers": encoder.scorers, "texts": encoder.texts, "problems": shown}


def stratified_order(runs: Mapping[str, Run], *, seed: int) -> list[str]:
    """Ids of problems in an order of which every beginning holds all levels and all patterns of right and wrong."""
    first = next(iter(runs.values()))
    verdicts: dict[str, list[bool | None]] = {problem: [] for problem in first.problems}
    for run in runs.values():
        for method in dict.fromkeys(entry.group for entry in run.solutions):
            entry = next(entry for entry in run.solutions if entry.group == method)
            for solution in run.solutions[entry]:
                if solution.attempt == 0:
                    verdicts[solution.problem].append(solution.is_correct)
    groups: dict[tuple[str, str], list[str]] = {}
    for problem, pattern in verdicts.items():
        level = first.problems[problem].metadata.get("level", "")
        groups.setdefault((level, str(pattern)), []).append(problem)
    rng = random.Random(seed)
    shuffled = [rng.sample(groups[key], len(groups[key])) for key in rng.sample(sorted(groups), len(groups))]
    return [problem for problem in chain.from_iterable(zip_longest(*shuffled)) if problem is not None]


def _label(name: str, entry: Entry) -> str:
    return replace(entry, run=name).label


@dataclass(slots=True, kw_only=True)
class _Encoder:
    """Writes each text once, and counts bytes."""

    entries: list[str]
    texts: list[str] = field(default_factory=list)
    scorers: list[str] = field(default_factory=list)
    num_bytes: int = 0
    _numbers: dict[str, int] = field(default_factory=dict)

    def problem(self, problem: Problem, solutions: Sequence[list[Any]]) -> dict[str, Any]:
        """A problem with its solutions, whose texts are replaced by their numbers."""
        record = {
            "id": problem.id,
            "question": problem.question,
            "gold": problem.answer,
            "level": problem.metadata.get("level"),
            "solutions": self._numbered(solutions),
        }
        self.num_bytes += len(json.dumps(record, separators=(",", ":")))
        return record

    def solution(self, label: str, trace: Trace, solution: Solution) -> list[Any]:
        """A solution as page.js reads it; its only texts are those that a reader sees."""
        return [
            self.entries.index(label),
            solution.is_correct,
            solution.answer or "",
            solution.error or str(solution.finish),
            _ms(solution.seconds),
            solution.num_tokens,
            sum(step.source is Source.TARGET for step in solution.steps),
            sum(step.is_wasted is True for step in solution.steps),
            [self._step(step, facts) for step, facts in zip(trace.steps, solution.steps, strict=True)],
        ]

    def _step(self, step: Step, facts: StepFacts) -> list[Any]:
        measured = step.decision.measured
        return [
            next(i for i, candidate in enumerate(step.candidates) if candidate is step.candidate),
            [
                [
                    AUTHORS.index(c.source),
                    c.text,
                    c.num_tokens,
                    _ms(c.cost.seconds),
                    int(c.source in measured),
                    *([c.num_taken, _utf16_length(c.parts[0][1])] if len(c.parts) > 1 else []),
                ]
                for c in step.candidates
            ],
            [
                [
                    self._scorer(s.scorer),
                    AUTHORS.index(s.source),
                    round(s.value, 3),
                    _ms(s.cost.seconds),
                    int(s.scorer in measured),
                ]
                for s in step.scores
            ],
            int(facts.is_wasted is True),
        ]

    def _numbered(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        return [self._numbered(part) for part in value] if isinstance(value, list | tuple) else value

    def _text(self, text: str) -> int:
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
            self.num_bytes += len(json.dumps(text)) + 1
        return self._numbers[text]

    def _scorer(self, name: str) -> int:
        if name not in self.scorers:
            self.scorers.append(name)
        return self.scorers.index(name)


def _utf16_length(text: str) -> int:
    """The length of a text as JavaScript counts it."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
