"""Long functions and modules are those of the table in docs/architecture.md, each with its reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "arbitrage"
MAX_FUNCTION, MAX_MODULE = 50, 350


def long_parts(path: Path) -> Iterator[str]:
    """The module and its functions with too many lines, as the table names them."""
    name, text = path.relative_to(SOURCE).as_posix(), path.read_text()
    if len(text.splitlines()) > MAX_MODULE:
        yield f"`{name}`"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno
            if node.end_lineno - node.lineno >= MAX_FUNCTION:
                yield f"`{name}`: `{node.name}`"


def test_long_functions_and_modules_are_listed_with_a_reason():
    section = (ROOT / "docs" / "architecture.md").read_text().partition("## Long functions and modules")[2]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    listed = dict(rows)
    assert {part for path in SOURCE.rglob("*.py") for part in long_parts(path)} == listed.keys()
    assert all(listed.values())
