"""The shipped models are what the model card says."""

from collections import Counter

import pytest

import arbitrage as arb
from arbitrage.core.errors import CheckpointError, ConfigError
from arbitrage.datasets.named import problems
from arbitrage.tiny import WEIGHTS
from arbitrage.training.label_runs import LabelOptions

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def pair():
    return arb.load("tiny")


def test_weights_are_small_and_safe():
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 64 * 2**20
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".jinja", ".md"}


@pytest.mark.parametrize("policy", ["target", "draft"])
async def test_proposals_do_not_change_what_the_target_writes(pair, policy):
    always = pair.policy("random", 1.0) if policy == "target" else pair.policy("random", 0.0)
    for problem in problems("tiny:validation", 5):
        alone = await arb.solve(problem, pair.pair, pair.policy(policy))
        mixed = await arb.solve(problem, pair.pair, always)
        assert mixed.text == alone.text
        assert [s.candidate.token_ids for s in mixed.steps] == [s.candidate.token_ids for s in alone.steps]


@pytest.mark.parametrize("name", ["speculative", "speculative:1", "ngram", "speculative:6"])
async def test_token_level_speculation_changes_nothing_but_the_time(pair, name):
    method = pair.method(name)
    for problem in problems("tiny:validation", 6):
        alone = await arb.solve(problem, pair.pair, pair.policy("target"))
        guessed = await method.solve(problem, arb.Setting())
        assert [s.candidate.token_ids for s in guessed.steps] == [s.candidate.token_ids for s in alone.steps]
        assert (guessed.text, guessed.finish, guessed.policy) == (alone.text, alone.finish, name)
        # Without a number, costs that are measured beside other load may say that guessing loses.
        assert guessed.usage["target"].num_confirmed > 0 or name != "speculative:6"


async def test_a_rule_on_a_guessing_target_decides_and_writes_the_same(pair):
    plain, guessing = (pair.method(name, 0.6) for name in ("random", "random+speculative:3"))
    for problem in problems("tiny:validation", 4):
        alone = await plain.solve(problem, arb.Setting())
        guessed = await guessing.solve(problem, arb.Setting())
        assert guessed.text == alone.text
        assert [step.source for step in guessed.steps] == [step.source for step in alone.steps]
        assert guessed.policy == "random+speculative:3"
        assert guessed.usage["target"].num_guessed > 0


def test_only_what_the_policies_ask_is_loaded(tmp_path):
    """A router that is still to be trained stands in the configuration already."""
    path = tmp_path / "pair.toml"
    shipped = {role: WEIGHTS / role for role in ("draft", "target", "prm")} | {"routers.b": WEIGHTS / "probe"}
    tables = shipped | {"router": tmp_path / "to-come"}
    lines = [f"[{table}]\npath = {str(folder)!r}\nname = 'tiny-{table}'\n" for table, folder in tables.items()]
    path.write_text("".join(lines))
    with pytest.raises(CheckpointError, match="to-come"):
        arb.load(path)
    loaded = arb.load(path, policies=["confidence", "router:b+speculative:2"])
    assert (loaded.models.prm, loaded.auditor, list(loaded.models.routers)) == (None, None, ["router:b"])
    assert loaded.method("router:b+speculative").name == "router:b+speculative"
    for policy, role in (("rsd", "prm"), ("router", "router")):
        with pytest.raises(ConfigError, match=f"was loaded without its {role}"):
            loaded.policy(policy)
    with pytest.raises(ConfigError, match=r"has no routers\.c .*add a table \[routers\.c\]"):
        loaded.policy("router:c")
    assert arb.load(path, policies=["oracle"]).models.prm is not None
    assert arb.load(path, policies=["draft"], with_prm=True).auditor is not None


def test_gates_and_votes_solve_problems(pair):
    question = problems("tiny:validation", 1)[0].question
    for name in ("confidence", "entropy", "judge", "majority:2"):
        trace = pair.solve(question, policy=name)
        assert trace.finish is arb.Finish.END_OF_SEQUENCE
        assert trace.policy == name


def test_solve_from_python(pair):
    trace = pair.solve("Solve for x: 3x+4=25.", policy="router", threshold=0.5)
    assert trace.answer == "7"
    assert set(trace.usage) <= {"draft", "target", "router"}


def test_further_routers_and_the_likelihood_are_policies(pair):
    for policy, scorer in (("router:model", "router:model"), ("likelihood", "likelihood")):
        trace = pair.solve("Solve for x: 3x+4=25.", policy=policy)
        assert trace.answer == "7"
        assert trace.usage[scorer].num_calls == len(trace.steps)
    assert {"router:model", "likelihood"} <= set(pair.policies)
    with pytest.raises(ConfigError, match=r"no routers\.other"):
        pair.policy("router:other")


@pytest.mark.parametrize(
    ("policy", "scorers", "threshold"),
    [("target", set(), None), ("router", {"router"}, 0.02), ("oracle", {"prm"}, 0.0), ("random", set(), None)],
)
def test_labels_belong_to_the_models_that_decide_who_continues(pair, policy, scorers, threshold):
    settings = LabelOptions(policy=policy).settings(pair, "rows")
    assert settings["models"].keys() == {"draft", "target"} | scorers
    assert settings["threshold"] == threshold


def test_another_pair_than_the_router_was_trained_for_is_warned_of(tmp_path):
    (tmp_path / "pair.toml").write_text(
        "".join(f'[{role}]\npath = "{WEIGHTS / role}"\nname = "mine"\n' for role in ("draft", "target", "router"))
    )
    with pytest.warns(UserWarning, match="trained for"):
        arb.load(tmp_path / "pair.toml")


def test_drills_for_the_prm_are_labelled_by_what_they_say():
    from transformers import PreTrainedTokenizerFast

    from arbitrage.tiny.prm import at_ends, prm_drills

    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(WEIGHTS / "prm"))
    labels = Counter()
    for drill in prm_drills(tokenizer, 200, seed=0):
        question, _, statements = tokenizer.decode(drill.ids).partition("<|assistant|>")
        lines = statements.removesuffix("\n\n").split("\n\n")
        for line, label in zip(lines, at_ends(drill).labels, strict=True):
            expression, is_equation, result = line.rstrip(".").partition("=")
            if is_equation:
                is_true = eval(expression.replace("%", "/100")) == int(result)
            else:
                is_true = line.rstrip(".") in question
            assert is_true == label, line
            labels[label] += 1
    assert min(labels.values()) > 300


def test_a_token_is_labelled_by_whether_the_step_can_still_become_true():
    from transformers import PreTrainedTokenizerFast

    from arbitrage.tiny.prm import labelled, start_rollouts
    from arbitrage.tiny.sampling import WrittenStep

    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(WEIGHTS / "prm"))
    rollout = start_rollouts(tokenizer, "train", 6, seed=0)[5]  # An equation.
    true = rollout.problem.steps[0].terse
    wrong = true[:-2] + str((int(true[-2]) + 1) % 10) + "."
    for text in (true, wrong, true):
        ids = tokenizer.encode(text + "\n\n", add_special_tokens=False)
        rollout.steps.append(WrittenStep(ids=ids, text=text + "\n\n", is_last=False))
    row, size = labelled(rollout, tokenizer), len(rollout.steps[0].ids)
    first, second, repeated = (row.labels[i : i + size] for i in range(0, 3 * size, size))
    assert first == [1.0] * size
    assert second == [0.0] * size  # Its beginning is only that of what has been said.
    assert repeated[-1] == 0.0
    assert next(p for p, w in zip(row.positions, row.weights, strict=True) if w == 1.0) == row.positions[size - 1]
