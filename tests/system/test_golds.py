"""Gold answers in a dataset's column: what counts as one, what is none, and what is an error."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbitrage.core.errors import ConfigError
from arbitrage.datasets.files import FieldMap, gold_of, read_file
from arbitrage.grading import is_same


@pytest.mark.parametrize(
    ("value", "gold"),
    [
        (float("nan"), None),
        (Decimal("NaN"), None),
        ("NaN", None),
        (" nan ", None),
        ([float("nan")], None),
        ([None, ""], None),
        ("  ", None),
        (r"\boxed{}", None),
        (True, "True"),
        (0, "0"),
        (-0.5, "-0.5"),
        (8.7e8, "870000000"),
        (1e300, "1e+300"),
        (float("inf"), r"\infty"),
        (float("-inf"), r"-\infty"),
        (Decimal("0.10"), "0.10"),
        (["1,200", "$3,000$", 4], "1200, $3000$, 4"),
        (["(1,200)"], "(1,200)"),
        (["1,200"], "1,200"),
        (("2", float("nan"), "3"), "2, 3"),
        (r"so \boxed {3}", "3"),
        (r"so \boxed\frac{1}{2}.", r"\frac{1}{2}"),
        (r"\boxed{\left\{ x>1 \right.}", r"\left\{ x>1 \right."),
        (r"\boxed{4}, written as \boxed{}", "4"),
    ],
)
def test_a_gold_answer_is_a_number_a_text_or_a_list_of_these(value, gold):
    assert gold_of(value) == gold


WRONG_KINDS = [{"value": 4}, [{"value": 4}], [["1", "2"], ["3"]], b"4", {4}, [4, [5]], {}, 4j]


@pytest.mark.parametrize("value", WRONG_KINDS)
def test_other_values_are_errors_that_name_the_column(value):
    with pytest.raises(ValueError, match="not an answer"):
        gold_of(value)
    with pytest.raises(
        ConfigError, match=r"row 3: the answer in column 'gold' must be a number, a text .*answer=COLUMN"
    ):
        FieldMap(answer="gold").problem({"question": "?", "gold": value}, 3, "row 3")


def test_files_say_which_line_holds_an_answer_of_another_kind(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text('{"question": "?", "answer": NaN}\n{"question": "!", "answer": {"value": 4}}\n')
    with pytest.raises(ConfigError, match=r"problems.jsonl:2: the answer in column 'answer' must be .*\{'value': 4\}"):
        read_file(path)
    assert read_file(path, limit=1)[0].answer is None


def test_parquet_golds_are_read_like_those_of_jsonl(tmp_path):
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    rows = [{"question": "a", "answer": Decimal("1.50")}, {"question": "b", "answer": None}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [problem.answer for problem in read_file(tmp_path / "a.parquet")] == ["1.50", None]
    parquet.write_table(pyarrow.Table.from_pylist([{"question": "a", "answer": {"x": 1}}]), tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match=r"row 1: the answer in column 'answer'"):
        read_file(tmp_path / "b.parquet")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner))


@given(VALUES)
def test_any_json_value_is_a_gold_answer_none_or_an_error(value):
    is_list = isinstance(value, list)
    is_nested = any(isinstance(item, list | dict) for item in value) if is_list else isinstance(value, dict)
    if is_nested:
        with pytest.raises(ValueError, match="not an answer"):
            gold_of(value)
    else:
        gold = gold_of(json.loads(json.dumps(value)))
        assert gold is None or gold.strip() == gold != ""


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_the_decimal_that_it_is_written_as(number):
    gold = gold_of(number)
    assert gold is not None
    assert is_same(repr(number), gold)
    assert float(gold) == number
