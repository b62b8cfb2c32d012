"""Every command and every Python example of README.md and docs/ runs, or at least parses.

A fenced block ``console`` holds commands behind ``$ ``; other lines are output and are not compared. The blocks of a
page run in order in one empty folder. Further words behind ``console`` mark a block:

``long``       it takes minutes: it runs only where ``ARBITRAGE_TEST_DOCS=all``;
``elsewhere``  it needs models, servers or a device that tests do not have: it is parsed, not run.

Commands of ``arbitrage`` in marked blocks are parsed: a wrong command or option fails. A block ``python`` runs like a
command; ``python elsewhere`` is compiled.
"""

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import typer.main

from arbitrage.cli.main import app
from command_line import command

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(?P<marks>(?:console|python|sh|bash)[^\n]*)\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL)
RUNS_LONG = os.environ.get("ARBITRAGE_TEST_DOCS") == "all"
LIMIT_S = 600
"""Seconds for one command."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    kind: str
    marks: frozenset[str]
    body: str

    @property
    def commands(self) -> list[str]:
        """Commands behind a prompt; a line that ends with a backslash goes on in the next one."""
        joined = self.body.replace("\\\n", " ")
        return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]

    @property
    def is_run(self) -> bool:
        """Whether this session runs it."""
        return "elsewhere" not in self.marks and ("long" not in self.marks or RUNS_LONG)


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page that hold commands or Python."""
    matches = FENCE.finditer(page.read_text())
    words = [(match["marks"].split(), match["body"]) for match in matches]
    return [Block(marks[0], frozenset(marks[1:]), body) for marks, body in words]


def parse(line: str) -> None:
    """Parse a command of ``arbitrage`` without running it.

    Raises:
        click.ClickException: If a command or an option is unknown, or an argument is missing.
    """
    words = shlex.split(line.partition(" > ")[0], comments=True)
    if not words or words[0] != "arbitrage" or len(words) == 1 or words[1].startswith("--"):
        return
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group) or hasattr(group, "get_command")
    context = group.make_context("arbitrage", [], resilient_parsing=True)
    known = group.get_command(context, words[1])
    assert known is not None, f"no command {words[1]!r}"
    for param in known.params:  # A file of options is not read: it need not exist here.
        param.callback = None
    known.make_context(words[1], words[2:], parent=context)


def run(line: str, folder: Path) -> None:
    """Run a command; it must succeed. One of ``arbitrage`` runs in this process, also with its output in a file."""
    line, _, file = line.partition(" > ")
    words = shlex.split(line, comments=True)
    if words[0] == "arbitrage" and not set(line) & set("|&;<>"):
        status, out, err = command(*words[1:], cwd=folder)
        if file:
            (folder / file).write_text(out)
        assert status == 0, f"{line}\n{out[-2000:]}\n{err[-2000:]}"
        return
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        f"{line} > {file}" if file else line,
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page, tmp_path):
    for block in blocks(page):
        assert block.kind in ("console", "python"), f"{page.name}: write commands as a console block"
        assert block.marks <= {"long", "elsewhere"}, f"{page.name}: unknown mark in {sorted(block.marks)}"
        if block.kind == "console":
            assert block.commands, f"{page.name}: a console block without a command behind '$ ':\n{block.body}"
            for line in block.commands:
                parse(line)
                if block.is_run:
                    run(line, tmp_path)
        else:
            compile(block.body, page.name, "exec")
            if block.is_run:
                (tmp_path / "example.py").write_text(block.body)
                with contextlib.chdir(tmp_path), contextlib.redirect_stdout(io.StringIO()):
                    runpy.run_path("example.py", run_name="__main__")


def test_pages_hold_commands():
    assert sum(len(block.commands) for page in PAGES for block in blocks(page)) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:|#)([^)\s#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
