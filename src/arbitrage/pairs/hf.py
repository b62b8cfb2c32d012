"""Models that transformers runs in this process."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from arbitrage.core.errors import ConfigError
from arbitrage.core.ports import Engine
from arbitrage.pairs.model import DTYPES, ModelConfig, check_at_least, check_choice
from arbitrage.scorers.families import Family

if TYPE_CHECKING:
    from arbitrage.engines.hf_memory import CacheOptions
    from arbitrage.scorers.hf import HFScorer
    from arbitrage.scorers.hf_families import FamilyScorer


@dataclass(frozen=True, slots=True, kw_only=True)
class HFModel(ModelConfig):
    """A checkpoint of transformers: language models, classifiers and PRMs.

    Raises:
        ConfigError: See :class:`ModelConfig`; also if the data type is unknown.
    """

    engine: ClassVar[str] = "hf"
    writer_fields: ClassVar[tuple[str, ...]] = ("exact",)

    device: str = "cpu"
    """A torch device, such as ``cuda:0``."""
    dtype: str = "float32"
    """Of weights and cache, from :data:`arbitrage.pairs.model.DTYPES`."""
    exact: bool | None = None
    """Whether the engine uses only what leaves the text unchanged to the token; None for the engine's own choice."""
    compile: bool | None = None
    """Whether forward passes are compiled and captured as CUDA graphs; None for yes on CUDA."""
    static: bool = False
    """Whether KV caches have a fixed size also where nothing is captured."""
    sequences: int | None = None
    """How many solutions keep their cache at once where its size is fixed; each takes the memory of a whole context."""
    context_length: int | None = None
    """Tokens of prompt and answer where the cache's size is fixed; None for the model's own, at most 4,096."""

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        check_choice("dtype", self.dtype, DTYPES)
        check_at_least(1, sequences=self.sequences, context_length=self.context_length)
        if self.compile and not self.device.startswith("cuda"):
            raise ConfigError(
                f"compile = true needs a CUDA device, got {self.device!r}",
                hint='leave compile out, or name a device such as "cuda:0"',
            )

    def load_engine(self, *, keeps_hidden_state: bool = False) -> Engine:
        """See :meth:`ModelConfig.load_engine`."""
        from arbitrage.engines.hf import HFEngine

        return HFEngine.load(
            self.path,
            name=self.name,
            device=self.device,
            dtype=self.dtype,
            prompt=self.question_prompt,
            keeps_hidden_state=keeps_hidden_state,
            cache=self._cache,
            **self.chosen("exact"),
        )

    @property
    def _cache(self) -> "CacheOptions":
        from arbitrage.engines.hf_memory import CacheOptions

        return CacheOptions(static=self.static, **self.chosen("compile", "sequences", "context_length"))

    def load_classifier(self, kind: str, name: str) -> "HFScorer":
        """See :meth:`ModelConfig.load_classifier`."""
        from arbitrage.scorers.hf import HFScorer

        prompt = self.question_prompt if self.has_prompt else None  # Else the checkpoint says how it reads a question.
        return HFScorer.load(
            self.path, name=name, kind=kind, device=self.device, dtype=self.dtype, prompt=prompt, cache=self._cache
        )

    def load_family(self, family: Family, name: str) -> "FamilyScorer":
        """See :meth:`ModelConfig.load_family`."""
        from arbitrage.scorers.hf_families import FamilyScorer

        return FamilyScorer.load(
            self.path, name=name, family=family, device=self.device, dtype=self.dtype, cache=self._cache
        )
