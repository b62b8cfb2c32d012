"""The bodies of requests as JSON schemas: names, types and ranges. What they mean is in :mod:`requests`."""

from typing import Annotated, Any, Final, Literal

from arbitrage.core.errors import MissingExtra

try:
    from pydantic import BaseModel, ConfigDict, Field
except ImportError as error:
    raise MissingExtra("serve") from error

MAX_CHOICES: Final = 16
MAX_STOPS: Final = 16
MAX_PROMPTS: Final = 64

Number = Annotated[float, Field(allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000)]
Stop = Annotated[str, Field(min_length=1, max_length=1000)]


class Extension(BaseModel):
    """The object ``arbitrage`` of a request: what OpenAI's interface has no field for."""

    model_config = ConfigDict(extra="forbid")

    method: str | None = Field(
        default=None, max_length=200, description="A method, such as router@0.05; else the model's."
    )
    threshold: Number | None = Field(default=None, ge=0.0, le=1.0, description="The method's threshold.")
    budget: str | None = Field(
        default=None, max_length=200, description="In place of a threshold: a budget of the router."
    )
    max_steps: int | None = Field(default=None, ge=1, le=10_000, description="Bound of the answer's steps.")
    trace: bool = Field(default=False, description="Whether the answer holds every candidate, score and decision.")
    events: bool = Field(default=False, description="Whether a stream holds an event for each decided step.")


class StreamOptions(BaseModel):
    """Of a stream."""

    model_config = ConfigDict(extra="allow")

    include_usage: bool | None = None


class Asked(BaseModel):
    """The fields that all requests share. Further fields are allowed: they are refused or ignored by name."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(
        max_length=200, description="A name of GET /v1/models, or NAME/METHOD, or NAME/METHOD@THRESHOLD."
    )
    temperature: Number | None = Field(default=None, ge=0.0, le=100.0, description="0, the default, is greedy.")
    top_p: Number | None = Field(default=None, gt=0.0, le=1.0)
    top_k: int | None = Field(default=None, ge=-1, le=1_000_000, description="0 or -1 for all tokens.")
    min_p: Number | None = Field(default=None, ge=0.0, le=1.0)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    user: str | None = Field(default=None, max_length=512, description="Whom the client asks for: users take turns.")
    arbitrage: Extension | None = None


class Choices(Asked):
    """Fields of the two kinds of completions."""

    n: int | None = Field(default=1, ge=1, le=MAX_CHOICES)
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    max_tokens: Tokens | None = None


class TextMessage(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None


class ChatBody(Choices):
    """Of ``/v1/chat/completions``."""

    messages: list[TextMessage] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: Tokens | None = None


class CompletionBody(Choices):
    """Of ``/v1/completions``."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)] | list[int] | list[list[int]]


class ResponsesBody(Asked):
    """Of ``/v1/responses``."""

    input: str | Annotated[list[dict[str, Any]], Field(min_length=1, max_length=10_000)]
    instructions: str | None = None
    max_output_tokens: Tokens | None = None


class TokenizeBody(BaseModel):
    """Of ``/tokenize``: a text, or a conversation as the target reads it."""

    model_config = ConfigDict(extra="allow")

    model: str | None = Field(default=None, max_length=200)
    prompt: str | None = None
    messages: list[TextMessage] | None = Field(default=None, min_length=1, max_length=10_000)
