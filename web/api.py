"""The routes of `/v1`: one submits commands, the others serve the reads of `./run show`."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from sqlalchemy import Connection
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from models import bills, feed
from models.api_keys import ApiKey
from models.db.database import Database, use_snapshot_isolation
from models.payload_limits import InvalidPayload, has_too_many_parts, parse_payload
from models.queries import forecast, order, show
from models.stored_answers import Answer
from policies.bills import parse_month
from policies.cases import Actor
from policies.timestamps import parse_timestamp
from policies.verdicts import Code
from tasks.command import MAX_INT64, REQUEST_ID_PATTERN
from tasks.command_parsing import parse_command
from tasks.declarations import COMMANDS
from web.authentication import require
from web.problems import Problem

DEFAULT_WAIT_SECONDS, MAX_WAIT_SECONDS, BODY_TIMEOUT_SECONDS = 5, 60, 30
MAX_DROPPED_BYTES, MAX_API_EVENTS = 2**24, 1000
API_CURSOR_PATTERN = r"^[0-9]{1,18}\.[0-9]\.[0-9]{1,18}$"
_PREFERRED_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,4})")

router = APIRouter(prefix="/v1")
OrderNumber = Annotated[int, Path(ge=1, le=MAX_INT64)]
Identifier = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[^\x00]+$")]
Reader = Annotated[ApiKey, Depends(require("read"))]
authenticate_submit = require("submit")
Submitting = Annotated[ApiKey, Depends(authenticate_submit)]


async def submit_command(request: Request) -> Response:
    request.scope["route"] = _COMMAND_ROUTE
    key = await authenticate_submit(request)
    task = request.path_params["task"]
    if task not in COMMANDS:
        raise Problem(404, "There is no such command.")
    request.state.task = task
    request_id = _idempotency_key(request)
    payload = await read_body(request)
    arguments = _parse_command_body(payload, request_id)
    command = parse_command(COMMANDS[task].model, arguments, request_id)
    if isinstance(command, Answer):
        return command_response(command.as_json())
    if command.request_id != request_id:
        raise Problem(400, "request_id in the body differs from the Idempotency-Key.")
    if arguments.get("staff") is not None and key.scope != "staff":
        raise Problem(403, "This API key does not allow acting as staff.")
    wait = _wait_seconds(request)
    result = await request.app.state.submitter.submit(task, payload.decode(), request_id, wait)
    headers = {"Preference-Applied": f"wait={wait}", "Location": f"/v1/requests/{request_id}"}
    if result.code == Code.REQUEST_ID_REUSED:
        return command_response(Answer.conflict(command).as_json(), headers)
    if result.code is not None:
        return command_response(Answer.invalid(request_id, [("payload", f"was not accepted: {result.code}")]).as_json())
    if result.answer is None:
        return JSONResponse({"request_id": request_id, "state": "waiting"}, 202, headers)
    return command_response(result.answer, headers)


# Without FastAPI's dependencies, which cost more than the rest; `web.openapi` describes one path for each command.
_COMMAND_ROUTE = Route("/v1/commands/{task}", submit_command, methods=["POST"], include_in_schema=False)
router.routes.append(_COMMAND_ROUTE)


def command_response(answer: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer: 200 for `done` and `refused`, a problem with all its members for the others."""
    status = {"invalid": 422, "conflict": 409}.get(answer["outcome"])
    if status is None:
        return JSONResponse(answer, 200, dict(headers or {}))
    return Problem(status, answer["message"], headers, **answer).response()


def _idempotency_key(request: Request) -> str:
    # The draft standard writes the key as a quoted string; most clients send it bare.
    written = request.headers.get("idempotency-key")
    if written is None:
        return str(uuid.uuid4())
    key = written[1:-1] if len(written) > 1 and written[0] == written[-1] == '"' else written
    if not re.fullmatch(REQUEST_ID_PATTERN, key):
        raise Problem(400, "Idempotency-Key must be 1 to 128 of A-Z a-z 0-9 . _ : -")
    return key


def _wait_seconds(request: Request) -> int:
    preference = _PREFERRED_WAIT.search(request.headers.get("prefer", ""))
    return min(int(preference[1]), MAX_WAIT_SECONDS) if preference else DEFAULT_WAIT_SECONDS


async def read_body(request: Request, media_type: str = "application/json") -> bytes:
    """Read a body of the expected type and of limited size within limited time.

    A larger one is read and dropped up to `MAX_DROPPED_BYTES`, since a client that is cut off while it sends may miss
    the answer.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != media_type:
        raise Problem(415, f"The body must be {media_type}.")
    limit = request.app.state.settings.max_body_bytes
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit:
                    chunks.append(chunk)
                elif size > MAX_DROPPED_BYTES:
                    break
    except TimeoutError:
        raise Problem(408, "The body did not arrive in time.", {"Connection": "close"}) from None
    if size > limit:
        raise Problem(413, f"The body has more than {limit} bytes.", {"Connection": "close"})
    return b"".join(chunks)


def _parse_command_body(body: bytes, request_id: str) -> dict[str, Any]:
    try:
        text = body.decode()
        if has_too_many_parts(body):
            raise InvalidPayload("has too many parts")
        return parse_payload(text)
    except UnicodeDecodeError:
        message = "must be UTF-8"
    except InvalidPayload as problem:
        message = str(problem)
    answer = Answer.invalid(request_id, [("payload", message)]).as_json()
    raise Problem(422, answer["message"], **answer)


def query_snapshot(request: Request, query: Callable[[Connection, datetime], Any]) -> Any:
    database: Database = request.app.state.database
    with database.transaction() as conn:
        use_snapshot_isolation(conn)
        return query(conn, database.clock.now(conn))


def read(request: Request, query: Callable[[Connection, datetime], Any], missing: str) -> Response:
    """Answer with the query's result. None is a 404 with the sentence `missing`."""
    found = query_snapshot(request, query)
    if found is None:
        raise Problem(404, missing)
    return Response(json.dumps(found, ensure_ascii=False), media_type="application/json")


def _instant(at: Annotated[str | None, Query(max_length=40, description="As of another time.")] = None) -> Any:
    try:
        return None if at is None else parse_timestamp(at)
    except ValueError:
        raise Problem(422, "`at` must be an instant such as 2026-03-28T10:00:00Z.") from None


@router.get("/requests/{request_id}")
def get_request(
    request: Request, request_id: Annotated[str, Path(pattern=REQUEST_ID_PATTERN)], _key: Submitting
) -> Response:
    """Return the state of a command, and its answer once there is one."""
    return read(request, lambda conn, _: show.show_request(conn, request_id), "There is no such request.")


@router.get("/orders/{order_id}")
def get_order(
    request: Request, order_id: OrderNumber, _key: Reader, at: Annotated[datetime | None, Depends(_instant)] = None
) -> Response:
    """Return an order with its timeline, now or as of another time."""
    return read(request, lambda conn, now: order.show_order(conn, order_id, at=at, now=now), "There is no such order.")


@router.get("/orders/{order_id}/options")
def get_options(
    request: Request, order_id: OrderNumber, member_id: Annotated[str, Query(max_length=64)], _key: Reader
) -> Response:
    """Return the actions a party can take now, and why the rest are refused, as `orders.options` answers."""
    return read(
        request,
        lambda conn, now: order.show_order_options(conn, order_id, Actor(member_id), now=now),
        "There is no such order of this member.",
    )


@router.get("/sellers/{seller_id}/bills/{month}")
def get_bill(
    request: Request,
    seller_id: Identifier,
    month: Annotated[str, Path(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")],
    _key: Reader,
) -> Response:
    """Return the bill of a month, line by line."""
    try:
        first_day = parse_month(month)
    except ValueError:
        raise Problem(404, "There is no such bill.") from None
    return read(
        request, lambda conn, now: bills.load_bill_json(conn, seller_id, first_day, now), "There is no such bill."
    )


@router.get("/sellers/{seller_id}/credits")
def get_credits(request: Request, seller_id: Identifier, _key: Reader) -> Response:
    """Return what happened to the fees of a seller's cancelled orders."""
    return read(request, lambda conn, _: show.show_credits(conn, seller_id), "There is no such seller.")


@router.get("/forecast")
def get_forecast(
    request: Request, _key: Reader, days: Annotated[int, Query(ge=1, le=forecast.MAX_DAYS)] = forecast.DEFAULT_DAYS
) -> Response:
    """Return how many alerts unlock in each hour to come, and which are overdue."""
    return read(request, lambda conn, now: forecast.unlock_forecast(conn, days=days, now=now), "")


@router.get("/events")
def get_events(
    request: Request,
    _key: Reader,
    after: Annotated[str | None, Query(pattern=API_CURSOR_PATTERN)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_API_EVENTS)] = 100,
) -> Response:
    """Return the events after a cursor. Store each cursor only after its event is handled."""

    def query(conn: Connection, _now: datetime) -> Any:
        page = feed.events_after(conn, after, limit)
        return {"events": [{"cursor": cursor, "event": event} for cursor, event in page]}

    return read(request, query, "")
