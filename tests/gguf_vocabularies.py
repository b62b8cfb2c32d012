"""GGUF files that hold a tokenizer and a chat template, and nothing else."""

import json
from pathlib import Path
from typing import Any

PRE_TOKENIZERS = {"qwen2.5": "qwen2", "llama-3": "llama-bpe", "smollm2": "smollm"}
"""Byte-level tokenizers by the name that llama.cpp knows them by; Gemma's is of the kind of SentencePiece."""


def write(name: str, tokenizer: Any, path: Path) -> None:
    """Write the tokenizer of :data:`chat_models.MODELS` with this name."""
    import gguf

    record = json.loads(tokenizer.backend_tokenizer.to_str())
    added = {token["content"]: token for token in record["added_tokens"]}
    tokens = [tokenizer.convert_ids_to_tokens(id) for id in range(len(tokenizer))]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    is_bytes = name in PRE_TOKENIZERS
    writer.add_tokenizer_model("gpt2" if is_bytes else "llama")
    writer.add_tokenizer_pre(PRE_TOKENIZERS.get(name, "default"))
    # As llama.cpp's converter does it: spaces of tokens that are read before all others are spaces.
    writer.add_token_list([token.replace("\u2581", " ") if token in added else token for token in tokens])
    writer.add_token_types([int(_kind(token, added, gguf.TokenType, is_bytes)) for token in tokens])
    if is_bytes:
        writer.add_token_merges([" ".join(merge) for merge in record["model"]["merges"]])
    else:
        writer.add_token_scores([-float(id) for id in range(len(tokens))])
        writer.add_add_space_prefix(False)
        writer.add_unk_token_id(tokenizer.unk_token_id)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(tokenizer.encode("x")[0] == tokenizer.bos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def _kind(token: str, added: dict[str, Any], kinds: Any, is_bytes: bool) -> Any:
    if token == "<unk>":
        return kinds.UNKNOWN
    if token in added:
        return kinds.CONTROL if added[token]["special"] else kinds.USER_DEFINED
    return kinds.BYTE if not is_bytes and token.startswith("<0x") else kinds.NORMAL


def load(name: str, tokenizer: Any, folder: Path) -> Any:
    """The same tokenizer by llama.cpp."""
    import llama_cpp

    from arbitrage.engines import llamacpp_native

    path = folder / f"{name}.gguf"
    write(name, tokenizer, path)
    defaults = llama_cpp.llama_model_default_params()
    defaults.vocab_only = True
    original, llama_cpp.llama_model_default_params = llama_cpp.llama_model_default_params, lambda: defaults
    try:
        model = llamacpp_native.LlamaModel(path)
    finally:
        llama_cpp.llama_model_default_params = original
    return llamacpp_native.GGUFTokenizer(model, name)
