"""How does a person give one command?  Through the broker like any upstream system, and waits for the answer.

./run send npb.file order_id=1003 member_id=s-881
./run send orders.submit --json '{"order_id": 7, "buyer_id": "b", "seller_id": "s", "lines": [...]}'
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from typing import Any

import click

from workers.cli import data_option

WAIT = 30.0


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
        raise click.ClickException(f"There is no task {task}. The names are in the contract, section 2.")
    message_id = str(uuid.uuid4())
    # A task of the house takes no request id; for commands the caller must know it to be able to ask again.
    from workers.job import command_of

    if command_of(app.tasks[task]) is not None:
        arguments.setdefault("request_id", message_id)
    try:
        sent = app.send_task(task, kwargs=arguments, queue=queue_of(task), task_id=message_id, ignore_result=no_wait)
    except OperationalError as error:
        raise click.ClickException(
            f"The broker cannot be reached ({type(error).__name__}); nothing was sent."
        ) from None
    request_id = arguments.get("request_id", message_id)
    if no_wait:
        click.echo(request_id)
        return
    try:
        answer = sent.get(timeout=seconds)
    except NoAnswer:
        raise click.ClickException(
            f"No answer within {seconds:g} s. It may still be carried out: ./run show request {request_id}, "
            f"or send it again with request_id={request_id}."
        ) from None
    except Exception as error:  # whatever went wrong over there: its kind and place are all that is told
        raise click.ClickException(f"The job failed: {error}") from None
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    if answer.get("outcome") != "done":
        sys.exit(1)


def arguments_of(words: tuple[str, ...], written: str | None) -> dict[str, Any]:
    """The arguments as JSON values; words win over `--json`."""
    arguments: dict[str, Any] = {}
    if written is not None:
        try:
            arguments = json.loads(written)
        except ValueError as error:
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
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if text in ("true", "false", "null") or text[:1] in ("[", "{", '"'):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
