import pytest

from arbitrage.tiny.ablations import VARIANTS, accuracy_at, table


def test_accuracy_is_read_between_thresholds():
    rows = [{"speedup_vs_target": s, "accuracy": a} for s, a in ((2.0, 0.6), (1.0, 0.9), (1.4, 0.8))]
    assert accuracy_at(rows, 1.4) == pytest.approx(0.8)
    assert accuracy_at(rows, 1.5) == pytest.approx(0.8 - 0.2 / 6)
    assert accuracy_at(rows, 2.5) is None


def test_a_table_has_mean_and_spread_over_seeds_and_says_what_is_missing():
    name = next(iter(VARIANTS))
    results = [
        {"variant": name, "rho": rho, "auc": 0.9, "gain_share": 0.8, "accuracy": accuracy}
        for rho, accuracy in ((0.5, 0.7), (0.7, None))
    ]
    last = table(results).splitlines()[-1]
    assert last == f"| {name} | 2 | 0.600 ± 0.141 | 0.900 ± 0.000 | 0.800 ± 0.000 | 0.700 (1 of 2) |"
    assert len(table(results).splitlines()) == 3
    del results[1]["accuracy"]
    assert table(results).endswith("| 0.700 |")
