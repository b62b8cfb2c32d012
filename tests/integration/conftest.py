"""Tests of one process share the shipped models: each command would load and record them again."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def shipped_models_are_loaded_once() -> Iterator[None]:
    from arbitrage.engines import hf, hf_memory
    from arbitrage.scorers import hf as hf_scorers
    from arbitrage.tiny import WEIGHTS

    load, recorded = hf.load_checkpoint, cache(hf_memory.recorded)
    load_once = cache(load)

    def loaded(kind: type, path: str | Path, **options: Any) -> Any:
        return (load_once if Path(path).is_relative_to(WEIGHTS) else load)(kind, path, **options)

    with pytest.MonkeyPatch.context() as patch:
        for module in (hf, hf_scorers):
            patch.setattr(module, "load_checkpoint", loaded)
        patch.setattr(hf_memory, "recorded", recorded)
        yield
