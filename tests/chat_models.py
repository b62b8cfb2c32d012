"""Small tokenizers with the chat templates and the special tokens of four published models.

Templates: those of Qwen2.5-7B-Instruct (without tools), Llama-3.2-3B-Instruct (without tools, with its default date),
SmolLM2-1.7B-Instruct and gemma-2-2b-it.
"""

from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import vocabularies

QWEN = """{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- else %}
    {{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- set is_said = message.role == "user" or (message.role == "system" and not loop.first) %}
    {%- if is_said or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {{- '\n<tool_call>\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
LLAMA3 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}

{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{#- System message #}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)

QWEN_SPECIAL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
]
QWEN_ADDED = [
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
]
"""Not marked as special by its tokenizer."""
LLAMA3_SPECIAL = [
    *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
    *("<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eom_id|>", "<|eot_id|>", "<|python_tag|>"),
    *(f"<|reserved_special_token_{number}|>" for number in range(3, 248)),
]
SMOLLM2_SPECIAL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>", "<filename>"),
    *("<gh_stars>", "<issue_start>", "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>"),
    *("<jupyter_code>", "<jupyter_output>", "<jupyter_script>", "<empty_output>"),
]
GEMMA_SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
GEMMA_CONTROL = ["<mask>", "<2mass>", "[@BOS@]", *(f"<unused{number}>" for number in range(99))]
"""Not marked as special by its tokenizer."""
GEMMA_TEXT = ["\n\n", "\n\n\n", "\u2581\u2581", "<table>", "</td>", "<h1>"]
"""Added tokens that are part of ordinary text."""


@cache
def qwen() -> PreTrainedTokenizerFast:
    """As Qwen2.5's: digits single, eight added tokens that are not marked as special."""
    made = vocabularies.byte_bpe("<|endoftext|>", chat_template=QWEN, eos_token="<|im_end|>", vocab_size=700)
    made.add_tokens([AddedToken(token, normalized=False, special=True) for token in QWEN_SPECIAL])
    made.add_tokens([AddedToken(token, normalized=False) for token in QWEN_ADDED])
    return made


@cache
def llama3() -> PreTrainedTokenizerFast:
    """As Llama 3.2's: numbers in groups of three, begin-of-sequence in front of a text."""
    made = vocabularies.byte_bpe(
        "<|begin_of_text|>", pattern=vocabularies.LLAMA3_PATTERN, chat_template=LLAMA3, vocab_size=700,
        bos_token="<|begin_of_text|>", eos_token="<|eot_id|>",
    )  # fmt: skip
    made.add_tokens([AddedToken(token, normalized=False, special=True) for token in LLAMA3_SPECIAL])
    return vocabularies.beginning(made, "<|begin_of_text|>")


@cache
def smollm2() -> PreTrainedTokenizerFast:
    """As SmolLM2's: its special tokens stand in the vocabulary itself."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=SMOLLM2_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(vocabularies.TEXTS, trainer)
    ends = dict.fromkeys(("eos_token", "pad_token"), "<|im_end|>")
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<|im_start|>", chat_template=SMOLLM2, **ends)


@cache
def gemma() -> PreTrainedTokenizerFast:
    """As Gemma 2's: spaces are a character of their own, what has no token is bytes, line breaks are added tokens."""
    control = [*GEMMA_SPECIAL, *GEMMA_CONTROL]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    bpe.normalizer = normalizers.Replace(" ", "\u2581")
    bpe.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    bpe.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=[*control, *fallback], show_progress=False)
    bpe.train_from_iterator([word for text in vocabularies.TEXTS for word in (text, *text.split())], trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=without_added(bpe),
        bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        chat_template=GEMMA, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    made.add_tokens([AddedToken(token, normalized=False) for token in [*GEMMA_CONTROL, *GEMMA_TEXT]])
    return vocabularies.beginning(made, "<bos>")


def without_added(tokenizer: Tokenizer) -> Tokenizer:
    """The same pipeline on the same vocabulary, no token of it marked."""
    made = Tokenizer(tokenizer.model)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if getattr(tokenizer, part) is not None:
            setattr(made, part, getattr(tokenizer, part))
    return made


MODELS: dict[str, Any] = {"qwen2.5": qwen, "llama-3": llama3, "smollm2": smollm2, "gemma": gemma}
"""Makers of tokenizers; each makes one."""
SPELLINGS: dict[str, list[str]] = {
    "qwen2.5": [*QWEN_SPECIAL, *QWEN_ADDED],
    "llama-3": LLAMA3_SPECIAL,
    "smollm2": SMOLLM2_SPECIAL,
    "gemma": [*GEMMA_SPECIAL, *GEMMA_CONTROL],
}
"""What must never become a token where a text spells it."""
