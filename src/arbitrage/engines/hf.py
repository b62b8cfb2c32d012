"""Any causal language model of transformers, in process: a KV cache per session and a tight decoding loop."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from arbitrage.core.errors import (
    ArbitrageError,
    CheckpointError,
    ConfigError,
    EngineError,
    MissingExtra,
    first_line,
)
from arbitrage.core.types import Sampling
from arbitrage.engines.cache_options import CacheOptions
from arbitrage.engines.gguf_files import is_gguf
from arbitrage.engines.language_model import Picker
from arbitrage.engines.local import LocalEngine
from arbitrage.engines.prompt import Prompt
from arbitrage.engines.widths import TOLERANCE
from arbitrage.engines.worker import CancelFlag

try:
    import torch
    import transformers
    from torch import Tensor
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        LogitsProcessorList,
        MinPLogitsWarper,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )
    from transformers.utils import logging as hf_logging

    from arbitrage.engines.hf_cache import HFSequence, computing
    from arbitrage.engines.hf_memory import memory_for
    from arbitrage.engines.hf_static import language_pass
except ImportError as error:
    raise MissingExtra("hf") from error


class HFEngine(LocalEngine):
    """A causal language model as an engine; sessions share its weights and its device's thread."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        prompt: Prompt | None = None,
        keeps_hidden_state: bool = False,
        exact: bool | None = None,
        cache: CacheOptions | None = None,
    ) -> None:
        """Wrap a loaded model.

        Args:
            model: Any model with a language head, in eval mode.
            tokenizer: Its tokenizer.
            name: How traces and run keys call it.
            prompt: Defaults to the model's chat template.
            keeps_hidden_state: Whether candidates carry the last layer's state at their last token. It costs one
                forward of that token, which a step behind it need not repeat; lost if the step is rejected.
            exact: Whether texts must be those of plain decoding; see
                :class:`arbitrage.engines.language_model.LanguageModel`.
            cache: How KV caches are kept; None for the defaults.

        Raises:
            ConfigError: If an option of the cache cannot be used, or the device's memory does not hold it.
        """
        super().__init__(
            tokenizer,
            name=name,
            device=str(model.device),
            prompt=prompt,
            keeps_hidden_state=keeps_hidden_state,
            exact=exact,
        )
        self.model = model.eval()
        self.eos_ids = _eos_ids(model, tokenizer)
        self.num_embeddings = int(model.get_input_embeddings().num_embeddings)
        self.memory = memory_for(
            model, partial(language_pass, keeps_states=keeps_hidden_state), cache or CacheOptions(), name=name
        )
        trained: int = getattr(model.config, "max_position_embeddings", 1 << 30)
        self.context_length = self.memory.length or trained

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        name: str = "",
        device: str = "cpu",
        dtype: str = "float32",
        prompt: Prompt | None = None,
        keeps_hidden_state: bool = False,
        exact: bool | None = None,
        cache: CacheOptions | None = None,
    ) -> "HFEngine":
        """Load a checkpoint from a folder, the hub or a GGUF file; of the others safetensors only.

        Raises:
            CheckpointError: If it is missing or broken, or its model cannot generate text.
            ConfigError: As for :class:`HFEngine`.
        """
        cache = cache or CacheOptions(traces=True)
        model, tokenizer = load_checkpoint(AutoModelForCausalLM, path, device=device, dtype=dtype)
        if reason := _why_it_cannot_generate(model):
            raise CheckpointError(
                f"the checkpoint {str(path)!r} cannot generate text: {reason}",
                hint="a draft or target needs a causal language model",
            )
        engine = cls(
            model,
            tokenizer,
            name=name or (Path(path).stem if is_gguf(str(path)) else Path(path).name),
            prompt=prompt,
            keeps_hidden_state=keeps_hidden_state,
            exact=exact,
            cache=cache,
        )
        engine.measure_widths(path)
        return engine

    def arithmetic(self) -> dict[str, Any]:
        """See :meth:`arbitrage.engines.language_model.LanguageModel.arithmetic`."""
        device = self.model.device
        return {
            "engine": "hf",
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "processor": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "dtype": str(self.model.dtype),
            "products": torch.get_float32_matmul_precision(),
            "attention": getattr(self.model.config, "_attn_implementation", ""),
            **({} if self.memory.length is None else {"path": self.path, "length": self.memory.length}),
        }

    @property
    def path(self) -> str:
        """How forward passes run; see :class:`arbitrage.engines.hf_cache.Memory`."""
        return self.memory.path

    def sequence(self) -> HFSequence:
        """A new sequence, empty."""
        return self.memory.sequence()

    def picker(self, sampling: Sampling, seed: int) -> Picker:
        """The function that picks each token of one step; log-probabilities stay on the device."""
        return _picker(sampling, seed, self.model.device)

    def entropy(self, row: Tensor) -> Tensor:
        """Entropy at temperature 1 of one row of logits, in nats."""
        each: Tensor = torch.special.entr(row.float().softmax(dim=-1))
        return each.sum()

    def logprobs(self, rows: Tensor, tokens: Sequence[int]) -> tuple[float, ...]:
        """Log-probability at temperature 1 of one token in each of the first rows."""
        if not tokens:
            return ()
        chosen = torch.tensor(tokens, device=rows.device)[:, None]
        return tuple(rows[: len(tokens)].float().log_softmax(dim=-1).gather(-1, chosen)[:, 0].tolist())

    def floats(self, values: Sequence[Tensor]) -> tuple[float, ...]:
        """Log-probabilities as plain numbers, in one transfer from the device."""
        return tuple(torch.stack(list(values)).tolist()) if values else ()

    def computing(self, flag: CancelFlag) -> AbstractContextManager[Any]:
        """No call needs gradients; one that finds no memory fails alone."""
        return computing(EngineError, self.name, self.model.device)


def load_checkpoint(
    kind: type, path: str | Path, *, device: str, dtype: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model class with its tokenizer: from safetensors, without remote code, or from a GGUF file, de-quantised.

    Raises:
        CheckpointError: If the checkpoint is missing, broken or incomplete.
        ConfigError: If it cannot be put on the device.
        MissingExtra: If a GGUF file cannot be read without a package.
    """
    if Path(path).is_dir():
        hf_logging.disable_progress_bar()  # Only a download is worth one.
    try:
        model, tokenizer, report = (_load_gguf if is_gguf(str(path)) else _load_safetensors)(
            kind, str(path), getattr(torch, dtype)
        )
        # The context is checked where it matters, with one clear error: no second opinion on standard error.
        tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    except ArbitrageError:
        raise
    except Exception as error:  # transformers, safetensors and the hub have no common error.
        raise CheckpointError(f"cannot load the checkpoint {str(path)!r}: {first_line(error)}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"the checkpoint {str(path)!r} lacks weights: {', '.join(missing[:3])}",
            hint="it is incomplete or of another kind: download it again, or name another checkpoint",
        )
    try:
        return model.to(device).eval(), tokenizer
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"{str(path)!r} does not fit into the free memory of the device {device!r}: {first_line(error)}",
            hint="set a smaller dtype, or another device",
        ) from error
    except (AssertionError, RuntimeError) as error:  # By torch for a device that it was not built for, or cannot find.
        raise ConfigError(
            f"{str(path)!r} cannot be put on the device {device!r}: {first_line(error)}",
            hint="set device to one that this build of torch supports, such as cpu",
        ) from error


def _load_safetensors(
    kind: type, path: str, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    model, report = kind.from_pretrained(  # type: ignore[attr-defined]
        path, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    return model, AutoTokenizer.from_pretrained(path, trust_remote_code=False), report


def _load_gguf(
    kind: type, path: str, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    from arbitrage.engines.hf_gguf import load_gguf  # Needs an extra of its own.

    return load_gguf(kind, Path(path), dtype)


def _why_it_cannot_generate(model: PreTrainedModel) -> str:
    """The reason, empty for a causal language model.

    transformers loads a classifier with tied embeddings, or an encoder, as a language model without an error.
    """
    kinds = getattr(model.config, "architectures", None) or [type(model).__name__]
    is_language_model = any(word in kind.lower() for kind in kinds for word in ("causallm", "lmhead"))
    if not (model.can_generate() and (is_language_model or type(model).__name__ in kinds)):
        return f"it is a {', '.join(kinds)}"
    if not _is_causal(model):
        return f"{', '.join(kinds)} is an encoder, whose tokens attend to later ones"
    return ""


@torch.inference_mode()
def _is_causal(model: PreTrainedModel) -> bool:
    """Whether the logits at a token stay the same when a later token changes."""
    first, second = (
        model(input_ids=torch.tensor([[1, last]], device=model.device), use_cache=False).logits[0, 0].float()
        for last in (1, 2)
    )
    difference = float(((first - second).abs() / first.abs().clip(1.0)).max())
    return difference <= (TOLERANCE if model.dtype is torch.float32 else 0.05)


def _eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(id for id in (*ids, tokenizer.eos_token_id) if id is not None)


def _picker(sampling: Sampling, seed: int, device: torch.device) -> Callable[[Tensor], tuple[int, Tensor]]:
    """Make the function that picks a token from logits of shape [vocabulary], with its log-probability."""
    if sampling.temperature == 0.0:

        def greedy(logits: Tensor) -> tuple[int, Tensor]:
            logits = logits.float()  # At 16 bits, log-probabilities near 0 would be rounded to it.
            best, index = logits.max(dim=-1)
            return int(index), best - logits.logsumexp(dim=-1)

        return greedy

    generator = torch.Generator(device=device).manual_seed(seed)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        warpers.append(MinPLogitsWarper(sampling.min_p))

    def sample(logits: Tensor) -> tuple[int, Tensor]:
        logits = logits.float()
        weights = warpers(torch.empty(1, 0), logits[None]).softmax(dim=-1)
        index = int(torch.multinomial(weights, 1, generator=generator))
        return index, logits[index] - logits.logsumexp(dim=-1)

    return sample
