"""A training row: one draft step beside target steps from the same prefix, scored by a PRM or by rollouts."""

import base64
import math
import statistics
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from arbitrage.core.errors import ArbitrageError, RowError
from arbitrage.core.trace import Trace
from arbitrage.core.types import Candidate, Cost, Finish, Problem, Source, Step, read_messages
from arbitrage.runtime.store import read_records

SCHEMA: Final = 1
"""Version of a row's JSON form. Increase it when the meaning of a field changes."""
FILE: Final = "rows.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A step that a model wrote from a row's prefix, with its score."""

    text: str
    score: float | None
    """By a PRM, or the share of rollouts from the step that reach the gold answer; None before it is scored."""
    finish: Finish
    num_tokens: int
    seconds: float
    logprobs: tuple[float, ...] | None = None
    first_entropy: float | None = None
    """Entropy, in nats, of the distribution of the step's first token."""
    hidden_state: tuple[float, ...] | None = None
    """The last layer's state at the step's last token, shape [hidden]; rounded to half precision."""

    def as_candidate(self, source: Source) -> Candidate:
        """The step as a candidate, as scorers get it in serving. Rows store no token ids, so they are empty."""
        return Candidate(
            source=source,
            text=self.text,
            token_ids=(),
            finish=self.finish,
            cost=Cost(seconds=self.seconds),
            logprobs=self.logprobs,
            hidden_state=self.hidden_state,
            first_entropy=self.first_entropy,
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON form; the hidden state is base64 of little-endian fp16."""
        state = self.hidden_state
        packed = None if state is None else base64.b64encode(struct.pack(f"<{len(state)}e", *state)).decode()
        return {
            "text": self.text,
            "score": self.score,
            "finish": self.finish,
            "num_tokens": self.num_tokens,
            "seconds": self.seconds,
            "logprobs": self.logprobs,
            "first_entropy": self.first_entropy,
            "hidden_state": packed,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Sample":
        """Read the JSON form."""
        logprobs, packed = record["logprobs"], record["hidden_state"]
        raw = b"" if packed is None else base64.b64decode(packed)
        return cls(
            text=record["text"],
            score=record["score"],
            finish=Finish(record["finish"]),
            num_tokens=record["num_tokens"],
            seconds=record["seconds"],
            logprobs=None if logprobs is None else tuple(logprobs),
            first_entropy=record["first_entropy"],
            hidden_state=None if packed is None else struct.unpack(f"<{len(raw) // 2}e", raw),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A step of a row's prefix with its author."""

    source: Source
    text: str
    num_taken_chars: int = 0
    """See :attr:`arbitrage.core.types.Candidate.num_taken_chars`."""

    def as_candidate(self) -> Candidate:
        """The step as a candidate. Rows store only its authors and text."""
        return Candidate(
            source=self.source,
            text=self.text,
            token_ids=(),
            finish=Finish.STEP_END,
            cost=Cost(),
            num_taken_chars=self.num_taken_chars,
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON form; only a step with two authors has the number of characters."""
        taken = {"num_taken_chars": self.num_taken_chars} if self.num_taken_chars else {}
        return {"source": self.source, "text": self.text, **taken}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Past":
        """Read the JSON form."""
        taken = record.get("num_taken_chars", 0)
        return cls(source=Source(record["source"]), text=record["text"], num_taken_chars=taken)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One draft step, beside independent target steps from the same prefix."""

    problem: Problem
    step: int
    """Position in the solution, from 0."""
    is_last: bool
    """Whether the solution ended after this step."""
    history: tuple[Past, ...]
    draft: Sample
    targets: tuple[Sample, ...]
    kept: Source
    """The author of the step that the solution continued with."""
    models: Mapping[str, str]
    """Names of draft and target, and of the PRM that scored them, if one did."""

    @property
    def is_scored(self) -> bool:
        """Whether the draft's step and all target samples have scores."""
        return self.draft.score is not None and all(sample.score is not None for sample in self.targets)

    @property
    def draft_score(self) -> float:
        """Score of the draft's step.

        Raises:
            RowError: If the row has no scores.
        """
        if self.draft.score is None:
            raise self._unscored()
        return self.draft.score

    def target_scores(self, part: slice = slice(None)) -> list[float]:
        """Scores of the target's samples, or of some of them.

        Raises:
            RowError: If the row has no scores.
        """
        scores = [sample.score for sample in self.targets[part] if sample.score is not None]
        if len(scores) < len(self.targets[part]):
            raise self._unscored()
        return scores

    @property
    def advantage(self) -> float:
        """Mean score of the target's samples minus the draft's score, in [-1, 1].

        Raises:
            RowError: If the row has no scores.
        """
        return self.advantage_of(None)

    def advantage_of(self, num_target_samples: int | None) -> float:
        """The advantage over the first ``num_target_samples`` target samples; None for all of them.

        Raises:
            RowError: If the row has no scores.
        """
        return statistics.fmean(self.target_scores(slice(num_target_samples))) - self.draft_score

    @property
    def advantage_se(self) -> float | None:
        """Standard error of the advantage over target samples; None with one sample.

        Raises:
            RowError: If the row has no scores.
        """
        if len(self.targets) < 2:
            return None
        return statistics.stdev(self.target_scores()) / math.sqrt(len(self.targets))

    def _unscored(self) -> RowError:
        return RowError(
            f"the rows have no scores, first step {self.step} of problem {self.problem.id!r}",
            hint="score them by rollouts with `arbitrage label`, or collect them with a PRM",
        )

    def to_json(self) -> dict[str, Any]:
        """The versioned JSON form, with the derived figures."""
        return {
            "schema": SCHEMA,
            "problem_id": self.problem.id,
            "question": self.problem.question,
            **({} if self.problem.is_plain else {"messages": [m.to_json() for m in self.problem.messages]}),
            "answer": self.problem.answer,
            "metadata": dict(self.problem.metadata),
            "step": self.step,
            "is_last": self.is_last,
            "history": [past.to_json() for past in self.history],
            "draft": self.draft.to_json(),
            "targets": [sample.to_json() for sample in self.targets],
            "advantage": self.advantage if self.is_scored else None,
            "advantage_se": self.advantage_se if self.is_scored else None,
            "kept": self.kept,
            "models": dict(self.models),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Row":
        """Read the JSON form.

        Raises:
            RowError: If the record has another schema version, or its fields are not those of a row.
        """
        if (schema := record.get("schema")) != SCHEMA:
            raise RowError(f"row schema must be {SCHEMA}, got {schema!r}", hint="collect the rows with this version")
        try:
            return cls(
                problem=Problem(
                    id=record["problem_id"],
                    question=record["question"],
                    messages=read_messages(record.get("messages", ())),
                    answer=record["answer"],
                    metadata=record["metadata"],
                ),
                step=record["step"],
                is_last=record["is_last"],
                history=tuple(map(Past.from_json, record["history"])),
                draft=Sample.from_json(record["draft"]),
                targets=tuple(Sample.from_json(sample) for sample in record["targets"]),
                kept=Source(record["kept"]),
                models=record["models"],
            )
        except (LookupError, TypeError, ValueError, struct.error, ArbitrageError) as error:
            raise RowError(f"not a row: {error!r}", hint="collect the rows again, or delete this line") from error


def by_problem(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by their problem's id, problems in the order in which they first occur."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.problem.id, []).append(row)
    return groups


def rows_from_trace(trace: Trace, models: Mapping[str, str], scorer: str | None) -> list[Row]:
    """Make one row of each step of a trace; each step has a draft and target samples.

    Args:
        trace: A trace under the policy :class:`arbitrage.training.collect.Collecting`.
        models: Names of draft and target, and of the PRM, if there is one.
        scorer: The name of the scorer whose values become the rows' scores; None for rows without scores.
    """
    rows: list[Row] = []
    history: list[Past] = []
    for number, step in enumerate(trace.steps):
        scores = {(score.source, score.sample): score.value for score in step.scores if score.scorer == scorer}
        samples = {
            source: [
                _sample(candidate, scores[source, candidate.sample] if scorer else None)
                for candidate in _candidates(step, source)
            ]
            for source in Source
        }
        rows.append(
            Row(
                problem=trace.problem,
                step=number,
                is_last=number == len(trace.steps) - 1,
                history=tuple(history),
                draft=samples[Source.DRAFT][0],
                targets=tuple(samples[Source.TARGET]),
                kept=step.source,
                models=models,
            )
        )
        taken = step.candidate.num_taken_chars
        history.append(Past(source=step.source, text=step.text, num_taken_chars=taken))
    return rows


def _candidates(step: Step, source: Source) -> list[Candidate]:
    """A model's own candidates of a step, by sample number; those that it only completed are left out."""
    own = (c for c in step.candidates if c.source is source and not c.num_taken)
    return sorted(own, key=lambda c: c.sample)


def _sample(candidate: Candidate, score: float | None) -> Sample:
    return Sample(
        text=candidate.text,
        score=score,
        finish=candidate.finish,
        num_tokens=candidate.num_tokens,
        seconds=candidate.cost.seconds,
        logprobs=candidate.logprobs,
        first_entropy=candidate.first_entropy,
        hidden_state=candidate.hidden_state,
    )


def read_rows(folder: Path) -> Iterator[Row]:
    """Read the rows in a folder of collect or label, solution by solution.

    An unfinished solution at the end of the file is left out.

    Raises:
        StoreError: If the folder has no rows.
        RowError: If a line is not a row of this version; the message names file and line.
    """
    solution: list[Row] = []
    for location, record in read_records(folder / FILE):
        try:
            solution.append(Row.from_json(record))
        except RowError as error:
            raise RowError(f"{location}: {error}") from error
        if solution[-1].is_last:
            yield from solution
            solution.clear()


def read_scored_rows(folder: Path) -> list[Row]:
    """Read the rows in a folder of collect or label, which must have scores.

    Raises:
        StoreError: If the folder has no rows.
        RowError: If a line is not a row of this version, or a row has no scores.
    """
    rows = list(read_rows(folder))
    for row in rows:
        _ = row.advantage
    return rows
