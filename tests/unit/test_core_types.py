import pickle
from dataclasses import replace

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
from arbitrage.core.types import Cost, Limits, Message, Problem, Role, Sampling, Source, derive_seed, read_messages


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Sampling, "temperature", -0.1),
        (Sampling, "temperature", float("nan")),
        (Sampling, "temperature", 1e-40),
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


CONVERSATION = (
    Message("system", "Be brief."),
    Message("user", "What is 2+2?"),
    Message("assistant", "It is 4."),
    Message("user", "And 3+3?"),
)
BEGUN = (*CONVERSATION, Message("assistant", "It is "))


def test_a_question_is_a_conversation_of_one_user_message():
    plain = Problem(id="p", question="2+2?")
    assert plain.messages == (Message(Role.USER, "2+2?"),)
    assert plain == Problem(id="p", messages=[Message("user", "2+2?")])
    assert (plain.question, plain.text, plain.prefix, plain.is_plain) == ("2+2?", "2+2?", "", True)
    assert (plain.answer, plain.metadata) == (None, {})


def test_the_question_of_a_conversation_is_its_last_user_message():
    asked = Problem(id="p", messages=CONVERSATION)
    assert (asked.question, asked.prefix, asked.is_plain) == ("And 3+3?", "", False)
    assert Problem(id="p", messages=BEGUN).question == "And 3+3?"


def test_a_conversation_as_text_names_its_roles_and_leaves_the_beginning_of_the_answer_out():
    whole = "System: Be brief.\n\nUser: What is 2+2?\n\nAssistant: It is 4.\n\nUser: And 3+3?"
    assert Problem(id="p", messages=CONVERSATION).text == whole
    begun = Problem(id="p", messages=BEGUN)
    assert (begun.text, begun.prefix) == (whole, "It is ")
    assert Problem(id="p", messages=[Message("user", "2+2?"), Message("assistant", "It")]).text == "2+2?"
    assert Problem(id="p", messages=[Message("system", ""), Message("user", "2+2?")]).text == "2+2?"


def test_a_problem_can_be_changed_copied_and_pickled():
    plain, asked = Problem(id="p", question="2+2?", answer="4"), Problem(id="p", messages=BEGUN)
    assert replace(plain, question="3+3?") == Problem(id="p", question="3+3?", answer="4")
    assert replace(plain, messages=CONVERSATION) == Problem(id="p", messages=CONVERSATION, answer="4")
    assert replace(asked, question="5+5?").messages == (*BEGUN[:3], Message("user", "5+5?"), BEGUN[4])
    for problem in (plain, asked):
        assert pickle.loads(pickle.dumps(problem)) == problem
        assert replace(problem) == problem


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([Message("system", "Be brief.")], "problem 'p7' has no user message"),
        ([Message("assistant", "So")], "problem 'p7' has no user message"),
        ([Message("user", " ")], "question of problem 'p7' is empty"),
        ([Message("user", "2+2?"), Message("user", "\n")], "question of problem 'p7' is empty"),
        ([Message("user", "2+2?"), Message("system", "Be brief.")], "last message of problem 'p7' is a system message"),
        ([Message("user", "2+2?"), Message("assistant", "")], "'p7' is an empty assistant message .*end with a user"),
    ],
)
def test_what_is_no_conversation_to_answer_is_refused(messages, said):
    with pytest.raises(ProblemError, match=said):
        Problem(id="p7", messages=messages)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ("hello", "messages must be a list of objects with role and content, got 'hello'"),
        (["hello"], r"got \['hello'\]"),
        ([{"role": "tool", "content": "7"}], "one of system, user, assistant, got 'tool'"),
        ([{"content": "7"}], "one of system, user, assistant, got None"),
        ([{"role": "user"}], "content of a message must be a text, got None"),
        ([{"role": "user", "content": [{"text": "7"}]}], "content of a message must be a text"),
    ],
)
def test_what_is_no_message_is_refused(records, said):
    with pytest.raises(ProblemError, match=said):
        read_messages(records)


def test_messages_survive_their_form_in_files():
    assert read_messages([message.to_json() for message in BEGUN]) == BEGUN


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


@pytest.mark.parametrize("id", ["\ud800", "p\udfff1", "\udc80\udcff"])
def test_an_id_that_is_no_text_has_no_seed(id):
    with pytest.raises(ProblemError, match=r"the id '.*\\ud.*' cannot be encoded: 'utf-8' codec .*another id"):
        derive_seed(0, id, 0, 0, Source.DRAFT)


@pytest.mark.parametrize(
    ("error", "is_retryable", "said"),
    [
        (EngineTimeout("late"), True, "late (lower the number of problems in flight"),
        (ContextOverflow("full", hint="cut it"), False, "full (cut it)"),
        (EngineError("down"), False, "down"),
        (MissingExtra("hf"), False, "pip install 'arbitrage-llm[hf]'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_errors_say_whether_to_retry_and_what_to_do(error, is_retryable, said):
    assert isinstance(error, ArbitrageError)
    assert error.is_retryable is is_retryable
    assert said in str(error)


def test_a_missing_extra_is_the_same_in_another_process():
    error = MissingExtra("hf")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.extra) == (MissingExtra, str(error), "hf")
