"""Who runs, who waits, who is next."""

import random

import pytest

from arbitrage.core.errors import ConfigError
from arbitrage.serving.admission import Admission
from arbitrage.serving.errors import APIError
from arbitrage.serving.keys import Keys


def one(admission, client="a", user=""):
    (ticket,) = admission.reserve(client, user, 1)
    return ticket


def order(admission, running, waiting):
    """In which order waiting tickets are granted when the running one ends."""
    granted, current = [], running
    while True:
        admission.release(current)
        current = next((t for t in waiting if t.granted.is_set() and t not in granted), None)
        if current is None:
            return granted
        granted.append(current)


def test_clients_take_turns_and_so_do_their_users():
    admission = Admission(1, 100)
    running = one(admission)
    asked = [("a", "x")] * 3 + [("a", "y"), ("b", ""), ("b", ""), ("c", "")]
    waiting = [one(admission, *who) for who in asked]
    granted = order(admission, running, waiting)
    assert [(t.client, t.user) for t in granted] == [
        ("a", "x"),
        ("b", ""),
        ("c", ""),
        ("a", "y"),
        ("b", ""),
        ("a", "x"),
        ("a", "x"),
    ]
    assert (admission.num_running, admission.num_waiting) == (0, 0)


def test_a_full_queue_refuses_a_request_as_a_whole():
    admission = Admission(2, 3)
    tickets = admission.reserve("a", "", 4)
    with pytest.raises(APIError) as caught:
        admission.reserve("b", "", 2)
    assert caught.value.status == 429
    assert int(caught.value.headers["Retry-After"]) >= 1
    assert (admission.num_running, admission.num_waiting) == (2, 2)
    for ticket in tickets:
        admission.release(ticket)
        admission.release(ticket, 1.0)
    assert (admission.num_running, admission.num_waiting) == (0, 0)


def test_nothing_is_lost_whatever_the_order():
    chance = random.Random(0)
    admission, open_tickets = Admission(3, 10), []
    for _ in range(3000):
        if open_tickets and chance.random() < 0.55:
            admission.release(open_tickets.pop(chance.randrange(len(open_tickets))), chance.random())
        else:
            try:
                open_tickets += admission.reserve(chance.choice("abc"), chance.choice("xy"), chance.randint(1, 3))
            except APIError:
                assert admission.num_waiting >= 8
        granted = sum(ticket.granted.is_set() for ticket in open_tickets)
        assert (admission.num_running, admission.num_waiting) == (granted, len(open_tickets) - granted)
        assert granted == min(3, len(open_tickets))


@pytest.mark.parametrize("bounds", [(0, 1), (1, -1)])
def test_bounds_are_checked(bounds):
    with pytest.raises(ConfigError, match="at least"):
        Admission(*bounds)


def test_any_of_several_keys_is_accepted(monkeypatch):
    monkeypatch.setenv("SOME_KEYS", "first, second\n")
    keys = Keys.from_env("SOME_KEYS")
    assert keys.owner("Bearer first") == "key-0"
    assert keys.owner("bearer second ") == "key-1"
    for given in (None, "", "Bearer ", "Bearer firs", "first", "Basic first", "Bearer sch\u00f6n", "Bearer \ud800"):
        with pytest.raises(APIError) as caught:
            keys.owner(given)
        assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    assert "first" not in repr(keys)


def test_a_variable_without_keys_is_an_error(monkeypatch):
    monkeypatch.setenv("SOME_KEYS", " , ")
    with pytest.raises(ConfigError, match="SOME_KEYS"):
        Keys.from_env("SOME_KEYS")
    assert Keys().owner(None) == ""
