"""Operations and money from tokens."""

import pytest

from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Cost
from arbitrage.evaluation.figures.rates import Rates, billed
from arbitrage.policies.spec import MethodSpec
from helpers import model_cost

USAGE = {"draft": model_cost(computed=100, cached=50, generated=10), "target": model_cost(computed=7, generated=3)}


def test_each_token_that_goes_through_a_model_costs_two_operations_a_parameter():
    rates = Rates.parse("draft=0.5e9, target=7e9")
    assert rates.flops(USAGE) == 2 * (0.5e9 * 110 + 7e9 * 10)
    assert Rates.parse("draft=1").flops(USAGE) is None
    assert Rates().flops({}) == 0.0


@pytest.mark.parametrize(
    ("policy", "by_draft"), [("speculative", 20), ("router+speculative:3", 20), ("ngram", 0), ("router+ngram:2", 0)]
)
def test_guesses_are_billed_to_who_makes_and_who_reads_them(policy, by_draft):
    """Of 20 guesses 12 are right: the target generates these, and reads 8 in vain."""
    usage = {**USAGE, "target": Cost(num_computed=7, num_generated=15, num_guessed=20, num_confirmed=12)}
    rates = Rates.parse("draft=1,target=100", "draft=1:4,target=10:40")
    assert rates.flops(billed(MethodSpec.parse(policy), usage)) == 2 * (110 + by_draft + 100 * (7 + 8 + 15))
    wanted = 100 + 50 + (10 + by_draft) * 4 + (7 + 8) * 10 + 15 * 40
    assert rates.money(billed(MethodSpec.parse(policy), usage)) == pytest.approx(wanted / 1e6)
    only_target = {"target": usage["target"]}
    assert (Rates.parse("target=1").flops(billed(MethodSpec.parse(policy), only_target)) is None) == bool(by_draft)
    assert billed(MethodSpec.parse(policy), USAGE) == USAGE


def test_prices_are_of_a_million_prompt_generated_and_cached_tokens():
    rates = Rates.parse(prices="draft=1:4:0.5,target=10:40")
    assert rates.money(USAGE) == pytest.approx((100 * 1 + 50 * 0.5 + 10 * 4 + 7 * 10 + 3 * 40) / 1e6)
    assert Rates.parse(prices="draft=1:4").money({"draft": model_cost(cached=1_000_000)}) == 1.0
    assert Rates.parse(prices="draft=1:4").money(USAGE) is None


@pytest.mark.parametrize(
    ("parameters", "prices", "told"),
    [
        ("draft", "", "params: not MODEL=VALUE: 'draft'"),
        ("draft=", "", "params: not MODEL=VALUE: 'draft='"),
        ("draft=big", "", "params: draft must be a number of at least 0, got 'big'"),
        ("draft=-1", "", "got '-1'"),
        ("draft=inf", "", "got 'inf'"),
        ("", "draft=1", "prices: draft needs PROMPT:GENERATED"),
        ("", "draft=1:2:3:4", "prices: draft needs"),
        ("", "draft=1:dear", "got 'dear'"),
    ],
)
def test_bad_rates_are_one_clear_error(parameters, prices, told):
    with pytest.raises(ConfigError, match=told):
        Rates.parse(parameters, prices)
