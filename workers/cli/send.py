"""How does a person give one command?  Through the broker like any upstream system, and waits for the answer.

./run send npb.file order_id=1003 member_id=s-881
./run send orders.submit --json '{"order_id": 7, "buyer_id": "b", "seller_id": "s", "lines": [...]}'
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from workers.cli import data_option

WAIT = 30.0
POLL_INTERVAL = 3.0
"""Seconds after which the database is asked, too."""
BROKER_TIMEOUT = 2.0


@click.command()
@click.argument("task")
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--json", "written", metavar="OBJECT", help="The arguments as one JSON object.")
@click.option("--no-wait", is_flag=True, help="Print the request id and do not wait for the answer.")
@click.option(
    "--wait", "seconds", type=click.FloatRange(0.1, 600), default=WAIT, show_default=True, help="Seconds to wait."
)
@data_option
def send(task: str, words: tuple[str, ...], written: str | None, no_wait: bool, seconds: float) -> None:
    """Send one command and print its answer as JSON.

    Values are whole numbers, true, false, null, JSON lists and objects, else texts. Exit code 0 when done, 1 otherwise.
    """
    arguments = arguments_of(words, written)
    from celery.exceptions import TimeoutError as NoAnswer
    from kombu.exceptions import OperationalError

    from schedules.routes import queue_of
    from workers.app import app

    if task not in app.tasks or task.startswith("celery."):
        raise click.ClickException(f"There is no task {task}. {_meant(task, app.tasks)}")
    message_id = str(uuid.uuid4())
    # A task of the house takes no request id; for commands the caller must know it to be able to ask again.
    from workers.task import command_model

    if command_model(app.tasks[task]) is not None:
        arguments.setdefault("request_id", message_id)
    try:
        sent = app.send_task(task, kwargs=arguments, queue=queue_of(task), task_id=message_id, ignore_result=no_wait)
    except OperationalError as error:
        if not no_wait and _broker_answers():
            raise click.ClickException(
                "Answers cannot be waited for: the server or database of CELERY_RESULT_BACKEND cannot be used "
                f"({type(error.__cause__ or error).__name__}). Nothing was sent; --no-wait sends without waiting."
            ) from None
        raise click.ClickException(
            f"The broker cannot be reached ({type(error).__name__}); nothing was sent."
        ) from None
    request_id = arguments.get("request_id", message_id)
    if no_wait:
        click.echo(request_id)
        return
    try:
        with _progress() as told:
            answer = _awaited(sent, task, arguments, seconds, told)
    except NoAnswer:
        raise click.ClickException(
            f"No answer within {seconds:g} s. Is a worker running (./run up does that, ./run doctor tells)? The command "
            "is not lost and may still be carried out. Its answer will be found by ./run show request "
            f"{request_id}, or send it again with request_id={request_id}."
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever went wrong over there: its kind and place are all that is told
        raise click.ClickException(f"The job failed: {error}") from None
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    if answer.get("outcome") != "done":
        sys.exit(1)


def _broker_answers() -> bool:
    """Whether the broker itself is there, so that it was something else which could not be reached."""
    import redis

    from workers.broker.redis_url import connect
    from workers.lifecycle import process_settings

    url = process_settings().broker_url
    if url is None:
        return False
    try:
        with contextlib.closing(connect(url.get_secret_value(), timeout=BROKER_TIMEOUT)) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False


def _awaited(sent: Any, task: str, arguments: dict[str, Any], seconds: float, told: Callable[..., None]) -> Any:
    """The answer from where results wait, else from the database: a broker may forget, the request row does not (P1)."""
    from celery.exceptions import TimeoutError as NoAnswer

    end = time.monotonic() + seconds
    while True:
        left = end - time.monotonic()
        try:
            return sent.get(timeout=max(0.1, min(left, POLL_INTERVAL)), on_message=told)
        except NoAnswer:
            if (answer := _kept(task, arguments)) is not None:
                return answer
            if left <= POLL_INTERVAL:
                raise


def _kept(task: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """The answer that was kept for this very command, if there is one and the database can be asked."""
    from sqlalchemy.exc import SQLAlchemyError

    from models import requests
    from models.requests import Answer
    from tasks.command import parse_command
    from workers.app import app
    from workers.cli.database import open_database
    from workers.task import command_model

    model = command_model(app.tasks[task])
    command = None if model is None else parse_command(model, arguments, str(arguments.get("request_id", "")))
    if command is None or isinstance(command, Answer):
        return None
    try:
        with open_database() as database, database.transaction() as conn:
            found = requests.earlier_answers(conn, [command]).get(command.request_id)
    except (SQLAlchemyError, click.ClickException):  # a sender needs a broker and may have no database
        return None
    return None if found is None else found.as_json()


def _meant(task: str, registered: Iterable[str]) -> str:
    """The names that look like the one that was typed, else where all of them stand."""
    alike = difflib.get_close_matches(task, [name for name in registered if not name.startswith("celery.")], cutoff=0.7)
    return f"Did you mean {' or '.join(alike)}?" if alike else "The names are those of the files in contract/."


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar on a terminal's standard error for commands that say how far they are; elsewhere a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(
        "answered", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True
    )
    line = bar.add_task("", total=None, visible=False)

    def told(message: dict[str, Any]) -> None:
        meta = message.get("result")
        if message.get("status") != "PROGRESS" or not isinstance(meta, dict):
            return
        bar.update(line, completed=meta["answered"], total=meta["of"], visible=True)
        if not console.is_terminal:
            console.print(f"{meta['answered']} of {meta['of']} answered")

    with bar:
        yield told


def arguments_of(words: tuple[str, ...], written: str | None) -> dict[str, Any]:
    """The arguments as JSON values; words win over `--json`."""
    arguments: dict[str, Any] = {}
    if written is not None:
        try:
            arguments = json.loads(written)
        except (ValueError, RecursionError) as error:
            raise click.BadParameter(f"is not JSON: {error}", param_hint="--json") from None
        if not isinstance(arguments, dict):
            raise click.BadParameter("must be one JSON object", param_hint="--json")
    for word in words:
        name, separator, value = word.partition("=")
        if not separator or not name.isidentifier():
            raise click.BadParameter(f"{word!r} is not KEY=VALUE", param_hint="KEY=VALUE")
        arguments[name] = value_of(value)
    return arguments


def value_of(text: str) -> Any:
    """`12` is a number, `true` a truth, `[..]`, `{..}` and `".."` JSON; everything else (also `1.50`) is the text itself."""
    if re.fullmatch(r"-?[0-9]{1,4000}", text):  # Python reads no number of more than 4,300 digits
        return int(text)
    if text in ("true", "false", "null") or text[:1] in ("[", "{", '"'):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text
