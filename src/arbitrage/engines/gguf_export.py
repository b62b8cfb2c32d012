"""From a Llama checkpoint of transformers to a GGUF file, read without torch: weights, tokenizer and chat template."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from arbitrage.core.errors import CheckpointError, MissingExtra
from arbitrage.engines.gguf_files import PLAIN, kind_of, replaced_when_whole

try:
    import gguf
    import numpy as np
    from numpy.typing import NDArray
except ImportError as error:
    raise MissingExtra("gguf") from error

_CONTRACTIONS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST: Final = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONVERTER: Final = "use llama.cpp's own convert_hf_to_gguf.py"
"""What to do with a checkpoint that cannot be exported here."""
PRE_TOKENIZERS: Final = {
    _CONTRACTIONS + r"\p{N}" + _REST: "qwen2",
    _CONTRACTIONS + r"\p{N}{1,3}" + _REST: "llama-bpe",
}
"""How llama.cpp calls the patterns by which texts are split before merging; it knows them by name only."""


def export_gguf(folder: Path, out: Path, kind: str = "f16") -> None:
    """Write a checkpoint as a GGUF file.

    Args:
        folder: Weights in safetensors, ``config.json``, ``tokenizer.json``.
        out: The file; replaced only when the new one is whole.
        kind: One of :data:`arbitrage.engines.gguf_files.KINDS`; those that are not plain are made by llama.cpp's own
            quantisation.

    Raises:
        ConfigError: If the kind is unknown, or the file cannot be written.
        CheckpointError: If the checkpoint is broken, or has something that a GGUF file of Llama cannot say.
        MissingExtra: If quantisation is asked for without llama.cpp.
    """
    kind = kind_of(kind)
    quantise = None if kind in PLAIN else _quantiser()
    checkpoint = Checkpoint.read(folder)
    with replaced_when_whole(out) as partial:
        if not quantise:
            _write(checkpoint, partial, kind)
        else:
            whole = partial.with_name("whole.gguf")
            _write(checkpoint, whole, "f32")
            quantise(whole, partial, kind)


def _quantiser() -> Callable[[Path, Path, str], None]:
    from arbitrage.engines.llamacpp_quantise import quantise

    return quantise


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The files of a checkpoint, parsed."""

    folder: Path
    config: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    """``tokenizer.json``."""
    tokenizer_config: Mapping[str, Any]
    end_ids: tuple[int, ...]
    """Of all tokens that end an answer; the tokenizer's own first."""
    chat_template: str | None

    @classmethod
    def read(cls, folder: Path) -> "Checkpoint":
        """Read a folder.

        Raises:
            CheckpointError: If a file is missing or broken, or it is no Llama.
        """
        config = _json(folder / "config.json")
        if config.get("model_type") != "llama" or "LlamaForCausalLM" not in config.get("architectures", ()):
            raise CheckpointError(
                f"{str(folder)!r} is a {config.get('model_type')!r} of {config.get('architectures')}, "
                "only LlamaForCausalLM can be exported",
                hint=_CONVERTER,
            )
        tokenizer_config = _json(folder / "tokenizer_config.json", {})
        template = folder / "chat_template.jinja"
        checkpoint = cls(
            folder=folder,
            config=config,
            tokenizer=_json(folder / "tokenizer.json"),
            tokenizer_config=tokenizer_config,
            end_ids=(),
            chat_template=template.read_text() if template.is_file() else tokenizer_config.get("chat_template"),
        )
        return checkpoint._with_ends()

    def _with_ends(self) -> "Checkpoint":
        configured = _json(self.folder / "generation_config.json", self.config).get("eos_token_id")
        ends = [self.special("eos"), *(configured if isinstance(configured, list) else [configured])]
        return replace(self, end_ids=tuple(dict.fromkeys(end for end in ends if end is not None)))

    @property
    def added(self) -> Mapping[str, Mapping[str, Any]]:
        """Tokens that no merge produces, by their text."""
        return {token["content"]: token for token in self.tokenizer.get("added_tokens", ())}

    def special(self, name: str) -> int | None:
        """Id of a special token, such as ``bos``."""
        token = self.tokenizer_config.get(f"{name}_token")
        text = token.get("content") if isinstance(token, dict) else token
        token = self.added.get(str(text))
        return None if token is None else token["id"]

    @property
    def rope(self) -> Mapping[str, Any]:
        """Parameters of the position encoding, wherever this version of transformers keeps them."""
        nested = self.config.get("rope_parameters") or self.config.get("rope_scaling") or {}
        return {"rope_theta": self.config.get("rope_theta", 10000.0), **nested}

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return int(self.config.get("head_dim") or self.config["hidden_size"] // self.config["num_attention_heads"])


def _json(path: Path, default: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    if default is not None and not path.is_file():
        return default
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {str(path)!r}: {error}") from error
    if not isinstance(record, dict):
        raise CheckpointError(f"{str(path)!r} holds no object")
    return record


def _write(checkpoint: Checkpoint, out: Path, kind: str) -> None:
    # Large models do not fit into the memory twice: tensors wait in a temporary file.
    writer = gguf.GGUFWriter(out, "llama", use_temp_file=True)
    try:
        writer.add_file_type(PLAIN[kind])
        _add_shape(writer, checkpoint)
        _add_tokenizer(writer, checkpoint)
        for name, values in _renamed(checkpoint):
            is_matrix = values.ndim > 1
            writer.add_tensor(name, _as_half(name, values) if is_matrix and kind == "f16" else values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _add_shape(writer: Any, checkpoint: Checkpoint) -> None:
    config, rope = checkpoint.config, checkpoint.rope
    writer.add_name(checkpoint.folder.name)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config.get("num_key_value_heads") or config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(checkpoint.head_dim)
    writer.add_key_length(checkpoint.head_dim)
    writer.add_value_length(checkpoint.head_dim)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if config.get("hidden_act", "silu") != "silu":
        raise CheckpointError(f"hidden_act must be 'silu', got {config['hidden_act']!r}", hint=_CONVERTER)
    if (scaling := rope.get("rope_type", rope.get("type", "default"))) == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    elif scaling not in ("default", "llama3"):
        raise CheckpointError(f"rope_type must be default, linear or llama3, got {scaling!r}", hint=_CONVERTER)


def _renamed(checkpoint: Checkpoint) -> Iterator[tuple[str, "NDArray[np.float32]"]]:
    """All tensors as GGUF calls and lays them out.

    Raises:
        CheckpointError: If one has no name there.
    """
    config = checkpoint.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"]}
    heads["k_proj"] = config.get("num_key_value_heads") or heads["q_proj"]
    is_tied = config.get("tie_word_embeddings", False)
    for name, values in _tensors(checkpoint.folder):
        if name.endswith("rotary_emb.inv_freq") or (is_tied and name == "lm_head.weight"):
            continue
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new is None or name == "lm_head.bias":
            raise CheckpointError(f"a GGUF file of Llama has no place for the tensor {name!r}", hint=_CONVERTER)
        part = name.split(".")[-2]
        yield new, _interleaved(values, heads[part]) if part in heads else values
    if checkpoint.rope.get("rope_type") == "llama3":
        yield "rope_freqs.weight", _llama3_factors(checkpoint.rope, checkpoint.head_dim)


def _interleaved(values: "NDArray[np.float32]", num_heads: int) -> "NDArray[np.float32]":
    """Reorder the rows of each head: transformers rotates halves against each other, GGUF's Llama neighbours."""
    halves = values.reshape(num_heads, 2, -1, *values.shape[1:])
    pairs: NDArray[np.float32] = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
    return pairs


def _llama3_factors(rope: Mapping[str, Any], head_dim: int) -> "NDArray[np.float32]":
    """Divisor of each frequency of Llama 3's position encoding: 1 for short waves, ``factor`` for long ones."""
    waves = 2 * math.pi * float(rope["rope_theta"]) ** (np.arange(0, head_dim, 2) / head_dim)
    turns = rope["original_max_position_embeddings"] / waves
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share = np.clip((turns - low) / (high - low), 0.0, 1.0)
    factors: NDArray[np.float64] = 1.0 / ((1.0 - share) / rope["factor"] + share)
    return factors.astype(np.float32)


def _as_half(name: str, values: "NDArray[np.float32]") -> "NDArray[np.float16]":
    if np.abs(values).max(initial=0.0) > np.finfo(np.float16).max:
        raise CheckpointError(f"the tensor {name!r} does not fit into 16 bits", hint="export it as f32")
    return values.astype(np.float16)


def _tensors(folder: Path) -> Iterator[tuple[str, "NDArray[np.float32]"]]:
    """All tensors of a folder's safetensors files in 32 bits; numpy itself knows no bfloat16.

    Raises:
        CheckpointError: If there are none, or a file is broken.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"no safetensors file in {str(folder)!r}")
    for path in files:
        try:
            yield from _tensors_of(path)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise CheckpointError(f"cannot read {str(path)!r}: {error}") from error


def _tensors_of(path: Path) -> Iterator[tuple[str, "NDArray[np.float32]"]]:
    """The format: eight bytes of length, a JSON header of that length, the tensors' bytes."""
    data = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    for name, entry in json.loads(data[8:start].tobytes()).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = data[start + begin : start + end]
        if entry["dtype"] == "BF16":
            values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = raw.view({"F32": np.float32, "F16": np.float16}[entry["dtype"]]).astype(np.float32)
        yield name, values.reshape(entry["shape"])


def _add_tokenizer(writer: Any, checkpoint: Checkpoint) -> None:
    tokens, types = _vocabulary(checkpoint)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(checkpoint))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = checkpoint.tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    for name, add in (("bos", writer.add_bos_token_id), ("pad", writer.add_pad_token_id)):
        if (id := checkpoint.special(name)) is not None:
            add(id)
    # A file names one token for each of three ways to end, and every one ends an answer.
    ways = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    if not 1 <= len(checkpoint.end_ids) <= len(ways):
        raise CheckpointError(
            f"{str(checkpoint.folder)!r} has {len(checkpoint.end_ids)} tokens that end an answer, "
            f"{list(checkpoint.end_ids)}; a GGUF file holds 1 to {len(ways)}",
            hint=_CONVERTER,
        )
    for add, id in zip(ways, checkpoint.end_ids, strict=False):
        add(id)
    begins = _begins(checkpoint)
    writer.add_add_bos_token(begins)
    writer.add_add_eos_token(False)
    if checkpoint.chat_template:
        writer.add_chat_template(checkpoint.chat_template)


def _vocabulary(checkpoint: Checkpoint) -> tuple[list[str], list[int]]:
    """Every id's text and kind; ids that no token has are unused."""
    model, size = checkpoint.tokenizer["model"], checkpoint.config["vocab_size"]
    tokens = [f"[UNUSED{id}]" for id in range(size)]
    types = [int(gguf.TokenType.UNUSED)] * size
    entries = [(text, id, gguf.TokenType.NORMAL) for text, id in model["vocab"].items()]
    for text, token in checkpoint.added.items():
        if token.get("lstrip") or token.get("rstrip"):
            raise CheckpointError(
                f"the token {text!r} strips white space around it (lstrip, rstrip), which a GGUF file cannot record",
                hint=_CONVERTER,
            )
        entries.append((text, token["id"], gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED))
    for text, id, kind in entries:
        if id >= size:
            raise CheckpointError(f"the token {text!r} has id {id}, but the model's vocabulary has {size}")
        tokens[id], types[id] = text, int(kind)
    return tokens, types


def _pre_tokenizer(checkpoint: Checkpoint) -> str:
    """The name by which llama.cpp knows how this tokenizer splits a text.

    Raises:
        CheckpointError: If it knows none that gives the same ids.
    """
    tokenizer, path = checkpoint.tokenizer, str(checkpoint.folder / "tokenizer.json")
    model, pre = tokenizer["model"], tokenizer.get("pre_tokenizer") or {}
    parts = pre.get("pretokenizers", [pre])
    if model.get("type") != "BPE" or tokenizer.get("normalizer") or parts[-1].get("type") != "ByteLevel":
        raise CheckpointError(f"{path} is no byte-level BPE without a normaliser", hint=_CONVERTER)
    name = ""
    if len(parts) == 2 and parts[0].get("type") == "Split" and not parts[1].get("use_regex", True):
        name = PRE_TOKENIZERS.get(parts[0].get("pattern", {}).get("Regex", ""), "")
    if not name or parts[-1].get("add_prefix_space") or bool(model.get("ignore_merges")) != (name == "llama-bpe"):
        raise CheckpointError(f"{path} uses a pre-tokenizer that llama.cpp does not support", hint=_CONVERTER)
    return name


def _begins(checkpoint: Checkpoint) -> bool:
    """Whether the tokenizer puts its begin-of-sequence token before a text.

    Raises:
        CheckpointError: If it adds anything else.
    """
    post = checkpoint.tokenizer.get("post_processor") or {}
    steps = [step for step in post.get("processors", [post]) if step.get("type") == "TemplateProcessing"]
    pieces = [piece for step in steps for piece in step["single"]]
    added = [piece["SpecialToken"]["id"] for piece in pieces if "SpecialToken" in piece]
    begin = checkpoint.special("bos")
    is_begin = begin is not None and pieces and "SpecialToken" in pieces[0]
    if added and not (is_begin and [checkpoint.added[text]["id"] for text in added] == [begin]):
        raise CheckpointError(
            f"the tokenizer adds {added} to every text, a GGUF file can record only begin-of-sequence", hint=_CONVERTER
        )
    return bool(added)
