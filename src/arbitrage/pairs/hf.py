"""Models that transformers runs in this process."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from arbitrage.core.errors import ConfigError
from arbitrage.core.ports import Engine
from arbitrage.engines.cache_options import CacheOptions
from arbitrage.pairs.model import DTYPES, ModelConfig, check_at_least, check_choice
from arbitrage.scorers.families import Family

if TYPE_CHECKING:
    from arbitrage.scorers.hf import HFScorer
    from arbitrage.scorers.hf_families import FamilyScorer


@dataclass(frozen=True, slots=True, kw_only=True)
class HFModel(ModelConfig):
    """A checkpoint of transformers: language models, classifiers and PRMs; language models also from a GGUF file.

    Raises:
        ConfigError: See :class:`ModelConfig`; also if the data type is unknown.
    """

    engine: ClassVar[str] = "hf"
    writer_fields: ClassVar[tuple[str, ...]] = ("exact",)
    address_fields: ClassVar[tuple[str, ...]] = ("threads",)

    device: str = "cpu"
    """A torch device, such as ``cuda:0``."""
    dtype: str = "float32"
    """Of weights and cache, from :data:`arbitrage.pairs.model.DTYPES`."""
    exact: bool | None = None
    """Whether the engine uses only what leaves the text unchanged to the token; None for the engine's own choice."""
    threads: int | None = None
    """CPU threads of torch, which has one number for the whole process: that of the model loaded last counts."""
    compile: bool | None = None
    """Whether forward passes are compiled and captured as CUDA graphs; None for yes on CUDA. False also calls the model
    for every pass on the CPU, where the pass over one token is recorded otherwise."""
    static: bool = False
    """Whether KV caches have a fixed size also where nothing is captured."""
    sequences: int | None = None
    """How many solutions keep their cache at once where its size is fixed; each takes the memory of a whole context."""
    context_length: int | None = None
    """Tokens of prompt and answer where the cache's size is fixed; None for the model's own, at most 4,096."""

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        check_choice("dtype", self.dtype, DTYPES)
        check_at_least(1, threads=self.threads, sequences=self.sequences, context_length=self.context_length)
        is_fixed = self._cache(writes=True).is_fixed(self.device)
        for name, value in (("sequences", self.sequences), ("context_length", self.context_length)):
            if value is not None and not is_fixed:
                raise ConfigError(
                    f"{name} of the engine 'hf' needs a cache of fixed size, which it has on CUDA, got {value}",
                    hint=f"leave {name} out, or set static = true",
                )

    def load_engine(self, *, keeps_hidden_state: bool = False) -> Engine:
        """See :meth:`ModelConfig.load_engine`."""
        from arbitrage.engines.hf import HFEngine

        self._set_threads()
        return HFEngine.load(
            self.local_path,
            name=self.name,
            device=self.device,
            dtype=self.dtype,
            prompt=self.question_prompt,
            keeps_hidden_state=keeps_hidden_state,
            cache=self._cache(writes=True),
            **self.chosen("exact"),
        )

    def _set_threads(self) -> None:
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)

    def _cache(self, *, writes: bool) -> CacheOptions:
        return CacheOptions(
            traces=writes and self.compile is not False,  # A scorer reads several tokens in each pass.
            static=self.static,
            **self.chosen("compile", "sequences", "context_length"),
        )

    def load_classifier(self, kind: str, name: str) -> "HFScorer":
        """See :meth:`ModelConfig.load_classifier`."""
        from arbitrage.scorers.hf import HFScorer

        self._set_threads()
        prompt = self.question_prompt if self.has_prompt else None  # None: the checkpoint's own prompt.
        return HFScorer.load(
            self.local_path,
            name=name,
            kind=kind,
            device=self.device,
            dtype=self.dtype,
            prompt=prompt,
            cache=self._cache(writes=False),
        )

    def load_family(self, family: Family, name: str) -> "FamilyScorer":
        """See :meth:`ModelConfig.load_family`."""
        from arbitrage.scorers.hf_families import FamilyScorer

        self._set_threads()
        return FamilyScorer.load(
            self.local_path,
            name=name,
            family=family,
            device=self.device,
            dtype=self.dtype,
            cache=self._cache(writes=False),
        )
