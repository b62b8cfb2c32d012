"""Options of hf models in a pair's file."""

import pytest

from arbitrage.core.errors import ConfigError
from arbitrage.pairs.hf import HFModel


@pytest.mark.parametrize(
    "options",
    [
        {"device": "cuda:0", "sequences": 8, "context_length": 2048},
        {"device": "cuda", "compile": True},
        {"static": True, "sequences": 1},
        {"device": "cuda:1", "compile": False, "static": True, "context_length": 64},
        {"compile": False},
        {"threads": 2},
    ],
)
def test_options_that_fit_the_device_are_taken(options):
    assert (
        HFModel(path="m", **options).identity.items()
        >= {name: value for name, value in options.items() if name != "threads"}.items()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compile": True}, "compile = true needs a CUDA device, got 'cpu'"),
        ({"sequences": 2}, "sequences of the engine 'hf' needs a cache of fixed size, which it has on CUDA, got 2"),
        ({"device": "cuda:0", "compile": False, "context_length": 9}, "context_length of the engine 'hf' needs"),
        ({"static": True, "sequences": 0}, "sequences must be at least 1, got 0"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        HFModel(path="m", **options)


def test_threads_do_not_make_another_run():
    assert HFModel(path="m", threads=2).identity == HFModel(path="m").identity
