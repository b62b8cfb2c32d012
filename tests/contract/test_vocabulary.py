"""Tokens of the same model are the same to transformers and llama.cpp; those of other models are not."""

import copy
from itertools import permutations

import pytest

chat_models = pytest.importorskip("chat_models")

from arbitrage.engines.vocabulary import is_same_vocabulary, token_bytes  # noqa: E402

KINDS = ("hf", "gguf")


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("name", chat_models.MODELS)
def test_a_vocabulary_is_the_same_in_every_library(engine_with, name, first, second):
    assert is_same_vocabulary(engine_with(first, name).tokenizer, engine_with(second, name).tokenizer)


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("names", list(permutations(chat_models.MODELS, 2)))
def test_vocabularies_of_two_models_differ(engine_with, names, first, second):
    tokenizers = [engine_with(kind, name).tokenizer for kind, name in zip((first, second), names, strict=True)]
    assert not is_same_vocabulary(*tokenizers)


@pytest.mark.parametrize("kind", KINDS)
def test_two_ids_that_are_exchanged_are_noticed(engine_with, kind):
    tokenizer = engine_with(kind, "qwen2.5").tokenizer
    exchanged = copy.copy(token_bytes(tokenizer))
    exchanged[300], exchanged[301] = exchanged[301], exchanged[300]

    class Exchanged:
        token_bytes = exchanged

    assert not is_same_vocabulary(tokenizer, Exchanged())
    assert not is_same_vocabulary(Exchanged(), tokenizer)


@pytest.mark.parametrize("name", chat_models.MODELS)
def test_bytes_of_tokens_join_to_the_text(engine_with, name):
    for kind in KINDS:
        tokenizer = engine_with(kind, name).tokenizer
        spelling = token_bytes(tokenizer)
        text = "A café sells 5 € cakes:\n\nx=10. \U0001f600"
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert b"".join(spelling[id] for id in ids).decode() == text


def test_padding_of_a_gguf_file_is_left_out(tokenizer, plain_lm, tmp_path):
    """Its embeddings are padded to another size than the target's, as those of two sizes of a family are."""
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    from arbitrage.engines import gguf_export
    from arbitrage.engines.llamacpp import LlamaEngine
    from arbitrage.engines.speculative import SpeculativeEngine

    engines = []
    for number, padding in ((1, 0), (2, 24)):
        model = copy.deepcopy(plain_lm(number))
        model.resize_token_embeddings(len(tokenizer) + padding, mean_resizing=False)
        folder = tmp_path / str(padding)
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        gguf_export.export_gguf(folder, folder / "model.gguf", "f32")
        engines.append(LlamaEngine.load(folder / "model.gguf", name=f"padded by {padding}", threads=1))
    target, draft = engines
    assert draft.num_embeddings == target.num_embeddings + 24 == len(tokenizer) + 24
    assert is_same_vocabulary(draft.tokenizer, target.tokenizer)
    assert is_same_vocabulary(draft.tokenizer, tokenizer)
    assert SpeculativeEngine.by_draft(target, draft, 3).name == "padded by 0+padded by 24:3"
