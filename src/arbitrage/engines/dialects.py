"""Formats of the requests to vLLM, SGLang and llama-server and of their answers; no connection.

Field names and meanings are those of vLLM 0.33, SGLang 0.5.23 and llama.cpp's server of November 2026.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from arbitrage.core.delimiter import stop_strings
from arbitrage.core.errors import EngineError
from arbitrage.core.ports import StepRequest
from arbitrage.core.types import Finish


class Call(NamedTuple):
    """One request."""

    path: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A step as a server returns it; why it ended is read from metadata, never from the text."""

    token_ids: tuple[int, ...]
    """Without end-of-sequence; with the token that completed the delimiter, whole."""
    finish: Finish
    logprobs: tuple[float, ...] | None
    """One for each id; None where the server does not return all."""
    num_cached: int
    """Prompt tokens that came from the server's prefix cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The models of a server, and the length of its context."""

    models: tuple[str, ...]
    context_length: int | None


class Dialect(Protocol):
    """One kind of server."""

    @property
    def name(self) -> str:
        """The name of this kind of server in configurations."""

    @property
    def models_path(self) -> str:
        """Path of the request for the models."""

    def served(self, answer: Any) -> Served:
        """Read the answer to a request to :attr:`models_path`."""

    def generate(self, model: str, ids: Sequence[int], request: StepRequest, max_tokens: int) -> Call:
        """The request for one step behind ``ids``."""

    def completion(self, answer: Any) -> Completion:
        """Read the answer to :meth:`generate`.

        Raises:
            EngineError: If a field is missing, or the server ended the step for another reason than the usual ones.
        """

    def likelihood(self, model: str, ids: Sequence[int], num_prefix: int) -> Call:
        """The request for the log-probability of each of ``ids`` behind the first ``num_prefix``.

        Raises:
            EngineError: If this kind of server does not return them.
        """

    def logprobs(self, answer: Any, ids: Sequence[int], num_prefix: int) -> tuple[float, ...]:
        """Read the answer to :meth:`likelihood`: one log-probability for each id behind the prefix."""

    def num_cached(self, answer: Any) -> int:
        """How many prompt tokens came from the server's prefix cache, by an answer to either of these requests."""

    def classify(self, model: str, ids: Sequence[int]) -> Call:
        """The request for a classifier's outputs at the last of ``ids``.

        Raises:
            EngineError: If this kind of server has no such request.
        """

    def outputs(self, answer: Any) -> list[float]:
        """Read the answer to :meth:`classify`: the head's raw outputs (logits), one for each label."""

    def label_logprobs(self, model: str, ids: Sequence[int], labels: Sequence[int]) -> Call:
        """The request for the log-probability of each of ``labels`` as the token behind ``ids``.

        Raises:
            EngineError: If this kind of server does not return them.
        """

    def labels(self, answer: Any, labels: Sequence[int]) -> list[float]:
        """Read the answer to :meth:`label_logprobs`, in the order of the tokens."""


def _reading(read: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a missing or malformed field into one clear error."""

    def guarded(self: Any, answer: Any, *rest: Any) -> Any:
        try:
            return read(self, answer, *rest)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(
                f"an answer of {self.name} cannot be read, {type(error).__name__}: {error}",
                hint="check that engine names this kind of server, and update the server",
            ) from error

    guarded.__doc__ = read.__doc__
    return guarded


def _sampling(request: StepRequest, *, all_tokens: int) -> dict[str, Any]:
    """Fields that all servers share. Greedy requests get no seed, since seeded rows are slower to sample."""
    sampling = request.sampling
    fields: dict[str, Any] = {"temperature": sampling.temperature}
    if sampling.temperature > 0.0:
        fields |= {"top_p": sampling.top_p, "top_k": sampling.top_k or all_tokens, "min_p": sampling.min_p}
    return fields


def _served_models(answer: Any) -> Served:
    """Read the OpenAI-compatible list of models, to which both servers add the context."""
    models = answer["data"]
    return Served(models=tuple(model["id"] for model in models), context_length=models[0].get("max_model_len"))


@dataclass(frozen=True, slots=True)
class VLLM:
    """vLLM's OpenAI-compatible server."""

    name: str = "vllm"
    models_path: str = "/v1/models"

    @_reading
    def served(self, answer: Any) -> Served:
        """Model ids, and the context of the first."""
        return _served_models(answer)

    def generate(self, model: str, ids: Sequence[int], request: StepRequest, max_tokens: int) -> Call:
        """``/v1/completions`` on token ids."""
        body = {
            "model": model,
            "prompt": list(ids),
            "max_tokens": max_tokens,
            "stop": stop_strings(request.delimiter),
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "return_token_ids": True,
            "logprobs": 0,
            **_sampling(request, all_tokens=-1),
        }
        return Call("/v1/completions", body | ({"seed": request.seed} if request.sampling.temperature else {}))

    @_reading
    def completion(self, answer: Any) -> Completion:
        """End-of-sequence is a stop without a stop string."""
        choice = answer["choices"][0]
        ids, reason = choice["token_ids"], choice["finish_reason"]
        if reason not in ("stop", "length"):
            raise EngineError(f"vllm ended a step for the reason {reason!r}")
        finish = Finish.TOKEN_LIMIT if reason == "length" else Finish.STEP_END
        if reason == "stop" and not isinstance(choice["stop_reason"], str):
            finish, ids = Finish.END_OF_SEQUENCE, ids[:-1]
        return Completion(
            token_ids=tuple(ids),
            finish=finish,
            logprobs=tuple(choice["logprobs"]["token_logprobs"][: len(ids)]),
            num_cached=self.num_cached(answer),
        )

    def likelihood(self, model: str, ids: Sequence[int], num_prefix: int) -> Call:
        """``prompt_logprobs``; the server computes the whole prompt for it, past its prefix cache.

        ``/inference/v1/generate`` takes a start for them, but computes what is before it too.
        """
        body = {"model": model, "prompt": list(ids), "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        return Call("/v1/completions", body)

    @_reading
    def logprobs(self, answer: Any, ids: Sequence[int], num_prefix: int) -> tuple[float, ...]:
        """One mapping from token id to log-probability for each prompt token; none for the first."""
        entries = answer["choices"][0]["prompt_logprobs"]
        return tuple(float(entries[i][str(ids[i])]["logprob"]) for i in range(num_prefix, len(ids)))

    @_reading
    def num_cached(self, answer: Any) -> int:
        """Reported by a server that was started with ``--enable-prompt-tokens-details``."""
        details = answer["usage"].get("prompt_tokens_details") or {}
        return int(details.get("cached_tokens") or 0)

    def classify(self, model: str, ids: Sequence[int]) -> Call:
        """``/classify``: pooling of the last token, which reads the prefix cache."""
        return Call("/classify", {"model": model, "input": [list(ids)], "use_activation": False})

    @_reading
    def outputs(self, answer: Any) -> list[float]:
        """Raw, since the request declines the activation."""
        return [float(value) for value in answer["data"][0]["probs"]]

    def label_logprobs(self, model: str, ids: Sequence[int], labels: Sequence[int]) -> Call:
        """One token, with the log-probabilities of these; the prefix comes from the cache."""
        options = {"logprobs": len(labels), "logprob_token_ids": list(labels), "return_tokens_as_token_ids": True}
        body = {"model": model, "prompt": list(ids), "max_tokens": 1, "temperature": 0.0, **options}
        return Call("/v1/completions", body)

    @_reading
    def labels(self, answer: Any, labels: Sequence[int]) -> list[float]:
        """By names such as ``token_id:648``."""
        by_name = answer["choices"][0]["logprobs"]["top_logprobs"][0]
        return [float(by_name[f"token_id:{label}"]) for label in labels]


@dataclass(frozen=True, slots=True)
class SGLang:
    """SGLang's own ``/generate``, which returns more than its OpenAI-compatible call."""

    name: str = "sglang"
    models_path: str = "/v1/models"

    @_reading
    def served(self, answer: Any) -> Served:
        """Model ids, and the context of the first."""
        return _served_models(answer)

    def generate(self, model: str, ids: Sequence[int], request: StepRequest, max_tokens: int) -> Call:
        """The ids of the answer include the delimiter's; its text may be cut before them."""
        stop = stop_strings(request.delimiter)
        sampling = {"max_new_tokens": max_tokens, "stop": stop, **_sampling(request, all_tokens=-1)}
        if request.sampling.temperature:
            sampling["sampling_seed"] = request.seed
        return Call("/generate", {"input_ids": list(ids), "sampling_params": sampling, "return_logprob": True})

    @_reading
    def completion(self, answer: Any) -> Completion:
        """``matched`` is an id for end-of-sequence and a text for the delimiter."""
        info, ids = answer["meta_info"], answer["output_ids"]
        reason = info["finish_reason"]
        if reason["type"] not in ("stop", "length"):
            raise EngineError(f"sglang ended a step for the reason {reason!r}")
        finish = Finish.TOKEN_LIMIT if reason["type"] == "length" else Finish.STEP_END
        if reason["type"] == "stop" and not isinstance(reason["matched"], str):
            finish, ids = Finish.END_OF_SEQUENCE, ids[:-1]
        return Completion(
            token_ids=tuple(ids),
            finish=finish,
            logprobs=tuple(float(entry[0]) for entry in info["output_token_logprobs"][: len(ids)]),
            num_cached=self.num_cached(answer),
        )

    def likelihood(self, model: str, ids: Sequence[int], num_prefix: int) -> Call:
        """Log-probabilities of the input from the prefix's last token on.

        The server reads its prefix cache up to ``logprob_start_len``, and computes what follows: the last token of the
        prefix, whose output is the distribution of the step's first token, and the step.
        """
        body = {
            "input_ids": list(ids),
            "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
            "return_logprob": True,
            "logprob_start_len": num_prefix - 1,
        }
        return Call("/generate", body)

    @_reading
    def logprobs(self, answer: Any, ids: Sequence[int], num_prefix: int) -> tuple[float, ...]:
        """Entries are (log-probability, id, text): the prefix's last token, which has none here, and the step's."""
        entries = answer["meta_info"]["input_token_logprobs"][-(len(ids) - num_prefix) :]
        if [entry[1] for entry in entries] != list(ids[num_prefix:]):
            raise ValueError("input_token_logprobs are those of other tokens")
        return tuple(float(entry[0]) for entry in entries)

    @_reading
    def num_cached(self, answer: Any) -> int:
        """Reported without a flag."""
        return int(answer["meta_info"].get("cached_tokens", 0))

    def classify(self, model: str, ids: Sequence[int]) -> Call:
        """``/classify`` of a server started on a sequence-classification model."""
        return Call("/classify", {"model": model, "input_ids": list(ids)})

    @_reading
    def outputs(self, answer: Any) -> list[float]:
        """Raw, of the last token."""
        return [float(value) for value in answer["embedding"]]

    def label_logprobs(self, model: str, ids: Sequence[int], labels: Sequence[int]) -> Call:
        """One token, with the log-probabilities of these."""
        body = {
            "input_ids": list(ids),
            "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
            "return_logprob": True,
            "token_ids_logprob": list(labels),
        }
        return Call("/generate", body)

    @_reading
    def labels(self, answer: Any, labels: Sequence[int]) -> list[float]:
        """Entries are (log-probability, id, text)."""
        by_id = {entry[1]: float(entry[0]) for entry in answer["meta_info"]["output_token_ids_logprobs"][0]}
        return [by_id[label] for label in labels]


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """llama.cpp's own ``/completion``, since the OpenAI-compatible call returns no ids and no stop words."""

    name: str = "llama-server"
    models_path: str = "/props"

    @_reading
    def served(self, answer: Any) -> Served:
        """One model, by its alias or its file, and the context of a slot."""
        name = answer.get("model_alias") or answer.get("model_path")
        context_length = answer["default_generation_settings"]["n_ctx"]
        return Served(models=(name,) if name else (), context_length=context_length)

    def generate(self, model: str, ids: Sequence[int], request: StepRequest, max_tokens: int) -> Call:
        """``/completion`` on token ids."""
        body = {
            "prompt": list(ids),
            "n_predict": max_tokens,
            "stop": stop_strings(request.delimiter),
            "cache_prompt": True,
            "return_tokens": True,
            "n_probs": 1,
            "samplers": ["top_k", "top_p", "min_p", "temperature"],
            **_sampling(request, all_tokens=0),
        }
        return Call("/completion", body | ({"seed": request.seed} if request.sampling.temperature else {}))

    @_reading
    def completion(self, answer: Any) -> Completion:
        """``tokens`` keeps the token that completed a stop word, and end-of-sequence where it ended the text.

        The server leaves out the probabilities of a stop word's tokens, so most steps have none.
        """
        ids, reason = answer["tokens"], answer["stop_type"]
        finishes = {"word": Finish.STEP_END, "eos": Finish.END_OF_SEQUENCE, "limit": Finish.TOKEN_LIMIT}
        if finishes[reason] is Finish.END_OF_SEQUENCE:
            ids = ids[:-1]
        logprobs = tuple(float(entry["logprob"]) for entry in answer.get("completion_probabilities", [])[: len(ids)])
        return Completion(
            token_ids=tuple(ids),
            finish=finishes[reason],
            logprobs=logprobs if len(logprobs) == len(ids) else None,
            num_cached=self.num_cached(answer),
        )

    def likelihood(self, model: str, ids: Sequence[int], num_prefix: int) -> Call:
        """Not offered."""
        raise EngineError(
            "llama-server cannot tell how likely a given text is", hint="run the model in process, engine = 'llamacpp'"
        )

    def logprobs(self, answer: Any, ids: Sequence[int], num_prefix: int) -> tuple[float, ...]:
        """Not offered."""
        raise NotImplementedError

    @_reading
    def num_cached(self, answer: Any) -> int:
        """Reported without a flag."""
        return int(answer["timings"].get("cache_n", 0))

    def classify(self, model: str, ids: Sequence[int]) -> Call:
        """Not offered for a head of several labels at the last token."""
        raise EngineError("llama-server does not serve classifiers", hint="serve it with vllm, or run it in process")

    def outputs(self, answer: Any) -> list[float]:
        """Not offered."""
        raise NotImplementedError

    def label_logprobs(self, model: str, ids: Sequence[int], labels: Sequence[int]) -> Call:
        """Not offered: it returns the likeliest tokens only."""
        raise EngineError("llama-server cannot tell how likely given tokens are", hint="serve the PRM with vllm")

    def labels(self, answer: Any, labels: Sequence[int]) -> list[float]:
        """Not offered."""
        raise NotImplementedError


DIALECTS: Final[Mapping[str, Dialect]] = {dialect.name: dialect for dialect in (VLLM(), SGLang(), LlamaServer())}
"""Every kind of server that the http engine can use, by its name in configurations."""
