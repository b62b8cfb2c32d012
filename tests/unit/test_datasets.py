import json
from collections import Counter

import pytest

from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Problem
from arbitrage.evaluation.datasets import read_file, stratified

PROBLEMS = [Problem(id=str(i), question="?", metadata={"level": "easy" if i % 10 else "hard"}) for i in range(100)]


def test_any_beginning_of_a_stratified_list_is_balanced_until_a_value_is_used_up():
    made = stratified(PROBLEMS, "level", seed=0)
    for size in range(2, 20, 2):
        assert set(Counter(p.metadata["level"] for p in made[:size]).values()) == {size // 2}
    assert sorted(made, key=lambda p: int(p.id)) == PROBLEMS
    assert made == stratified(PROBLEMS, "level", seed=0)
    assert made != stratified(PROBLEMS, "level", seed=1)


def test_a_missing_field_is_named_with_those_that_are_there():
    with pytest.raises(ConfigError, match=r"no field 'source' \(its fields: level\)"):
        stratified(PROBLEMS, "source", seed=0)


def test_plain_fields_of_a_line_become_metadata(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps({"id": 7, "question": "?", "answer": 4, "level": 3, "tags": ["x"]}))
    (problem,) = read_file(path)
    assert problem == Problem(id="7", question="?", answer="4", metadata={"level": "3"})
