"""Datasets: files with a field map, the hub's layout on disk, balanced subsets, and bad input."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from arbitrage.core.errors import ConfigError, MissingExtra
from arbitrage.core.types import Message, Problem
from arbitrage.datasets.files import FieldMap, gold_of, read_file, stratified
from arbitrage.datasets.hub import NAMED, HubSet, read_hub
from arbitrage.datasets.named import problems

PROBLEMS = [Problem(id=str(i), question="?", metadata={"level": "easy" if i % 10 else "hard"}) for i in range(100)]


def written(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


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
    path = written(tmp_path / "problems.jsonl", [{"id": 7, "question": "?", "answer": 4, "level": 3, "tags": ["x"]}])
    (problem,) = read_file(path)
    assert problem == Problem(id="7", question="?", answer="4", metadata={"level": "3"})


def test_a_line_separator_inside_a_question_ends_no_line(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps({"question": "one\u2028two"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_file(path)[0].question == "one\u2028two"


@pytest.mark.parametrize(
    ("value", "gold"),
    [
        (None, None),
        ("", None),
        (" 7 ", "7"),
        (27.0, "27"),
        (2.5, "2.5"),
        ("025", "025"),
        ("She has 3+4=<<3+4=7>>7.\n#### 1,007", "1,007"),
        (r"First \boxed{1}, so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"so \fbox{3}", "3"),
        (r"so $\boxed 3$.", "3"),
        (["$2$"], "$2$"),
        (["2", "3"], "2, 3"),
        ([], None),
    ],
)
def test_the_gold_answer_is_found_in_a_solution(value, gold):
    assert gold_of(value) == gold


def test_a_field_map_names_the_columns(tmp_path):
    rows = [{"problem": f"q{i}", "solution": rf"so \boxed{{{i}}}", "uid": f"u{i}", "id": i % 2} for i in range(3)]
    fields = "question=problem, answer=solution,id=uid"
    found = problems(str(written(tmp_path / "a.jsonl", rows)), fields=fields)
    assert found[2] == Problem(id="u2", question="q2", answer="2", metadata={"id": "0"})
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), tmp_path / "a.parquet")
    assert problems(str(tmp_path / "a.parquet"), fields=fields) == found
    assert problems(str(tmp_path / "a.parquet"), 2, fields=fields) == found[:2]


TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]


def test_a_column_of_messages_makes_conversations(tmp_path):
    rows = [
        {"id": "a", "messages": TALK, "answer": "2", "level": 1},
        {"id": "b", "messages": [*TALK, {"role": "assistant", "content": "It is "}], "answer": "2", "level": 1},
    ]
    first, second = read_file(written(tmp_path / "a.jsonl", rows))
    system, user = Message("system", "Be brief."), Message("user", "1+1?")
    assert first == Problem(id="a", messages=[system, user], answer="2", metadata={"level": "1"})
    assert (second.question, second.prefix) == ("1+1?", "It is ")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read_file(tmp_path / "a.parquet") == [first, second]


def test_the_question_counts_where_a_row_has_both_unless_the_messages_are_named(tmp_path):
    """Training sets have both: there the messages hold the solution."""
    row = {"question": "q?", "messages": [*TALK, {"role": "assistant", "content": "2"}]}
    path = str(written(tmp_path / "a.jsonl", [row]))
    assert problems(path) == [Problem(id="1", question="q?")]
    (asked,) = problems(path, fields="messages=messages")
    assert (asked.question, asked.prefix) == ("1+1?", "2")
    renamed = str(written(tmp_path / "b.jsonl", [{"talk": TALK}]))
    assert problems(renamed, fields="messages=talk")[0].question == "1+1?"


@pytest.mark.parametrize(
    ("row", "fields", "told"),
    [
        ({"messages": "hello"}, "", r":1: messages must be a list of objects with role and content, got 'hello'"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "", ":1: the role of a message must be one of .* got 'bot'"),
        ({"messages": [{"role": "user", "content": 7}]}, "", ":1: the content of a message must be a text, got 7"),
        ({"messages": TALK[:1]}, "", ":1: problem '1' has no user message"),
        ({"messages": TALK, "q": "?"}, "question=p", "no column 'p' for the question, only messages, q"),
        ({"question": "?"}, "messages=talk", "no column 'talk' for the messages, only question .*--fields messages="),
    ],
)
def test_messages_that_make_no_conversation_name_their_row(tmp_path, row, fields, told):
    with pytest.raises(ConfigError, match=told):
        problems(str(written(tmp_path / "a.jsonl", [row])), fields=fields)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ("quetsion=problem", r"unknown field 'quetsion'.*did you mean 'question'"),
        ("level=hard", r"unknown field 'level'.*fields are question, answer, id"),
        ("question", r"not a field map: 'question'.*write question=COLUMN"),
        ("question=a,question=b", "'question' twice"),
        ("question=text", r":1: not a problem: no column 'text' for the question, only problem, uid .*--fields"),
        ("question=problem,answer=gold", "no column 'gold' for the answer"),
        ("question=uid", "the question must be a text, got 1"),
        ("question=problem,id=problem", r":2: the id '\?' appears twice, first at .*:1"),
    ],
)
def test_a_bad_field_map_is_one_clear_error(tmp_path, fields, told):
    path = written(tmp_path / "a.jsonl", [{"problem": "?", "uid": 1}, {"problem": "?", "uid": 2}])
    with pytest.raises(ConfigError, match=told):
        problems(str(path), fields=fields)


@pytest.mark.parametrize(
    ("dataset", "fields", "told"),
    [
        ("mth500", "", r"no dataset 'mth500' \(did you mean 'math500'"),
        ("nothing", "", r"no dataset 'nothing' \(give a file, tiny:test"),
        ("nothing.jsonl", "", "no dataset file at"),
        ("hub:", "", "not a dataset of the hub"),
        ("hub:a/b:c:d:e", "", r"not a dataset of the hub.*CONFIG"),
        ("math500", "question=x", "'math500' has fixed columns"),
        ("tiny:test", "question=x", "'tiny:test' has fixed columns"),
    ],
)
def test_a_bad_name_is_one_clear_error(dataset, fields, told):
    with pytest.raises(ConfigError, match=told):
        problems(dataset, fields=fields)


def test_a_line_in_another_encoding_is_one_clear_error(tmp_path):
    (tmp_path / "a.jsonl").write_bytes('{"question": "?"}\n{"question": "Größe"}\n'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"a\.jsonl:2: not a problem: .*in UTF-8"):
        problems(str(tmp_path / "a.jsonl"))


def test_a_broken_parquet_file_is_one_clear_error(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(ConfigError, match=r"a\.parquet: not Parquet"):
        read_file(tmp_path / "a.parquet")


def test_a_subset_by_level_is_the_same_every_time(tmp_path):
    rows = [{"question": f"q{i}", "level": i % 5} for i in range(50)]
    path = str(written(tmp_path / "a.jsonl", rows))
    found = problems(path, 10, stratify="level")
    assert Counter(problem.metadata["level"] for problem in found) == dict.fromkeys("01234", 2)
    assert found == problems(path, 10, stratify="level") != problems(path, 10, stratify="level", seed=1)


CARD = """---
configs:
- config_name: {config}
  data_files:
  - split: {split}
    path: {file}
---
"""


@pytest.fixture
def hub_copy(tmp_path, monkeypatch):
    """Writes a dataset as its repository on the hub is laid out: a card that says where the splits are, and files."""
    datasets = pytest.importorskip("datasets")
    pyarrow = pytest.importorskip("pyarrow")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()

    def write(source, rows):
        folder, config = tmp_path / "copy", source.config or "default"
        file = f"{config}/{source.split}-00000-of-00001.parquet"
        (folder / config).mkdir(parents=True)
        (folder / "README.md").write_text(CARD.format(config=config, split=source.split, file=file))
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / file)
        return replace(source, path=str(folder))

    pytest.importorskip("pyarrow.parquet")
    return write


ROWS = {
    "math500": (
        {"problem": "1+1?", "solution": "2", "answer": "2", "subject": "Algebra", "level": 1, "unique_id": "t/1"},
        Problem(id="t/1", question="1+1?", answer="2", metadata={"subject": "Algebra", "level": "1"}),
    ),
    "olympiadbench": (
        {"id": 16, "question": "q", "final_answer": ["$2$"], "subfield": "Algebra", "unit": None, "context": "c"},
        Problem(id="16", question="q", answer="$2$", metadata={"subfield": "Algebra"}),
    ),
    "gsm8k": ({"question": "q", "answer": "1+1=2\n#### 2"}, Problem(id="1", question="q", answer="2")),
    "aime24": (
        {"id": 60, "problem": "q", "solution": "s", "answer": "025", "url": "u", "year": "2024"},
        Problem(id="60", question="q", answer="025", metadata={"url": "u"}),
    ),
    "amc23": (
        {"id": 0, "question": "q", "answer": 27.0, "url": "u"},
        Problem(id="0", question="q", answer="27", metadata={"url": "u"}),
    ),
    "minerva": ({"question": "q", "answer": "1e3"}, Problem(id="1", question="q", answer="1e3")),
    "numina": (
        {"source": "olympiads", "problem": "q", "solution": r"so \boxed{2}", "messages": [{"role": "user"}]},
        Problem(id="1", question="q", answer="2", metadata={"source": "olympiads"}),
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_every_benchmark_is_read_from_the_hubs_layout(hub_copy, name):
    row, wanted = ROWS[name]
    assert read_hub(hub_copy(NAMED[name], [row])) == [wanted]


def test_any_dataset_of_the_hub_is_read_with_a_field_map(hub_copy):
    source = hub_copy(HubSet(path="", config="main", split="train"), [{"q": str(i), "n": i} for i in range(5)])
    found = problems(f"hub:{source.path}:main:train", 3, fields="question=q")
    assert found == [Problem(id=str(i + 1), question=str(i), metadata={"n": str(i)}) for i in range(3)]
    with pytest.raises(ConfigError, match=r"cannot load the dataset .*split 'test'.*test"):
        problems(f"hub:{source.path}:main:test", fields="question=q")
    with pytest.raises(ConfigError, match=r"row 1: not a problem: no column 'question'.*only q, n"):
        problems(f"hub:{source.path}:main:train")


def test_a_repeated_or_missing_id_of_the_hub_is_an_error(hub_copy):
    source = hub_copy(NAMED["aime24"], [{"problem": "q", "answer": "1", "id": 1}] * 2)
    with pytest.raises(ConfigError, match=r"row 2: the id '1' appears twice, first at .*row 1"):
        read_hub(source)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"'arbitrage-llm\[hub\]'"):
        problems("math500")


def test_a_field_map_keeps_the_usual_names():
    assert FieldMap.parse("") == FieldMap()
    assert FieldMap.parse("id = uid") == FieldMap(question="question", answer="answer", id="uid")
