"""The tiny world: its problems are solvable, its checker is exact, its splits share no question."""

import random

import pytest

from arbitrage.tiny.drills import drill, mistake, recall_facts, recall_names
from arbitrage.tiny.families import FAMILIES
from arbitrage.tiny.world import SPLITS, generate
from arbitrage.tiny.world_problem import DELIMITER, DRAFT_HABIT, TARGET_HABIT


def holds(equation):
    """Check an equation chain such as ``3x=50-14=36`` at its numbers."""
    *_, expression, result = equation.rstrip(".").split("=")
    expression = expression.replace("%", "/100")
    return eval(expression) == int(result)


@pytest.mark.parametrize("split", SPLITS)
def test_every_true_step_holds_arithmetically_and_the_last_is_the_answer(split):
    for index in range(150):
        problem = generate(split, index)
        assert all(holds(step.terse.split()[-1]) for step in problem.operations), problem
        assert all(step.result > 0 for step in problem.operations), problem
        assert len(problem.operations) == problem.level, problem
        assert problem.answer == str(problem.operations[-1].result)


def test_the_checker_accepts_both_habits_and_nothing_else():
    rng = random.Random(0)
    for index in range(200):
        problem = generate("test", index)
        for habit in (DRAFT_HABIT, TARGET_HABIT):
            steps = problem.solution(habit, rng).split(DELIMITER)
            assert all(problem.is_correct(step) for step in steps)
            assert problem.is_correct(steps[0] + DELIMITER)
            assert not problem.is_correct(steps[-2].replace("=", "=1", 1))
            assert not problem.is_correct(steps[0], previous=steps[:1])
        assert not problem.is_correct(rf"The answer is \boxed{{{problem.answer}0}}.")
        assert not problem.is_correct("")


def test_habits_differ_in_most_steps():
    rng = random.Random(0)
    solutions = [
        [generate("test", i).solution(h, rng).split(DELIMITER)[0] for h in (DRAFT_HABIT, TARGET_HABIT)]
        for i in range(200)
    ]
    assert 0.6 < sum(draft != target for draft, target in solutions) / len(solutions) < 0.9


def test_equations_are_solved_by_their_answer():
    for index in range(5, 400, 15):
        problem = generate("test", index)
        assert problem.family == "equations"
        left, right = (
            problem.question.split(
                ":" if ":" in problem.question else ("if" if " if " in problem.question else "when")
            )[1]
            .strip(" .?")
            .split("=")
        )
        for digit in "0123456789":
            left = left.replace(f"{digit}x", f"{digit}*x").replace(f"{digit}(", f"{digit}*(")
        assert eval(left, {"x": int(problem.answer)}) == int(right), problem


def test_splits_share_no_question_and_ood_is_longer():
    questions = {split: {generate(split, i).question for i in range(300)} for split in SPLITS}
    assert not questions["train"] & questions["test"]
    assert not questions["train"] & questions["validation"]
    assert not questions["validation"] & questions["test"]
    assert min(generate("ood", i).level for i in range(30)) > max(generate("test", i).level for i in range(30))


def test_problems_depend_on_split_index_and_seed_alone():
    assert generate("train", 3) == generate("train", 3)
    assert generate("train", 3).question != generate("train", 3, seed=1).question
    assert {generate("train", i).family for i in range(15)} == set(FAMILIES)


def test_drills_are_true_equations():
    assert all(holds(line) for line in drill(random.Random(0), 200).split(DELIMITER))


def test_most_mistakes_are_wrong_and_all_are_numbers():
    rng = random.Random(0)
    results = [mistake(rng, 126) for _ in range(200)]
    assert min(results) >= 0
    assert sum(result != 126 for result in results) > 150
    assert len(set(results)) > 20


def test_a_recall_task_asks_for_its_names_in_another_order():
    pairs, questions = recall_names(random.Random(0), 12)
    assert sorted(pairs) == sorted(questions)
    assert pairs != questions
    assert len({first for first, _ in pairs}) == 12


def test_a_recall_task_asks_for_its_facts():
    facts, questions = recall_facts(random.Random(0), 7)
    completed = {beginning + ending for beginning, ending in questions}
    assert all(sum(text in fact for fact in facts) == 1 for text in completed)
    assert len(completed) == len(facts) == 7
    assert {beginning.partition(" ")[0] == "Compared" for beginning, _ in questions} == {True, False}
