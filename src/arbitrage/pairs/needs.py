"""Check before the first problem that a pair's engines return what a method needs."""

from collections.abc import Mapping
from typing import Final

from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Source
from arbitrage.engines.tokens import TokenText
from arbitrage.engines.vocabulary import is_same_vocabulary
from arbitrage.pairs.config import PairConfig
from arbitrage.pairs.loading import reads
from arbitrage.policies.spec import MethodSpec
from arbitrage.policies.table import METHODS, Models, Need, Rule

OF_ENGINES: Final[Mapping[Need, tuple[Source, str]]] = {
    Need.LOGPROBS: (Source.DRAFT, "log-probabilities"),
    Need.FIRST_ENTROPY: (Source.DRAFT, "first-token entropy"),
    Need.HIDDEN_STATE: (Source.DRAFT, "hidden states"),
    Need.LIKELIHOOD: (Source.TARGET, "log-probabilities of a given step"),
}
"""The needs that engines meet: the role whose engine must return the values, and their name in messages."""

OF_PROBES: Final[Mapping[str, frozenset[Need]]] = {
    "confidence": frozenset({Need.LOGPROBS, Need.FIRST_ENTROPY}),
    "state": frozenset({Need.LOGPROBS, Need.FIRST_ENTROPY, Need.HIDDEN_STATE}),
    "likelihoods": frozenset({Need.LOGPROBS, Need.LIKELIHOOD}),
    "step": frozenset({Need.LOGPROBS, Need.FIRST_ENTROPY}),
    "step-likelihoods": frozenset({Need.LOGPROBS, Need.FIRST_ENTROPY, Need.LIKELIHOOD}),
}
"""By :class:`arbitrage.scorers.probe.Inputs`: what a probe needs of the engines."""


def check_needs(spec: MethodSpec, config: PairConfig, models: Models) -> None:
    """Check that draft and target return the values that a method reads, those of its probe router included.

    Raises:
        ConfigError: If an engine does not return them, or a rule needs one vocabulary and the two differ.
    """
    needs = spec.needs | _probe_needs(spec, models)
    for need, (source, values) in OF_ENGINES.items():
        if need in needs and need in (model := config.models[source]).lacks:
            raise ConfigError(
                f"the {source}'s engine ({model.engine}) returns no {values}; the policy {spec.name!r} needs them",
                hint=f"run the {source} in process, or choose another policy",
            )
    row = METHODS.get(spec.rule)
    if isinstance(row, Rule) and Need.ONE_VOCABULARY in row.needs:
        _check_vocabulary(spec, models)


def _check_vocabulary(spec: MethodSpec, models: Models) -> None:
    draft, target = models.pair.draft, models.pair.target
    tokenizers = [engine.tokenizer for engine in (draft, target) if isinstance(engine, TokenText)]
    if len(tokenizers) == len(Source) and not is_same_vocabulary(*tokenizers):
        raise ConfigError(
            f"the policy {spec.name!r} needs one vocabulary, those of {draft.name!r} and {target.name!r} differ",
            hint="choose router, which replaces whole steps",
        )


def _probe_needs(spec: MethodSpec, models: Models) -> frozenset[Need]:
    """What the method's router reads of the engines; nothing unless it is a probe."""
    router = models.routers.get(spec.router_role)
    if router is None:
        return frozenset()
    return next((needs for inputs, needs in OF_PROBES.items() if reads(router, inputs)), frozenset())
