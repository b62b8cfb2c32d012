"""Small tokenizers of the kinds that people serve, trained on a few built-in sentences."""

from collections.abc import Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from arbitrage.tiny.tokenizer import QWEN_PATTERN

LLAMA3_PATTERN = QWEN_PATTERN.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
"""Numbers in groups of three; all else as Qwen does it."""
TEXTS = [
    "Mia has 3 times as many stamps as Leo. Leo has 14 stamps. How many stamps does Mia have?\n\n",
    "Step 1: Leo has 14 stamps.\n\nStep 2: Mia has 14*3=42 stamps.\n\nThe answer is \\boxed{42}.\n\n\n",
    "So:\n\n\nx=10, y=20; 100+200=300.\n\n1000-250=750!\n\n\nThus the sum is 12.\n\n",
    "A caf\u00e9 sells 5 \u20ac cakes, na\u00efve r\u00e9sum\u00e9s.\n\nWe divide both sides by 6: x=10.\n\n\n",
    "A train covers 120 miles in each hour, so it needs 7 hours for 840 miles.\n\nThe price falls by 25 percent.\n\n\n",
    "Let y be the number of apples in a basket; then 3y + 8 = 29, hence 3y = 21 and y = 7.\n\nCheck: 3*7+8=29.\n\n",
    "Because both numbers are even, their product is divisible by four. Subtracting gives 1024 - 768 = 256.\n\n",
    "If a worker paints a wall within 6 hours while another needs 3 hours, together they finish after 2.\n\n",
    "Suppose that every student chose one subject: 40% mathematics, 35% physics, the remaining 25% history.\n\n",
    "Please reason step by step, and put your final answer within \\boxed{}.\nuser\nassistant\nsystem\n",
]
QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3_TEMPLATE = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def byte_bpe(
    *special: str, vocab_size: int = 600, pattern: str = QWEN_PATTERN, texts: Sequence[str] = TEXTS, **options: Any
) -> PreTrainedTokenizerFast:
    """Byte-level BPE behind a pre-tokeniser; the first special token ends a text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    options = {"pad_token": special[0], "eos_token": special[0], "clean_up_tokenization_spaces": False} | options
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **options)


def qwen() -> PreTrainedTokenizerFast:
    """As Qwen2.5-Math-PRM's; begin-of-sequence as in Skywork's."""
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>")
    return byte_bpe(*special, chat_template=QWEN_TEMPLATE, bos_token="<|endoftext|>")


def llama3() -> PreTrainedTokenizerFast:
    """As Llama 3.1's, its chat template included."""
    special = ("<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>")
    made = byte_bpe(*special, pattern=LLAMA3_PATTERN, chat_template=LLAMA3_TEMPLATE, bos_token="<|begin_of_text|>")
    return beginning(made, "<|begin_of_text|>")


def mistral() -> PreTrainedTokenizerFast:
    """As Mistral's: spaces are part of words, what has no token is bytes, a newline among it."""
    control = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    texts = [line for text in TEXTS for line in text.split("\n")] + ["Step 1: 2 \u043a\u0438 \u043a\u0438 + -"] * 9
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=control, show_progress=False)
    bpe.train_from_iterator([*texts, *(word for text in texts for word in text.split())], trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        clean_up_tokenization_spaces=False,
    )
    return beginning(made, "<s>")


def beginning(tokenizer: PreTrainedTokenizerFast, token: str) -> PreTrainedTokenizerFast:
    """The tokenizer with begin-of-sequence in front of a text."""
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{token} $A", special_tokens=[(token, tokenizer.convert_tokens_to_ids(token))]
    )
    return tokenizer
