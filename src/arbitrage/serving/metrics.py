"""What the server counts: for Prometheus, and for the page."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from arbitrage.core.errors import MissingExtra
from arbitrage.core.types import Source, Step
from arbitrage.evaluation.running.solutions import Fates

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
except ImportError as error:
    raise MissingExtra("serve") from error

WINDOW_S: Final = 10.0
"""Seconds that rates look back."""
KEPT_STEPS: Final = 2000
"""Steps that shares look back at most."""
_SECONDS: Final = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A kept step, as the rates need it."""

    at: float
    source: Source
    tokens: Fates

    @property
    def num_kept(self) -> int:
        """Tokens of the step."""
        return self.tokens.draft_accepted + self.tokens.target_kept


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start at zero."""
        self._clock = clock
        self._recent: deque[_Kept] = deque(maxlen=KEPT_STEPS)
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "arbitrage_requests", "Requests by path and outcome.", ["path", "outcome"], registry=registry
        )
        self.steps = Counter("arbitrage_steps", "Kept steps by author.", ["author"], registry=registry)
        self.tokens = Counter("arbitrage_tokens", "Kept tokens by author.", ["author"], registry=registry)
        self.wasted = Counter("arbitrage_rejected_tokens", "Tokens of the draft that were not kept.", registry=registry)
        self.model_seconds = Counter(
            "arbitrage_model_seconds", "Seconds inside calls by model.", ["model"], registry=registry
        )
        self.request_seconds = Histogram(
            "arbitrage_request_seconds", "Seconds of a request.", registry=registry, buckets=_SECONDS
        )
        self.first_text_seconds = Histogram(
            "arbitrage_first_text_seconds",
            "Seconds from a request to the first text of its answer.",
            registry=registry,
            buckets=_SECONDS,
        )
        self.queue_seconds = Histogram(
            "arbitrage_queue_seconds",
            "Seconds that a solution waited for its start.",
            registry=registry,
            buckets=_SECONDS,
        )
        self.running = Gauge("arbitrage_running", "Solutions in flight.", registry=registry)
        self.waiting = Gauge("arbitrage_waiting", "Solutions that wait.", registry=registry)

    def step(self, step: Step) -> None:
        """Count a decided step."""
        kept = step.candidate
        self.steps.labels(kept.source.value).inc()
        fates = Fates.of(step)
        for author, count in ((Source.DRAFT, fates.draft_accepted), (Source.TARGET, fates.target_kept)):
            self.tokens.labels(author.value).inc(count)
        self.wasted.inc(fates.draft_discarded)
        self._recent.append(_Kept(self._clock(), kept.source, fates))
        for made in step.candidates:
            self.model_seconds.labels(made.source.value).inc(made.cost.seconds)
        for score in step.scores:
            self.model_seconds.labels(score.scorer).inc(score.cost.seconds)

    def text(self) -> bytes:
        """The form that Prometheus reads."""
        return generate_latest(self.registry)

    def rates(self) -> dict[str, Any]:
        """Acceptance and shares over the latest steps, and tokens a second over the latest seconds."""
        recent, now = list(self._recent), self._clock()
        num_tokens = sum(one.num_kept for one in recent)
        by_target = sum(one.tokens.target_kept for one in recent)
        lately = sum(one.num_kept for one in recent if one.at > now - WINDOW_S)
        return {
            "num_steps": len(recent),
            "acceptance": sum(one.source is Source.DRAFT for one in recent) / len(recent) if recent else None,
            "target_share": by_target / num_tokens if num_tokens else None,
            "tokens_per_s": lately / WINDOW_S,
            "window_s": WINDOW_S,
        }
