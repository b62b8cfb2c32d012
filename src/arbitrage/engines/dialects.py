"""What vLLM, SGLang and llama-server want to be asked, and how they answer: pure formats, no connection.

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
    """What a server wrote, as its metadata tell it: nothing is read off the text."""

    token_ids: tuple[int, ...]
    """Without end-of-sequence; with the token that completed the delimiter, whole."""
    finish: Finish
    logprobs: tuple[float, ...] | None
    """One for each id; None where the server does not tell all."""
    num_cached: int
    """Prompt tokens that the server's prefix cache answered for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a server says of the model that it serves."""

    models: tuple[str, ...]
    context_length: int | None


class Dialect(Protocol):
    """One kind of server."""

    @property
    def name(self) -> str:
        """The server's name, as configurations call it."""

    @property
    def about(self) -> str:
        """Path that tells what is served."""

    def served(self, answer: Any) -> Served:
        """Read what :attr:`about` answered."""

    def generate(self, model: str, ids: Sequence[int], request: StepRequest, max_tokens: int) -> Call:
        """Ask for one step behind ``ids``."""

    def completion(self, answer: Any) -> Completion:
        """Read the answer to :meth:`generate`.

        Raises:
            EngineError: If a field is missing or the server gave up.
        """

    def likelihood(self, model: str, ids: Sequence[int], num_prefix: int) -> Call:
        """Ask how likely each of ``ids`` behind the first ``num_prefix`` is.

        Raises:
            EngineError: If this server cannot say.
        """

    def logprobs(self, answer: Any, ids: Sequence[int], num_prefix: int) -> tuple[float, ...]:
        """Read the answer to :meth:`likelihood`: one log-probability for each id behind the prefix."""

    def classify(self, model: str, ids: Sequence[int]) -> Call:
        """Ask a classifier about a text that ends in ``ids``' last token.

        Raises:
            EngineError: If this server has no such call.
        """

    def outputs(self, answer: Any) -> list[float]:
        """Read the answer to :meth:`classify`: the head's raw outputs (logits), one for each label."""

    def label_logprobs(self, model: str, ids: Sequence[int], labels: Sequence[int]) -> Call:
        """Ask a language model how likely each of these tokens is behind ``ids``.

        Raises:
            EngineError: If this server cannot say.
        """

    def labels(self, answer: Any, labels: Sequence[int]) -> list[float]:
        """Read the answer to :meth:`label_logprobs`, in the order of the tokens."""


def _reading(read: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a missing or misshapen field into one clear error."""

    def guarded(self: Any, answer: Any, *rest: Any) -> Any:
        try:
            return read(self, answer, *rest)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(
                f"an answer of {self.name} cannot be read, {type(error).__name__}: {error}",
                hint="is the server of the kind that the configuration names, and recent enough?",
            ) from error

    guarded.__doc__ = read.__doc__
    return guarded


def _sampling(request: StepRequest, *, all_tokens: int) -> dict[str, Any]:
    """Fields that all servers share; a seed only where there is chance, since seeded rows are slower to sample."""
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
    about: str = "/v1/models"

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
        details = answer["usage"].get("prompt_tokens_details") or {}
        return Completion(
            token_ids=tuple(ids),
            finish=finish,
            logprobs=tuple(choice["logprobs"]["token_logprobs"][: len(ids)]),
            num_cached=details.get("cached_tokens") or 0,
        )

    def likelihood(self, model: str, ids: Sequence[int], num_prefix: int) -> Call:
        """``prompt_logprobs``; the server computes the whole prompt for it, past its prefix cache."""
        body = {"model": model, "prompt": list(ids), "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        return Call("/v1/completions", body)

    @_reading
    def logprobs(self, answer: Any, ids: Sequence[int], num_prefix: int) -> tuple[float, ...]:
        """One mapping from token id to log-probability for each prompt token; none for the first."""
        each = answer["choices"][0]["prompt_logprobs"]
        return tuple(float(each[i][str(ids[i])]["logprob"]) for i in range(num_prefix, len(ids)))

    def classify(self, model: str, ids: Sequence[int]) -> Call:
        """``/classify``: pooling of the last token, which reads the prefix cache."""
        return Call("/classify", {"model": model, "input": [list(ids)], "use_activation": False})

    @_reading
    def outputs(self, answer: Any) -> list[float]:
        """Raw, since the activation was declined."""
        return [float(value) for value in answer["data"][0]["probs"]]

    def label_logprobs(self, model: str, ids: Sequence[int], labels: Sequence[int]) -> Call:
        """One token, with the log-probabilities of these; the prefix comes from the cache."""
        wanted = {"logprobs": len(labels), "logprob_token_ids": list(labels), "return_tokens_as_token_ids": True}
        body = {"model": model, "prompt": list(ids), "max_tokens": 1, "temperature": 0.0, **wanted}
        return Call("/v1/completions", body)

    @_reading
    def labels(self, answer: Any, labels: Sequence[int]) -> list[float]:
        """By names such as ``token_id:648``."""
        each = answer["choices"][0]["logprobs"]["top_logprobs"][0]
        return [float(each[f"token_id:{label}"]) for label in labels]


@dataclass(frozen=True, slots=True)
class SGLang:
    """SGLang's own ``/generate``, which tells more than its OpenAI-compatible call."""

    name: str = "sglang"
    about: str = "/v1/models"

    @_reading
    def served(self, answer: Any) -> Served:
        """Model ids, and the context of the first."""
        return _served_models(answer)

    def generate(self, model: str, ids: Sequence[int], request: StepRequest, max_tokens: int) -> Call:
        """The text is not asked to hold the delimiter: ids do in any case."""
        stop = stop_strings(request.delimiter)
        sampling = {"max_new_tokens": max_tokens, "stop": stop, **_sampling(request, all_tokens=-1)}
        if request.sampling.temperature:
            sampling["sampling_seed"] = request.seed
        return Call("/generate", {"input_ids": list(ids), "sampling_params": sampling, "return_logprob": True})

    @_reading
    def completion(self, answer: Any) -> Completion:
        """What matched is an id for end-of-sequence, a text for the delimiter."""
        about, ids = answer["meta_info"], answer["output_ids"]
        reason = about["finish_reason"]
        if reason["type"] not in ("stop", "length"):
            raise EngineError(f"sglang ended a step for the reason {reason!r}")
        finish = Finish.TOKEN_LIMIT if reason["type"] == "length" else Finish.STEP_END
        if reason["type"] == "stop" and not isinstance(reason["matched"], str):
            finish, ids = Finish.END_OF_SEQUENCE, ids[:-1]
        return Completion(
            token_ids=tuple(ids),
            finish=finish,
            logprobs=tuple(float(entry[0]) for entry in about["output_token_logprobs"][: len(ids)]),
            num_cached=about.get("cached_tokens", 0),
        )

    def likelihood(self, model: str, ids: Sequence[int], num_prefix: int) -> Call:
        """Log-probabilities of the input from the prefix's last token on; the cache serves what is before."""
        body = {
            "input_ids": list(ids),
            "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
            "return_logprob": True,
            "logprob_start_len": num_prefix - 1,
        }
        return Call("/generate", body)

    @_reading
    def logprobs(self, answer: Any, ids: Sequence[int], num_prefix: int) -> tuple[float, ...]:
        """The last entries are the step's."""
        each = answer["meta_info"]["input_token_logprobs"][-(len(ids) - num_prefix) :]
        return tuple(float(entry[0]) for entry in each)

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
        each = {entry[1]: float(entry[0]) for entry in answer["meta_info"]["output_token_ids_logprobs"][0]}
        return [each[label] for label in labels]


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """llama.cpp's server; its own ``/completion``, since the OpenAI-compatible call hides ids and stop words."""

    name: str = "llama-server"
    about: str = "/props"

    @_reading
    def served(self, answer: Any) -> Served:
        """One model, by the name it was given or its file, and the context of a slot."""
        name = answer.get("model_alias") or answer.get("model_path")
        context_length = answer["default_generation_settings"]["n_ctx"]
        return Served(models=(name,) if name else (), context_length=context_length)

    def generate(self, model: str, ids: Sequence[int], request: StepRequest, max_tokens: int) -> Call:
        """Ids in, ids out."""
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

        The probabilities of a stop word's tokens are left out, so most steps come without.
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
            num_cached=answer["timings"].get("cache_n", 0),
        )

    def likelihood(self, model: str, ids: Sequence[int], num_prefix: int) -> Call:
        """Not offered."""
        raise EngineError(
            "llama-server cannot tell how likely a given text is", hint="run the model in process, engine = 'llamacpp'"
        )

    def logprobs(self, answer: Any, ids: Sequence[int], num_prefix: int) -> tuple[float, ...]:
        """Never asked."""
        raise NotImplementedError

    def classify(self, model: str, ids: Sequence[int]) -> Call:
        """Not offered for a head of several labels at the last token."""
        raise EngineError("llama-server does not serve classifiers", hint="serve it with vllm, or run it in process")

    def outputs(self, answer: Any) -> list[float]:
        """Never asked."""
        raise NotImplementedError

    def label_logprobs(self, model: str, ids: Sequence[int], labels: Sequence[int]) -> Call:
        """Not offered: it tells the likeliest tokens only."""
        raise EngineError("llama-server cannot tell how likely given tokens are", hint="serve the PRM with vllm")

    def labels(self, answer: Any, labels: Sequence[int]) -> list[float]:
        """Never asked."""
        raise NotImplementedError


DIALECTS: Final[Mapping[str, Dialect]] = {dialect.name: dialect for dialect in (VLLM(), SGLang(), LlamaServer())}
"""Every server that the http engine speaks to, by the name that configurations use."""
