"""Conversations through the chat templates of published models, down to the ids that a model starts from."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chat_models
from arbitrage.core.errors import ConfigError, ProblemError
from arbitrage.core.types import Message, Problem
from arbitrage.engines.chat import without_system
from arbitrage.engines.encoding import encoder_of
from arbitrage.engines.prompt import ChatPrompt, Example, PlainPrompt
from arbitrage.engines.scripted import ScriptedEngine
from arbitrage.scorers.families import FAMILIES
from arbitrage.scorers.format import InputFormat
from helpers import PROBLEM, opened

NAMES = list(chat_models.MODELS)
SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
PAIRS_SYSTEM = "Write numbered steps."


@pytest.fixture(params=NAMES)
def tokenizer(request):
    return chat_models.MODELS[request.param]()


def talk(*messages):
    return Problem(id="p1", messages=[Message(role, content) for role, content in messages])


def by_transformers(tokenizer, *messages, **options):
    records = [{"role": role, "content": content} for role, content in messages]
    options = {"add_generation_prompt": True, "return_dict": False} | options
    return tokenizer.apply_chat_template(records, **options)


def shown(tokenizer, prompt, problem):
    return tokenizer.decode(prompt.encode(tokenizer, problem))


# --- plain questions: as ever ------------------------------------------------------------------------


QUESTIONS = st.text(st.sampled_from("aZ 0123+-.,:(\n\t\u00e9\u20ac\U0001f600\u4e2d<>|{}[]_")).filter(str.strip)


@settings(max_examples=40)
@given(question=QUESTIONS, name=st.sampled_from(NAMES))
def test_a_question_has_the_ids_that_transformers_gives_it(question, name):
    tokenizer, problem = chat_models.MODELS[name](), Problem(id="p1", question=question)
    wanted = by_transformers(tokenizer, (USER, question))
    assert ChatPrompt().encode(tokenizer, problem) == wanted
    assert PlainPrompt("Q: {question}\nA:").encode(tokenizer, problem) == tokenizer.encode(f"Q: {question}\nA:")
    # The way of texts that spell control tokens leads to the same ids where a text spells none.
    encoder = encoder_of(tokenizer)
    rendered = by_transformers(tokenizer, (USER, question), tokenize=False)
    assert encoder.encode(tokenizer, encoder.split(rendered)) == wanted


def test_examples_and_a_system_message_have_the_ids_that_transformers_gives_them(tokenizer):
    prompt = ChatPrompt("Be brief.", (Example(question="1+1?", solution="It is 2."),))
    turns = [(USER, "1+1?"), (ASSISTANT, "It is 2."), (USER, PROBLEM.question)]
    if tokenizer.bos_token == "<bos>":
        turns[0] = (USER, "Be brief.\n\n1+1?")
    else:
        turns.insert(0, (SYSTEM, "Be brief."))
    assert prompt.encode(tokenizer, PROBLEM) == by_transformers(tokenizer, *turns)


# --- system messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen2.5", "llama-3", "smollm2"])
def test_the_pairs_system_message_comes_first_and_the_users_behind_it_in_the_same_message(name):
    tokenizer = chat_models.MODELS[name]()
    problem = talk((SYSTEM, "Answer in French."), (SYSTEM, "Be brief."), (USER, "2+2?"))
    joined = f"{PAIRS_SYSTEM}\n\nAnswer in French.\n\nBe brief."
    wanted = by_transformers(tokenizer, (SYSTEM, joined), (USER, "2+2?"))
    assert ChatPrompt(PAIRS_SYSTEM).encode(tokenizer, problem) == wanted
    alone = by_transformers(tokenizer, (SYSTEM, "Answer in French.\n\nBe brief."), (USER, "2+2?"))
    assert ChatPrompt().encode(tokenizer, problem) == alone


def test_the_templates_write_the_system_message_where_their_models_expect_it():
    problem = talk((SYSTEM, "Be brief."), (USER, "2+2?"))
    qwen = "<|im_start|>system\nWrite numbered steps.\n\nBe brief.<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n"
    assert shown(chat_models.qwen(), ChatPrompt(PAIRS_SYSTEM), problem) == f"{qwen}<|im_start|>assistant\n"
    assert shown(chat_models.smollm2(), ChatPrompt(PAIRS_SYSTEM), problem) == f"{qwen}<|im_start|>assistant\n"
    llama = shown(chat_models.llama3(), ChatPrompt(PAIRS_SYSTEM), problem)
    assert llama.count("<|begin_of_text|>") == 1
    assert "Today Date: 26 Jul 2024\n\nWrite numbered steps.\n\nBe brief.<|eot_id|><|start_header_id|>user" in llama
    gemma = "<bos><start_of_turn>user\nWrite numbered steps.\n\nBe brief.\n\n2+2?<end_of_turn>\n<start_of_turn>model\n"
    assert shown(chat_models.gemma(), ChatPrompt(PAIRS_SYSTEM), problem) == gemma


def test_an_empty_system_message_is_none(tokenizer):
    assert ChatPrompt().encode(tokenizer, talk((SYSTEM, ""), (USER, "2+2?"))) == by_transformers(
        tokenizer, (USER, "2+2?")
    )


def test_a_template_that_refuses_system_messages_gets_each_in_front_of_the_next_user_message():
    tokenizer = chat_models.gemma()
    problem = talk((USER, "2+2?"), (ASSISTANT, "4"), (SYSTEM, "Now in French."), (USER, "3+3?"))
    turns = [(USER, "Be brief.\n\n2+2?"), (ASSISTANT, "4"), (USER, "Now in French.\n\n3+3?")]
    assert ChatPrompt("Be brief.").encode(tokenizer, problem) == by_transformers(tokenizer, *turns)
    last = [Message(*each) for each in [(USER, "2+2?"), (SYSTEM, "Be brief."), (ASSISTANT, "4")]]
    assert without_system(last) == [Message(USER, "2+2?\n\nBe brief."), Message(ASSISTANT, "4")]


# --- several turns, and the beginning of an answer ---------------------------------------------------

TURNS = ((USER, "What is 2+2?"), (ASSISTANT, "It is 4."), (USER, "And 3+3?"))


def test_several_turns_are_those_of_the_template(tokenizer):
    assert ChatPrompt().encode(tokenizer, talk(*TURNS)) == by_transformers(tokenizer, *TURNS)


@pytest.mark.parametrize("prefix", ["Step 1: add.", "It is", "Step 1: <b>", "\\boxed{"])
def test_the_beginning_of_an_answer_goes_on_as_transformers_would_have_it(tokenizer, prefix):
    problem = talk(*TURNS, (ASSISTANT, prefix))
    wanted = by_transformers(
        tokenizer, *TURNS, (ASSISTANT, prefix), add_generation_prompt=False, continue_final_message=True
    )
    assert ChatPrompt().encode(tokenizer, problem) == wanted


@pytest.mark.parametrize("prefix", ["Step 1: add.\n\n", " It is ", "\n", "Step 1.\n\n<|im_end|>\n\n"])
def test_the_beginning_of_an_answer_keeps_every_byte(tokenizer, prefix):
    """Templates trim messages: what is left of the beginning would be another one."""
    begun = ChatPrompt().encode(tokenizer, talk(*TURNS, (ASSISTANT, prefix)))
    fresh = ChatPrompt().encode(tokenizer, talk(*TURNS))
    assert tokenizer.decode(begun) == tokenizer.decode(fresh) + prefix
    assert not {tokenizer.eos_token_id} & set(begun[len(fresh) :])


def test_a_plain_prompt_shows_the_conversation_as_text_and_the_beginning_of_the_answer_behind_it():
    tokenizer, prompt = chat_models.qwen(), PlainPrompt("Q: {question}\nA: ")
    problem = talk((SYSTEM, "Be brief."), *TURNS, (ASSISTANT, "It is "))
    wanted = "Q: System: Be brief.\n\nUser: What is 2+2?\n\nAssistant: It is 4.\n\nUser: And 3+3?\nA: It is "
    assert prompt.encode(tokenizer, problem) == tokenizer.encode(wanted)
    assert shown(tokenizer, prompt, talk((USER, "2+2?"), (ASSISTANT, "It is "))) == "Q: 2+2?\nA: It is "


async def test_a_scripted_engine_holds_the_whole_conversation():
    engine = ScriptedEngine(script="4.")
    async with opened(engine, talk((SYSTEM, "Be brief."), (USER, "2+2?"), (ASSISTANT, "It is "))) as session:
        assert list(session.token_ids) == engine.encode("System: Be brief.\n\nUser: 2+2?It is ")


# --- what a template refuses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "turns",
    [
        ((USER, "2+2?"), (USER, "3+3?")),
        ((ASSISTANT, "Hello."), (USER, "2+2?")),
        ((SYSTEM, "Be brief."), (USER, "2+2?"), (USER, "3+3?")),
        ((USER, "2+2?"), (ASSISTANT, "4"), (ASSISTANT, "Well, ")),
    ],
)
def test_what_a_template_refuses_is_one_clear_error_with_its_own_words(turns):
    with pytest.raises(ConfigError, match=r"the chat template of .* does not take this prompt: .* must alternate"):
        ChatPrompt().encode(chat_models.gemma(), talk(*turns))


def changed(tokenizer, monkeypatch, template):
    monkeypatch.setattr(tokenizer, "chat_template", template)
    return tokenizer


def test_a_template_that_leaves_out_answers_cannot_go_on_from_one(monkeypatch):
    tokenizer = changed(chat_models.qwen(), monkeypatch, "{{ messages[0]['content'] }}")
    with pytest.raises(ConfigError, match=r"leaves out the beginning of an answer .*end the conversation"):
        ChatPrompt().encode(tokenizer, talk((USER, "2+2?"), (ASSISTANT, "It is ")))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has no chat template .*plain prompt"),
        ("{{ raise_exception('no system role') }}", "does not take this prompt: no system role"),
        ("{% for m in messages %}{{ m.content.nothing.at.all }}{% endfor %}", "does not take this prompt: .*nothing"),
        ("{% if messages %}", "does not take this prompt: "),
        ("{{ 1 / 0 }}", "does not take this prompt: division by zero"),
    ],
)
def test_a_template_that_serves_no_problem_is_found_before_the_first(monkeypatch, template, said):
    tokenizer = changed(chat_models.qwen(), monkeypatch, template)
    with pytest.raises(ConfigError, match=said):
        ChatPrompt("Be brief.").check(tokenizer)


def test_prompts_that_serve_pass_the_check(tokenizer):
    for prompt in (ChatPrompt(), ChatPrompt("Be brief.", (Example(question="1+1?", solution="2"),)), PlainPrompt()):
        prompt.check(tokenizer)


# --- text that no tokenizer can encode ---------------------------------------------------------------


@pytest.mark.parametrize("prompt", [ChatPrompt(), PlainPrompt()], ids=["chat", "plain"])
@pytest.mark.parametrize("question", ["\ud800", "2+2\udfff?", "<|im_end|>\ud800", "\udc80\udcff"])
def test_a_lone_surrogate_is_one_clear_error(tokenizer, prompt, question):
    with pytest.raises(ProblemError, match=r"cannot encode a text: 'utf-8' codec .* surrogates not allowed"):
        prompt.encode(tokenizer, Problem(id="p1", question=question))


# --- scorers -----------------------------------------------------------------------------------------


def test_a_router_reads_the_conversation_through_its_template(tokenizer):
    read = InputFormat(kind="router", system="Judge.")
    problem = talk(*TURNS, (ASSISTANT, "Step 1."))
    prompt, _ = read.encode(tokenizer, problem, [(("draft", "Step 2.\n\n"),)])
    assert prompt == ChatPrompt("Judge.").encode(tokenizer, problem)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prm_reads_the_conversation_as_text_and_the_beginning_of_the_answer_with_the_first_step(name):
    import vocabularies

    tokenizer = {"rlhflow": vocabularies.llama3, "math-shepherd": vocabularies.mistral}.get(name, vocabularies.qwen)()
    family = FAMILIES[name]
    begun = talk((SYSTEM, "Be brief."), (USER, "2+2?"), (ASSISTANT, "Step 1: I "))
    plain = Problem(id="p1", question="System: Be brief.\n\nUser: 2+2?")
    assert family.prompt_ids(tokenizer, begun) == family.prompt_ids(tokenizer, plain)
    first = family.step_ids(tokenizer, begun, 0, "add.\n\n")
    assert first == family.step_ids(tokenizer, plain, 0, "Step 1: I add.\n\n")
    assert family.step_ids(tokenizer, begun, 1, "add.\n\n") == family.step_ids(tokenizer, plain, 1, "add.\n\n")
