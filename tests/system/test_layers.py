"""The layer table of docs/architecture.md, read from the source: nothing is imported."""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "arbitrage"
LAYERS = {
    "core": 0,
    "policies": 1,
    "engines": 1,
    "scorers": 1,
    "grading": 1,
    "version": 1,
    "runtime": 2,
    "pairs": 3,
    "datasets": 4,
    "bench": 4,
    "evaluation": 4,
    "report": 4,
    "training": 4,
    "tiny": 4,
    "estimation": 5,
    "serving": 5,
    "cluster": 5,
    "": 6,  # The package itself: the public names.
    "cli": 7,
    "__main__": 8,
}
SIDEWAYS = {
    ("scorers", "engines"),
    ("policies", "engines"),
    ("policies", "scorers"),
    ("datasets", "tiny"),
    ("report", "evaluation"),
    ("tiny", "training"),
}
"""Imports within a layer that are allowed: a scorer shares the engines' cache, prompt and thread; the table of methods
builds rules on scorers and on targets that guess; the tiny world is a dataset; the report shows the figures of an
evaluation; the tiny recipe trains on the same sequences as any router."""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(module: str) -> set[str]:
    """Modules named by the imports of a module, those inside functions and those for type checkers included."""
    return set(_imports(ast.parse(MODULES[module].read_text())))


def _imports(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            inside = {f"{child.module}.{alias.name}" for alias in child.names} & MODULES.keys()
            yield from inside or {str(child.module)}
        else:
            yield from _imports(child)


def package(module: str) -> str:
    """The name in the layer table."""
    return [*module.split("."), ""][1]


def test_the_source_is_found():
    assert {"arbitrage", "arbitrage.core.types", "arbitrage.engines.hf"} <= MODULES.keys()
    assert "arbitrage.core.turn" not in imports("arbitrage.core.ports")
    assert "arbitrage.core.errors" in imports("arbitrage.core.types")


@pytest.mark.parametrize("module", [module for module in MODULES if package(module) == "core"])
def test_core_imports_only_the_standard_library_and_itself(module):
    foreign = {name.split(".")[0] for name in imports(module) if not name.startswith("arbitrage.core.")}
    assert foreign <= sys.stdlib_module_names


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_lower_layers_or_its_own(module):
    own = package(module)
    used = {package(name) for name in imports(module) if name.split(".")[0] == "arbitrage"} - {own}
    assert {other for other in used if LAYERS[other] >= LAYERS[own] and (own, other) not in SIDEWAYS} == set()


def test_no_module_imports_itself_by_a_detour():
    graph = {module: imports(module) & MODULES.keys() for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(reversed(error.args[1]))}")
