r"""The tokenizer of the tiny models: byte-level BPE with Qwen's pre-tokeniser, digits single.

Like the tokenizers of Qwen and Llama-3, it merges punctuation with the newlines after it: ``.\n\n`` is one token. A
step delimiter can therefore be inside a token, as in models of real size.
"""

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from arbitrage.tiny import MARKS
from arbitrage.tiny.drills import drill
from arbitrage.tiny.world import generate
from arbitrage.tiny.world_problem import DRAFT_HABIT, TARGET_HABIT

PAD: Final = "<|pad|>"
END: Final = "<|end|>"
USER: Final = "<|user|>"
ASSISTANT: Final = "<|assistant|>"
SPECIAL_TOKENS: Final = (PAD, END, USER, ASSISTANT, *MARKS.values())

QWEN_PATTERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<|end|>"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
VOCAB_SIZE: Final = 1024


def corpus(num_problems: int) -> Iterator[str]:
    """Training text for the tokenizer: questions, solutions in both habits, drills."""
    rng = random.Random("tokenizer")
    for index in range(num_problems):
        problem = generate("train", index)
        yield problem.question
        yield problem.solution(DRAFT_HABIT, rng)
        yield problem.solution(TARGET_HABIT, rng)
        yield drill(rng, 4)


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a tokenizer on the given texts."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def save_tokenizer(folder: Path, num_problems: int) -> None:
    """Train the tokenizer that all four tiny models share, and write it into ``folder``.

    Args:
        folder: The folder to write.
        num_problems: The number of training problems to read; 3,000 problems contain every word of the world.
    """
    train_tokenizer(corpus(num_problems)).save_pretrained(str(folder))
