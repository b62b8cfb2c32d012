"""From names to objects: the one place that knows every class."""

import asyncio
import warnings
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from arbitrage.config import ModelConfig, PairConfig, read_pair
from arbitrage.core.errors import ConfigError
from arbitrage.core.ports import Engine, Policy, Scorer
from arbitrage.core.solve import solve
from arbitrage.core.trace import Trace
from arbitrage.core.turn import Pair, Setting
from arbitrage.core.types import Problem, Source
from arbitrage.engines.prompt import ChatPrompt, PlainPrompt
from arbitrage.evaluation.datasets import read_jsonl, stratified
from arbitrage.evaluation.run import Entry
from arbitrage.policies import RSD, Audited, DraftOnly, Oracle, RandomEscalation, RouterPolicy, TargetOnly
from arbitrage.runtime.store import fingerprint
from arbitrage.scorers.format import InputFormat
from arbitrage.scorers.likelihood import LikelihoodScorer
from arbitrage.tiny import MARKS as TINY_MARKS
from arbitrage.tiny import WEIGHTS
from arbitrage.tiny import dataset as tiny_dataset

if TYPE_CHECKING:
    from arbitrage.scorers.hf import HFScorer
    from arbitrage.scorers.probe import ProbeScorer

TINY: Final = "tiny"
MARKS: Final = {"draft": "Model 0: ", "target": "Model 1: "}
"""History annotation of the paper: who wrote a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPair:
    """A draft and a target ready to solve, with the scorers that some policies need."""

    name: str
    pair: Pair
    prm: Scorer | None = None
    routers: "Mapping[str, HFScorer | ProbeScorer]" = field(default_factory=dict)
    """By the policy that uses it: ``router``, and ``router:NAME`` for further ones."""
    auditor: Scorer | None = None
    """The PRM under another name, to measure what a policy's escalations gain."""
    config: PairConfig

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Of the router, by name of their budget; from its checkpoint. ``default`` is used where none is given."""
        return self.routers["router"].input_format.thresholds if "router" in self.routers else {}

    def policy(self, name: str, threshold: float | None = None) -> Policy:
        """Build a policy on this pair.

        Args:
            name: A key of :data:`POLICIES`, or ``router:NAME`` for a further router of the pair.
            threshold: Its threshold in [0, 1]; None for the default. Ignored by ``draft`` and ``target``.

        Raises:
            ConfigError: If the name is unknown, the threshold out of range, or the pair lacks the scorer.
        """
        if name.startswith("router:"):
            return self._router_policy(name, threshold)
        if name not in POLICIES:
            raise ConfigError(f"unknown policy {name!r}", hint=f"choose from {', '.join(POLICIES)}")
        return POLICIES[name](self, threshold)

    @property
    def policies(self) -> list[str]:
        """Every policy by name, the further routers' included."""
        return [*POLICIES, *(name for name in self.routers if name not in POLICIES)]

    def _router_policy(self, name: str, threshold: float | None) -> Policy:
        router = self.routers.get(name)
        if router is None:
            raise self._lacks(name.replace(":", "s."))
        return RouterPolicy(router, _or(threshold, router.input_format.thresholds.get("default", 0.5)), name)

    def audited(self, policy: Policy) -> Policy:
        """The policy with every candidate scored by the auditor, where there is one; its latency is the same.

        A policy that never has two candidates is left alone: there is nothing to compare.
        """
        if self.auditor is None or isinstance(policy, DraftOnly | TargetOnly):
            return policy
        return Audited(policy, self.auditor)

    def solve(
        self,
        question: str,
        *,
        policy: str | Policy = "router",
        threshold: float | None = None,
        setting: Setting | None = None,
        watch: Callable[[Trace], None] = lambda trace: None,
    ) -> Trace:
        """Solve one question; blocks until it is done.

        Args:
            question: The problem in words.
            policy: A key of :data:`POLICIES`, or a policy object.
            threshold: See :meth:`policy`; not used with an object.
            setting: Limits, sampling and seed; greedy by default.
            watch: Called with the trace so far after every step.

        Raises:
            ProblemError: If the question is empty.
            ConfigError: See :meth:`policy`.
        """
        problem = Problem(id="question", question=question)
        rule = self.policy(policy, threshold) if isinstance(policy, str) else policy
        return _run(solve(problem, self.pair, rule, setting, watch=watch))

    def identity(self, roles: Sequence[str]) -> dict[str, Any]:
        """What tells these models from others, for a run's key; reads a part of each weights file."""
        models = {role: model for role in roles if (model := self.config.model(role))}
        return {role: {**asdict(model), "weights": fingerprint(Path(model.path))} for role, model in models.items()}

    def threshold_for(self, budget: str) -> float:
        """The threshold that ``arbitrage calibrate`` chose for a budget.

        Args:
            budget: Its name, such as ``target-tokens<=0.3``.

        Raises:
            ConfigError: If the pair has no router, or its checkpoint no such budget.
        """
        self.needs(self.routers.get("router"), "router")
        name = budget.replace(" ", "")
        if name not in self.thresholds:
            known = ", ".join(self.thresholds) or "none"
            raise ConfigError(
                f"the router of {self.name!r} is not calibrated for {name!r}, it knows {known}",
                hint="run `arbitrage calibrate` for this budget",
            )
        return self.thresholds[name]

    def needs(self, scorer: Scorer | None, role: str) -> Scorer:
        """The scorer of a role.

        Raises:
            ConfigError: If the pair has none.
        """
        if scorer is None:
            raise self._lacks(role)
        return scorer

    def _lacks(self, role: str) -> ConfigError:
        return ConfigError(f"the pair {self.name!r} has no {role}", hint=f"add a table [{role}] to its configuration")


POLICIES: Final[dict[str, Callable[[LoadedPair, float | None], Policy]]] = {
    "draft": lambda pair, threshold: DraftOnly(),
    "target": lambda pair, threshold: TargetOnly(),
    "random": lambda pair, threshold: RandomEscalation(_or(threshold, 0.5)),
    "rsd": lambda pair, threshold: RSD(pair.needs(pair.prm, "prm"), _or(threshold, 0.7)),
    "oracle": lambda pair, threshold: Oracle(pair.needs(pair.prm, "prm"), _or(threshold, 0.0)),
    "likelihood": lambda pair, threshold: RouterPolicy(LikelihoodScorer(), _or(threshold, 0.25), "likelihood"),
    "router": lambda pair, threshold: pair._router_policy("router", threshold),
}
FIXED: Final = ("draft", "target")
"""Policies without a threshold."""


def _or(threshold: float | None, default: float) -> float:
    return default if threshold is None else threshold


def _run(work: Coroutine[Any, Any, Trace]) -> Trace:
    """Run to completion, also inside a notebook, whose thread has a running loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(asyncio.run, work).result()


def load(name: str | Path, *, keeps_hidden_state: bool = False) -> LoadedPair:
    """Load a pair: ``tiny`` for the shipped one, or a TOML file for models of your own.

    Args:
        name: Which.
        keeps_hidden_state: Whether the draft's steps carry its last hidden state, as a probe router needs.

    Raises:
        ConfigError: If the file cannot be used.
        CheckpointError: If a model is missing or broken.
        MissingExtra: If torch and transformers are not installed.
    """
    return _assemble(pair_config(name), keeps_hidden_state)


def pair_config(name: str | Path) -> PairConfig:
    """The configuration of a pair by name, nothing loaded.

    Raises:
        ConfigError: If the file cannot be used.
    """
    return _tiny_config() if str(name) == TINY else read_pair(Path(name))


def router_format(name: str | Path, marks: Mapping[str, str] | None = None) -> tuple[InputFormat, str]:
    """How a new router of a pair reads a solution, and the PRM that it would start from.

    Args:
        name: The pair.
        marks: Words before a step, by author; empty for none, None for the pair's own.

    Raises:
        ConfigError: If the pair has no PRM.
    """
    config = pair_config(name)
    if config.prm is None:
        raise ConfigError(f"the pair {config.name!r} has no prm", hint="add a table [prm] to its configuration")
    own = TINY_MARKS if config.name == TINY else MARKS
    input_format = InputFormat(
        kind="router",
        system=config.prm.system,
        prompt=config.prm.prompt,
        annotation=own if marks is None else marks,
        trained_for={"draft": config.draft.called, "target": config.target.called},
    )
    return input_format, config.prm.path


def _tiny_config() -> PairConfig:
    draft, target, prm, router, probe = (
        ModelConfig(path=str(WEIGHTS / role), name=f"tiny-{role}")
        for role in ("draft", "target", "prm", "router", "probe")
    )
    return PairConfig(name=TINY, draft=draft, target=target, prm=prm, router=probe, routers={"model": router})


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
    """Load a router to judge logged steps, and the pair's models only if it asks them.

    Raises:
        CheckpointError: If it is missing, broken, or no router.
    """
    router = _router(ModelConfig(path=str(folder), device=device), "router")
    return router, load_engines(pair) if _reads(router, "likelihoods") else None


def load_engines(name: str | Path) -> Pair:
    """Draft and target of a pair, without scorers.

    Raises:
        ConfigError: If the pair's configuration cannot be used.
        CheckpointError: If a model is missing or broken.
    """
    config = pair_config(name)
    return Pair(draft=_engine(config.draft), target=_engine(config.target))


def _router(model: ModelConfig, name: str) -> "HFScorer | ProbeScorer":
    from arbitrage.scorers.probe import ProbeHead, ProbeScorer, is_probe

    folder = Path(model.path)
    if not is_probe(folder):
        return _hf_scorer(model, "router", name)
    return ProbeScorer(ProbeHead.load(folder), name=name, input_format=InputFormat.load(folder))


def _reads(router: "HFScorer | ProbeScorer", inputs: str) -> bool:
    """Whether a router is a probe on these inputs."""
    from arbitrage.scorers.probe import ProbeScorer

    return isinstance(router, ProbeScorer) and router.head.inputs == inputs


def _hf_scorer(model: ModelConfig, kind: str, name: str) -> "HFScorer":
    if model.engine != "hf":
        raise ConfigError(f"a {kind} runs on the engine 'hf', got {model.engine!r}", hint="name a checkpoint folder")
    from arbitrage.scorers.hf import HFScorer

    options = _placed(model)
    if not (model.prompt or model.system):
        options["prompt"] = None  # Then the checkpoint says how it reads a question.
    return HFScorer.load(model.path, name=name, kind=kind, **options)


def _placed(model: ModelConfig) -> dict[str, Any]:
    """Where and how a model is loaded, and how a question is put to it."""
    prompt = PlainPrompt(model.prompt) if model.prompt else ChatPrompt(model.system)
    return {"device": model.device, "dtype": model.dtype, "prompt": prompt}


def _hf_engine(model: ModelConfig, options: dict[str, Any]) -> Engine:
    from arbitrage.engines.hf import HFEngine

    return HFEngine.load(model.path, **options)


def _llamacpp_engine(model: ModelConfig, options: dict[str, Any]) -> Engine:
    from arbitrage.engines.llamacpp import LlamaEngine

    return LlamaEngine.load(model.path, context=model.context, sequences=model.sequences, **options)


ENGINES: Final[dict[str, Callable[[ModelConfig, dict[str, Any]], Engine]]] = {
    "hf": _hf_engine,
    "llamacpp": _llamacpp_engine,
}
"""Loads a model by the name of its engine; the options are those that every engine takes."""


def _engine(model: ModelConfig, *, keeps_hidden_state: bool = False) -> Engine:
    options = {"name": model.name, "keeps_hidden_state": keeps_hidden_state, **_placed(model)}
    return ENGINES[model.engine](model, options)


def _assemble(config: PairConfig, keeps_hidden_state: bool) -> LoadedPair:
    named = {"router": config.router, **{f"router:{name}": model for name, model in config.routers.items()}}
    routers = {name: _router(model, name) for name, model in named.items() if model}
    keeps_hidden_state = keeps_hidden_state or any(_reads(router, "state") for router in routers.values())
    pair = Pair(draft=_engine(config.draft, keeps_hidden_state=keeps_hidden_state), target=_engine(config.target))
    prm = _hf_scorer(config.prm, "prm", "prm") if config.prm else None
    for router in routers.values():
        _warn_of_another_pair(router.input_format.trained_for, pair)
    return LoadedPair(
        name=config.name,
        pair=pair,
        prm=prm,
        routers=routers,
        auditor=prm.renamed("audit") if prm else None,
        config=config,
    )


def _warn_of_another_pair(trained_for: Mapping[str, str], pair: Pair) -> None:
    for source, name in trained_for.items():
        if name != (actual := pair.engine(Source(source)).name):
            warnings.warn(f"the router was trained for the {source} {name!r}, not {actual!r}", stacklevel=3)


def entries(policies: Sequence[str], thresholds: Sequence[float]) -> list[Entry]:
    """All rows of a comparison: each policy at each threshold, the fixed ones once.

    Args:
        policies: Names of policies; ``NAME@0.2`` is that one at that threshold only.
        thresholds: Of all others; none for the defaults.

    Raises:
        ConfigError: If what follows an @ is no number.
    """
    made: list[Entry] = []
    for policy in policies:
        name, has_own, own = policy.partition("@")
        if has_own:
            made.append(Entry(name, parse_threshold(own)))
        else:
            made += [
                Entry(name, threshold) for threshold in ([None] if name in FIXED or not thresholds else thresholds)
            ]
    return made


def parse_threshold(text: str) -> float:
    """Read a threshold.

    Raises:
        ConfigError: If it is no number.
    """
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"threshold must be a number in [0, 1], got {text!r}") from error


def problems(dataset: str, limit: int | None = None, *, stratify: str = "", seed: int = 0) -> list[Problem]:
    """Problems by name: ``tiny:SPLIT`` or ``tiny:SPLIT:SEED`` for the tiny world, else a JSONL file.

    Args:
        dataset: The name.
        limit: Only the first so many.
        stratify: A metadata field; the first so many then hold its values in equal shares.
        seed: Of that choice.

    Raises:
        ConfigError: If there is no such split, file or field, or it holds no problems.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, got {limit}")
    kind, _, split = dataset.partition(":")
    if kind == TINY:  # Endless, and balanced by itself.
        return _tiny_problems(split, limit or tiny_dataset.DEFAULT_COUNT)
    if stratify:
        return stratified(read_jsonl(Path(dataset)), stratify, seed=seed)[:limit]
    return read_jsonl(Path(dataset), limit)


def _tiny_problems(name: str, count: int) -> list[Problem]:
    split, _, seed = name.partition(":")
    if seed and not seed.isdecimal():
        raise ConfigError(f"the seed in tiny:{name} must be a number, got {seed!r}")
    return tiny_dataset.problems(split or "test", count, seed=int(seed or 0))
