"""A pair whose models live in the actors of a Ray cluster; this process hands out the work and writes the results.

An actor runs the coroutine that runs without Ray. A solution whose actor is lost is begun again on another one: it is
computed at least once, and recorded once, since only this process writes.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from arbitrage.core.errors import ConfigError, EngineError, MissingExtra, first_line
from arbitrage.core.trace import Trace
from arbitrage.core.turn import OnText, Setting
from arbitrage.core.types import Finish, Problem
from arbitrage.pairs.config import RayOptions
from arbitrage.pairs.loaded import LoadedPair
from arbitrage.policies.spec import MethodSpec

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ImportError as error:
    raise MissingExtra("ray") from error

LOCAL: Final = "local"
"""In place of an address: start a cluster on this machine, which ends with this process."""
MAX_TRIES: Final = 20
"""A solution is begun so many times at most."""
PAUSE_S: Final = 0.2
"""An actor that was lost is given no work for so long."""
CONNECT_S: Final = 10.0
START_S: Final = 600.0
"""Seconds in which the first actor must have loaded the pair."""

_log = logging.getLogger(__name__)


class Worker:
    """What runs in an actor: a pair, loaded at its first use, so that an actor that was lost loads it again."""

    def __init__(self, load: Callable[[], LoadedPair]) -> None:
        """Keep the way to load the pair."""
        self._load = load
        self._loaded: LoadedPair | None = None

    def pair(self) -> LoadedPair:
        """The loaded pair."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def description(self) -> tuple[str, dict[str, str]]:
        """The pair's name, and how its models' forward passes run."""
        return self.pair().name, self.pair().paths

    def resolved(self, method: MethodSpec) -> MethodSpec:
        """See :meth:`LoadedPair.resolved`."""
        return self.pair().resolved(method)

    def method_identity(self, method: MethodSpec) -> tuple[str, Any]:
        """The name of a method and its identity in run keys."""
        solver = self.pair().method(method)
        return solver.name, solver.identity

    def identity(self, roles: Sequence[str]) -> dict[str, Any]:
        """See :meth:`LoadedPair.identity`."""
        return self.pair().identity(roles)

    async def solve(self, method: MethodSpec, problem: Problem, setting: Setting) -> Trace:
        """Solve a problem."""
        return await self.pair().method(method).solve(problem, setting)


@dataclass(slots=True, eq=False)
class Actor:
    """An actor of the cluster and what is known of it."""

    handle: Any
    num_running: int = 0
    lost_s: float = -PAUSE_S
    """When it was last lost, on the monotonic clock."""

    @property
    def load(self) -> tuple[bool, int]:
        """Sorts those that were lost a moment ago last, others by the number of their solutions."""
        return time.monotonic() < self.lost_s + PAUSE_S, self.num_running


class RayPair:
    """Offers what an evaluation needs of a pair; see :class:`arbitrage.evaluation.running.plan.SolvingPair`."""

    auditor: None = None
    """The PRM stays in the actors."""

    def __init__(self, load: Callable[[], LoadedPair], options: RayOptions, address: str = LOCAL) -> None:
        """Connect to a cluster and create the actors.

        Args:
            load: Loads the pair in an actor; it is sent there by cloudpickle.
            options: Number of actors, and the resources of each.
            address: Of the cluster, such as ``auto`` or ``ray://HOST:10001``; :data:`LOCAL` starts one.

        Raises:
            ConfigError: If there is no cluster, an actor does not fit into it, or the pair cannot be loaded there.
        """
        own = {} if address == LOCAL else {"address": address}
        try:
            _check_answers(address)
            ray.init(**own, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (RayError, OSError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"no Ray cluster at {address!r}: {first_line(error)}", hint="'local' starts one on this machine"
            ) from error
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        num_fitting = sum(_num_fitting(resources, options.resources) for resources in nodes)
        num_needed = options.actors or max(1, num_fitting)
        if num_fitting < num_needed:
            ray.shutdown()
            sizes = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise ConfigError(
                f"{num_fitting} actors of {options.num_cpus:g} CPUs and {options.num_gpus:g} GPUs fit into the Ray "
                f"cluster ({sizes}), {num_needed} are needed",
                hint="change actors, num_cpus or num_gpus in the table [ray]",
            )
        worker = ray.remote(Worker).options(
            num_cpus=options.num_cpus, num_gpus=options.num_gpus, max_restarts=-1, max_concurrency=1000
        )
        self._actors = [Actor(worker.remote(load)) for _ in range(num_needed)]
        try:
            self.name, self.paths = self._ask("description")
        except BaseException:
            ray.shutdown()
            raise

    def __enter__(self) -> Self:
        """Use it as a context: the actors end with it."""
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def num_actors(self) -> int:
        """How many actors there are."""
        return len(self._actors)

    def close(self) -> None:
        """End the actors, and the cluster if it was started here."""
        for actor in self._actors:
            ray.kill(actor.handle)
        ray.shutdown()

    def resolved(self, method: MethodSpec) -> MethodSpec:
        """See :meth:`LoadedPair.resolved`."""
        resolved: MethodSpec = self._ask("resolved", method)
        return resolved

    def method(self, method: MethodSpec) -> "RemoteSolver":
        """A method that solves in the actors.

        Raises:
            ConfigError: See :meth:`LoadedPair.method`.
        """
        name, identity = self._ask("method_identity", method)
        return RemoteSolver(self, method, name, method.threshold, identity)

    def identity(self, roles: Sequence[str]) -> Mapping[str, Any]:
        """See :meth:`LoadedPair.identity`; read on the first actor's machine."""
        identity: dict[str, Any] = self._ask("identity", list(roles))
        return identity

    def _ask(self, name: str, *arguments: object) -> Any:
        try:
            return ray.get(getattr(self._actors[0].handle, name).remote(*arguments), timeout=START_S)
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise ConfigError(f"an actor of the Ray cluster did not load the pair: {first_line(error)}") from error

    async def solve(self, method: MethodSpec, problem: Problem, setting: Setting) -> Trace:
        """Solve on the actor with the least work; on another one if it is lost.

        Raises:
            EngineError: If one actor after the other is lost.
        """
        reason = ""
        for _ in range(MAX_TRIES):
            actor = min(self._actors, key=lambda one: one.load)
            actor.num_running += 1
            work = actor.handle.solve.remote(method, problem, setting)
            try:
                trace: Trace = await work
                return trace
            except RayTaskError as error:
                raise error.cause from None
            except RayError as error:
                _log.warning("an actor was lost in problem %r: it is solved again", problem.id)
                reason, actor.lost_s = first_line(error), time.monotonic()
            except asyncio.CancelledError:
                ray.cancel(work)
                raise
            finally:
                actor.num_running -= 1
            await asyncio.sleep(PAUSE_S)
        raise EngineError(
            f"{MAX_TRIES} actors were lost one after the other, last: {reason}",
            hint="Ray's logs on the actors' nodes have the cause: /tmp/ray/session_latest/logs",
        )


def _num_fitting(resources: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """How many actors a node holds; one where an actor needs nothing."""
    return int(min((resources.get(name, 0.0) / need for name, need in needs.items() if need), default=1.0))


def _check_answers(address: str) -> None:
    """Open a connection to ``HOST:PORT``: Ray itself waits for minutes where nothing listens.

    Raises:
        OSError: If it cannot be opened.
    """
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()


@dataclass(frozen=True, slots=True)
class RemoteSolver:
    """A method of a pair in actors; see :class:`arbitrage.core.policy.Solver`."""

    pair: RayPair
    spec: MethodSpec
    name: str
    threshold: float | None
    identity: Any

    async def solve(
        self,
        problem: Problem,
        setting: Setting,
        *,
        watch: Callable[[Trace], None] = lambda trace: None,
        on_text: OnText | None = None,
    ) -> Trace:
        """Solve in an actor; ``watch`` gets the final trace, and ``on_text`` nothing."""
        try:
            trace = await self.pair.solve(self.spec, problem, setting)
        except EngineError as error:
            trace = Trace(problem=problem, policy=self.name, finish=Finish.FAILED, error=str(error))
        watch(trace)
        return trace
