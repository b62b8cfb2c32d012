import asyncio
from dataclasses import asdict
from itertools import chain

import pytest

from arbitrage.core.errors import ContextOverflow, EngineError, EngineTimeout, ScorerError
from arbitrage.core.solve import finish, solve
from arbitrage.core.trace import Trace
from arbitrage.core.turn import History, Pair, Turn
from arbitrage.core.types import Cost, Decision, Finish, Source
from arbitrage.engines.scripted import ScriptedEngine, VirtualClock
from arbitrage.policies import RSD, DraftOnly, Oracle, RouterPolicy, TargetOnly
from arbitrage.scorers.scripted import ScriptedScorer
from helpers import PROBLEM, Policy, Watched, scripted, setting, total

ACCEPT, ESCALATE = Decision(source=Source.DRAFT), Decision(source=Source.TARGET)


def router(*gains: float) -> RouterPolicy:
    """Escalates step i iff the i-th gain exceeds one half."""
    return RouterPolicy(ScriptedScorer(value=lambda i, _: gains[i], name="router"), 0.5)


async def run(policy, draft, target, *, problem=PROBLEM, **values) -> Trace:
    return await solve(problem, Pair(draft=draft, target=target), policy, setting(**values))


async def test_accepted_draft_never_wakes_the_target():
    draft, target = scripted("2 + 2", "= 4"), Watched(scripted("no"))
    trace = await run(router(0.2, 0.5), draft, target)
    assert trace.text == "2 + 2\n\n= 4"
    assert target.sessions == []
    assert target.engine.calls == []
    assert trace.usage.keys() == {"draft", "router"}
    assert trace.acceptance_rate == 1.0


async def test_target_only_never_wakes_the_draft():
    draft, target = Watched(scripted("no")), scripted("2 + 2", "= 4")
    trace = await run(TargetOnly(), draft, target)
    assert trace.text == "2 + 2\n\n= 4"
    assert draft.sessions == []
    assert trace.usage.keys() == {"target"}
    assert (trace.acceptance_rate, trace.target_token_share) == (0.0, 1.0)


async def test_answer_is_the_chosen_steps_joined_byte_for_byte():
    draft = scripted(" a\tb ", "wrong", "\\boxed{4 \u00e9}\n")
    target = scripted("no", "  right  \n c", "no")
    trace = await run(router(0.0, 0.9, 0.1), draft, target)
    assert trace.text == " a\tb \n\n  right  \n c\n\n\\boxed{4 \u00e9}\n"
    assert [step.source for step in trace.steps] == ["draft", "target", "draft"]
    assert [step.decision.score for step in trace.steps] == [0.0, 0.9, 0.1]
    assert trace.answer == "4 \u00e9"


@pytest.mark.parametrize(
    ("script", "limits", "of_steps", "of_trace"),
    [
        ([["a", "\n\n"], ["b"]], {}, ["step_end", "end_of_sequence"], "end_of_sequence"),
        ([["a", "\n\n"], []], {}, ["step_end", "end_of_sequence"], "end_of_sequence"),
        ([["a", " b", "\n\n"], ["c", " d"]], {"max_step_tokens": 2}, ["token_limit", "end_of_sequence"], None),
        ([["a", "\n\n"], ["b", "c", "d"]], {"max_tokens": 4}, ["step_end", "token_limit"], "token_limit"),
        ([["\n\n"], ["a"]], {}, ["empty_step", "end_of_sequence"], "end_of_sequence"),
        ([[" ", "\n\n"]] * 5, {"max_idle_steps": 2}, ["empty_step"] * 2, "empty_step"),
        ([["a", "\n\n"]] * 5, {"max_idle_steps": 3}, ["step_end"] + ["repeated_step"] * 3, "repeated_step"),
        (
            [["a\n\n"], ["a\n\n"], ["b\n\n"], ["b"]],
            {},
            ["step_end", "repeated_step", "step_end", "end_of_sequence"],
            None,
        ),
        ([["a\n\n"], ["b\n\n"], ["c"]], {"max_steps": 2}, ["step_end", "step_end"], "step_limit"),
    ],
    ids=["end", "empty end", "cut step", "budget", "one empty", "idle empty", "idle repeated", "one repeated", "steps"],
)
async def test_every_finish_has_its_outcome(script, limits, of_steps, of_trace):
    trace = await run(DraftOnly(), ScriptedEngine(script=script), scripted("no"), **limits)
    assert [step.finish for step in trace.steps] == of_steps
    assert trace.finish == (of_trace or "end_of_sequence")
    assert trace.error is None


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 4])
async def test_the_answer_never_exceeds_its_budget(max_tokens):
    draft = ScriptedEngine(script=[["a", "\n\n"], ["b", "\n\n"], ["c"]])
    trace = await run(DraftOnly(), draft, scripted("no"), max_tokens=max_tokens)
    assert trace.num_tokens == max_tokens
    assert trace.finish is Finish.TOKEN_LIMIT
    assert [request.max_tokens for request in draft.calls] == list(range(max_tokens, 0, -2))


@pytest.mark.parametrize(
    "error", [EngineTimeout("too late"), EngineError("down"), ScorerError("NaN")], ids=lambda e: type(e).__name__
)
async def test_failure_keeps_the_steps_so_far_and_the_error(error):
    draft, target = scripted("a", "b", "c"), scripted("no", "no", "no", faults={0: error})
    seen = []
    trace = await solve(PROBLEM, Pair(draft=draft, target=target), router(0, 0, 1), watch=seen.append)
    assert (trace.text, trace.finish, trace.error) == ("a\n\nb\n\n", Finish.FAILED, str(error))
    assert error.hint in trace.error
    assert seen[-1] == trace
    assert (draft.open_sessions, target.open_sessions) == (0, 0)


@pytest.mark.parametrize(("number", "finish"), [(0, Finish.FAILED), (1, Finish.TOKEN_LIMIT)])
async def test_a_full_context_fails_only_before_the_first_step(number, finish):
    draft = scripted("a", "b", faults={number: ContextOverflow("no room")})
    trace = await run(DraftOnly(), draft, scripted("no"))
    assert (len(trace.steps), trace.finish) == (number, finish)
    assert "no room" in trace.error
    assert draft.open_sessions == 0


async def test_a_bug_is_raised_with_all_sessions_closed():
    draft = scripted("a", "b", faults={1: ZeroDivisionError()})
    with pytest.raises(ZeroDivisionError):
        await run(DraftOnly(), draft, scripted("no"))
    assert draft.open_sessions == 0


async def test_cancellation_closes_every_session_and_is_reported():
    draft, target, seen = scripted("a", "b c d e f"), scripted("x", "y"), []

    async def decide(turn: Turn) -> Decision:
        if turn.index == 1:
            asyncio.get_running_loop().call_later(0, task.cancel)
            await asyncio.gather(turn.draft(), turn.target())
            await asyncio.sleep(60)
        return ESCALATE

    pair = Pair(draft=draft, target=target)
    task = asyncio.create_task(solve(PROBLEM, pair, Policy(decide), watch=seen.append))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [trace.finish for trace in seen] == [None, Finish.CANCELLED]
    assert seen[-1].text == "x\n\n"
    assert (draft.open_sessions, target.open_sessions) == (0, 0)


async def test_session_opened_late_catches_up():
    draft, target = Watched(scripted("a", "b", "c")), Watched(scripted("no", "no", "z"))
    trace = await run(router(0, 0, 1), draft, target)
    assert trace.text == "a\n\nb\n\nz"
    encoded = [target.engine.encode(text) for text in (PROBLEM.question, "a\n\n", "b\n\n", "z")]
    assert target.sessions[0].token_ids == tuple(chain(*encoded))
    assert len(draft.sessions) == len(target.sessions) == 1
    assert all(session.closed for engine in (draft, target) for session in engine.sessions)


async def test_candidates_and_scores_are_billed_once_however_often_asked():
    draft, scorer = scripted("a b", "c"), ScriptedScorer(value=lambda *_: 0.5)

    async def decide(turn: Turn) -> Decision:
        first, second = await asyncio.gather(turn.draft(), turn.draft())
        await asyncio.gather(turn.score(scorer, first), turn.score(scorer, second))
        assert await turn.draft() is first
        return ACCEPT

    trace = await run(Policy(decide), draft, scripted("no"))
    assert len(draft.calls) == len(trace.steps) == scorer.num_calls == 2
    assert all(len(step.candidates) == len(step.scores) == 1 for step in trace.steps)


@pytest.mark.parametrize(
    ("is_drafted", "use_proposals", "is_offered"), [(True, True, True), (True, False, False), (False, True, False)]
)
async def test_only_a_draft_made_before_is_proposed_to_the_target(is_drafted, use_proposals, is_offered):
    async def decide(turn: Turn) -> Decision:
        if is_drafted:
            await turn.draft()
        return ESCALATE

    draft, target = scripted("same words, other end"), scripted("same words, true end")
    trace = await run(Policy(decide), draft, target, use_proposals=use_proposals)
    assert trace.text == "same words, true end"
    assert [request.proposal is not None for request in target.calls] == [is_offered]
    assert all(request.proposal is None for request in draft.calls)
    assert trace.usage["target"].num_reused == (2 if is_offered else 0)


async def test_candidate_still_in_the_making_is_stopped_when_the_other_is_kept():
    draft, target = scripted("a"), scripted("x y z", seconds_per_token=1.0)

    async def decide(turn: Turn) -> Decision:
        waiting = asyncio.ensure_future(turn.target())
        await turn.draft()
        waiting.cancel()
        return ACCEPT

    trace = await run(Policy(decide), draft, target)
    assert (trace.text, trace.finish) == ("a", Finish.END_OF_SEQUENCE)
    assert [c.source for c in trace.steps[0].candidates] == ["draft"]
    assert target.open_sessions == 0


async def test_candidate_still_in_the_making_is_stopped_when_the_solution_fails():
    draft = scripted("a", faults={0: EngineError("down")})
    target, making = scripted("x", clock=_SlowOnce()), []

    async def decide(turn: Turn) -> Decision:
        making.append(asyncio.ensure_future(turn.target()))
        await asyncio.sleep(0.001)
        await turn.draft()
        return ACCEPT

    trace = await run(Policy(decide), draft, target)
    assert trace.finish is Finish.FAILED
    assert target.calls
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert (draft.open_sessions, target.open_sessions) == (0, 0)


async def test_latency_leaves_out_calls_that_only_measure():
    clock = VirtualClock()
    draft = scripted("a a", "b b", clock=clock, seconds_per_token=1.0)
    target = scripted("x x x", "y y y", clock=clock, seconds_per_token=10.0)
    prm = ScriptedScorer(value=lambda i, c: 0.9 if i and c.source is Source.TARGET else 0.5, name="prm")
    pair = Pair(draft=draft, target=target)
    trace = await solve(PROBLEM, pair, Oracle(prm, 0.1), clock=clock.now)
    assert [step.source for step in trace.steps] == ["draft", "target"]
    num_tokens = [[c.num_tokens for c in step.candidates] for step in trace.steps]
    measured, served = 10.0 * num_tokens[0][1], 10.0 * num_tokens[1][1] + num_tokens[0][0] + num_tokens[1][0]
    assert trace.wall_s == served + measured
    assert (trace.latency_s, trace.model_s) == (served, served)
    assert trace.measurement.keys() == {"target", "prm"}
    assert trace.measurement["target"].seconds == measured
    assert trace.measurement["prm"].num_calls == 4


@pytest.mark.parametrize("policy", ["draft", "target", "rsd", "oracle", "router"])
async def test_costs_add_up_to_what_the_engines_reported(policy):
    prm = ScriptedScorer(value=lambda i, c: (i + len(c.text)) % 3 / 2, name="prm")
    policies = {
        "draft": DraftOnly(),
        "target": TargetOnly(),
        "rsd": RSD(prm, 0.5),
        "oracle": Oracle(prm, 0.0),
        "router": RouterPolicy(prm, 0.4),
    }
    clock = VirtualClock()
    draft = Watched(scripted("a", "b b", "c c c", "d", clock=clock, seconds_per_token=0.5))
    target = Watched(scripted("a", "x", "c c y", "z z", clock=clock, seconds_per_token=2.0))
    trace = await run(policies[policy], draft, target)
    for role, engine in (("draft", draft), ("target", target)):
        billed = trace.usage.get(role, Cost()) + trace.measurement.get(role, Cost())
        assert asdict(billed) == asdict(total(made.cost for made in engine.made))
    billed = trace.usage.get("prm", Cost()) + trace.measurement.get("prm", Cost())
    assert billed.num_calls == prm.num_calls


async def test_each_proposal_has_a_seed_of_its_own():
    draft, target = scripted("a", "b"), scripted("x", "y")
    await run(router(1, 1), draft, target, seed=7)
    seeds = [request.seed for engine in (draft, target) for request in engine.calls]
    assert len(set(seeds)) == 4
    again = scripted("a", "b")
    await run(router(0, 0), again, target, seed=7)
    assert [request.seed for request in again.calls] == seeds[:2]


async def test_policy_may_go_on_after_a_time_out():
    """A cancelled wait for a candidate must not cancel the solution."""
    target = scripted("x y z", clock=_SlowOnce())

    async def decide(turn: Turn) -> Decision:
        try:
            await asyncio.wait_for(turn.target(), 0.001)
        except TimeoutError:
            return ESCALATE
        return ACCEPT

    trace = await run(Policy(decide), scripted("a"), target)
    assert (trace.text, trace.finish) == ("x y z", Finish.END_OF_SEQUENCE)


class _SlowOnce(VirtualClock):
    is_slow = True

    async def sleep(self, seconds: float) -> None:
        if self.is_slow:
            self.is_slow = False
            await asyncio.sleep(60)


@pytest.mark.parametrize(("broken", "kept"), [(Source.DRAFT, ESCALATE), (Source.TARGET, ACCEPT)])
async def test_policy_may_fall_back_when_one_engine_fails(broken, kept):
    faults = {0: EngineTimeout("too late")}
    engines = {source: scripted("a", faults=faults if source is broken else {}) for source in Source}

    async def decide(turn: Turn) -> Decision:
        with pytest.raises(EngineTimeout):
            await turn.candidate(broken)
        return kept

    trace = await run(Policy(decide), engines[Source.DRAFT], engines[Source.TARGET])
    assert (trace.text, trace.error) == ("a", None)


async def test_interrupted_catch_up_is_not_taken_for_a_complete_one():
    class HangsOnce(Watched):
        async def open(self, problem, source):
            session = await super().open(problem, source)
            if len(self.sessions) == 1:
                session.commit = lambda candidate: asyncio.sleep(60)
            return session

    async def decide(turn: Turn) -> Decision:
        if turn.index == 0:
            return ACCEPT
        waiting = asyncio.ensure_future(turn.target())
        await asyncio.sleep(0.001)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return ESCALATE

    target = HangsOnce(scripted("x", "y"))
    trace = await run(Policy(decide), scripted("a", "b"), target)
    assert trace.text == "a\n\ny"
    assert all(session.closed for session in target.sessions)


async def test_samples_of_one_step_are_made_once_and_together():
    target = scripted("one", "two")
    asked = []

    async def decide(turn):
        first = await turn.candidate(Source.TARGET, 1)
        asked.append(await turn.samples(Source.TARGET, 3))
        assert asked[-1][1] is first
        assert await turn.samples(Source.TARGET, 2) == asked[-1][:2]
        return Decision(source=Source.TARGET, sample=2)

    trace = await solve(PROBLEM, Pair(draft=scripted("d"), target=target), Policy(decide))
    assert trace.text == "one\n\ntwo"
    assert [made.sample for made in asked[0]] == [0, 1, 2]
    seeds = [call.seed for call in target.calls]
    assert len(seeds) == len(set(seeds)) == 2 * 3


async def test_samples_without_a_waiting_caller_are_stopped_too():
    """The cancellation arrives in the very round of the loop in which the samples' tasks were made."""
    events = []

    class Slow(Watched):
        async def open(self, problem, source):
            session = await super().open(problem, source)

            async def propose_many(request, seeds):
                events.append("began")
                try:
                    await asyncio.sleep(60)
                finally:
                    events.append("stopped")

            session.propose_many = propose_many
            return session

    history = History(PROBLEM, Pair(draft=scripted("d"), target=Slow(scripted("x"))))
    turn = Turn(history, setting(), 16)
    await history.session(Source.TARGET)
    asked = asyncio.ensure_future(turn.samples(Source.TARGET, 2))
    await asyncio.sleep(0)
    asked.cancel()
    await asyncio.sleep(0)
    await asyncio.wait_for(turn.abandon(), 1.0)
    await history.close()
    events.append("closed")
    await asyncio.gather(asked, return_exceptions=True)
    assert events in (["began", "stopped", "closed"], ["closed"])


@pytest.mark.parametrize("is_rewindable", [True, False])
async def test_a_history_goes_back_and_continues_in_another_way(is_rewindable):
    target = scripted("a", "b", "c", "d")
    engine = target if is_rewindable else Watched(target)
    history = History(PROBLEM, Pair(draft=scripted("x"), target=engine))
    whole = await finish(history, TargetOnly(), setting())
    await history.rewind(1)
    assert [step.text for step in history.chosen] == ["a\n\n"]
    assert (await finish(history, TargetOnly(), setting())).text == whole.text.removeprefix("a\n\n")
    await history.rewind(9)
    assert len(history.chosen) == 4
    await history.rewind(0)
    assert (await finish(history, TargetOnly(), setting())).text == whole.text
    assert target.open_sessions == 1
    await history.close()
    assert target.open_sessions == 0


@pytest.mark.parametrize(
    ("steps", "num_steps"),
    [
        (("a", r"\boxed{7}", "b"), 2),
        ((r"\boxed{}", "b", "c"), 3),
        ((r"<think> \boxed{7}", "b </think>", r"\boxed{8}", "c"), 3),
    ],
    ids=["answer", "empty box", "thinking"],
)
async def test_a_solution_can_end_at_its_answer(steps, num_steps):
    trace = await run(TargetOnly(), scripted("x"), scripted(*steps), stops_at_answer=True)
    assert len(trace.steps) == num_steps
    is_cut = num_steps < len(steps)
    assert trace.finish is (Finish.ANSWERED if is_cut else Finish.END_OF_SEQUENCE)
    assert Trace.from_json(trace.to_json()).finish is trace.finish
    assert len((await run(TargetOnly(), scripted("x"), scripted(*steps))).steps) == len(steps)


@pytest.mark.parametrize("num_cancellations", [1, 3])
async def test_a_cancellation_while_sessions_close_leaves_none_open(num_cancellations):
    draft = scripted("one", "two")
    history = History(PROBLEM, Pair(draft=draft, target=draft))
    for source in Source:
        await history.session(source)
    task = asyncio.ensure_future(history.close())
    await asyncio.sleep(0)
    for _ in range(num_cancellations):
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert draft.open_sessions == 0


async def test_a_watcher_may_cancel_at_the_last_step():
    draft = scripted("one", "two")
    work = None

    def watch(trace):
        if trace.finish is not None:
            work.cancel()

    work = asyncio.ensure_future(solve(PROBLEM, Pair(draft=draft, target=scripted()), DraftOnly(), watch=watch))
    with pytest.raises(asyncio.CancelledError):
        await work
    assert draft.open_sessions == 0
