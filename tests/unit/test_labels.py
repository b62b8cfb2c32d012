from collections import Counter

import pytest

from arbitrage.core.errors import ConfigError, RowError
from arbitrage.scorers.format import Readout
from arbitrage.training.labels import (
    LABELLINGS,
    Binary,
    Classes,
    class_weights,
    downsample,
    labelling,
    split_by_problem,
)
from helpers import row


@pytest.mark.parametrize(
    ("name", "margin", "expected"),
    [
        ("binary", 0.0, {-1.0: 0, 0.0: 0, 1e-9: 1, 1.0: 1}),
        ("binary", 0.1, {0.05: 0, 0.1: 0, 0.11: 1}),
        ("classes-4", 0.0, {-1.0: 0, -0.5: 0, -0.49: 1, 0.0: 1, 0.01: 2, 0.5: 2, 0.51: 3, 1.0: 3}),
        ("classes-4", 0.2, {-1.0: 0, -0.4: 0, -0.39: 1, 0.2: 1, 0.21: 2, 0.6: 2, 0.61: 3}),
        ("classes-10", 0.0, {-1.0: 0, -0.79: 1, -0.01: 4, 0.0: 4, 0.01: 5, 0.79: 8, 0.81: 9, 1.0: 9}),
        ("ordinal-4", 0.0, {-0.6: 0, 0.0: 1, 0.3: 2, 0.6: 3}),
        ("regression", 0.0, {-1.0: 0.0, 0.0: 0.5, 1.0: 1.0}),
    ],
)
def test_labels_by_hand(name, margin, expected):
    labels = labelling(name, margin)
    assert {advantage: labels.label(advantage) for advantage in expected} == pytest.approx(expected)


@pytest.mark.parametrize("name", LABELLINGS)
def test_every_labelling_can_be_read_when_served(name):
    labels = labelling(name)
    assert labels.readout.fits(labels.num_labels)
    assert 0.0 <= labels.readout.probability([0.3] * labels.num_labels) <= 1.0


@pytest.mark.parametrize("name", [name for name in LABELLINGS if name.startswith(("classes", "ordinal"))])
def test_the_upper_half_has_label_1_in_binary(name):
    for margin in (0.0, 0.1):
        binned, binary = labelling(name, margin), Binary(margin)
        bins = int(name.split("-")[1])
        for advantage in (i / 100 for i in range(-100, 101)):
            assert (binned.label(advantage) >= bins // 2) == bool(binary.label(advantage)), advantage


def test_readouts_by_hand():
    assert Readout.PROBABILITY.probability([0.0]) == 0.5
    assert Readout.PROBABILITY.probability([0.0, 0.0]) == 0.5
    assert Readout.PROBABILITY.probability([0.0, 1.0]) == pytest.approx(0.7310586)
    assert Readout.PROBABILITY.probability([-800.0]) == 0.0
    assert Readout.UPPER_HALF.probability([1.0, 1.0, 1.0, 1.0]) == 0.5
    assert Readout.UPPER_HALF.probability([0.0, 0.0, 0.0, 1000.0]) == 1.0
    assert Readout.ORDINAL.probability([5.0, 0.0, -5.0]) == 0.5
    assert [Readout.UPPER_HALF.fits(n) for n in (1, 2, 3, 4)] == [False, True, False, True]
    assert [Readout.ORDINAL.fits(n) for n in (1, 2, 3, 4)] == [True, False, True, False]
    assert [Readout.PROBABILITY.fits(n) for n in (1, 2, 3)] == [True, True, False]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: labelling("binary", -0.1), r"margin must be in \[0, 1\), got -0.1"),
        (lambda: labelling("classes-4", 1.0), r"margin must be in \[0, 1\), got 1.0"),
        (lambda: labelling("classes-3"), "choose from binary"),
        (lambda: Classes(3), "even and at least 2, got 3"),
    ],
)
def test_labellings_out_of_range_are_refused(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_no_problem_is_on_both_sides_of_a_split():
    rows = [row(0.0, 0.0, problem=f"p{i}", step=j) for i in range(20) for j in range(3)]
    train, held_out = split_by_problem(rows, 0.25, seed=0)
    assert {r.problem.id for r in train} & {r.problem.id for r in held_out} == set()
    assert (len(train), len(held_out)) == (45, 15)
    assert split_by_problem(rows, 0.25, seed=0) == (train, held_out)
    assert split_by_problem(rows, 0.25, seed=1) != (train, held_out)


def test_a_split_fills_both_sides_and_refuses_a_single_problem():
    rows = [row(0.0, 0.0, problem=name) for name in "ab"]
    assert all(split_by_problem(rows, share, seed=0)[side] for share in (0.01, 0.99) for side in (0, 1))
    with pytest.raises(RowError, match="at least 2 problems, got 1"):
        split_by_problem(rows[:1], 0.5, seed=0)
    with pytest.raises(ConfigError, match=r"in \(0, 1\), got 1.0"):
        split_by_problem(rows, 1.0, seed=0)


def test_downsampling_equals_the_classes_and_keeps_the_order():
    classes = [0] * 10 + [1] * 3
    items = downsample(range(13), classes, seed=0)
    assert Counter(classes[i] for i in items) == {0: 3, 1: 3}
    assert items == sorted(items)
    assert items != downsample(range(13), classes, seed=1)


def test_class_weights_make_classes_count_the_same():
    assert class_weights([0, 0, 0, 1], 2) == pytest.approx([4 / 6, 2.0])
    assert class_weights([0, 2], 3) == pytest.approx([1.0, 0.0, 1.0])


@pytest.mark.parametrize("balance", [lambda c: downsample(c, c, seed=0), lambda c: class_weights(c, 2)])
def test_a_single_class_is_one_clear_error(balance):
    with pytest.raises(RowError, match=r"at least two classes, got \{1: 3\}"):
        balance([1, 1, 1])
