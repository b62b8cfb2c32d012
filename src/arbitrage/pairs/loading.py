"""From one model's configuration to an engine or a scorer, loaded here or connected to its server."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from arbitrage.core.errors import ConfigError
from arbitrage.core.ports import Engine
from arbitrage.pairs.config import ModelConfig
from arbitrage.scorers.families import FAMILIES
from arbitrage.scorers.format import InputFormat

if TYPE_CHECKING:
    from arbitrage.engines.http import HTTPEngine
    from arbitrage.engines.http_client import HTTPClient
    from arbitrage.scorers.hf import HFScorer
    from arbitrage.scorers.hf_families import FamilyScorer
    from arbitrage.scorers.http import HTTPScorer, Layout
    from arbitrage.scorers.probe import ProbeScorer

    PRM = HFScorer | FamilyScorer | HTTPScorer
    Router = HFScorer | HTTPScorer | ProbeScorer


UNSERVED: Final = ("qwen-prm",)
"""PRM families whose head servers do not read at the last token: two layers of it, at a token of their own."""


def load_engine(model: ModelConfig, *, keeps_hidden_state: bool = False) -> Engine:
    """Load a language model, or connect to its server.

    Raises:
        CheckpointError: If it is missing or broken.
        EngineError: If its server does not answer.
        ConfigError: If its server serves another model.
    """
    if model.is_served:
        return _http_engine(model)
    options = {"name": model.name, "keeps_hidden_state": keeps_hidden_state, **_placed(model)}
    if model.engine == "llamacpp":
        from arbitrage.engines.llamacpp import LlamaEngine

        return LlamaEngine.load(model.path, context=model.context_length or 0, sequences=model.sequences, **options)
    from arbitrage.engines.hf import HFEngine

    return HFEngine.load(model.path, **options)


def load_prm(model: ModelConfig, name: str = "prm") -> "PRM":
    """Load a PRM: of a known family by its format, else as its checkpoint says.

    Raises:
        CheckpointError: If it is missing, broken, or no PRM.
        EngineError: If its server does not answer.
        ConfigError: If its server serves another model, or none can serve its family.
    """
    if not model.format:
        return _classifier(model, "prm", name)
    family = FAMILIES[model.format]
    if model.is_served:
        if model.format in UNSERVED:
            raise ConfigError(f"no server is asked for the head of a {model.format}", hint="run the PRM in process")
        from arbitrage.scorers.http import FamilyLayout

        return _http_scorer(model, name, FamilyLayout(_tokenizer(model), family))
    from arbitrage.scorers.hf_families import FamilyScorer

    return FamilyScorer.load(model.path, name=name, family=family, device=model.device, dtype=model.dtype)


def load_router_model(model: ModelConfig, name: str = "router") -> "Router":
    """Load a router: a probe, or a classifier that carries its input format.

    Raises:
        CheckpointError: If it is missing, broken, or no router.
        EngineError: If its server does not answer.
    """
    from arbitrage.scorers.probe import ProbeHead, ProbeScorer, is_probe

    folder = Path(model.path)
    if not is_probe(folder):
        return _classifier(model, "router", name)
    return ProbeScorer(ProbeHead.load(folder), name=name, input_format=InputFormat.load(folder))


def reads(router: "Router", inputs: str) -> bool:
    """Whether a router is a probe on these inputs."""
    from arbitrage.scorers.probe import ProbeScorer

    return isinstance(router, ProbeScorer) and router.head.inputs == inputs


def _classifier(model: ModelConfig, kind: str, name: str) -> "HFScorer | HTTPScorer":
    # Without a prompt of the pair's the checkpoint says how it reads a question.
    own = model.question_prompt if model.prompt or model.system or model.examples else None
    if model.is_served:
        from arbitrage.scorers.http import FormatLayout

        input_format = InputFormat.load(Path(model.path), kind)  # Before a tokenizer is looked for, perhaps on the hub.
        return _http_scorer(model, name, FormatLayout(_tokenizer(model), input_format, own))
    if model.engine != "hf":
        raise ConfigError(f"a {kind} runs on the engine 'hf' or a server, got {model.engine!r}")
    from arbitrage.scorers.hf import HFScorer

    return HFScorer.load(model.path, name=name, kind=kind, **{**_placed(model), "prompt": own})


def _placed(model: ModelConfig) -> dict[str, Any]:
    """Where and how a model is loaded, and how a question is put to it."""
    return {"device": model.device, "dtype": model.dtype, "prompt": model.question_prompt}


def _http_engine(model: ModelConfig) -> "HTTPEngine":
    from arbitrage.engines.dialects import DIALECTS
    from arbitrage.engines.http import HTTPEngine

    return HTTPEngine.connect(
        _client(model),
        DIALECTS[model.engine],
        _tokenizer(model),
        name=model.called,
        model=model.served_name,
        known_as=_names(model),
        prompt=model.question_prompt,
        context_length=model.context_length,
    )


def _http_scorer(model: ModelConfig, name: str, layout: "Layout") -> "HTTPScorer":
    from arbitrage.engines.dialects import DIALECTS
    from arbitrage.engines.http import served_model
    from arbitrage.scorers.http import HTTPScorer

    client, dialect = _client(model), DIALECTS[model.engine]
    served = dialect.served(client.get(dialect.about))
    known_as = served_model(served, model.served_name, model.url, _names(model))
    return HTTPScorer(client, dialect, layout, name=name, model=known_as)


def _names(model: ModelConfig) -> tuple[str, str]:
    """What a server may call a model where the configuration does not say."""
    return model.called, model.path


def _client(model: ModelConfig) -> "HTTPClient":
    from arbitrage.engines.http_client import HTTPClient, HTTPOptions

    return HTTPClient(model.url, HTTPOptions(timeout_s=model.timeout_s, api_key_env=model.api_key_env))


def _tokenizer(model: ModelConfig) -> Any:
    from arbitrage.engines.tokens import load_tokenizer

    return load_tokenizer(model.tokenizer or model.path)
