"""From one model's configuration to an engine or a scorer, loaded here or connected to its server."""

from pathlib import Path
from typing import TYPE_CHECKING

from arbitrage.core.ports import Engine
from arbitrage.pairs.model import ModelConfig
from arbitrage.scorers.families import FAMILIES
from arbitrage.scorers.format import InputFormat

if TYPE_CHECKING:
    from arbitrage.scorers.hf import HFScorer
    from arbitrage.scorers.hf_families import FamilyScorer
    from arbitrage.scorers.http import HTTPScorer
    from arbitrage.scorers.probe import ProbeScorer

    PRM = HFScorer | FamilyScorer | HTTPScorer
    Router = HFScorer | HTTPScorer | ProbeScorer


def load_engine(model: ModelConfig, *, keeps_hidden_state: bool = False) -> Engine:
    """Load a language model, or connect to its server.

    Raises:
        CheckpointError: If it is missing or broken.
        EngineError: If its server does not answer.
        ConfigError: If an option cannot be used, or its server serves another model.
    """
    return model.load_engine(keeps_hidden_state=keeps_hidden_state)


def load_prm(model: ModelConfig, name: str = "prm") -> "PRM":
    """Load a PRM: a public one by the name of its format, else one whose checkpoint holds its input format.

    Raises:
        CheckpointError: If it is missing, broken, or no PRM.
        EngineError: If its server does not answer.
        ConfigError: If its engine runs no such PRM, or its server serves another model.
    """
    if model.format:
        return model.load_family(FAMILIES[model.format], name)
    return model.load_classifier("prm", name)


def load_router_model(model: ModelConfig, name: str = "router") -> "Router":
    """Load a router: a probe, or a classifier that carries its input format.

    Raises:
        CheckpointError: If it is missing, broken, or no router.
        EngineError: If its server does not answer.
        ConfigError: If its engine runs no classifiers, or its server serves another model.
    """
    from arbitrage.scorers.probe import ProbeHead, ProbeScorer, is_probe

    folder = Path(model.path)
    if not is_probe(folder):
        return model.load_classifier("router", name)
    return ProbeScorer(ProbeHead.load(folder), name=name, input_format=InputFormat.load(folder))


def reads(router: object, inputs: str) -> bool:
    """Whether a router is a probe on these inputs."""
    from arbitrage.scorers.probe import ProbeScorer

    return isinstance(router, ProbeScorer) and router.head.inputs == inputs


def reads_target(router: object) -> bool:
    """Whether a router is a probe whose inputs the target computes."""
    from arbitrage.scorers.probe import ProbeScorer

    return isinstance(router, ProbeScorer) and router.head.inputs.reads_target
