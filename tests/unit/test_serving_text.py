"""Stop strings and thinking in text that arrives in parts, and whose tokens are counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbitrage.core.types import Source
from arbitrage.serving.answer import AnswerText, num_tokens_within
from arbitrage.serving.metrics import Metrics
from arbitrage.serving.stops import StopFinder, first_stop, num_undecided
from arbitrage.serving.thinking import MARKS, Splitter, continued_mark, open_mark
from helpers import candidate, step

ALPHABET = st.sampled_from("ab<>/think \n")
AUTHORS = tuple(Source)


def shown(parts, *, stops=(), splitter=None):
    """What an answer of parts shows: thinking, content, deltas."""
    answer = AnswerText(splitter or Splitter(), stops)
    deltas = [delta for i, part in enumerate(parts) for delta in answer.write(AUTHORS[i % 2], part)]
    return answer, [*deltas, *answer.close()]


@pytest.mark.parametrize(
    ("text", "stops", "cut"),
    [
        ("one two", ("two",), 4),
        ("abc", ("abc", "b"), 1),
        ("abc", ("c", "bc", "abc"), 0),
        ("abc", ("x",), None),
        ("abc", (), None),
    ],
)
def test_the_stop_string_that_is_complete_first_cuts(text, stops, cut):
    assert first_stop(text, stops) == cut


def test_only_what_may_begin_a_stop_string_is_held_back():
    assert num_undecided("wait ST", ("STOP", "T")) == 2
    assert num_undecided("STOP", ("STOP",)) == 0
    finder = StopFinder(["STOP"])
    assert finder.write(Source.DRAFT, "go ST") == [(Source.DRAFT, "go ")]
    assert finder.write(Source.TARGET, "AY S") == [(Source.DRAFT, "ST"), (Source.TARGET, "AY ")]
    assert finder.write(Source.DRAFT, "TOP it") == []
    assert finder.is_stopped
    assert finder.write(Source.DRAFT, "more") == finder.close() == []


@given(
    st.lists(st.text(ALPHABET, max_size=6), max_size=12),
    st.lists(st.text(ALPHABET, min_size=1, max_size=4), max_size=3),
)
def test_the_cut_of_the_text_changes_nothing(parts, stops):
    texts = ["".join(parts)]
    whole, _ = shown(texts, stops=stops)
    cut, deltas = shown(parts, stops=stops)
    characters, _ = shown(list(texts[0]), stops=stops)
    assert (cut.thinking, cut.content, cut.is_stopped) == (whole.thinking, whole.content, whole.is_stopped)
    assert (characters.thinking, characters.content) == (whole.thinking, whole.content)
    assert "".join(delta.text for delta in deltas if delta.is_thinking) == cut.thinking
    assert "".join(delta.text for delta in deltas if not delta.is_thinking) == cut.content
    assert not any(stop in cut.content for stop in stops)


@given(st.lists(st.text(ALPHABET, min_size=1, max_size=6), min_size=1, max_size=9))
def test_each_character_keeps_its_author(parts):
    _, deltas = shown(parts, stops=["ab"])
    authors = [AUTHORS[i % 2] for i, part in enumerate(parts) for _ in part]
    text = "".join(parts)
    if text.lstrip().startswith(tuple(MARKS)) or "ab" in text:
        return  # Characters are missing: then the positions say nothing.
    assert [delta.author for delta in deltas for _ in delta.text] == authors


@pytest.mark.parametrize("mark", MARKS)
def test_thinking_is_one_phase_at_the_beginning(mark):
    end = MARKS[mark]
    answer, deltas = shown(["\n", *f"{mark}a {mark} b{end}\n\nThe answer {mark}c{end}."])
    assert answer.thinking == f"a {mark} b"
    assert answer.content == f"\n\nThe answer {mark}c{end}."
    kinds = [delta.is_thinking for delta in deltas]
    assert kinds == sorted(kinds, reverse=True)


def test_an_opening_mark_behind_text_is_text():
    answer, _ = shown(["So <think>a</think>"])
    assert (answer.thinking, answer.content) == ("", "So <think>a</think>")


def test_a_template_may_have_opened_thinking():
    answer, _ = shown(["so 1", "+1=2</thi", "nk>", "2"], splitter=Splitter("<think>"))
    assert (answer.thinking, answer.content) == ("so 1+1=2", "2")


def test_stop_strings_do_not_fire_inside_thinking():
    answer, _ = shown(["<think>a\n\nb STOP</think>c STOP d"], stops=["STOP", "\n\n"])
    assert (answer.thinking, answer.content) == ("a\n\nb STOP", "c ")
    assert answer.is_stopped


def test_a_cut_inside_thinking_leaves_the_content_empty():
    answer, _ = shown(["<think>a\n\n", "b</thi"])
    assert (answer.thinking, answer.content) == ("a\n\nb</thi", "")


def test_white_space_alone_is_content():
    answer, _ = shown([" \n"])
    assert (answer.thinking, answer.content) == ("", " \n")


def test_marks_that_are_open():
    assert open_mark("<|im_start|>assistant\n<think>\n") == "<think>"
    assert open_mark("<think>\n\n</think>\n\n") == ""
    assert continued_mark("<think>so") == "<think>"
    assert continued_mark("<think>so</think>2") == continued_mark("so") == ""


def test_thinking_tokens_of_a_step_that_is_cut_are_its_share():
    parts = [(10, 20), (8, 4)]
    assert [num_tokens_within(length, parts) for length in (0, 10, 20, 22, 99)] == [0, 5, 10, 14, 18]


def test_a_repaired_step_counts_for_both_authors():
    draft = candidate("abcd")
    repaired = candidate("abxyz", Source.TARGET, num_taken=2, num_taken_chars=2)
    metrics = Metrics()
    metrics.step(step(repaired, draft))
    assert metrics.rates()["target_share"] == 3 / 5
    text = metrics.text().decode()
    for line in ('tokens_total{author="draft"} 2.0', 'tokens_total{author="target"} 3.0', "rejected_tokens_total 2.0"):
        assert f"arbitrage_{line}" in text
