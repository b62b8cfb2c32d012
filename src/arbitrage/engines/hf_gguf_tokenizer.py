"""The tokenizer in a GGUF file as one of transformers, with the ids that llama.cpp gives."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from arbitrage.core.errors import CheckpointError

_CONTROL: Final = 3
_USER_DEFINED: Final = 4
"""Kinds of tokens that no merge produces; of ``llama_token_type``."""

_CONTRACTIONS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST: Final = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _split(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _gpt2() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _digits() -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


def _qwen2() -> Any:
    return _split(_CONTRACTIONS + r"\p{N}" + _REST)


def _llama3() -> Any:
    return _split(_CONTRACTIONS + r"\p{N}{1,3}" + _REST)


_LLAMA3: Final = ("llama-bpe", "llama3", "llama-v3", "falcon3")
"""Names whose words are taken from the vocabulary before any merge, and whose texts begin with begin-of-sequence."""
_SPLITS: Final = {
    **dict.fromkeys(_LLAMA3, _llama3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _qwen2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), _digits),
    **dict.fromkeys(("gpt-2", "phi-2"), _gpt2),
}
"""How texts are split before merging, by the names that llama.cpp knows it by."""
_ENDS: Final = frozenset(
    [
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>"),
        *("_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>"),
        *("<\uff5cend\u2581of\u2581sentence\uff5c>", "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>"),
        *("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>"),
    ]
)
"""Spellings of tokens that are control tokens and end an answer for llama.cpp, whatever the file says."""


def gguf_tokenizer(metadata: Mapping[str, Any], path: Path) -> PreTrainedTokenizerBase:
    """Build the tokenizer.

    transformers' own conversion adds tokens that the model does not have, and splits texts by GPT-2's rule where it
    does not know the file's.

    Args:
        metadata: Of the file.
        path: For errors, and as the tokenizer's name.

    Raises:
        CheckpointError: If it is of a kind that would give other ids here than on llama.cpp.
    """
    model, pre = (metadata.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    if model != "gpt2" or pre not in _SPLITS:
        raise CheckpointError(
            f"the tokenizer in {str(path)!r} is of the kind {model!r} with the splits {pre!r}; "
            f"read here are 'gpt2' with {', '.join(_SPLITS)}",
            hint='set engine = "llamacpp", which reads others',
        )
    tokens, kinds = _tokens(metadata)
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre in _LLAMA3))
    backend.pre_tokenizer, backend.decoder = _SPLITS[pre](), decoders.ByteLevel()
    backend.add_tokens(
        [
            AddedToken(token, special=kind != _USER_DEFINED or token in _ENDS, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (_CONTROL, _USER_DEFINED) or token in _ENDS
        ]
    )
    special = {f"{name}_token": tokens[id] for name in ("bos", "eos") if (id := _special(metadata, name)) is not None}
    if (id := _special(metadata, "padding")) is not None:
        special["pad_token"] = tokens[id]
    if "bos_token" in special and metadata.get("tokenizer.ggml.add_bos_token", pre in _LLAMA3):
        begin = special["bos_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A $B", special_tokens=[(begin, vocabulary[begin])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        name_or_path=str(path),
        chat_template=metadata.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        **special,
    )


def end_ids(metadata: Mapping[str, Any]) -> frozenset[int]:
    """Ids of all tokens that end an answer, as llama.cpp sees it: those that the file names, and some by spelling."""
    tokens, _ = _tokens(metadata)
    named = (_special(metadata, name) for name in ("eos", "eot", "eom"))
    spelt = (id for id, token in enumerate(tokens) if token in _ENDS)
    return frozenset(id for id in (*named, *spelt) if id is not None)


def _tokens(metadata: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    """Every id's text and kind."""
    tokens = metadata["tokenizer.ggml.tokens"]
    return tokens, metadata.get("tokenizer.ggml.token_type", [1] * len(tokens))


def _special(metadata: Mapping[str, Any], name: str) -> int | None:
    id: int | None = metadata.get(f"tokenizer.ggml.{name}_token_id")
    return id
