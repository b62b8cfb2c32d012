"""Several servers of one model: a session stays with the one whose cache holds its prefix, until that one fails."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from arbitrage.core.errors import ConfigError, EngineError, EngineTimeout
from arbitrage.engines.connections import with_retries
from arbitrage.engines.http_client import HTTPClient

RECHECK_S: Final = 5.0
"""A replica that failed is asked again after so many seconds."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Replica:
    """One server and what is known of it."""

    client: HTTPClient
    is_up: bool = True
    checked_s: float = 0.0
    """When it was last asked, on the group's clock."""
    num_sessions: int = 0


class Replicas:
    """Clients of servers of the same model.

    A session is opened at the replica with the fewest sessions. When a request fails there and the replica does not
    answer its health check either, the session goes on at another one, which computes the prefix anew. A replica that
    answers again gets new sessions.
    """

    def __init__(
        self, clients: Sequence[HTTPClient], models_path: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Wrap clients.

        Args:
            clients: One for each server, with the same options.
            models_path: Path that a server answers when it is well.
            clock: Returns seconds.

        Raises:
            ConfigError: If there are none, or two have the same address.
        """
        urls = [client.url for client in clients]
        if not urls or len(set(urls)) < len(urls):
            raise ConfigError(f"a model needs at least one server, each at an address of its own, got {urls}")
        self.replicas = [Replica(client) for client in clients]
        self._models_path, self._clock = models_path, clock

    @property
    def url(self) -> str:
        """All addresses, for messages."""
        return ", ".join(replica.client.url for replica in self.replicas)

    def get_all(self, path: str) -> list[Any]:
        """Ask every replica and block; those that cannot be reached are left out and asked again later.

        Raises:
            ConfigError: If the key or a proxy cannot be used.
            EngineError: If none can be reached, or one refuses.
        """
        answers = []
        for replica in self.replicas:
            try:
                answers.append(replica.client.get(path))
            except EngineError as error:
                if not error.is_retryable:
                    raise
                self._note(replica, is_up=False)
                failure = error
        if not answers:
            raise failure
        return answers

    async def open(self) -> "StickyConnection":
        """Open a session's connection to the replica with the least load."""
        await self.recheck()
        return StickyConnection(self, self.least_loaded() or min(self.replicas, key=_load))

    def least_loaded(self, but: Replica | None = None) -> Replica | None:
        """The replica that is up and has the fewest sessions; None if no other than ``but`` is up."""
        return min((one for one in self.replicas if one.is_up and one is not but), key=_load, default=None)

    async def check(self, replica: Replica) -> None:
        """Ask a replica whether it is well."""
        self._note(replica, is_up=await replica.client.is_well(self._models_path))

    async def recheck(self) -> None:
        """Ask the replicas that failed some time ago."""
        due = [one for one in self.replicas if not one.is_up and self._clock() >= one.checked_s + RECHECK_S]
        for replica in due:
            replica.checked_s = self._clock()  # Sessions that open meanwhile do not ask too.
        await asyncio.gather(*map(self.check, due))

    def _note(self, replica: Replica, *, is_up: bool) -> None:
        if is_up is not replica.is_up:
            _log.warning("%s %s", replica.client.url, "answers again" if is_up else "does not answer: it is left")
        replica.is_up, replica.checked_s = is_up, self._clock()


def _load(replica: Replica) -> int:
    return replica.num_sessions


class StickyConnection:
    """One session's way to its replica."""

    def __init__(self, group: Replicas, replica: Replica) -> None:
        """Open a connection."""
        self._group = group
        self._enter(replica)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send JSON and return the JSON answer, of another replica where this one fails; see :class:`HTTPClient`.

        Raises:
            EngineTimeout: If every attempt took too long.
            EngineError: If the servers refuse, cannot be reached, or an answer is not JSON.
        """
        used = self.replica

        async def send() -> Any:
            nonlocal used
            used = self.replica
            return await used.client.post_once(path, body)

        return await with_retries(
            send, used.client.options.num_retries, lambda attempt, error: self._recover(used, attempt, error)
        )

    async def _recover(self, failed: Replica, attempt: int, error: EngineError) -> None:
        """Before a request is repeated: move to another replica, or wait."""
        await self._group.check(failed)
        await self._group.recheck()
        if self.replica is not failed:  # Another request of this session has moved it.
            return
        other = self._group.least_loaded(but=failed)
        # A server that is well and busy keeps the session; one that does not write in time does not.
        if other is not None and (not failed.is_up or isinstance(error, EngineTimeout)):
            self._enter(other)
            await _leave(failed)
        else:
            await failed.client.pause(attempt, error)

    def _enter(self, replica: Replica) -> None:
        replica.client.acquire()
        replica.num_sessions += 1
        self.replica = replica

    async def release(self) -> None:
        """Leave the replica."""
        await _leave(self.replica)


async def _leave(replica: Replica) -> None:
    """Count a session less; the last one closes the connections."""
    replica.num_sessions -= 1
    await replica.client.release()
