r"""The box that holds the answer: its commands, escaped and empty braces, and thinking marks."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrage.core.boxes import last_box, last_boxed
from arbitrage.datasets.files import gold_of


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{4}", "4"),
        (r"\boxed{1} then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{a_{b_{c}}} }", "a_{b_{c}}"),
        (r"\boxed{1} and an open \boxed{2", "1"),
        (r"\boxed{}", ""),
        (r"\boxed{x \boxed{y}}", "y"),
        ("boxed{4} {4}", None),
        ("", None),
        # Other commands, and other ways to write their argument.
        (r"\boxed {4}", "4"),
        ("\\boxed\n{4}", "4"),
        (r"\boxed 4", "4"),
        (r"so $\boxed 42$.", "42"),
        (r"so \boxed 4, which is even.", "4"),
        (r"\boxed -4", "-4"),
        (r"\boxed4", "4"),
        (r"\boxed x", "x"),
        (r"\(\boxed 4\)", "4"),
        (r"\boxed\frac{1}{2} so", r"\frac{1}{2}"),
        (r"\boxed\text{(C)}.", r"\text{(C)}"),
        (r"\boxed$4$", "4"),
        (r"\fbox{4}", "4"),
        (r"\fbox {$4$}", "$4$"),
        (r"\framebox{4}", "4"),
        (r"\fbox{\boxed{4}}", "4"),
        (r"\boxed{3}, \fbox{4}", "4"),
        (r"\\boxed{4}", "4"),
        # No boxes.
        (r"Write it in \boxed notation.", None),
        (r"\boxedsize{4}", None),
        (r"\boxed{5} as \boxed shows", "5"),
        # Escaped braces.
        (r"\boxed{\left\{ x>1 \right.}", r"\left\{ x>1 \right."),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left. x \right\}}", r"\left. x \right\}"),
        (r"the set \{ and \boxed{4} and \}", "4"),
        (r"\boxed{[0, 1\}}", r"[0, 1\}"),
        (r"\boxed{\frac{1}{2\}}", r"\frac{1}{2\}"),  # A slip: else no box would be closed.
        # Empty boxes.
        (r"\boxed{4}. I put it into \boxed{}.", "4"),
        (r"\boxed{4} \boxed{ } \boxed{\text{}} \boxed{$ $} \boxed{\,}", "4"),
        (r"\boxed{} \boxed{ }", " "),
        (r"\fbox{} \boxed 4 \fbox{}", "4"),
    ],
)
def test_the_last_closed_box_holds_the_answer(text, answer):
    assert last_boxed(text) == answer


OUTSIDE = st.text("ab(1)\n ", max_size=8)
INSIDE = st.recursive(
    st.text("ab 1", max_size=4) | st.sampled_from([r"\{", r"\}", r"\left\{", r"\pi "]),
    lambda inner: st.builds("{{{}}}{}".format, inner, inner),
)
MARKS = st.sampled_from(
    [
        ("<think>", "</think>"),
        ("<thinking>", "</thinking>"),
        ("<reasoning>", "</reasoning>"),
        ("", "</think>"),
        ("[THINK]", "[/THINK]"),
        ("◁think▷", "◁/think▷"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ]
)


@settings(max_examples=50)
@given(before=st.text("ab{}\\", max_size=8), inside=INSIDE, after=st.text("ab\\\n", max_size=8))
def test_any_balanced_content_is_read_whole(before, inside, after):
    assert last_boxed(f"{before}\\boxed{{{inside}}}{after}") == inside


@settings(max_examples=50)
@given(
    command=st.sampled_from([r"\boxed", r"\fbox", r"\boxed ", r"\framebox"]),
    number=st.integers(-(10**6), 10**6),
    before=OUTSIDE,
    after=OUTSIDE,
)
def test_golds_and_solutions_are_read_alike(command, number, before, after):
    for box in (f"{command}{{{number}}}", rf"\boxed {number} "):
        text = f"{before}{box}{after}"
        assert last_boxed(text) == gold_of(text) == str(number)
        assert last_boxed(rf"{text}\fbox{{}}") == str(number)


@settings(max_examples=50)
@given(marks=MARKS, first=st.integers(0, 99), second=st.integers(0, 99), between=OUTSIDE)
def test_a_box_in_thinking_counts_only_if_no_box_outside_holds_anything(marks, first, second, between):
    opening, closing = marks
    thinking = rf"{opening}{between}\boxed{{{first}}}{between}{closing}"
    behind = last_box(rf"{thinking}{between}\boxed{{{second}}}{between}")
    assert behind
    assert (behind.content, behind.is_in_thinking) == (str(second), False)
    for rest in (between, rf"{between}\boxed{{}}"):
        only = last_box(thinking + rest)
        assert only
        assert (only.content, only.is_in_thinking) == (str(first), True)


@pytest.mark.parametrize(
    ("text", "answer", "is_in_thinking"),
    [
        (r"<think>first \boxed{3}, no, \boxed{4}", "4", True),
        (r"\boxed{2} <think>or \boxed{3}?</think> yes", "2", False),
        (r"<think>\boxed{1}</think> \boxed{2} <think>\boxed{3}</think>", "2", False),
        (r"<THINK>\boxed{1}</THINK> \boxed{2}", "2", False),
        (r"I think \boxed{2}", "2", False),
    ],
)
def test_thinking_marks_may_be_missing_repeated_or_capital(text, answer, is_in_thinking):
    box = last_box(text)
    assert box
    assert (box.content, box.is_in_thinking) == (answer, is_in_thinking)


def test_a_text_of_nothing_but_open_boxes_is_read_in_time():
    start = time.process_time()
    assert last_boxed(r"\boxed{" * 20_000) is None
    assert last_boxed(r"<think>\boxed{1}</think>" * 2_000 + r"\boxed 2") == "2"
    assert last_boxed("\\" * 100_000) is None
    assert last_boxed("\\" * 100_000 + r"\boxed{3}") == "3"
    assert time.process_time() - start < 5.0
