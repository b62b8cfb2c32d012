"""Models that transformers runs in this process."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from arbitrage.core.ports import Engine
from arbitrage.pairs.model import DTYPES, ModelConfig, check_choice
from arbitrage.scorers.families import Family

if TYPE_CHECKING:
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

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        check_choice("dtype", self.dtype, DTYPES)

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
            **self.chosen("exact"),
        )

    def load_classifier(self, kind: str, name: str) -> "HFScorer":
        """See :meth:`ModelConfig.load_classifier`."""
        from arbitrage.scorers.hf import HFScorer

        prompt = self.question_prompt if self.has_prompt else None  # None: the checkpoint's own prompt.
        return HFScorer.load(self.path, name=name, kind=kind, device=self.device, dtype=self.dtype, prompt=prompt)

    def load_family(self, family: Family, name: str) -> "FamilyScorer":
        """See :meth:`ModelConfig.load_family`."""
        from arbitrage.scorers.hf_families import FamilyScorer

        return FamilyScorer.load(self.path, name=name, family=family, device=self.device, dtype=self.dtype)
