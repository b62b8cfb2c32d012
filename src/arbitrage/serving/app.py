"""The endpoint as an ASGI application: paths and what they answer."""

import secrets
import time
from pathlib import Path
from typing import Any, Final

from arbitrage.core.errors import MissingExtra, ProblemError
from arbitrage.core.types import Source

try:
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, PlainTextResponse, Response
    from starlette.exceptions import HTTPException
except ImportError as error:
    raise MissingExtra("serve") from error

from arbitrage.serving.answering import Answering
from arbitrage.serving.errors import APIError, bad_field, internal, no_such_model
from arbitrage.serving.formats import ChatFormat, ResponsesFormat, TextFormat
from arbitrage.serving.gate import CLIENT, Gate
from arbitrage.serving.prompts import Reader, prompt_ids, reader
from arbitrage.serving.requests import SolveRequest, chat_request, completion_request, conversation, responses_request
from arbitrage.serving.schemas import ChatBody, CompletionBody, Extension, ResponsesBody, TokenizeBody
from arbitrage.serving.service import Service
from arbitrage.version import __version__

PAGE: Final = Path(__file__).with_name("page")
PAGE_FILES: Final = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""The page loads nothing from elsewhere."""


def application(service: Service) -> Gate:
    """Make the application of a service."""
    app = FastAPI(title="Arbitrage", version=__version__, docs_url=None, redoc_url=None)
    _add_errors(app)
    _add_answers(app, service)
    _add_models(app, service)
    _add_status(app, service)
    _add_page(app)
    return Gate(app, service.options)


def _new_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(12)}"


def _add_answers(app: FastAPI, service: Service) -> None:
    bounds = service.options.bounds

    def completion(asked: SolveRequest, kind: type[ChatFormat], prefix: str, request: Request) -> Response:
        form = kind(
            id=_new_id(prefix),
            model=asked.model,
            created=int(time.time()),
            includes_usage=asked.includes_usage,
            with_trace=asked.extension.trace,
        )
        return Answering(service, asked, form, client=request.scope[CLIENT], request_id=form.id)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatBody, request: Request) -> Response:
        return completion(chat_request(body, bounds), ChatFormat, "chatcmpl-", request)

    @app.post("/v1/completions")
    async def completions(body: CompletionBody, request: Request) -> Response:
        return completion(completion_request(body, bounds), TextFormat, "cmpl-", request)

    @app.post("/v1/responses")
    async def responses(body: ResponsesBody, request: Request) -> Response:
        asked, id = responses_request(body, bounds), _new_id("resp_")
        repeated = {name: getattr(body, name) for name in ("instructions", "max_output_tokens", "temperature", "top_p")}
        form = ResponsesFormat(
            id=id, model=asked.model, created=int(time.time()), asked=repeated, with_trace=asked.extension.trace
        )
        return Answering(service, asked, form, client=request.scope[CLIENT], request_id=id)


def _add_models(app: FastAPI, service: Service) -> None:
    def described(id: str) -> dict[str, Any]:
        ready = service.ready
        text = reader(ready.loaded.pair.engine(Source.TARGET))
        length = getattr(text, "context_length", None)
        record = {"id": id, "object": "model", "created": ready.created, "owned_by": "arbitrage"}
        return record | ({"max_model_len": length} if length else {})

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [described(id) for id in service.ready.models.ids]}

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        service.ready.models.method(model, Extension())
        return described(model)

    @app.post("/tokenize")
    async def tokenize(body: TokenizeBody) -> dict[str, Any]:
        if body.model is not None:
            service.ready.models.method(body.model, Extension())
        engine = service.ready.loaded.pair.engine(Source.TARGET)
        text = reader(engine)
        if text is None:
            raise no_such_model(body.model or service.ready.loaded.name)
        if (body.prompt is None) is (body.messages is None):
            raise bad_field("prompt", "give either prompt or messages")
        if body.messages is not None:
            ids = await service.encoding(prompt_ids, engine, conversation(body.messages))
        else:
            ids = await service.encoding(_encoded, text, body.prompt)
        return {"count": len(ids), "max_model_len": getattr(text, "context_length", None), "tokens": list(ids)}


def _encoded(text: Reader, prompt: str) -> list[int]:
    try:
        return text.encode(prompt)
    except ProblemError as error:
        raise bad_field("prompt", str(error)) from error


def _add_status(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    async def health() -> Response:
        is_ready = service.is_ready
        return JSONResponse({"status": "ok" if is_ready else "loading"}, status_code=200 if is_ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/status")
    async def status() -> dict[str, Any]:
        return service.status()


def _add_page(app: FastAPI) -> None:
    headers = {"Content-Security-Policy": PAGE_POLICY, "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}

    @app.get("/")
    @app.get("/page.css")
    @app.get("/page.js")
    async def page(request: Request) -> Response:
        name, kind = PAGE_FILES[request.url.path]
        return Response((PAGE / name).read_text(), media_type=kind, headers=headers)


def _answer(error: APIError) -> Response:
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(APIError)
    async def refused(_: Request, error: APIError) -> Response:
        return _answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return _answer(_described(error.errors()))

    @app.exception_handler(HTTPException)
    async def no_path(_: Request, error: HTTPException) -> Response:
        if error.status_code >= 500:
            return _answer(internal())
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
        return _answer(APIError(error.status_code, f"{error.detail}", code=code))


def _described(errors: Any) -> APIError:
    """The first error of a body that does not fit its schema; the values themselves are not repeated."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return APIError(400, "the body is not valid JSON", code="invalid_json")
    # Of a union, the last parts of the place name its members; indices and names are what a client knows.
    place = [str(part)[:64] for part in first["loc"] if part != "body"][:6]
    param = ".".join(place) or None
    return APIError(422, f"{param or 'body'}: {first['msg'][:300]}", param=param, code="invalid_value")
