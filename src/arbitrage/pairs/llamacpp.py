"""GGUF files that llama.cpp runs in this process."""

from dataclasses import dataclass
from typing import ClassVar

from arbitrage.core.ports import Engine
from arbitrage.pairs.model import DTYPES, ModelConfig, check_at_least, check_choice


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCppModel(ModelConfig):
    """A GGUF file: language models only.

    What is None is left to the engine.

    Raises:
        ConfigError: See :class:`ModelConfig`; also if the data type is unknown, or a number is too small.
    """

    engine: ClassVar[str] = "llamacpp"

    device: str = "cpu"
    """``cpu``; any other puts layers on the accelerator that llama.cpp was built for."""
    dtype: str = "float32"
    """Of the cache, from :data:`arbitrage.pairs.model.DTYPES`; the weights' own is in the file."""
    sequences: int = 4
    """How many solutions keep their cache at once; each takes the memory of a whole context."""
    context_length: int | None = None
    """Tokens of prompt and answer that the cache is made for; None for the model's own, at most 4,096."""
    threads: int | None = None
    """CPU threads that compute a single token; None for as many as there are physical cores."""
    threads_batch: int | None = None
    """CPU threads that compute several tokens at once, such as a prompt; None for the same number."""
    gpu_layers: int | None = None
    """How many layers the accelerator computes; the CPU computes the others; None for all."""
    flash_attention: bool | None = None
    """Whether attention runs as one kernel, which needs less memory; None for only where ``exact`` needs it."""
    exact: bool | None = None
    """Whether the engine uses only what leaves the text unchanged to the token."""

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        check_choice("dtype", self.dtype, DTYPES)
        check_at_least(1, context_length=self.context_length, threads=self.threads, threads_batch=self.threads_batch)
        check_at_least(0, gpu_layers=self.gpu_layers)

    def load_engine(self, *, keeps_hidden_state: bool = False) -> Engine:
        """See :meth:`ModelConfig.load_engine`."""
        from arbitrage.engines.llamacpp import LlamaEngine

        return LlamaEngine.load(
            self.local_path,
            name=self.name,
            device=self.device,
            dtype=self.dtype,
            prompt=self.question_prompt,
            keeps_hidden_state=keeps_hidden_state,
            context=self.context_length or 0,
            sequences=self.sequences,
            **self.chosen("threads", "threads_batch", "gpu_layers", "flash_attention", "exact"),
        )
