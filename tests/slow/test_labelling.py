"""Rows without a PRM, their scores by rollouts, and the router that they train, by the public commands."""

import asyncio
import json
import shutil

import pytest

from arbitrage.core.boxes import last_boxed
from arbitrage.core.solve import solve
from arbitrage.core.types import Finish, Source
from arbitrage.grading import is_same
from arbitrage.pairs.catalogue import load_engines
from arbitrage.policies import TargetOnly
from arbitrage.tiny import WEIGHTS
from arbitrage.training.rows import read_rows
from command_line import command
from shipped import EARLIER, TRAIN, pair_with

pytestmark = pytest.mark.integration


def test_rows_with_rollout_scores_train_a_router(tmp_path):
    few = tmp_path / "few"
    assert command("collect", few, "--limit", "4", "--samples", "2", "--keep-draft", "0.3")[0] == 0
    label = ("label", few, tmp_path / "labelled", "--continuations", "2")
    assert command(*label, "--limit", "2")[0] == 0
    assert len({row.problem.id for row in read_rows(tmp_path / "labelled")}) == 2
    status, out, err = command(*label)
    assert (status, "inside models" in out) == (0, True), err
    old, new = list(read_rows(few)), list(read_rows(tmp_path / "labelled"))
    assert sorted(row.draft.text for row in new) == sorted(row.draft.text for row in old)
    assert {row.draft.score for row in new} <= {0.0, 0.5, 1.0}
    assert max(row.targets[0].score for row in new) == 1.0
    assert " 0 new " in command(*label)[1]
    assert command("train-router", tmp_path / "labelled", tmp_path / "router", *TRAIN)[0] == 0


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A pair file with the shipped draft and target only, and rows of six problems, which have no scores."""
    folder = tmp_path_factory.mktemp("bare")
    pair = folder / "pair.toml"
    pair.write_text("".join(f'[{role}]\npath = "{WEIGHTS / role}"\nname = "tiny-{role}"\n' for role in Source))
    collect = ("collect", folder / "rows", "--pair", pair, "--limit", "6", "--samples", "1", "--temperature", "0")
    status, _, err = command(*collect)
    assert status == 0, err
    return folder


LABEL = ("--continuations", "1", "--temperature", "0")


@pytest.fixture(scope="module")
def labelled(bare):
    """These rows with scores by rollouts."""
    labelled = bare / "labelled"
    label = ("label", bare / "rows", labelled, "--pair", bare / "pair.toml", *LABEL)
    status, out, err = command(*label, "--dry-run")
    assert (status, "of 6 problems to score · at most" in out, labelled.exists()) == (0, True, False), err
    status, _, err = command(*label)
    assert (status, "prompt tokens from the cache" in err) == (0, True), err
    assert command(*label, "--dry-run")[1].startswith("0 rows of 0 problems to score · at most 0 continuations")
    return labelled


def test_a_pair_without_a_prm_gets_a_router(bare, labelled, tmp_path):
    pair, probe = bare / "pair.toml", tmp_path / "probe"
    status, _, err = command("train-probe", labelled, probe, "--pair", pair, "--validation-share", "0.3")
    assert status == 0, err
    status, out, err = command("eval-router", labelled, probe, "--pair", pair, "--all-rows", "--json")
    assert (status, json.loads(out.splitlines()[-1])["num_problems"]) == (0, 6), err
    with_router = pair_with(probe, tmp_path)
    run, policies = tmp_path / "run", ("--policies", "target,router", "--thresholds", "0.1,0.9")
    status, out, err = command(
        *("eval", "--pair", with_router, *policies, "--dataset", "tiny:validation", "--limit", "3", "--out", run)
    )
    assert (status, "router" in out) == (0, True), err
    calibrate = ("calibrate", run, "--pair", with_router, "--budget", "seconds<=1000", "--confidence", "0.1")
    status, out, err = command(*calibrate)
    assert (status, "written into" in out) == (0, True), err


def test_rollouts_give_the_scores_of_single_continuations(bare, labelled):
    pair = load_engines(bare / "pair.toml")

    async def single(row, sample, source):
        start = [*(past.as_candidate() for past in row.history), sample.as_candidate(source)]
        text = "".join(step.text for step in start)
        if sample.finish is not Finish.END_OF_SEQUENCE:
            text += (await solve(row.problem, pair, TargetOnly(), start=start)).text
        return float(is_same(last_boxed(text), row.problem.answer))

    async def all_single(rows):
        pairs = [((row.draft, Source.DRAFT), (row.targets[0], Source.TARGET)) for row in rows]
        return [[await single(row, *pair) for pair in pairs_of] for row, pairs_of in zip(rows, pairs, strict=True)]

    rows = list(read_rows(labelled))[:12]
    assert [[row.draft.score, row.targets[0].score] for row in rows] == asyncio.run(all_single(rows))


def test_a_command_names_the_step_that_is_missing(bare, tmp_path):
    rows, pair = bare / "rows", ("--pair", bare / "pair.toml")
    probe = EARLIER / "probe"
    for arguments in (("train-probe", rows, tmp_path), ("train-router", rows, tmp_path), ("eval-router", rows, probe)):
        status, _, err = command(*arguments, *pair)
        assert (status, len(err.splitlines())) == (2, 1)
        assert err.startswith("error: the rows have no scores, first step 0 of problem")
        assert "score them by rollouts with `arbitrage label`" in err
    status, _, err = command("calibrate", rows, *pair, "--budget", "target-tokens<=0.3")
    assert (status, "solve some with `arbitrage eval" in err) == (2, True)


def test_problems_that_cannot_be_graded_are_left_out(bare, tmp_path):
    rows = tmp_path / "rows"
    shutil.copytree(bare / "rows", rows)
    records = [json.loads(line) for line in (rows / "rows.jsonl").read_text().splitlines()]
    first = records[0]["problem_id"]
    for name in ("some", "all"):
        vague = [r | {"answer": "$$"} if name == "all" or r["problem_id"] == first else r for r in records]
        (rows / "rows.jsonl").write_text("".join(json.dumps(record) + "\n" for record in vague))
        status, out, err = command("label", rows, tmp_path / "out", "--pair", bare / "pair.toml", *LABEL, "--dry-run")
        if name == "some":
            assert "1 problems left out: their gold answers cannot be graded, first '$$' of problem" in err
            assert " of 5 problems to score" in out
    assert (status, err.startswith("error: the gold answers of these rows cannot be graded")) == (2, True)
