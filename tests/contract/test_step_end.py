"""A step ends with the token that completes an empty line, whatever the tokenizer makes of it."""

import pytest

import chat_models

KINDS = ["hf", "http", "gguf"]
LINES = ["\n\n", "\r\n\r\n", "\n \n", "\n\t\n", "\n \t \r\n", "\n\n\n"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", chat_models.MODELS)
@pytest.mark.parametrize("line", LINES)
def test_the_first_step_of_what_was_written_is_whole(engine_with, kind, name, line):
    engine, whole = engine_with(kind, name), f"So\nx = 4 \u20ac.{line}The end.\n\n"
    context, ids = engine.encode("Mia has 3 stamps.\n"), engine.encode(whole)
    length = engine.step_length(ids, context, "\n\n")
    step, rest = engine.decode(ids[:length], context), engine.decode(ids[length:], ids[:length])
    assert step + rest == whole
    assert step.startswith(f"So\nx = 4 \u20ac.{line[:-1]}")
    assert "The" not in step
    assert [engine.ends_step(ids[:end], context, "\n\n") for end in range(1, length + 1)] == [False] * (length - 1) + [
        True
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", chat_models.MODELS)
def test_nothing_ends_where_no_line_is_empty(engine_with, kind, name):
    engine = engine_with(kind, name)
    ids = engine.encode("One.\nTwo.\r\nThree. \n .\n")
    assert engine.step_length(ids, [], "\n\n") is None
    length = engine.step_length(ids, [], ".\r\n")
    assert engine.decode(ids[:length], []).endswith("Two.\r\n")
