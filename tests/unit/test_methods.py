"""The name of a method as a value, and the table that it is built from."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbitrage.core.errors import ConfigError
from arbitrage.core.turn import Pair, Setting
from arbitrage.core.types import Decision, Source
from arbitrage.policies import DraftOnly, RuleSolver
from arbitrage.policies.spec import MethodSpec, build, methods, parse_threshold, resolved, rules
from arbitrage.policies.table import METHODS, GuessingTarget, Models, Need, Rule, Standing, WholeSolver
from helpers import PROBLEM, scripted

GUESSING = [name for name, row in METHODS.items() if isinstance(row, GuessingTarget)]
SOLVERS = [name for name, row in METHODS.items() if not isinstance(row, Rule)]
ROUTERS = st.text(st.characters(codec="utf-8", exclude_characters="+@:,"), min_size=1, max_size=8)
COUNTS = st.none() | st.integers(0, 10**6)
THRESHOLDS = st.none() | st.floats(0.0, 1.0)


@st.composite
def specs(draw: st.DrawFn) -> MethodSpec:
    """Every method that a user can write."""
    rule = draw(st.sampled_from(["", *rules()]))
    solver = draw(st.sampled_from(SOLVERS if not rule else ["", *GUESSING]))
    router = draw(st.just("") | ROUTERS) if rule == "router" else ""
    parameter = draw(THRESHOLDS) if rule == "repair" else None
    spec = MethodSpec(rule, router, solver, draw(COUNTS) if solver else None, parameter=parameter)
    return spec.at(draw(THRESHOLDS)) if spec.has_threshold else spec


@given(specs())
def test_a_method_is_the_same_when_its_name_is_parsed(spec):
    assert MethodSpec.parse(str(spec)) == spec
    assert MethodSpec.parse(spec.name).at(spec.threshold) == spec
    assert MethodSpec.recorded(spec.name, spec.threshold) == spec
    assert str(MethodSpec.parse(str(spec))) == str(spec)


@given(st.text(max_size=30))
def test_any_text_is_a_method_or_one_clear_error(text):
    try:
        spec = MethodSpec.parse(text)
    except ConfigError:
        assert MethodSpec.recorded(text).name == text
    else:
        assert MethodSpec.parse(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("router", ("router", "", "", None, None)),
        ("router:model@0.25", ("router", "model", "", None, 0.25)),
        ("router:model+speculative:6@0.05", ("router", "model", "speculative", 6, 0.05)),
        ("majority", ("", "", "majority", None, None)),
        ("majority:5", ("", "", "majority", 5, None)),
        ("target+ngram", ("target", "", "ngram", None, None)),
        ("rsd@0", ("rsd", "", "", None, 0.0)),
        ("repair", ("repair", "", "", None, None)),
        ("repair:0.15@0.02", ("repair", "", "", None, 0.02, 0.15)),
        ("repair:0.05+speculative:6@0.02", ("repair", "", "speculative", 6, 0.02, 0.05)),
    ],
)
def test_a_name_is_taken_apart(text, parts):
    assert MethodSpec.parse(text) == MethodSpec(*parts)
    assert str(MethodSpec(*parts)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown policy ''.*draft, target"),
        ("telepathy", "unknown policy 'telepathy'"),
        ("router:", "unknown policy 'router:'"),
        ("draft:b", "unknown policy 'draft:b'"),
        ("repair:", "unknown policy 'repair:'"),
        ("repair:model", "the number in 'repair:model' must be a number in"),
        ("repair:1.5", "the number in 'repair:1.5' must be in"),
        ("+speculative", r"unknown policy '\+speculative'"),
        ("router+", r"unknown policy 'router\+'"),
        ("speculative+router", r"unknown policy 'speculative\+router'"),
        ("majority:", "number in 'majority:' must be a whole number, got ''"),
        ("speculative:-1", "must be a whole number, got '-1'"),
        ("speculative:٣", "must be a whole number"),
        (
            "router+majority",
            r"'router\+majority': a rule cannot be combined with 'majority' \(combine it with speculative or ngram",
        ),
        ("router@x", "threshold must be a number in .0, 1., got 'x'"),
        ("router@", "threshold must be a number in .0, 1., got ''"),
        ("router@1.5", r"threshold must be in \[0, 1\], got 1.5 for 'router'"),
        ("router@nan", r"threshold must be in \[0, 1\], got nan"),
        ("target@0.5", "'target' has no threshold, got 0.5"),
        ("majority:3@0.5", "'majority:3' has no threshold"),
    ],
)
def test_an_impossible_name_is_one_clear_error(text, message):
    with pytest.raises(ConfigError, match=message):
        MethodSpec.parse(text)


def test_thresholds_go_to_methods_that_have_one():
    listed = methods(["target", "router", "rsd@0.7", "majority", "random+speculative:2"], [0.1, 0.9])
    assert [str(spec) for spec in listed] == [
        "target",
        "router@0.1",
        "router@0.9",
        "rsd@0.7",
        "majority",
        "random+speculative:2@0.1",
        "random+speculative:2@0.9",
    ]
    with pytest.raises(ConfigError, match="no policies to compare"):
        methods([])
    with pytest.raises(ConfigError, match="threshold must be in"):
        parse_threshold("1.1")


@pytest.mark.parametrize("name", METHODS)
def test_every_row_says_what_it_needs_and_where_it_comes_from(name):
    row, spec = METHODS[name], MethodSpec.parse(name)
    assert row.source
    assert spec.needs == row.needs
    assert spec.standing is row.standing
    assert spec.is_router is (Need.ROUTER in row.needs) is (name in ("router", "repair"))
    if isinstance(row, Rule) and isinstance(row.default_threshold, float):
        assert resolved(spec, MODELS).threshold == row.default_threshold


def test_a_rule_under_guessing_needs_what_both_need():
    spec = MethodSpec.parse("rsd+speculative")
    assert spec.needs == {Need.PRM, Need.ONE_VOCABULARY, Need.IN_PROCESS}
    assert (spec.guesser, MethodSpec.parse("rsd+ngram").guesser, MethodSpec.parse("rsd").guesser) == ("draft", "", "")
    assert MethodSpec.parse("draft+speculative").standing is Standing.BASELINE


MODELS = Models(
    pair_name="test",
    pair=Pair(draft=scripted("drafted"), target=scripted("written")),
    is_same_answer=str.__eq__,
)


@dataclass(frozen=True, slots=True)
class EveryOther:
    """A rule that is not shipped: escalate every second step."""

    threshold: float
    name: str = "every-other"

    async def decide(self, turn):
        await turn.draft()
        return Decision(source=Source.TARGET if turn.index % 2 else Source.DRAFT)


async def test_a_new_rule_is_one_class_and_one_row(monkeypatch):
    row = Rule(build=lambda models, values: EveryOther(values.threshold), source="this test", default_threshold=0.25)
    monkeypatch.setitem(METHODS, "every-other", row)
    spec = MethodSpec.parse("every-other+speculative:3@0.5")
    assert (spec.rule, spec.solver, spec.threshold) == ("every-other", "speculative", 0.5)
    method = build(MethodSpec.parse("every-other"), MODELS)
    assert (method.name, method.threshold) == ("every-other", 0.25)
    assert method.identity == ("EveryOther", 0.25, None)
    assert (await method.solve(PROBLEM, Setting())).text == "drafted"
    assert "every-other" in rules()


def test_a_new_solver_is_one_class_and_one_row(monkeypatch):
    row = WholeSolver(
        build=lambda models, name, count: RuleSolver(policy=DraftOnly(), pair=models.pair, name=f"{name} of {count}"),
        source="this test",
        default_count=2,
    )
    monkeypatch.setitem(METHODS, "twice", row)
    assert build(MethodSpec.parse("twice"), MODELS).name == "twice of 2"
    assert build(MethodSpec.parse("twice:4"), MODELS).name == "twice:4 of 4"


@pytest.mark.parametrize(
    ("name", "writers"),
    [
        ("draft", (Source.DRAFT,)),
        ("draft+ngram", (Source.DRAFT,)),
        ("majority:3", (Source.DRAFT,)),
        ("target", (Source.TARGET,)),
        ("speculative", (Source.TARGET,)),
        ("router", (Source.TARGET, Source.DRAFT)),
        ("repair+speculative:4", (Source.TARGET, Source.DRAFT)),
    ],
)
def test_a_method_names_the_models_that_write_and_whose_prompt_counts(name, writers):
    assert MethodSpec.parse(name).writers == writers


def test_the_default_of_a_router_is_read_from_its_checkpoint():
    @dataclass
    class Calibrated:
        name: str
        thresholds: dict[str, float]

        @property
        def input_format(self):
            return self

    routers = {"router": Calibrated("router", {"default": 0.2}), "router:b": Calibrated("router:b", {})}
    models = replace(MODELS, routers=routers)
    assert str(resolved(MethodSpec.parse("router"), models)) == "router@0.2"
    assert str(resolved(MethodSpec.parse("router:b+ngram"), models)) == "router:b+ngram@0.5"
    assert build(MethodSpec.parse("router@0.4"), models).identity == ("RouterPolicy", 0.4, None)
    with pytest.raises(ConfigError, match=r"the pair 'test' has no routers\.c .*\[routers\.c\]"):
        build(MethodSpec.parse("router:c"), models)


SOURCE = Path(__file__).parents[2] / "src" / "arbitrage"


def _splits(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls that take a text apart at a mark of the grammar."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            marks = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            if node.func.attr in ("partition", "rpartition", "split", "rsplit") and set(marks) & {"+", "@"}:
                yield node


def test_only_the_parser_takes_a_method_apart():
    places = {
        path.relative_to(SOURCE).as_posix(): [node.lineno for node in _splits(ast.parse(path.read_text()))]
        for path in SOURCE.rglob("*.py")
    }
    assert [path for path, lines in places.items() if lines] == ["policies/spec.py"]
