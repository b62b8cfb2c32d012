"""Errors as clients of OpenAI's interface read them: a status, and an object with message, type, param and code."""

from typing import Any, Final

from arbitrage.core.errors import ArbitrageError

INVALID: Final = "invalid_request_error"
SERVER: Final = "server_error"


class APIError(ArbitrageError):
    """An answer other than success. Its message is sent to the client: it must hold no path and no address."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Describe the error.

        Args:
            status: Of HTTP.
            message: What is wrong, and what to do.
            type: The error's class in OpenAI's interface.
            param: The field of the request that is wrong.
            code: A short name for programs.
            retry_after_s: After so many seconds the same request may succeed.
        """
        super().__init__(message)
        self.status, self.type, self.param, self.code = status, type, param, code
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that clients read."""
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """``Retry-After`` where it is known, and the challenge that HTTP asks for where a key is missing."""
        wait = {} if self.retry_after_s is None else {"Retry-After": str(max(1, round(self.retry_after_s)))}
        return wait | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def bad_field(param: str, message: str, *, code: str | None = None) -> APIError:
    """A field that cannot be used as given."""
    return APIError(400, message, param=param, code=code)


def unsupported(param: str, value: object) -> APIError:
    """A field that this server knows and cannot honour."""
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return bad_field(param, f"{param} is not supported, got {shown}: leave it out", code="unsupported_parameter")


def no_such_model(model: str) -> APIError:
    """A model id that names no method of the pair."""
    message = f"the model {model[:200]!r} does not exist: GET /v1/models lists those that do"
    return APIError(404, message, param="model", code="model_not_found")


def too_large(max_bytes: int) -> APIError:
    """A body beyond the limit."""
    message = f"the request is larger than {max_bytes} bytes: send a shorter one"
    return APIError(413, message, code="request_too_large")


def too_busy(retry_after_s: float) -> APIError:
    """The queue is full."""
    return APIError(
        429,
        "too many requests are waiting: send this one again later",
        type="rate_limit_error",
        code="queue_full",
        retry_after_s=retry_after_s,
    )


def loading() -> APIError:
    """The models are not loaded yet."""
    message = "the models are being loaded: send the request again later"
    return APIError(503, message, type=SERVER, code="loading", retry_after_s=1.0)


def too_late(deadline_s: float) -> APIError:
    """The request's time is over."""
    message = f"the answer was not complete within {deadline_s:g} s: ask for fewer tokens, or try again later"
    return APIError(503, message, type=SERVER, code="deadline_exceeded")


def engine_failed(request_id: str) -> APIError:
    """A model or its server failed; what it said is in the log of this server only."""
    message = f"a model of the pair failed: the server's log has the cause under {request_id}"
    return APIError(503, message, type=SERVER, code="engine_failed", retry_after_s=1.0)


def internal() -> APIError:
    """A bug of this server."""
    return APIError(500, "internal error: the server's log has the cause", type=SERVER, code="internal_error")
