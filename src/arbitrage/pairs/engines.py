"""The engines that a configuration file may name, each with the schema of its options.

A new engine is a file with a class that derives from :class:`arbitrage.pairs.model.ModelConfig`, and a row in
:data:`ENGINES`. A new kind of server derives from :class:`arbitrage.pairs.served.ServedModel`.
"""

from typing import Final

from arbitrage.engines.gguf_files import is_gguf
from arbitrage.pairs.hf import HFModel
from arbitrage.pairs.llamacpp import LlamaCppModel
from arbitrage.pairs.model import ModelConfig
from arbitrage.pairs.served import LlamaServerModel, ServedModel, SGLangModel, VLLMModel

ENGINES: Final[dict[str, type[ModelConfig]]] = {
    "hf": HFModel,
    "llamacpp": LlamaCppModel,
    "vllm": VLLMModel,
    "sglang": SGLangModel,
    "llama-server": LlamaServerModel,
}
"""Schema and loaders of each engine, by the name that configuration files use."""


def default_engine(path: str) -> str:
    """The engine of a model whose table names none: llamacpp for a GGUF file, hf for others."""
    return "llamacpp" if is_gguf(path) else "hf"


def servers() -> dict[str, type[ServedModel]]:
    """The engines that are servers."""
    return {name: schema for name, schema in ENGINES.items() if issubclass(schema, ServedModel)}
