"""The one record of a solution: every candidate, decision, score, token count and second."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from arbitrage.core.boxes import last_box, last_boxed
from arbitrage.core.errors import ProblemError, TraceError
from arbitrage.core.types import (
    Candidate,
    Cost,
    Decision,
    Finish,
    Limits,
    Problem,
    Score,
    Source,
    Step,
    read_messages,
)

SCHEMA: Final = 1
"""Version of the JSON form. Raise it when a field changes its meaning; readers refuse newer ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One problem solved under one policy; grows by :meth:`extend`."""

    problem: Problem
    policy: str
    steps: tuple[Step, ...] = ()
    finish: Finish | None = None
    """None while the solution goes on."""
    wall_s: float = 0.0
    """Wall-clock from the first to the last await, waiting included."""
    error: str | None = None

    @property
    def text(self) -> str:
        """The kept steps joined, byte for byte."""
        return "".join(step.text for step in self.steps)

    @property
    def answer(self) -> str | None:
        r"""The content of the last ``\boxed{}``, or None without one; see :func:`~arbitrage.core.boxes.last_box`."""
        return last_boxed(self.text)

    @property
    def is_answer_from_thinking(self) -> bool:
        """Whether the answer stands inside thinking marks because no box outside of them holds one."""
        box = last_box(self.text)
        return box is not None and box.is_in_thinking

    @property
    def num_tokens(self) -> int:
        """Tokens of the kept steps, each in its author's tokens."""
        return sum(step.candidate.num_tokens for step in self.steps)

    @property
    def acceptance_rate(self) -> float | None:
        """Share of steps kept whole from the draft; None without steps."""
        if not self.steps:
            return None
        return sum(step.source is Source.DRAFT for step in self.steps) / len(self.steps)

    @property
    def target_token_share(self) -> float | None:
        """Share of the kept tokens that the target wrote; None without tokens."""
        if not self.num_tokens:
            return None
        return sum(step.candidate.num_tokens_by(Source.TARGET) for step in self.steps) / self.num_tokens

    @property
    def usage(self) -> dict[str, Cost]:
        """Cost by model name, measurement excluded: what serving this policy consumes."""
        return self._costs(is_measured=False)

    @property
    def measurement(self) -> dict[str, Cost]:
        """Cost by model name of calls that a served policy would not make."""
        return self._costs(is_measured=True)

    @property
    def model_s(self) -> float:
        """Seconds inside model calls of the served policy."""
        return sum(cost.seconds for cost in self.usage.values())

    @property
    def latency_s(self) -> float:
        """Wall-clock as it would be served: without the calls that only measure."""
        return self.wall_s - sum(cost.seconds for cost in self.measurement.values())

    def _costs(self, *, is_measured: bool) -> dict[str, Cost]:
        costs: dict[str, Cost] = {}
        for model, cost, measured in self._calls():
            if measured is is_measured:
                costs[model] = costs.get(model, Cost()) + cost
        return costs

    def _calls(self) -> Iterator[tuple[str, Cost, bool]]:
        for step in self.steps:
            for candidate in step.candidates:
                yield candidate.source.value, candidate.cost, candidate.source in step.decision.measured
            for score in step.scores:
                yield score.scorer, score.cost, score.scorer in step.decision.measured

    def extend(self, step: Step, limits: Limits, wall_s: float) -> "Trace":
        """Append a step; mark it if it is empty or repeated, and end the solution if a limit or its end is reached."""
        step = replace(step, finish=self._step_finish(step))
        grown = replace(self, steps=(*self.steps, step), wall_s=wall_s)
        return replace(grown, finish=grown._finish_after(limits))

    def _step_finish(self, step: Step) -> Finish:
        finish = step.candidate.finish
        if finish is Finish.END_OF_SEQUENCE or (finish is Finish.TOKEN_LIMIT and not step.text):
            return finish
        if not step.text.strip():
            return Finish.EMPTY_STEP
        if self.steps and step.text == self.steps[-1].text:
            return Finish.REPEATED_STEP
        return finish

    def _finish_after(self, limits: Limits) -> Finish | None:
        last = self.steps[-1].finish
        if last is Finish.END_OF_SEQUENCE:
            return last
        if limits.stops_at_answer and (box := last_box(self.text)) and box.is_answer:
            return Finish.ANSWERED
        idle = [step.finish in (Finish.EMPTY_STEP, Finish.REPEATED_STEP) for step in self.steps]
        if len(idle) >= limits.max_idle_steps and all(idle[-limits.max_idle_steps :]):
            return last
        # A budget too small for one whole character leaves no text, and would again.
        if self.num_tokens >= limits.max_tokens or (last is Finish.TOKEN_LIMIT and not self.steps[-1].text):
            return Finish.TOKEN_LIMIT
        if len(self.steps) >= limits.max_steps:
            return Finish.STEP_LIMIT
        return None

    def to_json(self) -> dict[str, Any]:
        r"""The versioned JSON form; hidden states stay out.

        Files hold it with every character outside ASCII escaped, as ``json.dumps`` writes it: so a lone surrogate
        such as ``\ud800``, which no UTF-8 file can hold, is written and read like any character.
        """
        return {
            "schema": SCHEMA,
            "problem": _problem_to_json(self.problem),
            "policy": self.policy,
            "steps": [_step_to_json(step) for step in self.steps],
            "finish": self.finish,
            "wall_s": self.wall_s,
            "error": self.error,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Trace":
        """Read the JSON form.

        Raises:
            TraceError: If the record is of a newer schema, or is no trace.
        """
        schema = record.get("schema") if isinstance(record, dict) else None
        if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
            raise TraceError(f"trace schema must be between 1 and {SCHEMA}, got {schema!r}", hint="update arbitrage")
        try:
            return cls(
                problem=_problem_from_json(record["problem"]),
                policy=record["policy"],
                steps=tuple(_step_from_json(step) for step in record["steps"]),
                finish=Finish(record["finish"]) if record["finish"] else None,
                wall_s=record["wall_s"],
                error=record["error"],
            )
        except (LookupError, TypeError, ValueError, ProblemError) as error:
            raise TraceError(f"not a trace record: {error!r}") from error


def _problem_to_json(problem: Problem) -> dict[str, Any]:
    """The question of a plain problem; also the messages of a conversation."""
    record: dict[str, Any] = {"id": problem.id, "question": problem.question}
    if not problem.is_plain:
        record["messages"] = [message.to_json() for message in problem.messages]
    return record | {"answer": problem.answer, "metadata": dict(problem.metadata)}


def _problem_from_json(record: dict[str, Any]) -> Problem:
    return Problem(**{**record, "messages": read_messages(record.get("messages", ()))})


def _step_to_json(step: Step) -> dict[str, Any]:
    kept = next(i for i, candidate in enumerate(step.candidates) if candidate is step.candidate)
    candidates = [asdict(candidate) for candidate in step.candidates]
    for candidate in candidates:
        del candidate["hidden_state"]
    return {
        "kept": kept,
        "finish": step.finish,
        "decision": {**asdict(step.decision), "measured": sorted(step.decision.measured)},
        "candidates": candidates,
        "scores": [asdict(score) for score in step.scores],
    }


def _step_from_json(record: dict[str, Any]) -> Step:
    candidates = tuple(_candidate_from_json(candidate) for candidate in record["candidates"])
    decision = record["decision"]
    return Step(
        candidate=candidates[record["kept"]],
        decision=Decision(
            source=Source(decision["source"]),
            score=decision["score"],
            measured=frozenset(decision["measured"]),
            sample=decision.get("sample", 0),
            num_taken=decision.get("num_taken", 0),
        ),
        finish=Finish(record["finish"]),
        candidates=candidates,
        scores=tuple(
            Score(
                scorer=score["scorer"],
                source=Source(score["source"]),
                value=score["value"],
                cost=Cost(**score["cost"]),
                sample=score.get("sample", 0),
                logprobs=_floats(score.get("logprobs")),
            )
            for score in record["scores"]
        ),
    )


def _candidate_from_json(record: dict[str, Any]) -> Candidate:
    return Candidate(
        source=Source(record["source"]),
        text=record["text"],
        token_ids=tuple(record["token_ids"]),
        finish=Finish(record["finish"]),
        cost=Cost(**record["cost"]),
        logprobs=_floats(record["logprobs"]),
        first_entropy=record.get("first_entropy"),
        sample=record.get("sample", 0),
        num_taken=record.get("num_taken", 0),
        num_taken_chars=record.get("num_taken_chars", 0),
    )


def _floats(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)
