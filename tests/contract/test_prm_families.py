"""PRM families against their authors' definitions, on random checkpoints of the same architecture and key layout."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

import vocabularies
from arbitrage.cli.main import app
from arbitrage.core.errors import CheckpointError, ConfigError, ScorerError
from arbitrage.core.turn import History
from arbitrage.core.types import Problem, Source
from arbitrage.pairs.config import read_pair
from arbitrage.pairs.loaded import load
from arbitrage.scorers.families import FAMILIES, TRL, Family, Head, MathShepherd, checked_probability
from arbitrage.scorers.hf_convert import convert_skywork
from arbitrage.scorers.hf_families import FamilyScorer
from helpers import PROBLEM, candidate

STEPS = [
    "First we add:\n2 + 2 = 4.\n\n",
    "Step 2: 4 \u20ac is the caf\u00e9's sum.\n\n\n",
    " \n\n",
    "The answer is \\boxed{4}.",
]
REJECTED = candidate("A rejected step of another length.\n\n")


# --- the authors' definitions: whole solutions in one plain forward pass -----------------------------


def skywork_layout(tokenizer: Any, question: str, steps: list[str]) -> tuple[list[int], list[int]]:
    """``prepare_input`` of SkyworkAI/skywork-o1-prm-inference; the last line of a step has its score."""
    ids, ends = tokenizer.encode(tokenizer.bos_token + question + "\n"), []
    for step in steps:
        for line in step.rstrip().split("\n"):
            ids += (tokenizer.encode(line) if line != "" else []) + [tokenizer.encode("\n")[-1]]
        ends.append(len(ids) - 1)
    return ids, ends


def qwen_layout(tokenizer: Any, question: str, steps: list[str]) -> tuple[list[int], list[int]]:
    """The example on the model card of Qwen/Qwen2.5-Math-PRM-7B."""
    messages = [
        {"role": "system", "content": "Please reason step by step, and put your final answer within \\boxed{}."},
        {"role": "user", "content": question},
        {"role": "assistant", "content": "<extra_0>".join(step.rstrip() for step in steps) + "<extra_0>"},
    ]
    ids = tokenizer.encode(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False))
    return ids, [place for place, id in enumerate(ids) if id == tokenizer.encode("<extra_0>")[0]]


def trl_layout(tokenizer: Any, question: str, steps: list[str]) -> tuple[list[int], list[int]]:
    """``PRMTrainer.tokenize_row`` of TRL 0.13 with ``step_separator="\\n\\n"``."""
    separator = tokenizer.encode("\n\n", add_special_tokens=False)
    completions = [tokenizer(step.rstrip(), add_special_tokens=False)["input_ids"] + separator for step in steps]
    prompt = [tokenizer.bos_token_id, *tokenizer(question, add_special_tokens=False)["input_ids"]]
    ends = [len(prompt) + sum(map(len, completions[: k + 1])) - 1 for k in range(len(steps))]
    return prompt + list(chain(*completions)), ends


def rlhflow_scores(model: Any, tokenizer: Any, question: str, steps: list[str]) -> list[float]:
    """``select_sample`` of math-rm/prm_evaluate.py in RLHFlow/RLHF-Reward-Modeling."""
    candidates = [tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]]
    conversation, scores = [], []
    for k, step in enumerate(step.strip() for step in steps):
        conversation.append({"content": question + " " + step if k == 0 else step, "role": "user"})
        conversation.append({"content": "+", "role": "assistant"})
        ids = tokenizer.apply_chat_template(conversation, return_dict=False)
        logits = model(torch.tensor([ids]), use_cache=False).logits[:, -3, candidates]
        scores.append(logits.softmax(dim=-1)[0, 0].item())
    return scores


def shepherd_scores(model: Any, tokenizer: Any, question: str, steps: list[str]) -> list[float]:
    """The example on the model card of peiyi9979/math-shepherd-mistral-7b-prm."""
    candidates = tokenizer.encode("+ -")[1:]
    lines = [step.strip() for step in steps]
    lines = [line if line.startswith("Step 2") else f"Step {k + 1}: {line}" for k, line in enumerate(lines)]
    ids = torch.tensor([tokenizer.encode(question + " " + "\n".join(f"{line} \u043a\u0438" for line in lines))])
    scores = model(ids, use_cache=False).logits[:, :, candidates].softmax(dim=-1)[:, :, 0]
    return scores[ids == tokenizer.encode("\u043a\u0438")[-1]].tolist()


def at_ends(layout: Callable[..., Any], read: Callable[[Any], Any]) -> Callable[..., list[float]]:
    def scores(model: Any, tokenizer: Any, question: str, steps: list[str]) -> list[float]:
        ids, ends = layout(tokenizer, question, steps)
        return read(model(torch.tensor([ids])))[ends].tolist()

    return scores


# --- checkpoints -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """A checkpoint folder, and what its authors' code says of a solution."""

    folder: Path
    tokenizer: Any
    scores: Callable[..., list[float]]
    model: Any

    def definition(self, question: str, steps: list[str]) -> list[float]:
        with torch.inference_mode():
            return self.scores(self.model, self.tokenizer, question, steps)


def model_of(kind: str, tokenizer: Any, **values: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind.split('For')[0]}Config")(
        vocab_size=640,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **values,
    )
    return getattr(transformers, kind)(config).eval()


def written(folder: Path, model: Any, tokenizer: Any, head: dict[str, Any], architecture: str) -> None:
    """A checkpoint with remote code, as its authors publish it."""
    tokenizer.save_pretrained(folder)
    weights = {**model.state_dict(), **head}
    save_file({name: each.clone() for name, each in weights.items()}, folder / "model.safetensors")
    remote = {"AutoModel": f"modeling.{architecture}", "AutoConfig": "modeling.Config"}
    config = {**model.config.to_dict(), "architectures": [architecture], "auto_map": remote}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling.py").write_text("raise RuntimeError('remote code')\n")


def make_skywork(folder: Path) -> Made:
    tokenizer = vocabularies.qwen()
    model, summary = model_of("Qwen2ForCausalLM", tokenizer), nn.Linear(64, 1)
    nn.init.constant_(summary.bias, -0.7)
    written(
        folder, model, tokenizer, {f"v_head.summary.{k}": v for k, v in summary.named_parameters()}, "Qwen2ForPrmModel"
    )

    def value(output: Any) -> Any:
        return summary(output.hidden_states[-1]).squeeze(-1).sigmoid()[0]

    model.config.output_hidden_states = True
    return Made(folder, tokenizer, at_ends(skywork_layout, value), model)


def make_qwen(folder: Path) -> Made:
    tokenizer = vocabularies.qwen()
    model = model_of("Qwen2ForCausalLM", tokenizer)
    score = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    weights = {f"score.{k}": v for k, v in score.named_parameters()}
    written(folder, model, tokenizer, weights, "Qwen2ForProcessRewardModel")
    read = at_ends(qwen_layout, lambda output: score(output.last_hidden_state).softmax(-1)[0, :, 1])
    return Made(folder, tokenizer, read, model.model)


def make_trl(folder: Path) -> Made:
    tokenizer = vocabularies.qwen()
    model = model_of("Qwen2ForTokenClassification", tokenizer, num_labels=2)
    nn.init.normal_(model.score.bias)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    read = at_ends(trl_layout, lambda output: output.logits.softmax(-1)[0, :, 1])
    return Made(folder, tokenizer, read, model)


def make_rlhflow(folder: Path) -> Made:
    tokenizer = vocabularies.llama3()
    model = model_of("LlamaForCausalLM", tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Made(folder, tokenizer, rlhflow_scores, model)


def make_shepherd(folder: Path) -> Made:
    tokenizer = vocabularies.mistral()
    model = model_of("MistralForCausalLM", tokenizer, sliding_window=None)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Made(folder, tokenizer, shepherd_scores, model)


MAKERS = {
    "skywork": make_skywork,
    "qwen-prm": make_qwen,
    "trl": make_trl,
    "rlhflow": make_rlhflow,
    "math-shepherd": make_shepherd,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folders: dict[str, Made] = {}

    def build(name: str) -> Made:
        if name not in folders:
            folders[name] = MAKERS[name](tmp_path_factory.mktemp(name))
        return folders[name]

    return build


@pytest.fixture(scope="module")
def judge(made):
    return lambda name: FamilyScorer.load(made(name).folder, name="judge", family=FAMILIES[name])


# --- scores ------------------------------------------------------------------------------------------


async def scores_of(scorer: FamilyScorer, texts: list[str]) -> list[float]:
    """Step by step, a rejected step before each."""
    session, values = await scorer.open(History(PROBLEM, None)), []
    for number, text in enumerate(texts):
        await session.score(REJECTED)
        step = candidate(text, list(Source)[number % 2])
        values.append((await session.score(step)).value)
        await session.commit(step)
    await session.close()
    return values


@pytest.mark.parametrize("name", FAMILIES)
async def test_incremental_scores_equal_the_authors_definition(made, judge, name):
    values = await scores_of(judge(name), STEPS)
    assert values == pytest.approx(made(name).definition(PROBLEM.question, STEPS), abs=1e-5)
    assert len({round(value, 5) for value in values}) == len(STEPS)
    assert all(0.0 < value < 1.0 for value in values)


@pytest.mark.parametrize("name", ["skywork", "rlhflow"])
async def test_half_precision_changes_scores_a_little(made, name):
    scorer = FamilyScorer.load(made(name).folder, name="judge", family=FAMILIES[name], dtype="bfloat16")
    wanted = made(name).definition(PROBLEM.question, STEPS)
    assert await scores_of(scorer, STEPS) == pytest.approx(wanted, abs=0.05)


@pytest.mark.parametrize("name", FAMILIES)
async def test_only_new_tokens_are_computed(judge, name):
    scorer = judge(name)
    session = await scorer.open(History(PROBLEM, None))
    first, second = (scorer.step_ids(PROBLEM, k, candidate(text)) for k, text in enumerate(STEPS[:2]))
    prompt = len(scorer.family.prompt_ids(scorer.tokenizer, PROBLEM))
    assert (await session.score(candidate(STEPS[0]))).cost.num_computed == prompt + len(first.scored)
    await session.commit(candidate(STEPS[0]))
    made = await session.score(candidate(STEPS[1]))
    assert made.cost.num_computed == len(first.closing) + len(second.scored)
    assert (made.scorer, made.source, made.cost.num_calls) == ("judge", Source.DRAFT, 1)


@pytest.mark.parametrize("name", FAMILIES)
async def test_another_name_is_the_same_model_with_sessions_of_its_own(judge, name):
    scorer = judge(name)
    audit = scorer.renamed("audit")
    assert (audit.name, audit.model is scorer.model) == ("audit", True)
    assert await scores_of(audit, STEPS[:2]) == pytest.approx(await scores_of(scorer, STEPS[:2]), abs=1e-6)


async def test_a_solution_longer_than_the_context_is_an_error(judge):
    session = await judge("trl").open(History(PROBLEM, None))
    with pytest.raises(ScorerError, match=r"\d+ tokens, the context of 'judge' has 512"):
        await session.score(candidate("word " * 600))


async def test_a_window_that_slides_is_computed_anew_behind_a_rejected_step(made, judge, monkeypatch):
    plain = await scores_of(judge("math-shepherd"), STEPS)
    scorer, reference = judge("math-shepherd"), made("math-shepherd")
    for model in (scorer.model, reference.model):
        monkeypatch.setattr(model.config, "sliding_window", 16)
    values = await scores_of(scorer, STEPS)
    assert values == pytest.approx(reference.definition(PROBLEM.question, STEPS), abs=1e-5)
    assert values[1:] != pytest.approx(plain[1:], abs=1e-3)


async def test_a_score_that_is_no_number_is_an_error(made):
    scorer = FamilyScorer.load(made("skywork").folder, name="judge", family=FAMILIES["skywork"])
    scorer.head[0].weight.data.fill_(math.nan)
    with pytest.raises(ScorerError, match="'judge' gave NaN"):
        await (await scorer.open(History(PROBLEM, None))).score(REJECTED)


# --- pure formats ------------------------------------------------------------------------------------


def encode_solution(family: Family, tokenizer: Any, problem: Problem, steps: list[str]) -> tuple[list[int], list[int]]:
    """The ids of a whole solution, and the positions of the steps' scores among them."""
    ids, positions = family.prompt_ids(tokenizer, problem), []
    for index, text in enumerate(steps):
        step = family.step_ids(tokenizer, problem, index, text)
        positions.append(len(ids) + len(step.scored) - 1)
        ids += (*step.scored, *step.closing)
    return ids, positions


@pytest.mark.parametrize("name", FAMILIES)
def test_a_whole_solution_is_the_steps_ids_joined(made, name):
    family, tokenizer = FAMILIES[name], made(name).tokenizer
    ids, positions = encode_solution(family, tokenizer, PROBLEM, STEPS)
    before, _ = encode_solution(family, tokenizer, PROBLEM, STEPS[:-1])
    assert ids[: len(before)] == before
    assert len(positions) == len(STEPS)
    assert all(first < second for first, second in pairwise(positions))
    layouts = {"skywork": skywork_layout, "qwen-prm": qwen_layout, "trl": trl_layout}
    if name in layouts:
        wanted, ends = layouts[name](tokenizer, PROBLEM.question, STEPS)
        assert (ids, positions) == (wanted[: len(ids)], ends)
        assert tokenizer.decode(wanted[len(ids) :]).strip() in ("", "<|im_end|>")


LINES = st.text(st.sampled_from("aZ 0123+-.,:(\n\t\u00e9\u20ac\U0001f600")).map(str.strip)


@settings(max_examples=60)
@given(steps=st.lists(LINES.map(lambda line: f"{line}\n\n"), min_size=1, max_size=3))
def test_ids_that_grow_are_those_of_the_whole_conversation(vocabulary, steps):
    """Both formats whose authors encode all at once; what is behind the last score does not count."""
    llama, mistral = vocabulary
    asked = Problem(id="p1", question="1+1?")
    turns = chain(*(({"role": "user", "content": s}, {"role": "assistant", "content": "+"}) for s in steps))
    messages = list(turns)
    messages[0] = {"role": "user", "content": f"1+1? {steps[0].strip()}"}
    ids, _ = encode_solution(FAMILIES["rlhflow"], llama, asked, steps)
    assert ids == llama.apply_chat_template(messages, return_dict=False)
    lines = "\n".join(f"Step {k + 1}: {step.strip()} \u043a\u0438" for k, step in enumerate(steps))
    ids, _ = encode_solution(MathShepherd(), mistral, asked, steps)
    assert ids == mistral.encode(f"1+1? {lines}")


@pytest.fixture(scope="module")
def vocabulary():
    return vocabularies.llama3(), vocabularies.mistral()


def test_another_separator_is_another_format(made):
    tokenizer = made("trl").tokenizer
    step = TRL(separator="\n").step_ids(tokenizer, PROBLEM, 0, "one\n\n")
    assert tokenizer.decode(step.scored) == "one\n"


@pytest.mark.parametrize(
    ("head", "outputs", "wanted"),
    [
        (Head.VALUE, [0.0], 0.5),
        (Head.VALUE, [-800.0], 0.0),
        (Head.CLASSES, [0.0, math.log(3.0)], 0.75),
        (Head.LANGUAGE, [math.log(3.0), 0.0], 0.75),
        (Head.LANGUAGE, [-1000.0, -1000.0], 0.5),
    ],
)
def test_raw_outputs_become_a_probability(head, outputs, wanted):
    assert head.probability(outputs) == pytest.approx(wanted)


@pytest.mark.parametrize(("head", "outputs"), [(Head.VALUE, [0.1, 0.2]), (Head.CLASSES, [0.1]), (Head.LANGUAGE, [])])
def test_another_number_of_outputs_is_an_error(head, outputs):
    with pytest.raises(ScorerError, match=f"a {head} head gives {head.num_outputs} numbers .* got {len(outputs)}"):
        head.probability(outputs)


@pytest.mark.parametrize(("value", "told"), [(1.5, r"'x' gave 1\.5, no probability"), (math.nan, "'x' gave NaN")])
def test_a_number_that_is_no_probability_is_an_error(value, told):
    with pytest.raises(ScorerError, match=told):
        checked_probability(value, "x")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("skywork", "has no begin-of-sequence token, which the format 'skywork' needs"),
        ("qwen-prm", "has no token '<extra_0>'"),
        ("rlhflow", "has no chat template, "),
        ("math-shepherd", "has no token '\u043a\u0438'"),
    ],
)
def test_a_tokenizer_of_another_family_is_refused(name, told):
    with pytest.raises(CheckpointError, match=told):
        FAMILIES[name].check(vocabularies.byte_bpe("<|end|>"))


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% for m in messages %}({{ m['content'] }}){% endfor %}", r"'\+' as a token of its own"),
        ("{{ messages[-1]['content'] }}", "leaves earlier turns as they are"),
    ],
)
def test_a_chat_template_that_rewrites_turns_is_refused(template, told):
    tokenizer = vocabularies.byte_bpe("<|end|>", chat_template=template)
    with pytest.raises(CheckpointError, match=told):
        FAMILIES["rlhflow"].check(tokenizer)


# --- broken and foreign checkpoints ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made_as", "read_as", "told"),
    [
        ("skywork", "trl", r"v_head\.summary in .* has 1 outputs, the format 'trl' reads 2 .*read it: skywork\)"),
        ("trl", "skywork", r"score in .* has 2 outputs, the format 'skywork' reads 1 .*read it: qwen-prm, trl\)"),
        ("rlhflow", "trl", r"no head for the format 'trl': none of .*read language models: rlhflow, math-shepherd\)"),
        ("trl", "rlhflow", r"is no language model.* \['Qwen2ForTokenClassification'\]"),
        ("rlhflow", "math-shepherd", "has no token '\u043a\u0438'"),
    ],
)
def test_a_checkpoint_of_another_family_is_refused(made, made_as, read_as, told):
    with pytest.raises(CheckpointError, match=told):
        FamilyScorer.load(made(made_as).folder, name="judge", family=FAMILIES[read_as])


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "cannot read the weights in"),
        (lambda f: (f / "model.safetensors").write_bytes(b"rubbish!"), "cannot read the weights in"),
        (lambda f: (f / "config.json").write_text("{"), "cannot load the checkpoint"),
        (lambda f: _changed(f, "model.norm.weight", None), "lacks weights: norm.weight"),
        (lambda f: _changed(f, "v_head.summary.weight", torch.ones(1, 32)), "reads 32 numbers, its backbone gives 64"),
    ],
)
def test_a_broken_checkpoint_is_refused(tmp_path, harm, told):
    make_skywork(tmp_path)
    harm(tmp_path)
    with pytest.raises(CheckpointError, match=told) as caught:
        FamilyScorer.load(tmp_path, name="judge", family=FAMILIES["skywork"])
    assert str(tmp_path) in str(caught.value)


def _changed(folder, name, value):
    weights = load_file(folder / "model.safetensors")
    weights = {k: v for k, v in {**weights, name: value}.items() if v is not None}
    save_file(weights, folder / "model.safetensors")


def test_a_name_that_is_no_folder_is_fetched_from_the_hub(made, monkeypatch):
    asked = []

    def fetched(name, *, allow_patterns):
        asked.append((name, "*.safetensors" in allow_patterns))
        return str(made("trl").folder)

    monkeypatch.setattr("arbitrage.scorers.hf_families.snapshot_download", fetched)
    assert FamilyScorer.load("who/prm", name="judge", family=TRL()).name == "judge"
    assert asked == [("who/prm", True)]


def test_what_is_neither_a_folder_nor_on_the_hub_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint folder at .*none"):
        FamilyScorer.load(tmp_path / "none", name="judge", family=TRL())


# --- configuration -----------------------------------------------------------------------------------


def pair_file(folder: Path, prm: Path, extra: str = 'format = "skywork"') -> Path:
    path = folder / "pair.toml"
    path.write_text(f'[draft]\npath = "a"\n[target]\npath = "b"\n[prm]\npath = "{prm}"\n{extra}\n')
    return path


async def test_a_pair_names_its_prm_by_format(made, tmp_path, random_lm, tokenizer):
    random_lm(0).save_pretrained(tmp_path / "a")
    tokenizer.save_pretrained(tmp_path / "a")
    folder = made("skywork").folder
    text = pair_file(tmp_path, folder).read_text().replace('"b"', '"a"')
    (tmp_path / "pair.toml").write_text(text)
    loaded = load(tmp_path / "pair.toml")
    assert (loaded.models.prm.name, loaded.auditor.name) == ("prm", "audit")
    wanted = made("skywork").definition(PROBLEM.question, STEPS[:1])
    session = await loaded.models.prm.open(History(PROBLEM, None))
    assert [(await session.score(candidate(STEPS[0]))).value] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ('format = "skywrok"', r"format must be one of skywork, .* got 'skywrok' \(did you mean 'skywork'\?\)"),
        ('format = "gpt"', r"got 'gpt'"),
        ('format = "trl"\nsystem = "Judge."', "the format 'trl' has a prompt of its own"),
        ('[router]\npath = "c"\nformat = "trl"', r"a format is for the table \[prm\], got 'trl' in \[router\]"),
        ('[routers.two]\npath = "c"\nformat = "trl"', r"got 'trl' in \[routers\.two\]"),
    ],
)
def test_a_bad_format_names_its_fault(tmp_path, extra, told):
    with pytest.raises(ConfigError, match=told):
        read_pair(pair_file(tmp_path, tmp_path, extra))


# --- conversion --------------------------------------------------------------------------------------


def sharded(folder: Path) -> None:
    """The same checkpoint in three files, the language head alone in one of them."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights.keys() - {"lm_head.weight"})
    parts = {"a.safetensors": names[:9], "b.safetensors": names[9:], "c.safetensors": ["lm_head.weight"]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file)
    index = {name: file for file, part in parts.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


@pytest.mark.parametrize("change", [lambda folder: None, sharded], ids=["one file", "sharded"])
async def test_a_converted_skywork_prm_gives_the_scores_of_the_value_head(tmp_path, change):
    source, out = tmp_path / "skywork", tmp_path / "out"
    source.mkdir()
    made = make_skywork(source)
    change(source)
    told = CliRunner().invoke(app, ["convert-prm", str(source), str(out)])
    assert told.exit_code == 0
    assert 'format = "skywork"' in told.stdout
    scorer = FamilyScorer.load(out, name="judge", family=FAMILIES["skywork"])
    assert await scores_of(scorer, STEPS) == pytest.approx(made.definition(PROBLEM.question, STEPS), abs=1e-5)
    # transformers' own class reads all but the bias, which stays for those that have one.
    plain, report = transformers.AutoModelForSequenceClassification.from_pretrained(out, output_loading_info=True)
    assert (type(plain).__name__, plain.config.num_labels) == ("Qwen2ForSequenceClassification", 1)
    assert (report["missing_keys"], report["unexpected_keys"]) == (set(), {"score.bias"})
    ids, ends = skywork_layout(made.tokenizer, PROBLEM.question, STEPS)
    with torch.inference_mode():
        logits = [plain(torch.tensor([ids[: end + 1]])).logits[0, 0] - 0.7 for end in ends]
    assert torch.stack(logits).sigmoid().tolist() == pytest.approx(made.definition(PROBLEM.question, STEPS), abs=1e-5)
    config = json.loads((out / "config.json").read_text())
    assert "auto_map" not in config
    assert not list(out.glob("*.py"))
    names = {name for file in out.glob("*.safetensors") for name in load_file(file)}
    assert not any(name.startswith(("lm_head.", "v_head.")) for name in names)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda f: (f / "config.json").unlink(), "cannot read the configuration"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "must be one of .*, got 'bert'"),
        (lambda f: _changed(f, "v_head.summary.bias", None), r"has no v_head\.summary\.bias: it is no Skywork PRM"),
        (lambda f: (f / "model.safetensors").unlink(), r"\.bin files are not read"),
        (lambda f: (sharded(f), (f / "b.safetensors").unlink()), "cannot read .* from .*b.safetensors"),
    ],
)
def test_what_is_no_skywork_prm_is_refused_and_nothing_is_left(tmp_path, harm, told):
    source = tmp_path / "skywork"
    source.mkdir()
    make_skywork(source)
    harm(source)
    with pytest.raises(CheckpointError, match=told):
        convert_skywork(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["skywork"]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, made):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        convert_skywork(made("skywork").folder, tmp_path / "file" / "out")


def test_a_folder_that_is_there_is_not_written_over(tmp_path, made):
    with pytest.raises(ConfigError, match="exists already"):
        convert_skywork(made("skywork").folder, tmp_path)
