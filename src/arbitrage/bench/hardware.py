"""What the device allows: bytes of a model's weights over the speed at which the device copies memory."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from arbitrage.bench.costs import Limit, Runtime
from arbitrage.core.ports import Engine
from arbitrage.engines.gguf_files import is_gguf
from arbitrage.engines.language_model import LanguageModel
from arbitrage.pairs.model import ModelConfig

MAX_BYTES: Final = 256 << 20
"""Of one copy: longer ones are no faster or slower. Shorter weights are copied at their own size, since they may fit a
cache of the processor."""
NUM_COPIES: Final = 5
"""The fastest of so many counts."""


def runtime_of(model: ModelConfig, engine: object) -> Runtime:
    """What runs a model: the engine of its configuration, with the settings of an engine in this process."""
    arithmetic = getattr(engine, "arithmetic", None)
    details: dict[str, Any] = dict(arithmetic()) if callable(arithmetic) else {}
    details.pop("engine", None)
    runs = engine if isinstance(engine, LanguageModel) else getattr(engine, "memory", None)  # The latter of a scorer.
    return Runtime(engine=model.engine, details=details, forward_path=getattr(runs, "path", None))


def limit_of(model: ModelConfig, engine: Engine) -> Limit | None:
    """The least time in which the device reads all weights of a model.

    Returns:
        None for a model behind a server, and where numpy or the device cannot be reached from this process.
    """
    device: str | None = getattr(model, "device", None)
    if device is None or not (num_bytes := weights_bytes(model.local_path, engine)):
        return None
    threads = _threads(runtime_of(model, engine).details.get("threads"))
    try:
        copy = _cpu_copy(num_bytes, threads) if device.startswith("cpu") else _torch_copy(num_bytes, device)
    except (ImportError, RuntimeError, MemoryError):  # By torch for a device that only llama.cpp was built for.
        return None
    size = min(num_bytes, MAX_BYTES)
    return Limit(weights_bytes=num_bytes, copy_bytes_per_s=2 * size / fastest_s(copy))


def weights_bytes(path: str, engine: object) -> int | None:
    """Bytes of a model's weights: of its parameters, or of its GGUF file.

    Returns:
        None where neither can be read.
    """
    if parameters := getattr(getattr(engine, "model", None), "parameters", None):
        return int(sum(weight.numel() * weight.element_size() for weight in parameters()))
    return Path(path).stat().st_size if is_gguf(path) and Path(path).is_file() else None


def fastest_s(copy: Callable[[], None], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of the fastest of :data:`NUM_COPIES` copies, after one that touches the memory for the first time."""
    copy()
    times = []
    for _ in range(NUM_COPIES):
        started = clock()
        copy()
        times.append(clock() - started)
    return min(times)


def _threads(setting: object) -> int:
    """Threads that compute a single token, from one number, or from one for a token and one for many."""
    first = setting[0] if isinstance(setting, list | tuple) and setting else setting
    return first if isinstance(first, int) and first > 0 else 1


def _cpu_copy(num_bytes: int, threads: int) -> Callable[[], None]:
    """A copy of at most :data:`MAX_BYTES`, each thread its own part, as an engine with so many threads reads."""
    import numpy as np

    part = max(1, min(num_bytes, MAX_BYTES) // threads)
    pairs = [(np.zeros(part, dtype=np.uint8), np.ones(part, dtype=np.uint8)) for _ in range(threads)]
    if threads == 1:
        return lambda: np.copyto(*pairs[0])
    executor = ThreadPoolExecutor(max_workers=threads)

    def copy() -> None:
        for done in [executor.submit(np.copyto, to, of) for to, of in pairs]:
            done.result()

    return copy


def _torch_copy(num_bytes: int, device: str) -> Callable[[], None]:
    """The same by torch on its device."""
    import torch

    size = min(num_bytes, MAX_BYTES)
    to = torch.zeros(size, dtype=torch.uint8, device=device)
    of = torch.ones_like(to)
    synchronise = torch.cuda.synchronize if to.device.type == "cuda" else lambda device: None

    def copy() -> None:
        to.copy_(of)
        synchronise(to.device)

    return copy
