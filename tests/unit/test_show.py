"""What long work says while it goes on."""

import io

import pytest
from rich.console import Console

from arbitrage.cli import show


@pytest.fixture
def every_call(monkeypatch):
    monkeypatch.setattr(show, "LINE_S", 0.0)


def said(num, *, is_terminal=False, words=()):
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=is_terminal)
    with show.counting("solving", 10, 4, console=console) as one_more:
        for number in range(num):
            one_more(*words[number : number + 1])
        return file.getvalue()


def test_a_log_file_gets_lines_that_say_how_far_it_is(every_call):
    lines = said(2, words=["solving · right: target 50%"]).splitlines()
    assert [line.split()[-2] for line in lines] == ["5/10", "6/10"]
    assert lines[0].startswith("solving · right: target 50% ")
    assert lines[1].startswith("solving ━")


def test_lines_are_a_minute_apart():
    assert said(5) == ""


def test_a_terminal_gets_a_bar_only(every_call):
    assert "\n" not in said(2, is_terminal=True)
