"""Forward passes as CUDA graphs: captured once for each width and sequence, replayed for every token.

A forward pass of a small model launches some hundred kernels, and launching them takes longer than computing them. A
replayed graph launches all of them at once.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor

from arbitrage.core.errors import first_line
from arbitrage.engines.hf_static import WIDTHS, Layers, Outputs, Pass, StaticMemory
from arbitrage.engines.widths import cache_folder

MOST_COMPILED: Final = 256
"""Versions of a forward pass that one process may compile, over all models and widths; torch's own limit is 8."""
NUM_WARM_UPS: Final = 3
"""Passes before a capture: libraries allocate their work space in the first ones."""


class CapturedPass:
    """One forward pass of a fixed width over one sequence's cache."""

    def __init__(self, run: Pass, width: int, layers: Layers, pool: Any) -> None:
        """Capture it; the cache's content is lost.

        Args:
            run: The pass.
            width: Its number of tokens.
            layers: The sequence's cache; the graph reads and writes this memory.
            pool: Memory that graphs share: outputs are valid until the next replay of any of them.
        """
        device = layers[0][0].device
        self._inputs = torch.stack([torch.zeros(width, dtype=torch.long), torch.arange(width)]).to(device)
        ids, positions = self._inputs[:1], self._inputs[1]
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(NUM_WARM_UPS):
                run(ids, positions, layers, width)
        torch.cuda.current_stream(device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._outputs = run(ids, positions, layers, width)

    def __call__(self, tokens: Sequence[int], start: int) -> Outputs:
        """Replay it for tokens that begin at position ``start``; the outputs are overwritten by the next replay."""
        self._inputs.copy_(torch.tensor([tokens, range(start, start + len(tokens))]))
        self._graph.replay()
        return self._outputs


def capture(memory: StaticMemory, *, name: str, report: Callable[[str], None]) -> bool:
    """Capture the passes of a memory on a GPU, compiled if the compiler works.

    Whatever fails (an old driver, no compiler, an operation that cannot be captured) leaves the passes as they were,
    with one warning that gives the reason.

    Args:
        memory: On a CUDA device.
        name: The model's, for messages.
        report: Receives a line before work that takes seconds.

    Returns:
        Whether the passes are captured.
    """
    widths = ", ".join(map(str, WIDTHS))
    report(f"compiling {name} for {widths} tokens (10 s for each at the first start, less with a filled cache)")
    try:
        with _compiler_cache():
            _capture(memory, compiled=True)
        return True
    except Exception as error:  # Compiler, driver and library have no common error.
        warnings.warn(f"{name!r} runs without torch.compile, which failed: {first_line(error)}", stacklevel=2)
    try:
        _capture(memory, compiled=False)
        return True
    except Exception as error:
        warnings.warn(f"{name!r} runs without CUDA graphs, capturing failed: {first_line(error)}", stacklevel=2)
        return False


def _capture(memory: StaticMemory, *, compiled: bool) -> None:
    pool = torch.cuda.graph_pool_handle()
    run = compile_pass(memory.run_eagerly) if compiled else memory.run_eagerly
    memory.capture(lambda width, layers: CapturedPass(run, width, layers, pool))


def compile_pass(run: Pass, backend: str = "inductor") -> Pass:
    """A pass compiled for each width once; caches are arguments, so that all sequences share the code.

    Args:
        run: The eager pass.
        backend: Of ``torch.compile``.
    """

    def flat(ids: Tensor, positions: Tensor, layers: Layers, num_last: int) -> tuple[Tensor | None, Tensor | None]:
        outputs = run(ids, positions, layers, num_last)
        return outputs.logits, outputs.states

    compiled = torch.compile(flat, dynamic=False, backend=backend)

    def call(ids: Tensor, positions: Tensor, layers: Layers, num_last: int) -> Outputs:
        with torch._dynamo.config.patch(recompile_limit=MOST_COMPILED):
            logits, states = compiled(ids, positions, layers, num_last)
        return Outputs(logits=logits, states=states)

    return call


@contextmanager
def _compiler_cache() -> Iterator[None]:
    """Keep compiled code between runs, beside other measurements, unless the environment names a folder."""
    variable = "TORCHINDUCTOR_CACHE_DIR"
    if variable in os.environ:
        yield
        return
    os.environ[variable] = str(cache_folder() / "compiled")
    try:
        yield
    finally:
        del os.environ[variable]
