"""Errors as `application/problem+json` (RFC 9457). None echoes request content."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import psycopg
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer that is an error; `fields` are further members of the object."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **fields: Any) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.fields = status, detail, headers, fields

    def response(self) -> Response:
        title = HTTPStatus(self.status).phrase
        body = {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail} | self.fields
        return JSONResponse(body, self.status, dict(self.headers or {}), MEDIA_TYPE)


Render = Callable[[Request, Problem], Response]


def install_problem_handlers(app: FastAPI, pages: Mapping[str, Render]) -> None:
    """Answer every error with a problem, or as one of `pages` does below its path."""

    def answer(request: Request, problem: Problem) -> Response:
        render = next((r for path, r in pages.items() if request.url.path.startswith(path)), None)
        return render(request, problem) if render is not None else problem.response()

    @app.exception_handler(Problem)
    async def _problem(request: Request, problem: Problem) -> Response:
        return answer(request, problem)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        return answer(request, Problem(error.status_code, HTTPStatus(error.status_code).description, error.headers))

    @app.exception_handler(RequestValidationError)
    async def _parameters(request: Request, error: RequestValidationError) -> Response:
        errors = [{"path": str(e["loc"][-1]), "message": str(e["msg"])} for e in error.errors()]
        return answer(request, Problem(422, "The parameters do not fit; `errors` names each.", errors=errors))

    def _unexpected(request: Request, error: Exception) -> Response:
        trace = "".join(traceback.format_tb(error.__traceback__))  # the text of an error may hold what was sent
        log.error("request_failed", error=type(error).__name__, exception=trace)
        return answer(request, Problem(500, "Something failed here. Send the request again, with the same key."))

    app.state.answer_failure = _unexpected

    @app.exception_handler(OperationalError)
    @app.exception_handler(PoolTimeout)
    @app.exception_handler(psycopg.OperationalError)
    async def _unavailable(request: Request, error: Exception) -> Response:
        log.warning("database_unavailable", error=type(error).__name__)
        detail = "The database does not answer. Send the request again, with the same Idempotency-Key."
        return answer(request, Problem(503, detail, {"Retry-After": "1"}))
