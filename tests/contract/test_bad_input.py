"""What a library cannot do with one problem's data fails that problem; what serves no problem is refused at once."""

import copy
import importlib.util

import pytest

from arbitrage.core.errors import ConfigError
from arbitrage.core.solve import solve
from arbitrage.core.turn import Pair
from arbitrage.core.types import Finish, Message, Problem, Source
from arbitrage.engines.dialects import VLLM
from arbitrage.engines.hf import HFEngine
from arbitrage.engines.http import HTTPEngine
from arbitrage.engines.http_client import HTTPClient
from arbitrage.engines.prompt import ChatPrompt, PlainPrompt
from arbitrage.engines.scripted import ScriptedEngine
from arbitrage.policies import RSD, TargetOnly
from arbitrage.scorers.families import FAMILIES
from arbitrage.scorers.format import InputFormat
from arbitrage.scorers.http import FamilyLayout, FormatLayout, HTTPScorer
from helpers import PROBLEM, candidate, opened, setting

ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def strict(tokenizer):
    """A tokenizer whose chat template takes user and assistant in turn, and no system message."""
    made = copy.deepcopy(tokenizer)
    made.chat_template = ALTERNATING
    return made


@pytest.fixture(params=["hf", "http", "gguf"])
def engine(request, strict, random_lm, tmp_path):
    if request.param == "hf":
        return HFEngine(random_lm(0), strict, name="mine")
    if request.param == "http":
        return HTTPEngine(HTTPClient("http://127.0.0.1:1"), VLLM(), strict, name="mine", context_length=512)
    if not all(map(importlib.util.find_spec, ("llama_cpp", "gguf"))):
        pytest.skip("llama.cpp is not installed")
    import gguf_vocabularies

    read = gguf_vocabularies.load("qwen2.5", strict, tmp_path)
    return HTTPEngine(HTTPClient("http://127.0.0.1:1"), VLLM(), read, name="mine", context_length=512)


def talk(*turns, id="p1"):
    return Problem(id=id, messages=[Message(role, content) for role, content in turns])


BAD = {
    "two users in turn": (talk(("user", "2+2?"), ("user", "3+3?")), "does not take this prompt: roles must alternate"),
    "assistant first": (
        talk(("assistant", "Hi."), ("user", "2+2?")),
        "does not take this prompt: roles must alternate",
    ),
    "surrogate in the question": (Problem(id="p1", question="\ud800"), "surrogates not allowed"),
    "surrogate in a system message": (talk(("system", "\udfff"), ("user", "2+2?")), "surrogates not allowed"),
    "surrogate in the answer": (talk(("user", "2+2?"), ("assistant", "\udc80")), "surrogates not allowed"),
    "surrogate beside a control token": (Problem(id="p1", question="<|end|>\ud800"), "surrogates not allowed"),
}


@pytest.mark.parametrize(("problem", "said"), BAD.values(), ids=BAD)
async def test_a_problem_that_a_library_refuses_fails_with_the_librarys_words(engine, problem, said):
    trace = await solve(problem, Pair(draft=engine, target=engine), TargetOnly(), setting())
    assert trace.finish is Finish.FAILED
    assert said in trace.error
    assert "\n" not in trace.error


async def test_an_id_that_is_no_text_fails_its_problem(engine):
    trace = await solve(
        Problem(id="p\ud800", question="2+2?"), Pair(draft=engine, target=engine), TargetOnly(), setting()
    )
    assert trace.finish is Finish.FAILED
    assert r"the id 'p\ud800' cannot be encoded" in trace.error


async def test_a_step_that_cannot_be_encoded_fails_its_problem_too(engine):
    async with opened(engine, PROBLEM) as session:
        with pytest.raises(Exception, match="surrogates not allowed") as caught:
            await session.commit(candidate("\ud800", Source.DRAFT))
    assert type(caught.value).__name__ == "ProblemError"


def scorers(tokenizer):
    client = HTTPClient("http://127.0.0.1:1")
    layouts = [FormatLayout(tokenizer, InputFormat(kind="prm")), FamilyLayout(tokenizer, FAMILIES["trl"])]
    return [HTTPScorer(client, VLLM(), layout, name="prm", model="m") for layout in layouts]


@pytest.mark.parametrize("number", [0, 1], ids=["format", "family"])
async def test_a_problem_that_a_scorer_cannot_encode_fails(strict, number):
    pair = Pair(draft=ScriptedEngine(script="4."), target=ScriptedEngine(script="4."))
    for problem in (Problem(id="p1", question="\ud800"), Problem(id="p2", question="2+2\udfff?")):
        trace = await solve(problem, pair, RSD(scorers(strict)[number], 0.5), setting())
        assert trace.finish is Finish.FAILED
        assert "surrogates not allowed" in trace.error


# --- what serves no problem --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has no chat template .*plain prompt"),
        ("{{ raise_exception('no prompts today') }}", "does not take this prompt: no prompts today"),
        ("{{ messages[0].nothing.at.all }}", "does not take this prompt"),
        ("{% endif %}", "does not take this prompt"),
        ("{{ messages | nothing }}", "does not take this prompt"),
    ],
)
def test_an_engine_or_a_scorer_whose_template_serves_no_problem_is_refused(strict, random_lm, template, said):
    strict.chat_template = template
    client, prompt = HTTPClient("http://127.0.0.1:1"), ChatPrompt("Be brief.")
    with pytest.raises(ConfigError, match=said):
        HFEngine(random_lm(0), strict, name="mine", prompt=prompt)
    with pytest.raises(ConfigError, match=said):
        HTTPEngine(client, VLLM(), strict, name="mine", prompt=prompt, context_length=512)
    with pytest.raises(ConfigError, match=said):
        FormatLayout(strict, InputFormat(kind="prm"))
    assert HTTPEngine(client, VLLM(), strict, name="mine", prompt=PlainPrompt(), context_length=512)


def test_a_template_without_a_system_role_serves(strict, random_lm):
    engine = HFEngine(random_lm(0), strict, name="mine", prompt=ChatPrompt("Be brief."))
    ids = engine.prompt_ids(Problem(id="p1", question="2+2?"))
    assert strict.decode(ids) == "<user>Be brief.\n\n2+2?<assistant>"
