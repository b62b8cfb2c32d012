import pytest

from arbitrage.core.errors import (
    ArbitrageError,
    ConfigError,
    ContextOverflow,
    EngineError,
    EngineTimeout,
    MissingExtra,
    ProblemError,
)
from arbitrage.core.types import Cost, Limits, Problem, Sampling, Source, derive_seed


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Sampling, "temperature", -0.1),
        (Sampling, "temperature", float("nan")),
        (Sampling, "top_k", -1),
        (Sampling, "top_p", 0.0),
        (Sampling, "top_p", 1.5),
        (Sampling, "min_p", -0.5),
        (Sampling, "min_p", 1.5),
        (Limits, "max_steps", 0),
        (Limits, "max_tokens", 0),
        (Limits, "max_step_tokens", -3),
        (Limits, "max_idle_steps", 0),
    ],
)
def test_a_value_out_of_range_is_named_with_its_field(kind, field, value):
    with pytest.raises(ConfigError, match=rf"{field} must be .*, got {value}"):
        kind(**{field: value})


@pytest.mark.parametrize("values", [{"top_p": 1.0, "min_p": 0.0}, {"top_p": 1e-9, "min_p": 1.0, "top_k": 1}])
def test_the_ends_of_the_ranges_are_allowed(values):
    assert Sampling(**values)


def test_an_empty_delimiter_is_refused():
    with pytest.raises(ConfigError, match="delimiter must not be empty"):
        Limits(delimiter="")


@pytest.mark.parametrize("question", ["", " \n\t"])
def test_an_empty_question_is_refused_by_its_problem_id(question):
    with pytest.raises(ProblemError, match="'p7' is empty"):
        Problem(id="p7", question=question)


def test_costs_add_up_field_by_field():
    one = Cost(num_calls=1, num_computed=2, num_cached=3, num_generated=4, num_reused=5, seconds=0.5)
    two = Cost(num_calls=2, num_computed=4, num_cached=6, num_generated=8, num_reused=10, seconds=1.0)
    assert one + one == two
    assert one + Cost() == one


def test_seeds_never_change():
    assert derive_seed(0, "p1", 0, 0, Source.DRAFT) == 96782459


def test_seeds_differ_in_every_argument_and_fit_every_engine():
    keys = [(run, p, k, i, s) for run in (0, 1) for p in ("p", "q") for k in (0, 1) for i in (0, 1) for s in Source]
    seeds = {derive_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    ("error", "is_retryable", "said"),
    [
        (EngineTimeout("late"), True, "late (lower the number of problems in flight"),
        (ContextOverflow("full", hint="cut it"), False, "full (cut it)"),
        (EngineError("down"), False, "down"),
        (MissingExtra("hf"), False, "pip install '.[hf]'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_errors_say_whether_to_retry_and_what_to_do(error, is_retryable, said):
    assert isinstance(error, ArbitrageError)
    assert error.is_retryable is is_retryable
    assert said in str(error)
