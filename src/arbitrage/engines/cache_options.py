"""How an hf model keeps its KV caches, as its configuration says; torch is not needed."""

from dataclasses import dataclass

from arbitrage.core.errors import ConfigError
from arbitrage.engines.slots import DEFAULT_SEQUENCES


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """How caches are kept."""

    traces: bool = False
    """Whether the pass over one token is recorded on the CPU, where caches grow."""
    static: bool = False
    """Whether they have a fixed size, also without graphs."""
    compile: bool | None = None
    """Whether forward passes are compiled and captured as CUDA graphs; None for yes on CUDA."""
    context_length: int | None = None
    """Tokens of a sequence in a cache of fixed size; None for the model's own, at most
    :data:`arbitrage.engines.slots.DEFAULT_CONTEXT`."""
    sequences: int = DEFAULT_SEQUENCES
    """How many sequences keep their cache at once, where the size is fixed."""

    def captures(self, device: str) -> bool:
        """Whether forward passes are captured on a torch device.

        Raises:
            ConfigError: If they must be, and the device has no CUDA graphs.
        """
        is_gpu = device.startswith("cuda")
        if self.compile and not is_gpu:
            raise ConfigError(
                f"compile = true needs a CUDA device, got {device!r}",
                hint='leave compile out, or name a device such as "cuda:0"',
            )
        return is_gpu and self.compile is not False

    def is_fixed(self, device: str) -> bool:
        """Whether caches on a torch device have a fixed size.

        Raises:
            ConfigError: As for :meth:`captures`.
        """
        return self.captures(device) or self.static
