"""The costs that `arbitrage bench` measures on engines whose costs are given, and what it concludes from them."""

import json
import random
from contextlib import contextmanager
from dataclasses import replace

import pytest

from arbitrage.bench.advice import LIKELIHOOD, NO_SCORER, Advice
from arbitrage.bench.costs import Figure, Limit, ModelCosts, PairCosts, Runtime, ScorerCosts, Settings, Timed
from arbitrage.bench.hardware import fastest_s, limit_of, weights_bytes
from arbitrage.bench.run import LoadedModels, default_rule, load_models, measure
from arbitrage.core.errors import CheckpointError, ConfigError, EngineError, ScorerError
from arbitrage.core.turn import Pair
from arbitrage.core.types import Cost, Likelihood
from arbitrage.engines.scripted import ScriptedEngine, VirtualClock
from arbitrage.pairs.config import PairConfig
from arbitrage.pairs.hf import HFModel
from arbitrage.pairs.llamacpp import LlamaCppModel
from arbitrage.scorers.scripted import ScriptedScorer

CONFIG = PairConfig(
    name="scripted",
    draft=HFModel(path="d"),
    target=HFModel(path="t"),
    prm=HFModel(path="p"),
    router=HFModel(path="r"),
)
RUNTIME = Runtime(engine="hf")


def engine(clock, ms_per_token, *, ms_per_pass=0.0, ms_per_read=0.0, num_words=200, **values):
    """Writes for long, at given milliseconds for a token, and for a forward pass of n tokens."""
    return ScriptedEngine(
        script=[["context"], [f" w{i}" for i in range(num_words)]],
        seconds_per_token=ms_per_token / 1000.0,
        pass_seconds=lambda num_tokens: (ms_per_pass + ms_per_read * num_tokens) / 1000.0,
        clock=clock,
        **values,
    )


@contextmanager
def silent(total, seen=None):
    yield (seen if seen is not None else []).append


async def costs_of(draft, target, clock, settings=None, **scorers):
    loaded = LoadedModels(config=CONFIG, pair=Pair(draft=draft, target=target), scorers=scorers)
    return await measure(
        loaded, settings or Settings(repeats=3), progress=silent, clock=clock.now, rng=random.Random(0)
    )


async def test_known_costs_come_out():
    clock = VirtualClock()
    draft = engine(clock, 2.0, ms_per_read=0.25)
    target = engine(clock, 10.0, ms_per_pass=8.0, ms_per_read=0.5)
    prm = ScriptedScorer(
        value=lambda *_: 0.5, seconds=lambda step: 0.004 + 0.001 * len(step.logprobs), clock=clock, name="prm"
    )
    costs = await costs_of(draft, target, clock, prm=prm)
    for model, written, read in ((costs.draft, 2.0, 0.25), (costs.target, 10.0, 0.5)):
        assert model.generated_ms.value == pytest.approx(written)
        assert model.generated_ms.low == pytest.approx(model.generated_ms.high)
        assert model.prompt_ms.value == pytest.approx(read)
        assert model.call_ms.value == pytest.approx(0.0, abs=1e-9)
    assert [(one.tokens, one.ms.value) for one in costs.target.verified] == [
        (width, pytest.approx(8.0 + 0.5 * width)) for width in (1, 2, 4, 8, 16, 32)
    ]
    assert costs.target.ratio(costs.target.verified[-1]) == pytest.approx(2.4)
    assert costs.target.context_tokens == 200
    assert not costs.target.reads_whole_context
    assert [(one.tokens, one.ms.value) for one in costs.scorers["prm"].scored] == [
        (8, pytest.approx(12.0)),
        (32, pytest.approx(36.0)),
    ]
    assert costs.scorers["prm"].token_ms.value == pytest.approx(1.0)
    assert not costs.scorers["prm"].asks_target
    assert draft.open_sessions == target.open_sessions == 0


async def test_a_step_has_a_cost_of_its_own_beside_its_tokens():
    """As the round trip to a server."""
    clock = VirtualClock()

    class Remote(ScriptedEngine):
        async def read(self, num_tokens):
            await clock.sleep(0.003)
            await super().read(num_tokens)

    target = Remote(
        script=[["c"], ["w"] * 99],
        seconds_per_token=0.01,
        pass_seconds=lambda num_tokens: 0.001 * num_tokens,
        clock=clock,
    )
    costs = await costs_of(engine(clock, 1.0), target, clock)
    assert costs.target.generated_ms.value == pytest.approx(10.0)
    assert costs.target.call_ms.value == pytest.approx(3.0)
    assert costs.target.prompt_ms.value == pytest.approx(1.0)


async def test_a_slow_round_changes_no_median():
    clock = VirtualClock()
    target = engine(clock, 10.0)
    seen: list[str] = []

    @contextmanager
    def progress(total):
        def advance(words):
            seen.append(words)
            target.seconds_per_token = 0.5 if len(seen) == 6 else 0.01  # The target's second timed round.

        assert total == 2 * 5
        yield advance

    loaded = LoadedModels(config=CONFIG, pair=Pair(draft=engine(clock, 1.0), target=target))
    costs = await measure(loaded, Settings(repeats=3), progress=progress, clock=clock.now, rng=random.Random(0))
    assert seen == ["starting draft", "starting target"] + ["measuring draft", "measuring target"] * 4
    assert costs.target.generated_ms == Figure(
        value=pytest.approx(10.0), low=pytest.approx(10.0), high=pytest.approx(500.0)
    )


def reading_otherwise(change, clock, token_s):
    """An engine whose sessions read what ``change`` makes of a session and a step."""

    class Other(ScriptedEngine):
        async def open(self, problem, source):
            session = await super().open(problem, source)
            likelihood = session.likelihood
            session.likelihood = lambda candidate: likelihood(change(session, candidate))
            return session

    return Other(
        script=[["c"], ["w"] * 99],
        seconds_per_token=0.01,
        pass_seconds=lambda num_tokens: token_s * num_tokens,
        clock=clock,
    )


async def test_an_engine_that_computes_the_whole_context_is_said_to():
    clock = VirtualClock()

    def anew(session, candidate):
        session._num_computed = 0
        return candidate

    target = reading_otherwise(anew, clock, token_s=0.0001)
    costs = await costs_of(engine(clock, 1.0), target, clock)
    assert costs.target.reads_whole_context
    assert [one.ms.value for one in costs.target.verified] == [
        pytest.approx(20.0 + 0.1 * w) for w in (1, 2, 4, 8, 16, 32)
    ]


@pytest.mark.parametrize(("surplus", "widths"), [(-1, [1, 2, 4, 8, 16, 32]), (1, [2, 4, 8, 16, 32])])
async def test_lengths_of_given_steps_follow_from_what_an_engine_computes(surplus, widths):
    """Some leave the step's last token out, others compute the prefix's last one too."""
    clock = VirtualClock()

    def shifted(session, candidate):
        ids = (*candidate.token_ids, 0)[: candidate.num_tokens + surplus]
        return replace(candidate, token_ids=ids, text="")

    target = reading_otherwise(shifted, clock, token_s=0.001)
    costs = await costs_of(engine(clock, 1.0), target, clock)
    assert [(one.tokens, one.ms.value) for one in costs.target.verified] == [
        (width, pytest.approx(1.0 * width)) for width in widths
    ]


async def test_a_width_that_an_engine_never_computes_is_left_out():
    """One that keeps the logits behind the prefix reads a step of one token without a forward pass."""
    clock = VirtualClock()

    class Keeping(ScriptedEngine):
        async def open(self, problem, source):
            session = await super().open(problem, source)
            likelihood = session.likelihood

            async def kept(candidate):
                if candidate.num_tokens == 1:
                    return Likelihood(logprobs=(-1.0,), cost=Cost(num_calls=1))
                return await likelihood(candidate)

            session.likelihood = kept
            return session

    target = Keeping(script=[["c"], ["w"] * 99], seconds_per_token=0.01, clock=clock)
    costs = await costs_of(engine(clock, 1.0), target, clock)
    assert [one.tokens for one in costs.target.verified] == [2, 4, 8, 16, 32]


async def test_an_engine_without_likelihoods_has_a_reason_and_no_figures():
    clock = VirtualClock()

    class Mute(ScriptedEngine):
        async def open(self, problem, source):
            session = await super().open(problem, source)

            async def refuse(candidate):
                raise EngineError("cannot tell")

            session.likelihood = refuse
            return session

    target = Mute(script=[["c"], ["w"] * 99], seconds_per_token=0.01, clock=clock)
    costs = await costs_of(engine(clock, 1.0), target, clock)
    assert costs.target.verified == ()
    assert costs.target.why_not_verified == "cannot tell"
    assert LIKELIHOOD not in Advice.of(costs).scoring


async def test_a_model_that_ends_early_is_measured_on_what_it_writes():
    clock = VirtualClock()
    costs = await costs_of(engine(clock, 1.0, num_words=9), engine(clock, 3.0), clock)
    assert costs.draft.generated_ms.value == pytest.approx(1.0)


async def test_the_context_behind_which_a_model_writes_most_is_the_one_that_counts():
    clock = VirtualClock()
    lengths, by_context = iter([3, 9, 2, 2, 2, 2, 2, 1]), {}

    class Moody(ScriptedEngine):
        async def open(self, problem, source):
            session = await super().open(problem, source)
            propose = session.propose

            async def at_most(request):
                if session.token_ids not in by_context:
                    by_context[session.token_ids] = next(lengths, 1)
                return await propose(
                    replace(request, max_tokens=min(request.max_tokens, by_context[session.token_ids]))
                )

            session.propose = at_most
            return session

    target = Moody(script=[["c"], ["w"] * 99], seconds_per_token=0.01, clock=clock)
    costs = await costs_of(engine(clock, 1.0), target, clock)
    assert costs.target.generated_ms.value == pytest.approx(10.0)
    assert target.open_sessions == 0


async def test_a_model_that_writes_nothing_is_one_clear_error():
    clock = VirtualClock()
    with pytest.raises(EngineError, match=r"scripted ends its text at once behind 8 contexts.*check path and prompt"):
        await costs_of(ScriptedEngine(script=[["context"]], clock=clock), engine(clock, 3.0), clock)


async def test_a_clock_that_does_not_move_is_one_clear_error():
    clock = VirtualClock()
    with pytest.raises(EngineError, match=r"the longer step of scripted took no longer than the shorter one.*--tokens"):
        await costs_of(engine(clock, 0.0), engine(clock, 3.0), clock)


async def test_a_scorer_that_asks_the_target_is_known():
    from arbitrage.scorers.likelihood import LikelihoodScorer

    clock = VirtualClock()
    target = engine(clock, 10.0, ms_per_pass=4.0, ms_per_read=0.5)
    costs = await costs_of(engine(clock, 1.0), target, clock, router=LikelihoodScorer())
    assert costs.scorers["router"].asks_target
    assert costs.scorers["router"].scored[-1] == Timed(tokens=32, ms=Figure.of([pytest.approx(20.0)]))


async def test_a_scorer_that_fails_is_skipped_with_its_reason():
    def fail(index, candidate):
        raise ScorerError("no probability")

    clock = VirtualClock()
    draft, target = engine(clock, 1.0), engine(clock, 3.0)
    costs = await costs_of(draft, target, clock, prm=ScriptedScorer(value=fail))
    assert (costs.scorers, costs.skipped) == ({}, {"prm": "no probability"})
    assert draft.open_sessions == target.open_sessions == 0


async def test_a_failure_closes_every_session():
    clock = VirtualClock()
    draft, target = engine(clock, 1.0), engine(clock, 3.0, faults={20: EngineError("gone")})
    with pytest.raises(EngineError, match="gone"):
        await costs_of(draft, target, clock)
    assert draft.open_sessions == target.open_sessions == 0


def test_scorers_that_are_missing_are_skipped(monkeypatch):
    def missing(model, role):
        raise CheckpointError(f"no {role}")

    for name in ("load_prm", "load_router_model"):
        monkeypatch.setattr(f"arbitrage.bench.run.{name}", missing)
    monkeypatch.setattr("arbitrage.bench.run.load_engine", lambda model, **_: model.path)
    loaded = load_models(CONFIG)
    assert (loaded.pair.draft, loaded.scorers) == ("d", {})
    assert loaded.skipped == {"prm": "no prm", "router": "no router"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"repeats": 0}, "repeats must be at least 1, got 0"),
        ({"prompt_tokens": 4}, "prompt-tokens must be at least 8, got 4"),
        ({"tokens": 1}, "tokens must be at least 4, got 1"),
    ],
)
def test_settings_out_of_range_are_refused(values, told):
    with pytest.raises(ConfigError, match=told):
        Settings(**values)


def figure(value):
    return Figure(value=value, low=value, high=value)


def model(generated, prompt=0.0, reading=None, **values):
    verified = tuple(Timed(tokens=tokens, ms=figure(ms)) for tokens, ms in (reading or {}).items())
    figures = {"generated_ms": figure(generated), "call_ms": figure(0.5), "prompt_ms": figure(prompt)}
    return ModelCosts(name="m", runtime=RUNTIME, context_tokens=200, **figures, verified=verified, **values)


def costs(draft, target, **scorers):
    return PairCosts(
        pair="p", settings=Settings(), environment={"platform": "x"}, draft=draft, target=target, scorers=scorers
    )


def scorer(step_ms, *, asks_target=False):
    scored = (Timed(tokens=8, ms=figure(step_ms / 2)), Timed(tokens=32, ms=figure(step_ms)))
    return ScorerCosts(name="s", runtime=RUNTIME, asks_target=asks_target, scored=scored, token_ms=figure(0.1))


def test_costs_survive_their_json_form(tmp_path):
    limit = Limit(weights_bytes=3_000_000, copy_bytes_per_s=1.5e9)
    runtime = Runtime(engine="hf", details={"dtype": "float32", "threads": 2}, forward_path="eager")
    whole = costs(
        replace(model(2.0, 0.5, {1: 2.0, 32: 8.0}, limit=limit), runtime=runtime),
        model(5.0, why_not_verified="cannot", reads_whole_context=True),
        prm=scorer(12.0),
    )
    whole = replace(whole, skipped={"router": "missing"})
    record = whole.to_json() | {"advice": Advice.of(whole).to_json(NO_SCORER)}
    file = tmp_path / "costs.json"
    file.write_text(json.dumps(record))
    assert PairCosts.load(file) == whole
    assert json.loads(file.read_text()) == record
    assert record["draft"]["limit"]["ms_per_token"] == pytest.approx(2.0)
    assert [row["ratio"] for row in record["draft"]["verified"]] == [1.0, 4.0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot read the costs in .*No such file"),
        ("{", "not JSON"),
        ("[]", "costs must be of schema 1, got None"),
        ('{"schema": 2}', "costs must be of schema 1, got 2"),
        ('{"schema": 1}', "costs cannot be read, KeyError: 'pair'.*arbitrage bench --json"),
    ],
)
def test_other_files_are_refused(tmp_path, content, told):
    file = tmp_path / "costs.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=told):
        PairCosts.load(file)


def test_reading_is_interpolated():
    measured = model(1.0, reading={1: 2.0, 2: 3.0, 4: 7.0})
    assert [measured.reading_ms(n) for n in (0, 1, 1.5, 3, 4, 6)] == [2.0, 2.0, 2.5, 5.0, 7.0, 11.0]
    assert model(1.0).reading_ms(4) is None
    assert model(1.0, reading={2: 3.0}).reading_ms(9) == 3.0


def test_bounds_follow_from_the_costs():
    advice = Advice.of(costs(model(3.8), model(10.0)))
    assert advice.most_speedup == pytest.approx(10.0 / 3.8)
    assert advice.speedup(0.5) == pytest.approx(1.0 / 0.88)
    assert advice.break_even() == pytest.approx(0.38)
    assert advice.speedup(0.38) == pytest.approx(1.0)
    assert advice.sentence() == (
        "A draft token costs 0.38 of a target token: a step-level method is at most 2.6 times as fast as the target, "
        "and 1.14 times where it escalates half of the steps; with confidence it gains time only if the draft keeps "
        "more than 38% of the steps."
    )


def test_what_is_read_and_scored_counts():
    advice = Advice.of(costs(model(2.0, 0.5), model(10.0, 2.0, {32: 96.0}), prm=scorer(32.0)))
    assert (advice.draft, advice.draft_reading, advice.target_reading) == pytest.approx((0.2, 0.05, 0.2))
    assert advice.scoring == pytest.approx({NO_SCORER: 0.0, "prm": 0.1, LIKELIHOOD: 0.3})
    for rule in advice.scoring:
        assert advice.speedup(advice.break_even(rule), rule) == pytest.approx(1.0)
    # The likelihood has read what it keeps: 0.2 + (1 - a) * 1.05 + 0.3 = 1.
    assert advice.break_even(LIKELIHOOD) == pytest.approx(0.55 / 1.05)
    assert advice.break_even("prm") == pytest.approx((0.2 + 0.05 + 0.1) / (1.05 - 0.2))


def test_a_pair_that_cannot_gain_is_told_so():
    assert "no step-level method can be faster" in Advice.of(costs(model(5.0), model(5.0))).sentence()
    slow = Advice.of(costs(model(3.0), model(5.0), prm=scorer(80.0)))
    assert slow.break_even("prm") is None
    assert slow.sentence("prm").endswith("with prm it is slower, even if the draft keeps all steps.")


def test_the_rule_of_the_sentence_is_that_of_the_default_method():
    config = replace(CONFIG, default_method="router+speculative:4")
    with_router = Advice.of(costs(model(1.0), model(5.0), router=scorer(1.0)))
    assert default_rule(config, with_router) == "router"
    assert default_rule(config, Advice.of(costs(model(1.0), model(5.0)))) == NO_SCORER


def test_weights_are_those_of_the_file(tmp_path):
    file = tmp_path / "m.gguf"
    file.write_bytes(b"x" * 4096)
    assert weights_bytes(str(file), None) == 4096
    assert weights_bytes(str(tmp_path / "other.gguf"), None) is None
    assert weights_bytes("folder", ScriptedEngine(script="")) is None


@pytest.mark.parametrize("threads", [2, [2, 1], None])
def test_the_limit_is_the_time_of_a_copy(tmp_path, threads):
    pytest.importorskip("numpy")
    file = tmp_path / "m.gguf"
    file.write_bytes(b"x" * 4096)

    class Threaded(ScriptedEngine):
        def arithmetic(self):
            return {"engine": "llamacpp", "threads": threads}

    limit = limit_of(LlamaCppModel(path=str(file)), Threaded(script=""))
    assert limit.weights_bytes == 4096
    assert limit.ms_per_token == pytest.approx(1000 * 4096 / limit.copy_bytes_per_s)
    assert limit_of(HFModel(path="d"), ScriptedEngine(script="")) is None
    times = iter([0.0, 3.0, 3.0, 5.0, 5.0, 6.0, 6.0, 10.0, 10.0, 14.0])
    assert fastest_s(lambda: None, lambda: next(times)) == 1.0
