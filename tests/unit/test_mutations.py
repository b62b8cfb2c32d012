"""Every error that benchmarks/mutations.py plants is about a formula of the current code."""

import runpy
import shutil
from pathlib import Path

import arbitrage

MUTATIONS = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "mutations.py"))["MUTATIONS"]


def test_every_error_can_be_planted(tmp_path):
    there, here = (folder / "evaluation" for folder in (Path(arbitrage.__file__).parent, tmp_path))
    here.mkdir()
    for mutation in MUTATIONS:
        shutil.copy(next(there.rglob(f"{mutation.module}.py")), here)
        mutation.plant(tmp_path)
    assert len({mutation.meaning for mutation in MUTATIONS}) == len(MUTATIONS) >= 10
