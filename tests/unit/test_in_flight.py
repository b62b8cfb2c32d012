"""The number of solutions in flight at which throughput stops growing, on simulated servers in virtual time."""

import asyncio
import selectors

import pytest

from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Problem
from arbitrage.evaluation.running.in_flight import AUTO, Trial, best_in_flight, parse_in_flight, trials
from arbitrage.runtime.pool import each

PROBLEMS = [Problem(id=f"p{i}", question="?") for i in range(5)]


class VirtualSelector(selectors.DefaultSelector):
    """Moves its loop's clock where the loop would wait."""

    now = 0.0

    def select(self, timeout=None):
        self.now += timeout or 0.0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose sleeps take no time."""

    def __init__(self):
        self._selector_of_time = VirtualSelector()
        super().__init__(self._selector_of_time)

    def time(self):
        return self._selector_of_time.now


def run(work):
    """Run a coroutine that gets the loop's clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        return runner.run(work(loop.time))


def server(capacity, seconds=1.0):
    """Solves so many problems at a time, each in the given seconds."""
    places = asyncio.Semaphore(capacity)

    async def solve(problem):
        async with places:
            await asyncio.sleep(seconds)
        return 100

    return solve


@pytest.mark.parametrize(
    ("capacity", "tried", "chosen"), [(1, [1, 2], 1), (3, [1, 2, 4, 8], 4), (8, [1, 2, 4, 8, 16], 8)]
)
def test_the_number_is_doubled_while_throughput_grows(capacity, tried, chosen):
    measured = run(lambda clock: trials(server(capacity), PROBLEMS, clock=clock))
    assert [trial.in_flight for trial in measured] == tried
    assert best_in_flight(measured) == chosen
    assert measured[0].tokens_per_s == pytest.approx(100.0)
    assert max(trial.tokens_per_s for trial in measured) <= 100.0 * capacity + 1e-6


def test_the_number_is_bounded():
    measured = run(lambda clock: trials(server(10**6), PROBLEMS, most=16, clock=clock))
    assert [trial.in_flight for trial in measured] == [1, 2, 4, 8, 16]
    assert best_in_flight(measured) == 16


def test_a_number_that_slows_all_down_is_not_chosen():
    assert best_in_flight([Trial(1, 100.0), Trial(2, 190.0), Trial(4, 150.0)]) == 2


def test_many_in_flight_keep_a_server_as_busy_as_the_ideal_schedule():
    """256 places, 8,192 problems of one to three seconds: a free place takes the next problem at once."""
    seconds = [1.0 + (7 * i % 100) / 50 for i in range(8192)]

    async def work(clock):
        started = clock()
        await each(seconds, asyncio.sleep, max_in_flight=256)
        return clock() - started

    assert sum(seconds) / 256 / run(work) >= 0.95


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", ""])
def test_other_texts_are_one_clear_error(text):
    with pytest.raises(ConfigError, match=rf"jobs must be at least 1, got {text}.*auto"):
        parse_in_flight(text)
    assert parse_in_flight("auto") == AUTO
    assert parse_in_flight("12") == parse_in_flight(12) == 12
