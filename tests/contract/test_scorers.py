import json
import math
from dataclasses import replace
from itertools import chain

import pytest
import torch
import transformers

from arbitrage.core.errors import ArbitrageError, CheckpointError, ConfigError, ScorerError
from arbitrage.core.turn import History, Pair
from arbitrage.core.types import Source
from arbitrage.engines.tokens import load_tokenizer
from arbitrage.scorers.format import FILE, InputFormat
from arbitrage.scorers.hf import HFScorer
from arbitrage.scorers.judge import JudgeScorer
from arbitrage.scorers.likelihood import LikelihoodScorer
from arbitrage.tiny import WEIGHTS
from arbitrage.tiny.lm import Shape
from arbitrage.training.rows import Past
from helpers import PROBLEM, candidate, scripted

MARKS = {"draft": "<|draft|>", "target": "<|target|>"}
ROUTER = InputFormat(kind="router", annotation=MARKS, trained_for={"draft": "d", "target": "t"}, thresholds={"x": 0.3})
PRM = InputFormat(kind="prm")
STEPS = [
    candidate("Mia has 3 stamps.\n\n"),
    candidate("Leo has 4 \u00e9.\n\n", Source.TARGET),
    candidate("So 7."),
    candidate("", Source.TARGET),
]


@pytest.fixture
def classifier(tokenizer):
    def build(head="Sequence", num_labels=2, seed=0):
        torch.manual_seed(seed)
        config = Shape(hidden=64, layers=2, feed_forward=64).config(tokenizer)
        config.num_labels, config.initializer_range = num_labels, 0.3
        return getattr(transformers, f"LlamaFor{head}Classification")(config).eval()

    return build


@pytest.fixture
def scorer(classifier, tokenizer):
    def build(input_format=PRM, **values):
        return HFScorer(classifier(**values), tokenizer, name="hf", input_format=input_format)

    return build


@pytest.fixture
def folder(classifier, tokenizer, tmp_path):
    """A whole checkpoint of a router."""
    classifier().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ROUTER.save(tmp_path)
    return tmp_path


def from_scratch(scorer, steps):
    """The probability by the model's own forward pass over the whole text."""
    marks = scorer.input_format.annotation
    pieces = [marks.get(step.source, "") + step.text for step in steps]
    ids = scorer.prompt.encode(scorer.tokenizer, PROBLEM)
    ids += chain(*(scorer.tokenizer.encode(piece, add_special_tokens=False) for piece in pieces))
    with torch.inference_mode():
        logits = scorer.model(torch.tensor([ids]), use_cache=False).logits[0]
    last = logits[-1] if logits.dim() == 2 else logits
    return (last.sigmoid()[0] if len(last) == 1 else last.softmax(-1)[1]).item(), len(ids)


@pytest.mark.parametrize("input_format", [PRM, ROUTER], ids=lambda f: f.kind)
@pytest.mark.parametrize("num_labels", [1, 2])
@pytest.mark.parametrize("head", ["Sequence", "Token"])
async def test_incremental_scores_equal_scores_from_scratch(scorer, head, num_labels, input_format):
    hf_scorer = scorer(input_format, head=head, num_labels=num_labels)
    session, values = await hf_scorer.open(History(PROBLEM, None)), []
    for number, step in enumerate(STEPS):
        rejected = await session.score(candidate("A rejected step of another length.\n\n"))
        score = await session.score(step)
        expected, num_tokens = from_scratch(hf_scorer, STEPS[: number + 1])
        assert score.value == pytest.approx(expected, abs=1e-5)
        assert score.cost.num_computed + score.cost.num_cached == num_tokens
        assert (score.scorer, score.source, score.cost.num_calls) == ("hf", step.source, 1)
        await session.commit(step)
        values += [rejected.value, score.value]
    distinct = {round(value, 6) for value in values[:-1]}  # An empty step without a mark is the prefix itself.
    assert len(distinct) == len(values) - 1
    await session.close()
    await session.close()


async def test_only_new_tokens_are_computed(scorer):
    hf_scorer = scorer()
    session = await hf_scorer.open(History(PROBLEM, None))
    prompt = len(hf_scorer.prompt.encode(hf_scorer.tokenizer, PROBLEM))
    first, second = (
        len(hf_scorer.step_ids(PROBLEM, 0, STEPS[0]).scored),
        len(hf_scorer.step_ids(PROBLEM, 1, STEPS[1]).scored),
    )
    assert (await session.score(STEPS[0])).cost.num_computed == prompt + first
    assert (await session.score(STEPS[0])).cost.num_computed == 0
    assert (await session.score(STEPS[1])).cost.num_computed <= second
    await session.commit(STEPS[1])
    assert (await session.score(STEPS[0])).cost.num_computed == first


async def test_a_committed_step_is_computed_with_the_next_score(scorer):
    hf_scorer = scorer(ROUTER)
    session = await hf_scorer.open(History(PROBLEM, None))
    for step in STEPS[:2]:
        await session.commit(step)
    score = await session.score(STEPS[2])
    expected, num_tokens = from_scratch(hf_scorer, STEPS[:3])
    assert score.value == pytest.approx(expected, abs=1e-5)
    assert (score.cost.num_computed, score.cost.num_cached) == (num_tokens, 0)


async def test_the_same_step_of_both_models_has_one_score_and_is_computed_once(scorer):
    """Behind another step its tokens would go through passes of other widths, and the last bits would differ."""
    session = await scorer(PRM).open(History(PROBLEM, None))
    own, other, twin = candidate("Leo has 4."), candidate("Mia has 3."), candidate("Leo has 4.", Source.TARGET)
    first, _, again = [await session.score(step) for step in (own, other, twin)]
    assert (again.value, again.source, again.cost.num_computed) == (first.value, Source.TARGET, 0)
    assert again.cost.num_cached == first.cost.num_computed + first.cost.num_cached
    await session.commit(own)
    assert (await session.score(twin)).cost.num_computed > 0
    await session.close()


async def test_annotation_marks_the_author(scorer):
    hf_scorer = scorer(ROUTER)
    draft, target = STEPS[0], replace(STEPS[0], source=Source.TARGET)
    assert hf_scorer.tokenizer.decode(hf_scorer.step_ids(PROBLEM, 0, draft).scored) == "<|draft|>Mia has 3 stamps.\n\n"
    session = await hf_scorer.open(History(PROBLEM, None))
    values = [(await session.score(step)).value for step in (draft, target)]
    assert values[0] != pytest.approx(values[1], abs=1e-4)
    plain = scorer(PRM)
    assert plain.step_ids(PROBLEM, 0, draft) == plain.step_ids(PROBLEM, 0, target)


async def test_a_score_that_is_no_number_is_an_error(scorer):
    hf_scorer = scorer()
    hf_scorer.model.score.weight.data.fill_(math.nan)
    session = await hf_scorer.open(History(PROBLEM, None))
    with pytest.raises(ScorerError, match="'hf' gave NaN"):
        await session.score(STEPS[0])


@pytest.mark.parametrize("num_labels", [3, 10])
def test_a_head_of_many_labels_is_refused(scorer, num_labels):
    with pytest.raises(CheckpointError, match=f"can be read as 'probability', got {num_labels}"):
        scorer(num_labels=num_labels)


def test_a_language_model_is_no_scorer(random_lm, tokenizer):
    with pytest.raises(CheckpointError, match="needs a head `score`"):
        HFScorer(random_lm(0), tokenizer, name="lm", input_format=PRM)


# --- the format file ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "input_format", [PRM, ROUTER, replace(PRM, delimiter="\n")], ids=["prm", "router", "delimiter"]
)
def test_a_format_survives_its_file(input_format, tmp_path):
    input_format.save(tmp_path)
    assert InputFormat.load(tmp_path) == input_format


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "judge"}, "kind must be one of prm, router, got 'judge'"),
        ({"kind": "prm", "annotation": {"draft": "D"}}, r"need the keys draft and target, got \['draft'\]"),
        ({"kind": "prm", "trained_for": {"a": "", "b": ""}}, "need the keys draft and target"),
        ({"kind": "prm", "thresholds": {"default": 1.5}}, r"threshold 'default' must be in \[0, 1\], got 1.5"),
    ],
    ids=["kind", "annotation", "trained_for", "thresholds"],
)
def test_a_format_out_of_range_is_refused(values, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        InputFormat(**values)
    (tmp_path / FILE).write_text(json.dumps({"schema": 1, **values}))
    with pytest.raises(CheckpointError, match=FILE):
        InputFormat.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, f"has no {FILE}"),
        ("", "not an input format"),
        ("[1]", "not an input format"),
        ('{"kind": "prm"}', "not an input format"),
        ('{"schema": 2, "kind": "prm"}', "schema must be 1, got 2"),
        ('{"schema": 1}', "not an input format"),
        ('{"schema": 1, "kind": "prm", "colour": "red"}', "not an input format"),
        ('{"schema": 1, "kind": "prm", "thresholds": {"x": "high"}}', "not an input format"),
    ],
)
def test_an_unreadable_format_is_refused_by_its_path(text, message, tmp_path):
    if text is not None:
        (tmp_path / FILE).write_text(text)
    with pytest.raises(CheckpointError, match=message) as caught:
        InputFormat.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


# --- checkpoints -------------------------------------------------------------------------------------


async def test_a_checkpoint_brings_its_format_and_its_weights(folder, scorer):
    hf_scorer = HFScorer.load(folder, name="hf", kind="router")
    assert hf_scorer.input_format == ROUTER
    loaded, built = [await s.open(History(PROBLEM, None)) for s in (hf_scorer, scorer(ROUTER))]
    assert (await loaded.score(STEPS[0])).value == pytest.approx((await built.score(STEPS[0])).value, abs=1e-6)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def _headless(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _language_model(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"]}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / FILE).unlink(), f"has no {FILE}"),
        (lambda f: replace(ROUTER, kind="prm").save(f), "is a prm, expected a router"),
        (lambda f: _cut(f / "model.safetensors"), "cannot load the checkpoint"),
        (lambda f: (f / "model.safetensors").write_bytes(b"rubbish!"), "cannot load the checkpoint"),
        (lambda f: (f / "model.safetensors").unlink(), "cannot load the checkpoint"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "cannot load the checkpoint"),
        (lambda f: (f / "config.json").write_text("{"), "cannot read the configuration"),
        (_headless, "lacks weights: score.weight"),
        (_language_model, "is not a classifier"),
    ],
    ids=["format", "kind", "cut", "rubbish", "no weights", "tokenizer", "config", "no head", "language model"],
)
def test_a_broken_checkpoint_is_refused_by_its_path(folder, damage, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    damage(folder)
    with pytest.raises(ArbitrageError, match=message) as caught:
        HFScorer.load(folder, name="hf", kind="router")
    assert isinstance(caught.value, CheckpointError)
    assert str(folder) in str(caught.value)


def test_a_missing_folder_is_not_looked_for_on_the_hub(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        HFScorer.load(tmp_path / "none", name="hf", kind="prm")


async def test_a_likelihood_score_is_the_improbability_under_the_target():
    history = History(PROBLEM, Pair(draft=scripted("a"), target=scripted("one two three", "four", unlikely=-2.0)))
    session = await history.scoring(LikelihoodScorer())
    steps = {"one two three\n\n": 0.0, "one 2 three\n\n": -6.0, "": 0.0}
    for text, log_probability in steps.items():
        score = await session.score(candidate(text))
        assert score.value == pytest.approx(1.0 - math.exp(log_probability) ** 0.1)
        assert score.cost.num_calls == 1
    await history.close()


@pytest.mark.parametrize(("digit", "unlikely", "rating"), [(7, -1e3, 7.0), (0, -1e3, 0.0), (9, -math.log(2), 27 / 5.5)])
async def test_the_judge_gives_the_mean_rating_of_the_target(digit, unlikely, rating):
    """The last: digit 9 twice as likely as each other one, (9 + 36 / 2) / (1 + 9 / 2) = 27 / 5.5."""
    script = ["right", " Rate", f" it:{digit}"]
    target = scripted()
    target.script, target.unlikely = [script], unlikely
    history = History(PROBLEM, Pair(draft=scripted("a"), target=target))
    session = await history.scoring(JudgeScorer(request=" Rate it:"))
    score = await session.score(candidate("right"))
    assert score.value == pytest.approx(rating / 9)
    assert (score.scorer, score.source, score.cost.num_calls, score.cost.num_generated) == ("judge", Source.DRAFT, 1, 0)
    await history.close()


def test_each_part_of_a_step_is_read_behind_its_authors_mark():
    folder = WEIGHTS / "router"
    tokenizer, marked = load_tokenizer(str(folder)), InputFormat.load(folder)
    past = Past(source=Source.TARGET, text="two is four", num_taken_chars=len("two is"))
    parts = past.as_candidate().parts
    assert parts == ((Source.DRAFT, "two is"), (Source.TARGET, " four"))
    assert tokenizer.decode(marked.step_ids(tokenizer, parts)) == "<|draft|>two is<|target|> four"
    plain = replace(marked, annotation={})
    assert plain.step_ids(tokenizer, parts) == plain.step_ids(tokenizer, ((Source.TARGET, past.text),))
    assert Past.from_json(json.loads(json.dumps(past.to_json()))) == past
    assert Past(source=Source.DRAFT, text="x").to_json() == {"source": Source.DRAFT, "text": "x"}
