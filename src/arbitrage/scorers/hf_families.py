"""Public process reward models in process: a backbone of transformers, and a head by the layout of its weights.

No remote code runs. These checkpoints add one or two linear layers to a backbone of transformers; the layers are
identified by the names of their weights.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from arbitrage.core.errors import CheckpointError, MissingExtra, first_line
from arbitrage.core.ports import OpenSolution
from arbitrage.core.types import Candidate, Problem
from arbitrage.engines.cache_options import CacheOptions
from arbitrage.engines.worker import worker_for
from arbitrage.scorers.families import FAMILIES, Family, Head, StepIds, checked_probability
from arbitrage.scorers.hf import HFScoring, reuse

try:
    from huggingface_hub import snapshot_download
    from torch import Tensor, nn
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )
    from transformers.utils import logging as hf_logging

    from arbitrage.engines.hf import load_checkpoint
    from arbitrage.engines.hf_cache import DynamicMemory, HFSequence, Memory
    from arbitrage.engines.hf_memory import memory_for
    from arbitrage.engines.hf_static import backbone_pass, language_pass
    from arbitrage.scorers.hf_weights import read_tensors, weight_map
except ImportError as error:
    raise MissingExtra("hf") from error

LAYOUTS: Final = (("v_head.summary",), ("score.0", "score.2"), ("score",))
"""Names of a head's linear layers: Skywork; Qwen2.5-Math-PRM, with a ReLU between them; classifiers of transformers."""
_FILES: Final = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""The files that are downloaded from the hub."""


class FamilyScorer:
    """A PRM of a known family; each score computes only new tokens."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        family: Family,
        head: nn.Module | None = None,
        memory: Memory | None = None,
    ) -> None:
        """Wrap a loaded model.

        Args:
            model: A backbone, or a language model for a family that reads next-token logits.
            tokenizer: The model's tokenizer.
            name: The scorer's name in policies and traces.
            family: How the model reads a solution.
            head: Maps a state of shape [hidden] to raw outputs; None for a language model.
            memory: The KV caches of its sessions; None for caches that grow.

        Raises:
            CheckpointError: If the tokenizer or the head does not fit the family.
        """
        if (head is None) != (family.head is Head.LANGUAGE):
            missing = "a language model" if family.head is Head.LANGUAGE else "a head"
            raise CheckpointError(
                f"the scorer {name!r} needs {missing}: the format {family.name!r} reads its outputs",
                hint="name the checkpoint's own format",
            )
        family.check(tokenizer)
        self.model, self.tokenizer, self.family, self.head = model.eval(), tokenizer, family, head
        self._name, self._labels = name, list(family.label_ids(tokenizer))
        self.memory: Memory = memory or DynamicMemory(model)
        self.worker = worker_for(str(model.device))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        name: str,
        family: Family,
        device: str = "cpu",
        dtype: str = "float32",
        cache: CacheOptions | None = None,
    ) -> "FamilyScorer":
        """Load a checkpoint from a folder or the hub; safetensors only, no remote code.

        Args:
            path: A folder, or a name on the hub.
            name: The scorer's name in policies and traces.
            family: How the model reads a solution.
            device: A torch device.
            dtype: The backbone's torch dtype; the head computes in float32.
            cache: How KV caches are kept; None for the defaults.

        Raises:
            CheckpointError: If the checkpoint is missing, broken, or of another family.
            ConfigError: If an option of the cache cannot be used, or the device's memory does not hold it.
        """
        folder = _local(path)
        if family.head is Head.LANGUAGE:
            _check_language_model(folder, family)
            model, tokenizer = load_checkpoint(AutoModelForCausalLM, folder, device=device, dtype=dtype)
            memory = memory_for(model, language_pass, cache or CacheOptions(), name=name)
            return cls(model, tokenizer, name=name, family=family, memory=memory)
        head = load_head(folder, family)
        with _unexpected_weights_ignored():
            model, tokenizer = load_checkpoint(AutoModel, folder, device=device, dtype=dtype)
        num_inputs = next(head.parameters()).shape[-1]
        if num_inputs != model.config.hidden_size:
            raise CheckpointError(
                f"the head in {str(folder)!r} reads {num_inputs} numbers, "
                f"its backbone gives {model.config.hidden_size}",
                hint="the checkpoint is broken: download it again",
            )
        memory = memory_for(model, backbone_pass, cache or CacheOptions(), name=name)
        return cls(model, tokenizer, name=name, family=family, head=head.to(model.device), memory=memory)

    @property
    def name(self) -> str:
        """The scorer's name in policies and traces."""
        return self._name

    def renamed(self, name: str) -> "FamilyScorer":
        """A scorer with the same model under another name; it has its own sessions."""
        return FamilyScorer(
            self.model, self.tokenizer, name=name, family=self.family, head=self.head, memory=self.memory
        )

    async def open(self, solution: OpenSolution) -> HFScoring:
        """Open a session for one solution; nothing is computed yet."""
        return HFScoring(self, solution.problem, self.prompt_ids(solution.problem))

    def prompt_ids(self, problem: Problem) -> list[int]:
        """See :meth:`arbitrage.scorers.hf.HFScorer.prompt_ids`."""
        return self.family.prompt_ids(self.tokenizer, problem)

    def step_ids(self, problem: Problem, index: int, candidate: Candidate) -> StepIds:
        """Token ids of a step; they do not depend on its author."""
        return self.family.step_ids(self.tokenizer, problem, index, candidate.text)

    def probability(self, sequence: HFSequence, ids: list[int]) -> tuple[float, int]:
        """Read the score at the last of ``ids``, computing only what ``sequence`` lacks.

        Returns:
            The probability, and the number of cached tokens.

        Raises:
            ScorerError: If the model's context is too short, or an output is NaN.
        """
        num_cached = reuse(sequence, ids, self)
        outputs = self._outputs(sequence, ids[num_cached:])
        return checked_probability(self.family.head.probability(outputs.tolist()), self.name), num_cached

    def _outputs(self, sequence: HFSequence, ids: list[int]) -> Tensor:
        """Raw outputs of the head after the last token, shape [outputs]."""
        head = self.head
        outputs: Tensor = (
            sequence.logits(ids)[-1, self._labels] if head is None else head(sequence.states(ids)[-1].float())
        )
        return outputs.float()


def load_head(folder: Path, family: Family) -> nn.Sequential:
    """Build a checkpoint's head, in float32, from the names of its weights.

    Raises:
        CheckpointError: If the checkpoint has no head, or the family reads another number of outputs.
    """
    files = weight_map(folder)
    names = next((names for names in LAYOUTS if all(f"{name}.weight" in files for name in names)), None)
    if names is None:
        last_layers = ", ".join(f"{names[-1]}.weight" for names in LAYOUTS)
        raise CheckpointError(
            f"the checkpoint {str(folder)!r} has no head for the format {family.name!r}: none of {last_layers}",
            hint=_formats(lambda head: head is Head.LANGUAGE, "language models"),
        )
    weights = read_tensors(files, [key for name in names for key in (f"{name}.weight", f"{name}.bias") if key in files])
    layers: list[nn.Module] = []
    for name in names:
        layers += [*([nn.ReLU()] if layers else ()), _linear(weights[f"{name}.weight"], weights.get(f"{name}.bias"))]
    head = nn.Sequential(*layers)
    num_outputs = len(weights[f"{names[-1]}.weight"])
    if num_outputs != family.head.num_outputs:
        raise CheckpointError(
            f"the head {names[-1]} in {str(folder)!r} has {num_outputs} outputs, "
            f"the format {family.name!r} reads {family.head.num_outputs}",
            hint=_formats(lambda head: head is not Head.LANGUAGE and head.num_outputs == num_outputs, "it"),
        )
    return head


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.float(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.float(), requires_grad=False)
    return layer


def _formats(fits: Callable[[Head], bool], what: str) -> str:
    """A hint: the names of the formats whose head fits; empty if there is none."""
    names = ", ".join(name for name, family in FAMILIES.items() if fits(family.head))
    return f"formats that read {what}: {names}" if names else ""


def _check_language_model(folder: Path, family: Family) -> None:
    """Check in the configuration that a checkpoint is a language model.

    Loading is no check: with tied embeddings, any backbone loads as a language model.

    Raises:
        CheckpointError: If the configuration cannot be read, or names another architecture.
    """
    try:
        architectures = AutoConfig.from_pretrained(str(folder), trust_remote_code=False).architectures or []
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read the configuration in {str(folder)!r}: {first_line(error)}") from error
    if not any(architecture.endswith("ForCausalLM") for architecture in architectures):
        raise CheckpointError(
            f"the checkpoint {str(folder)!r} is no language model, which the format {family.name!r} needs: "
            f"architectures {architectures}",
            hint=_formats(lambda head: head is not Head.LANGUAGE, "other heads"),
        )


def _local(path: str | Path) -> Path:
    """The folder of a checkpoint; a checkpoint on the hub is downloaded first.

    Raises:
        CheckpointError: If neither a folder nor the hub has it.
    """
    if Path(path).is_dir():
        return Path(path)
    try:
        return Path(snapshot_download(str(path), allow_patterns=list(_FILES)))
    except Exception as error:  # The hub's client raises errors of several libraries.
        raise CheckpointError(
            f"no checkpoint folder at {str(path)!r}, nor on the hub: {first_line(error)}",
            hint="name a folder, or a model on the hub",
        ) from error


@contextmanager
def _unexpected_weights_ignored() -> Iterator[None]:
    """Silence the warning of transformers about unexpected weights: the head is loaded separately."""
    verbosity = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
