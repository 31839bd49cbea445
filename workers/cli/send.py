"""The `send` command: send one command through the broker, like any upstream system, and wait for its answer.

./run send npb.file order_id=1003 member_id=s-881
./run send orders.submit --json '{"order_id": 7, "buyer_id": "b", "seller_id": "s", "lines": [...]}'
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
from celery.exceptions import TimeoutError as NoAnswer
from kombu.exceptions import OperationalError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from models import stored_answers
from models.stored_answers import Answer
from policies.timestamps import describe_timestamp
from schedules.routes import queue_of
from tasks.command_parsing import parse_command
from tasks.declarations import COMMANDS
from workers.app import app
from workers.cli.database import open_transaction
from workers.cli.terminal_text import echo
from workers.errors import unknown_task_error_hint

T = TypeVar("T")

POLL_INTERVAL = 3.0  # seconds between two queries for the answer in the database


@click.command()
@click.argument("task")
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--json", "json_text", metavar="OBJECT", help="The arguments as a JSON object.")
@click.option("--no-wait", is_flag=True, help="Print the request id and do not wait for the answer.")
@click.option(
    "--wait",
    "timeout",
    type=click.FloatRange(0.1, 600),
    default=30.0,
    show_default=True,
    help="Seconds to wait.",
)
def send(task: str, words: tuple[str, ...], json_text: str | None, no_wait: bool, timeout: float) -> None:
    """Send one command and print its answer as JSON.

    A value is a whole number, true, false, null, a JSON list or object, else a string. Exit code 0 when done, 1
    otherwise.
    """
    arguments = parse_command_arguments(words, json_text)
    if task not in app.tasks or task.startswith("celery."):
        raise click.ClickException(f"There is no task {task}. {unknown_task_error_hint(task, app.tasks)}")
    message_id = str(uuid.uuid4())
    # Internal tasks take no request id. For commands the caller must know it, to ask for the answer again.
    if task in COMMANDS:
        arguments.setdefault("request_id", message_id)
    try:
        pending = app.send_task(task, kwargs=arguments, queue=queue_of(task), task_id=message_id, ignore_result=no_wait)
    except (OperationalError, RuntimeError) as error:  # RuntimeError: Celery gave up on a result backend that is down
        if not no_wait and _can_reach_send_broker():
            raise click.ClickException(
                "Cannot wait for an answer: the server or database of CELERY_RESULT_BACKEND cannot be used "
                f"({type(error.__cause__ or error).__name__}). Nothing was sent. Use --no-wait to send without waiting."
            ) from None
        raise click.ClickException(
            f"The broker cannot be reached ({type(error).__name__}); nothing was sent."
        ) from None
    request_id = arguments.get("request_id", message_id)
    if no_wait:
        click.echo(request_id)
        return
    try:
        with _send_progress_bar() as on_message:
            answer = _wait_for_answer(pending, task, arguments, timeout, on_message)
    except NoAnswer:
        raise click.ClickException(
            f"No answer within {timeout:g} s. Is a worker running? (./run up starts one, ./run doctor checks.) The "
            "command is not lost and may still be executed. Look up its answer with ./run show request "
            f"{request_id}, or send it again with request_id={request_id}."
        ) from None
    except Exception as error:  # noqa: BLE001 - any error of the worker, reported by type and place only
        raise click.ClickException(f"The job failed: {error}") from None
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    if answer.get("replayed"):
        answered_at = _query_for_sender(lambda conn: stored_answers.answered_at(conn, request_id))
        on = f", on {describe_timestamp(answered_at)}" if answered_at else ""
        echo(
            f"Request {request_id} was answered before{on}: this is that answer. To ask again, use a new request id.",
            err=True,
        )
    if answer.get("outcome") != "done":
        sys.exit(1)


def _query_for_sender(query: Callable[[Connection], T]) -> T | None:
    try:
        with open_transaction() as (conn, _):
            return query(conn)
    except (SQLAlchemyError, click.ClickException):  # a sender needs a broker and may have no database
        return None


def _can_reach_send_broker() -> bool:
    # Whether the broker is reachable, so that it was the result backend that was not.
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=0)
    except OperationalError:
        return False
    return True


def _wait_for_answer(
    pending: Any, task: str, arguments: dict[str, Any], timeout: float, on_message: Callable[..., None]
) -> Any:
    # The answer from the result backend, else from the database: a broker may lose it, the request row stays.
    end = time.monotonic() + timeout
    while True:
        seconds_left = end - time.monotonic()
        try:
            return pending.get(timeout=max(0.1, min(seconds_left, POLL_INTERVAL)), on_message=on_message)
        except NoAnswer:
            if (answer := _sent_command_answer(task, arguments)) is not None:
                return answer
            if seconds_left <= POLL_INTERVAL:
                raise


def _sent_command_answer(task: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    if task not in COMMANDS:
        return None
    command = parse_command(COMMANDS[task].model, arguments, str(arguments.get("request_id", "")))
    if isinstance(command, Answer):
        return None
    answers = _query_for_sender(lambda conn: stored_answers.send_earlier_answers_query(conn, [command])()) or {}
    answer = answers.get(command.request_id)
    return None if answer is None else answer.as_json()


@contextlib.contextmanager
def _send_progress_bar() -> Iterator[Callable[[dict[str, Any]], None]]:
    console = Console(stderr=True)
    bar = Progress(
        "answered", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True
    )
    line = bar.add_task("", total=None, visible=False)

    def on_message(message: dict[str, Any]) -> None:
        meta = message.get("result")
        if message.get("status") != "PROGRESS" or not isinstance(meta, dict):
            return
        bar.update(line, completed=meta["answered"], total=meta["of"], visible=True)
        if not console.is_terminal:
            console.print(f"{meta['answered']} of {meta['of']} answered")

    with bar:
        yield on_message


def parse_command_arguments(words: tuple[str, ...], json_text: str | None) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if json_text is not None:
        try:
            arguments = json.loads(json_text)
        except (ValueError, RecursionError) as error:
            raise click.BadParameter(f"is not JSON: {error}", param_hint="--json") from None
        if not isinstance(arguments, dict):
            raise click.BadParameter("must be one JSON object", param_hint="--json")
    for word in words:
        name, separator, value = word.partition("=")
        if not separator or not name.isidentifier():
            raise click.BadParameter(f"{word!r} is not KEY=VALUE", param_hint="KEY=VALUE")
        arguments[name] = parse_argument_value(value)
    return arguments


def parse_argument_value(text: str) -> Any:
    if re.fullmatch(r"-?[0-9]{1,4000}", text):  # Python parses at most 4,300 digits
        return int(text)
    if text in ("true", "false", "null") or text[:1] in ("[", "{", '"'):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
    return text
