"""How many solutions run, how many wait, and who comes next."""

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from arbitrage.core.errors import ConfigError
from arbitrage.serving.errors import too_busy

_WEIGHT = 0.1
"""Of the latest solution in the mean duration."""


@dataclass(slots=True, eq=False)
class Ticket:
    """The right to run one solution, now or later."""

    client: str
    user: str
    granted: asyncio.Event = field(default_factory=asyncio.Event)
    is_released: bool = False


class FairQueue:
    """Tickets that wait: clients take turns, and within a client its users; each user's come in order."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, OrderedDict[str, deque[Ticket]]] = OrderedDict()
        self._num = 0

    def __len__(self) -> int:
        return self._num

    def push(self, ticket: Ticket) -> None:
        """Add a ticket at the end of its user's."""
        users = self._clients.setdefault(ticket.client, OrderedDict())
        users.setdefault(ticket.user, deque()).append(ticket)
        self._num += 1

    def pop(self) -> Ticket:
        """Take the next ticket; its user and its client then come last."""
        client, users = self._clients.popitem(last=False)
        user, tickets = users.popitem(last=False)
        ticket = tickets.popleft()
        self._num -= 1
        if tickets:
            users[user] = tickets
        if users:
            self._clients[client] = users
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """Take out a ticket that waits no longer."""
        users = self._clients[ticket.client]
        users[ticket.user].remove(ticket)
        self._num -= 1
        if not users[ticket.user]:
            del users[ticket.user]
        if not users:
            del self._clients[ticket.client]


class Admission:
    """Bounds the solutions in flight and those that wait."""

    def __init__(self, max_in_flight: int, max_queue: int) -> None:
        """Start empty.

        Args:
            max_in_flight: Solutions at a time.
            max_queue: Solutions that may wait.

        Raises:
            ConfigError: If a bound is too small.
        """
        if max_in_flight < 1:
            raise ConfigError(f"the number of solutions in flight must be at least 1, got {max_in_flight}")
        if max_queue < 0:
            raise ConfigError(f"the length of the queue must be at least 0, got {max_queue}")
        self.max_in_flight, self.max_queue = max_in_flight, max_queue
        self.num_running = 0
        self._queue = FairQueue()
        self._mean_s = 1.0

    @property
    def num_waiting(self) -> int:
        """How many solutions wait."""
        return len(self._queue)

    def reserve(self, client: str, user: str, count: int) -> list[Ticket]:
        """Get tickets for all solutions of a request, or none.

        Args:
            client: Who asks.
            user: Whom the client asks for.
            count: The number of solutions.

        Raises:
            APIError: If so many cannot wait; it says when to come again.
        """
        num_free = self.max_in_flight - self.num_running
        if count - num_free > self.max_queue - self.num_waiting:
            raise too_busy(min(60.0, self._mean_s * (self.num_waiting + count) / self.max_in_flight))
        tickets = [Ticket(client, user) for _ in range(count)]
        for ticket in tickets:
            if self.num_running < self.max_in_flight:
                self._grant(ticket)
            else:
                self._queue.push(ticket)
        return tickets

    def release(self, ticket: Ticket, seconds: float | None = None) -> None:
        """Give a ticket back, used or not; the next one in the queue is granted.

        Args:
            ticket: Safe to give back twice.
            seconds: How long its solution took; None if it did not run to its end.
        """
        if ticket.is_released:
            return
        ticket.is_released = True
        if not ticket.granted.is_set():
            self._queue.remove(ticket)
            return
        if seconds is not None:
            self._mean_s += _WEIGHT * (seconds - self._mean_s)
        self.num_running -= 1
        if self.num_waiting:
            self._grant(self._queue.pop())

    def _grant(self, ticket: Ticket) -> None:
        self.num_running += 1
        ticket.granted.set()
