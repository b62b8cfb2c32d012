"""Pairs by name: shipped pairs and users' files, the format of their routers, and their models without policies."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from arbitrage.core.errors import ConfigError
from arbitrage.core.ports import Scorer
from arbitrage.core.turn import Pair
from arbitrage.pairs.config import PairConfig, read_pair
from arbitrage.pairs.hf import HFModel
from arbitrage.pairs.loading import load_engine, load_router_model, reads_target
from arbitrage.scorers.format import InputFormat

SHIPPED: Final = Path(__file__).parent / "shipped"
"""Folder of the pairs that ship with the package: one TOML file each."""
TINY: Final = "tiny"
"""The default pair of commands."""


def shipped_pairs() -> list[str]:
    """Names of the pairs that ship, in alphabetical order."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def pair_config(name: str | Path) -> PairConfig:
    """The configuration of a pair; no model is loaded.

    Args:
        name: One of :func:`shipped_pairs`, or a TOML file.

    Raises:
        ConfigError: If there is no such pair, or the file cannot be used.
    """
    names = shipped_pairs()
    if str(name) in names:
        return read_pair(SHIPPED / f"{name}.toml", is_shipped=True)
    if not Path(name).is_file():
        near = difflib.get_close_matches(str(name), names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"name a TOML file, or a shipped pair: {', '.join(names)}"
        raise ConfigError(f"no configuration file at {str(name)!r}", hint=hint)
    return read_pair(Path(name))


def router_format(name: str | Path, marks: Mapping[str, str] | None = None) -> InputFormat:
    """How a new router of a pair reads a solution: the question as the PRM gets it, or the target without a PRM.

    Args:
        name: The pair.
        marks: Words before a step, by author; empty for none, None for the pair's own.

    Raises:
        ConfigError: If the pair cannot be used.
    """
    config = pair_config(name)
    reader = config.prm or config.target
    return InputFormat(
        kind="router",
        system=reader.system,
        prompt=reader.prompt,
        annotation=config.marks if marks is None else marks,
        trained_for={"draft": config.draft.display_name, "target": config.target.display_name},
    )


def router_start(name: str | Path) -> str:
    """The checkpoint from which a new router of a pair starts unless another is chosen: its PRM.

    Raises:
        ConfigError: If the pair has no PRM.
    """
    config = pair_config(name)
    if config.prm is None:
        raise ConfigError(
            f"the pair {config.name!r} has no PRM from which the router's training could start",
            hint="name a checkpoint with --start, or train a router that needs none with `arbitrage train-probe`",
        )
    return config.prm.path


def router_folder(name: str | Path, folder: str = "") -> Path:
    """A router's checkpoint folder, by default the one of a pair.

    Raises:
        ConfigError: If the pair has none.
    """
    if folder:
        return Path(folder)
    config = pair_config(name)
    if config.router is None:
        raise ConfigError(f"the pair {config.name!r} has no router", hint="name a router's folder")
    return Path(config.router.path)


def load_router(folder: Path, *, pair: str | Path = TINY, device: str = "cpu") -> tuple[Scorer, Pair | None]:
    """Load a router to score logged steps; draft and target are loaded only if the router reads them.

    Raises:
        CheckpointError: If it is missing, broken, or no router.
    """
    router = load_router_model(HFModel(path=str(folder), device=device))
    return router, load_engines(pair) if reads_target(router) else None


def load_engines(name: str | Path) -> Pair:
    """Draft and target of a pair, without scorers.

    Raises:
        ConfigError: If the pair's configuration cannot be used.
        CheckpointError: If a model is missing or broken.
    """
    config = pair_config(name)
    return Pair(draft=load_engine(config.draft), target=load_engine(config.target))
