"""Execution of a batch of commands in a pool process.

The commands run first, each kind in one transaction; then Celery's tracer reports each message with its outcome, so
that results, signals, logs, retries and dead jobs are those of a message that ran by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

import structlog
from billiard.einfo import ExceptionInfo
from celery import current_app
from celery.app.trace import fast_trace_task, trace_task_ret

from models.db.conflicts import retry_on_conflict
from models.db.database import is_database_unavailable
from models.stored_answers import Answer
from tasks.command import Command
from tasks.command_parsing import parse_command
from workers.errors import summarize_error, traceback_path
from workers.task import BaseTask, TaskOutcome

log = structlog.get_logger(__name__)

# After which a failed batch is not divided further: what is left is executed message by message, in several processes.
MAX_SECONDS = 2.0
EXCLUSIVE_IN_EXECUTION = ("order_id", "request_id")
"""No two commands of a group commit's transaction share such an argument."""
_EXECUTED_ID_KINDS: dict[str, str] = {"seller_id": "member_id", "buyer_id": "member_id"}
"""Arguments by which commands are grouped as if they were another argument."""

Message = tuple[str, str, dict[str, Any], Any, str, str]
"""The arguments of Celery's tracer: task, id, request, body, content type and encoding."""
Trace = tuple[int, Any, float]
"""What the tracer returns: whether the task failed, its result or error, its seconds."""
GroupedCommand = tuple[int, Command]


def execute_messages(messages: Sequence[Message]) -> list[Trace | None]:
    """Execute commands and report each message; None for one that must run by itself."""
    began = monotonic()
    outcomes = _execute_grouped_commands(messages)
    seconds = (monotonic() - began) / len(messages)
    traces: list[Trace | None] = [None] * len(messages)
    trace = fast_trace_task if current_app.use_fast_trace_task else trace_task_ret
    try:
        with current_app.backend.stored_together([message[1] for message in messages]):
            for index, message in enumerate(messages):
                if index in outcomes:
                    with BaseTask.known_outcome(outcomes[index]):
                        failed, result, own_seconds = trace(*message)
                    traces[index] = failed, result, (own_seconds or 0.0) + seconds
    except Exception:  # noqa: BLE001 - a result that is not stored: as in the tracer, its message is delivered again
        failure = ExceptionInfo()
        traces = [(1, failure, seconds) if index in outcomes else None for index in range(len(messages))]
    return traces


def _execute_grouped_commands(messages: Sequence[Message]) -> dict[int, TaskOutcome]:
    outcomes: dict[int, TaskOutcome] = {}
    commands: list[GroupedCommand] = []
    for index, (name, message_id, request, *_) in enumerate(messages):
        model = current_app.tasks[name].command_model
        command = parse_command(model, request["kwargs"], message_id, positional=len(request["args"]))
        if isinstance(command, Answer):
            outcomes[index] = command.as_json()
        else:
            commands.append((index, command))
    deadline = monotonic() + MAX_SECONDS
    try:
        arguments = {index: request["kwargs"] for index, (_, _, request, *_) in enumerate(messages)}
        for task, batch in group_commands_to_execute(commands, arguments):
            _execute_grouped_batch(task, batch, outcomes, deadline)
    except Exception as error:  # noqa: BLE001 - by itself, each message reports its own error
        if is_database_unavailable(error):
            for index, _ in commands:
                outcomes.setdefault(index, error)
        else:
            log.error("command_batch_failed", error=summarize_error(error), path=traceback_path(error))
    return outcomes


def _execute_grouped_batch(
    task: str, batch: Sequence[GroupedCommand], outcomes: dict[int, TaskOutcome], deadline: float
) -> None:
    if monotonic() > deadline:  # each message executes its command by itself
        return
    try:
        answers: list[Answer] = retry_on_conflict(
            lambda: current_app.tasks[task].run([command for _, command in batch]), max_seconds=MAX_SECONDS
        )
    except Exception as error:
        if is_database_unavailable(error):
            raise
        if len(batch) > 1:
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                _execute_grouped_batch(task, half, outcomes, deadline)
        elif monotonic() <= deadline:
            outcomes[batch[0][0]] = error
    else:
        for (index, _), answer in zip(batch, answers, strict=True):
            outcomes[index] = answer.as_json()


def group_commands_to_execute(
    commands: Sequence[GroupedCommand], arguments: Mapping[int, Mapping[str, Any]]
) -> list[tuple[str, list[GroupedCommand]]]:
    """Group commands by kind, such that two that share an id run in their order of arrival.

    A command joins the first transaction of its kind that no earlier command about the same thing follows.
    """
    transactions: list[tuple[str, list[GroupedCommand]]] = []
    last_use: dict[tuple[str, str], int] = {}
    for index, command in commands:
        things = list_ids_of_executed_command(arguments[index]) | {("request_id", command.request_id)}
        used = things & last_use.keys()
        first = max((last_use[thing] + (thing[0] in EXCLUSIVE_IN_EXECUTION) for thing in used), default=0)
        of_its_kind = (n for n in range(first, len(transactions)) if transactions[n][0] == command.task)
        number = next(of_its_kind, len(transactions))
        if number == len(transactions):
            transactions.append((command.task, []))
        transactions[number][1].append((index, command))
        last_use |= dict.fromkeys(things, number)
    return transactions


def list_ids_of_executed_command(arguments: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return what the arguments name, such as ("order_id", "1003")."""
    ids: set[tuple[str, str]] = set()
    level: list[Any] = [arguments]
    while level:
        container = level.pop()
        for name, value in container.items() if isinstance(container, Mapping) else enumerate(container):
            kind = str(name)
            if isinstance(value, list | dict):
                level.append(value)
            elif kind.endswith("_id") and isinstance(value, int | str):
                ids.add((_EXECUTED_ID_KINDS.get(kind, kind), str(value)))
    return ids
