"""The grader on whole benchmarks, by benchmarks/grading.py; skipped where their files are not beside the checkout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("ARBITRAGE_TEST_DATA", ROOT.parent / "shared" / "data"))

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not (DATA / "math500.jsonl").is_file(), reason=f"no benchmark problems in {DATA}"),
]


@pytest.fixture(scope="module")
def records():
    pytest.importorskip("math_verify")
    command = [sys.executable, str(ROOT / "benchmarks" / "grading.py"), str(DATA)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def share(records, check, verdict):
    return {
        record["set"]: record["verdicts"].get(verdict, 0) / record["num"]
        for record in records
        if record["check"] == check
    }


def test_golds_equal_themselves_and_their_rewrites_and_no_perturbed_answer(records):
    golds = share(records, "gold", "correct")
    assert sorted(golds) == ["aime24", "amc23", "gsm8k", "math500", "olympiadbench"]
    assert min(golds.values()) >= 0.995
    assert min(share(records, "rewritten", "correct").values()) >= 0.99
    assert max(share(records, "perturbed", "correct").values()) <= 0.005


def test_units_and_powers_of_ten_do_not_change_a_number_and_others_do(records):
    quantities = share(records, "quantities", "correct")
    assert sorted(quantities) == ["aime24", "amc23", "gsm8k", "math500", "olympiadbench"]
    assert min(quantities.values()) >= 0.99
    assert max(share(records, "other quantities", "correct").values()) <= 0.005


def test_a_thousand_answers_are_graded_within_half_a_minute(records):
    (speed,) = (record for record in records if record["check"] == "speed")
    assert speed["num"] == 1000
    assert speed["seconds"] <= 30.0


def test_a_gold_answer_that_hangs_times_out_alone(records):
    (hang,) = (record for record in records if record["check"] == "hang")
    assert hang["hung"] == "timed_out"
    assert sum(hang["others"].get(verdict, 0) for verdict in ("correct", "wrong")) == 20
