"""Measuring whether logits depend on the width of a forward pass, with made-up arithmetic."""

import json
import math
import threading

import numpy as np
import pytest

from arbitrage.engines import widths
from arbitrage.engines.cache import CachedTokens
from arbitrage.engines.language_model import LanguageModel
from arbitrage.engines.prompt import PlainPrompt


class Sequence(CachedTokens):
    """Logits are 10 at every token; ``error`` by the width of the pass and the length behind it is added."""

    def __init__(self, error, passes):
        super().__init__()
        self.error, self.passes, self.is_open = error, passes, True

    def close(self):
        super().close()
        self.is_open = False

    def look_ahead(self, ids):
        raise NotImplementedError

    def _shorten(self, length):
        return True

    def _compute(self, ids, num_last):
        with self._appending(ids) as missing:
            self.passes.append(len(missing))
        return np.full((num_last, 3), 10.0 + self.error(len(missing), len(self)))

    def joined(self, first, second):
        return np.concatenate([first, second])

    def _branches(self, count):
        raise NotImplementedError


class Model(LanguageModel):
    """A model of which only the widths matter."""

    def __init__(self, error=lambda width, length: 0.0, *, exact=None, context_length=512, lengths=(128,)):
        super().__init__(None, name="m", device="cpu", prompt=PlainPrompt(), keeps_hidden_state=False, exact=exact)
        self.error, self.context_length, self.probe_lengths = error, context_length, lengths
        self.passes, self.sequences, self.threads = [], [], 1

    def arithmetic(self):
        return {"threads": self.threads}

    def encode(self, text):
        return list(map(ord, text))

    def sequence(self):
        self.sequences.append(Sequence(self.error, self.passes))
        return self.sequences[-1]

    def picker(self, sampling, seed):
        raise NotImplementedError

    def entropy(self, row):
        raise NotImplementedError

    def logprobs(self, rows, tokens):
        raise NotImplementedError


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file of weights, and an empty folder for measurements."""
    monkeypatch.setenv("ARBITRAGE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    return path


def test_equal_logits_differ_by_nothing():
    model = Model()
    assert model.width_difference == 0.0
    assert {1, *widths.WIDTHS} <= set(model.passes)
    assert model.widths_agree
    assert not any(sequence.is_open for sequence in model.sequences)


def test_measuring_computes_on_the_thread_of_the_device():
    """Where sessions compute later: a second thread would get a team of threads of its own."""
    names = set()
    model = Model(lambda width, length: names.add(threading.current_thread().name) or 0.0)
    assert model.widths_agree
    assert names == {"arbitrage-cpu_0"}


@pytest.mark.parametrize("first", [2, 3, 4, 8, 9, 64])
def test_kernels_that_begin_at_any_width_are_noticed(first):
    """The difference is relative to the logit of 10."""
    model = Model(lambda width, length: 0.5 if width >= first else 0.0)
    assert model.width_difference == pytest.approx(0.05)
    assert not model.widths_agree
    assert not model.takes_proposals


def test_the_rounding_of_float32_counts_as_agreeing():
    model = Model(lambda width, length: 1e-5 * width / 96)
    assert 0.0 < model.width_difference < 1e-5
    assert model.widths_agree


def test_kernels_for_long_sequences_are_noticed_and_only_then_computed():
    long = Model(lambda width, length: 0.5 * (width == 1 and length > 512), lengths=(128, 640), context_length=4096)
    assert not long.widths_agree
    short = Model(lambda width, length: 0.5 * (width == 1), lengths=(128, 640), context_length=4096)
    assert not short.widths_agree
    assert sum(short.passes) < 200 < sum(long.passes)


@pytest.mark.parametrize(("context_length", "expected"), [(1, math.inf), (2, 0.0), (40, 0.0)])
def test_a_short_context_is_measured_as_far_as_it_goes(context_length, expected):
    assert Model(context_length=context_length).width_difference == expected


def test_a_model_without_numbers_does_not_agree():
    assert Model(lambda width, length: math.nan).width_difference == math.inf


@pytest.mark.parametrize(
    ("exact", "error", "takes_proposals", "is_strict"),
    [
        (None, 0.0, True, False),
        (None, 1e-5, True, False),
        (None, 0.5, False, False),
        (False, 0.5, True, False),
        (True, 0.0, True, False),
        (True, 1e-5, False, True),
        (True, 0.5, False, True),
    ],
)
def test_exact_chooses(exact, error, takes_proposals, is_strict):
    model = Model(lambda width, length: error * (width > 1), exact=exact)
    assert (model.takes_proposals, model.is_strict) == (takes_proposals, is_strict)


def test_a_measurement_is_kept_for_the_same_weights_and_settings(weights):
    first, again, other, changed = Model(), Model(), Model(), Model()
    first.measure_widths(weights)
    assert first.passes
    again.measure_widths(weights)
    assert (again.passes, again.width_difference) == ([], 0.0)
    other.threads = 2
    other.measure_widths(weights)
    assert other.passes
    weights.write_bytes(b"others")
    changed.measure_widths(weights)
    assert changed.passes


def test_a_name_on_the_hub_is_measured_at_each_load(weights):
    for _ in range(2):
        model = Model()
        model.measure_widths("owner/name")
        assert model.passes
    assert not widths.cache_folder().exists()


def test_exact_false_asks_for_no_measurement(weights):
    model = Model(exact=False)
    model.measure_widths(weights)
    assert (model.passes, model.takes_proposals) == ([], True)
    assert model.passes == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"difference": "x"}', '{"difference": null}', "\udc80"])
def test_a_broken_measurement_is_made_anew(weights, content):
    Model().measure_widths(weights)
    (file,) = (widths.cache_folder() / "widths").iterdir()
    file.write_text(content, errors="surrogateescape")
    model = Model()
    model.measure_widths(weights)
    assert model.passes
    assert json.loads(file.read_text())["difference"] == 0.0


def test_a_folder_that_cannot_be_written_fails_no_load(weights, monkeypatch):
    monkeypatch.setenv("ARBITRAGE_CACHE", str(weights / "below-a-file"))
    model = Model()
    model.measure_widths(weights)
    assert model.width_difference == 0.0


def test_a_measurement_that_fails_fails_no_load_and_is_not_kept(weights):
    def fail(width, length):
        raise MemoryError("no memory")

    model = Model(fail)
    model.measure_widths(weights)
    assert (model.width_difference, model.takes_proposals) == (math.inf, False)
    assert not widths.cache_folder().exists()
    assert not any(sequence.is_open for sequence in model.sequences)


def test_measurements_are_kept_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("ARBITRAGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert widths.cache_folder() == tmp_path / "arbitrage"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    assert widths.cache_folder() == tmp_path / ".cache" / "arbitrage"
