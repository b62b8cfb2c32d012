"""The recipe that made the shipped models runs."""

import pytest

from arbitrage.core.types import Source
from arbitrage.engines.hf import HFEngine
from arbitrage.scorers.hf import HFScorer
from arbitrage.tiny.train import PRESETS, Build

pytestmark = pytest.mark.integration


def test_recipe_rebuilds_four_loadable_models(tmp_path):
    Build(preset=PRESETS["smoke"], folder=tmp_path).all()
    for source in Source:
        assert HFEngine.load(tmp_path / "export" / source).context_length == 512
    for kind in ("prm", "router"):
        assert HFScorer.load(tmp_path / "export" / kind, name=kind, kind=kind).input_format.kind == kind
