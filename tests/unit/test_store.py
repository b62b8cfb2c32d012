import asyncio
import json
import os

import pytest

from arbitrage.core.errors import ConfigError, StoreError
from arbitrage.core.files import fingerprint
from arbitrage.runtime.pool import each
from arbitrage.runtime.store import GroupLog, read_manifest, read_records, run_key

SETTINGS = {"model": "tiny", "seed": 0, "limits": [1, 2]}


def log(folder, **settings):
    return GroupLog(folder, {**SETTINGS, **settings}, id_field="id")


def group(name, num=3):
    return [{"id": name, "step": i, "is_last": i == num - 1} for i in range(num)]


def ids(folder):
    return [(record["id"], record["step"]) for _, record in read_records(folder / "rows.jsonl")]


def test_groups_are_found_again(tmp_path):
    with log(tmp_path / "deep" / "run") as first:
        first.append(group("a"))
        first.append(group("b", 1))
    with log(tmp_path / "deep" / "run") as again:
        assert again.done == {"a", "b"}
        assert again.num_records == 4
        again.append(group("c"))
    assert ids(tmp_path / "deep" / "run") == [*(("a", i) for i in range(3)), ("b", 0), *(("c", i) for i in range(3))]
    assert read_manifest(tmp_path / "deep" / "run") == SETTINGS


def test_a_file_cut_at_any_byte_keeps_the_whole_groups_and_nothing_else(tmp_path):
    with log(tmp_path) as made:
        made.append(group("a"))
        made.append(group("b"))
    path, whole = tmp_path / "rows.jsonl", (tmp_path / "rows.jsonl").read_bytes()
    first = whole.index(b'"b"') - len(b'{"id": ')
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with log(tmp_path) as cut:
            assert cut.done == ({"a"} if size >= first else set())
            for name in ("a", "b"):
                if name not in cut.done:
                    cut.append(group(name))
        assert path.read_bytes() == whole


def test_another_run_is_refused_by_naming_what_differs(tmp_path):
    with log(tmp_path, recipe={"rate": 1, "size": 2}) as made:
        made.append(group("a"))
    changed = {"seed": 1, "recipe": {"rate": 1, "size": 3}, "k": 4}
    told = r"seed was 0, now 1; recipe\.size was 2, now 3; k was None, now 4"
    with pytest.raises(StoreError, match=told), log(tmp_path, **changed):
        pass
    with log(tmp_path, recipe={"rate": 1, "size": 2}):  # The refusal left no lock.
        pass


def test_a_claim_without_results_holds_no_other_run_up(tmp_path):
    with log(tmp_path):
        (tmp_path / "sessions.json").write_text("{}")
        (tmp_path / "work").mkdir()  # As a training that fails at once leaves it.
    with log(tmp_path):
        assert (tmp_path / "sessions.json").exists()
    with log(tmp_path, seed=1) as made:
        assert not (tmp_path / "sessions.json").exists()
        made.append(group("a"))
    assert read_manifest(tmp_path)["seed"] == 1
    with pytest.raises(StoreError, match="seed was 1, now 0"), log(tmp_path):
        pass


def test_another_programs_manifest_is_left_alone(tmp_path):
    (tmp_path / "manifest.json").write_text('{"icons": []}')
    with pytest.raises(StoreError, match="not a manifest"), log(tmp_path):
        pass
    assert (tmp_path / "manifest.json").read_text() == '{"icons": []}'


def test_a_folder_in_use_is_refused(tmp_path):
    with log(tmp_path), pytest.raises(StoreError, match="in use"), log(tmp_path):
        pass


def test_records_without_a_manifest_are_not_adopted(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    with pytest.raises(StoreError, match=r"holds 'rows\.jsonl' but no manifest\.json"), log(tmp_path):
        pass


@pytest.mark.parametrize("line", ["not json\n", "[1]\n"])
def test_a_line_that_is_no_record_is_named(tmp_path, line):
    with log(tmp_path) as made:
        made.append(group("a"))
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(line)
    with pytest.raises(StoreError, match=r"rows.jsonl:4: not a record"):
        ids(tmp_path)
    with pytest.raises(StoreError, match=r"rows.jsonl:4: not a record"), log(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{}", "[]"])
def test_a_broken_manifest_is_one_clear_error(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(StoreError, match="not a manifest"):
        read_manifest(tmp_path)


def test_missing_records_and_manifests_are_named(tmp_path):
    with pytest.raises(StoreError, match="no records"):
        next(read_records(tmp_path / "rows.jsonl"))
    with pytest.raises(StoreError, match=r"no manifest.json"):
        read_manifest(tmp_path)


def test_the_key_depends_on_every_setting_and_not_on_order():
    assert run_key(SETTINGS) == run_key(dict(reversed(SETTINGS.items())))
    assert len({run_key({**SETTINGS, **change}) for change in ({}, {"seed": 1}, {"limits": [2, 1]}, {"k": 0})}) == 4


def test_a_fingerprint_tells_weights_apart(tmp_path):
    assert fingerprint(tmp_path) == fingerprint(tmp_path / "hub" / "name") == ""
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(100))
    first = fingerprint(tmp_path)
    path.write_bytes(bytes(99) + b"x")
    assert len({"", first, fingerprint(tmp_path)}) == 3
    (tmp_path / "model.gguf").write_bytes(b"y")
    assert len({"", fingerprint(tmp_path), fingerprint(tmp_path / "model.gguf")}) == 3


def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with log(tmp_path) as made:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(StoreError, match="No space left"):
            made.append(group("a"))
        assert made.done == set()


async def test_items_are_bounded_and_none_waits_for_the_slowest():
    running, most, ended = 0, 0, []
    gate = asyncio.Event()

    async def work(number):
        nonlocal running, most
        running += 1
        most = max(most, running)
        if number == 0:
            await gate.wait()  # The slow one ends only when all others have.
        await asyncio.sleep(0)
        running -= 1
        ended.append(number)
        if len(ended) == 9:
            gate.set()

    await each(range(10), work, max_in_flight=3)
    assert most == 3
    assert ended == [*range(1, 10), 0]


async def test_a_bug_stops_the_others_and_is_raised_unchanged():
    async def work(number):
        if number == 2:
            raise ZeroDivisionError
        await asyncio.sleep(0)

    started = []
    with pytest.raises(ZeroDivisionError):
        await each(iter(range(10)), lambda n: started.append(n) or work(n), max_in_flight=2)
    assert max(started) < 9


@pytest.mark.parametrize("jobs", [0, -1])
async def test_too_few_in_flight_is_refused(jobs):
    with pytest.raises(ConfigError, match=f"at least 1, got {jobs}"):
        await each([], json.dumps, max_in_flight=jobs)


@pytest.mark.parametrize("name", ["rows.jsonl", "manifest.partial"])
def test_a_path_that_cannot_be_written_is_one_clear_error(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(StoreError, match="cannot write to"), log(tmp_path):
        pass
