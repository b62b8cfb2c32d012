r"""Steps end at an empty line however it is written, and at any other delimiter as it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbitrage.core.delimiter import may_end_step, split_steps, step_end, stop_strings
from arbitrage.core.types import Finish, Limits
from arbitrage.engines.scripted import ScriptedEngine
from helpers import opened, request

LINES = ["\n\n", "\r\n\r\n", "\n \n", "\n\t\n", "\n\r\n", "\r\n\n", "\n \t \n", "\n\u00a0\n", "\n\u3000\r\n"]
TEXTS = st.lists(st.sampled_from([*LINES, "\n", "\r", " ", "\t", "a", "b.", "\u00e9"]), max_size=12).map("".join)


@pytest.mark.parametrize("line", LINES)
def test_an_empty_line_ends_a_step(line):
    assert step_end(f"One.{line}Two.", "\n\n") == len(f"One.{line}")
    assert split_steps(f"One.{line}Two.", "\n\n") == [f"One.{line}", "Two."]


@pytest.mark.parametrize(
    "text", ["", "One.", "One.\nTwo.", "One.\r\nTwo.", "\n .\n", "\n\u200b\n", "\n", " \n", "\r\r", "\\n\\n"]
)
def test_what_is_no_empty_line_ends_no_step(text):
    assert step_end(text, "\n\n") is None
    assert split_steps(text, "\n\n") == [text]


@pytest.mark.parametrize(
    ("text", "delimiter", "steps"),
    [
        ("One.\n \nTwo.\r\n\r\nThree.", "\r\n\r\n", ["One.\n \nTwo.\r\n\r\n", "Three."]),
        ("One.\n\nTwo.\n", "\n", ["One.\n", "\n", "Two.\n", ""]),
        ("a.b.c", ".", ["a.", "b.", "c"]),
        ("a||b|c||", "||", ["a||", "b|c||", ""]),
        ("One.\n\n\n\nTwo.", "\n\n\n", ["One.\n\n\n", "\nTwo."]),
        ("One.\n \n \nTwo.", "\n \n", ["One.\n \n", " \nTwo."]),
    ],
)
def test_an_own_delimiter_is_taken_as_it_is(text, delimiter, steps):
    assert split_steps(text, delimiter) == steps
    assert step_end(text, delimiter) == len(steps[0])
    assert stop_strings(delimiter) == [delimiter]


@given(text=TEXTS, delimiter=st.sampled_from(["\n\n", "\n", ".", "\r\n", "a\n"]))
def test_joined_steps_are_the_text_and_each_but_the_last_ends_with_the_first_delimiter_in_it(text, delimiter):
    *steps, rest = split_steps(text, delimiter)
    assert "".join([*steps, rest]) == text
    assert all(step_end(step, delimiter) == len(step) for step in steps)
    assert step_end(rest, delimiter) is None


@given(text=TEXTS)
def test_the_token_that_ends_a_step_is_known_by_its_text(text):
    ends = [
        end for end in range(1, len(text) + 1) if step_end(text[:end], "\n\n") and not step_end(text[: end - 1], "\n\n")
    ]
    assert all(may_end_step(text[end - 1 : end], "\n\n") for end in ends)
    assert may_end_step("\ufffd", ".")


def test_servers_are_told_the_usual_empty_lines_four_at_most():
    assert stop_strings("\n\n")[0] == "\n\n"
    assert len(stop_strings("\n\n")) <= 4
    for stop in stop_strings("\n\n"):
        assert step_end(f"x{stop}", "\n\n") == len(stop) + 1


def test_the_usual_delimiter_is_an_empty_line():
    assert Limits().delimiter == "\n\n"


@pytest.mark.parametrize("line", LINES)
async def test_a_script_is_cut_at_empty_lines(line):
    engine = ScriptedEngine(script=f"One.{line}Two.")
    async with opened(engine) as session:
        first = await session.propose(request())
        await session.commit(first)
        second = await session.propose(request())
    assert (first.text, first.finish) == (f"One.{line}", Finish.STEP_END)
    assert (second.text, second.finish) == ("Two.", Finish.END_OF_SEQUENCE)
