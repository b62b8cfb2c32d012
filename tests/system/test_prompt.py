"""Prompts by name, by template and with examples, down to the ids that a model starts from."""

import pytest

from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Problem
from arbitrage.engines.prompt import PROMPTS, ChatPrompt, Example, PlainPrompt, prompt_of
from arbitrage.engines.tokens import TokenText
from arbitrage.pairs.catalogue import pair_config
from arbitrage.scorers.format import InputFormat

QUESTION = "What is 3+4?"
PROBLEM = Problem(id="p1", question=QUESTION)
EXAMPLES = (Example(question="What is 1+1?", solution=r"It is \boxed{2}."),)
MESSAGE = "<{{ m.role }}>{{ m.content }}"
TEMPLATE = "{% for m in messages %}" + MESSAGE + "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


@pytest.fixture
def chatty(tokenizer, monkeypatch):
    """The tokenizer with a chat template that shows every role."""
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)
    return tokenizer


def shown(prompt, tokenizer):
    return tokenizer.decode(prompt.encode(tokenizer, PROBLEM))


def test_a_chat_prompt_has_the_system_message_the_examples_as_turns_and_the_question(chatty):
    prompt = prompt_of(system="Be brief.", examples=EXAMPLES)
    turns = r"<user>What is 1+1?<assistant>It is \boxed{2}."
    assert shown(prompt, chatty) == f"<system>Be brief.{turns}<user>{QUESTION}<assistant>"


def test_nothing_configured_is_the_bare_chat_template(chatty):
    assert shown(prompt_of(), chatty) == f"<user>{QUESTION}<assistant>"


def test_a_named_prompt_brings_its_system_message(chatty):
    text = shown(prompt_of("qwen2.5-math-cot"), chatty)
    assert text.startswith("<system>Please reason step by step")
    assert text.endswith(rf"within \boxed{{}}.<user>{QUESTION}<assistant>")


def test_the_step_prompt_asks_for_headed_steps_and_a_box(chatty):
    text = shown(prompt_of("llama3-step", examples=EXAMPLES), chatty)
    system, question = text.split("<user>", 1)
    assert "\n\n## Step 2: " in system
    assert r"\boxed{answer}" in system
    assert question == rf"What is 1+1?<assistant>It is \boxed{{2}}.<user>{QUESTION}<assistant>"


def test_a_system_message_of_ones_own_replaces_that_of_a_named_prompt(chatty):
    assert prompt_of("qwen2.5-math-cot", system="Answer in French.") == ChatPrompt("Answer in French.")


def test_a_plain_template_shows_examples_in_its_own_form(tokenizer):
    prompt = prompt_of("Q: {question}\nA: ", examples=EXAMPLES)
    wanted = "Q: What is 1+1?\nA: It is \\boxed{2}.\n\nQ: What is 3+4?\nA: "
    assert prompt.encode(tokenizer, PROBLEM) == tokenizer.encode(wanted)
    assert prompt_of("plain") == PlainPrompt()


def test_braces_of_a_question_are_left_alone(tokenizer):
    prompt = PlainPrompt("{question}\n\n", EXAMPLES)
    wanted = "What is 1+1?\n\nIt is \\boxed{2}.\n\nIs {question} = {x}?\n\n"
    assert prompt.encode(tokenizer, Problem(id="p1", question="Is {question} = {x}?")) == tokenizer.encode(wanted)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("qwen2.5-math-cto", r"got 'qwen2.5-math-cto' \(did you mean 'qwen2.5-math-cot'\?\)"),
        ("Solve it.", r"prompt must be one of plain, .* or a template that contains \{question\}, got 'Solve it.'"),
    ],
)
def test_an_unknown_name_is_an_error_with_a_suggestion(text, told):
    with pytest.raises(ConfigError, match=told):
        prompt_of(text)


PAIR = """
[draft]
path = "a"
prompt = "qwen2.5-math-cot"
[[draft.examples]]
question = "What is 1+1?"
solution = 'It is \\boxed{2}.'
[target]
path = "b"
prompt = "Q: {question}"
"""


def configured(tmp_path, text):
    (tmp_path / "pair.toml").write_text(text)
    return pair_config(tmp_path / "pair.toml")


def test_a_pairs_configuration_names_prompts_and_examples(tmp_path):
    config = configured(tmp_path, PAIR)
    named = PROMPTS["qwen2.5-math-cot"]
    assert isinstance(named, ChatPrompt)
    assert config.draft.question_prompt == ChatPrompt(named.system, EXAMPLES)
    assert config.target.question_prompt == PlainPrompt("Q: {question}")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("math-cot", "maths-cot", r"got 'qwen2.5-maths-cot' .*did you mean 'qwen2.5-math-cot'"),
        ("solution =", "answer =", r"pair.toml \[draft\], an example: unknown key 'answer'"),
        ('question = "What is 1+1?"', "", r"an example: missing question"),
        ('question = "What is 1+1?"', 'question = " "', "an example needs a question and a solution"),
        ('prompt = "Q: {question}"', "examples = [1]", r"\[target\]: examples must be tables .*got \[1\]"),
    ],
)
def test_a_bad_prompt_in_a_configuration_is_one_clear_error(tmp_path, old, new, told):
    assert old in PAIR
    with pytest.raises(ConfigError, match=told):
        configured(tmp_path, PAIR.replace(old, new))


def test_a_scorers_format_may_name_a_prompt():
    assert InputFormat(kind="prm", prompt="llama3-step").question_prompt == PROMPTS["llama3-step"]


def test_a_prompt_is_encoded_once_and_given_out_as_a_copy():
    class Counting:
        calls = 0

        def check(self, tokenizer):
            pass

        def encode(self, tokenizer, problem):
            self.calls += 1
            return [1, 2, len(problem.question)]

    text = TokenText(None, "model", prompt := Counting())
    text.context_length = 9
    first = text.prompt_ids(Problem(id="a", question="one"))
    first.append(7)
    assert text.encoded_prompt(Problem(id="b", question="one")) == [1, 2, 3]
    assert prompt.calls == 1
    for number in range(600):
        text.prompt_ids(Problem(id="c", question=f"{number}"))
    assert prompt.calls == 601
    assert len(text._prompts) == 512
