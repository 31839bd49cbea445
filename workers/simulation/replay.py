"""History files: reading them, and playing their lines on a simulation.

A file is read and checked before anything runs. Each line then runs at its instant: first every sweep that
is due by then, then the line, then the outbox tasks that its commit created.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from models.payload_limits import refuse_duplicate_names
from models.stored_answers import Answer
from policies.timestamps import format_timestamp, parse_timestamp
from tasks.command_parsing import UNFITTING_ARGUMENT_ERRORS, parse_command
from tasks.declarations import COMMANDS
from workers.app import app
from workers.show_queries import parse_query
from workers.simulation.engine import Simulation


class InvalidHistory(click.ClickException):
    exit_code = 2


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """A line of a history, and the answer or the query's result once it was played."""

    number: int
    at: datetime
    task: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    show: tuple[Any, ...] | None = None
    result: Any = None

    def as_json(self) -> dict[str, Any]:
        if self.show is not None:
            return {"at": format_timestamp(self.at), "show": list(self.show), "result": self.result}
        return {"at": format_timestamp(self.at), "task": self.task, "answer": self.result}


def read_history(path: Path) -> list[HistoryLine]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidHistory(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidHistory(f"{path}: is not UTF-8 text") from None
    return parse_lines(content.split("\n"), str(path))


def parse_lines(text_lines: Iterable[str], name: str = "history") -> list[HistoryLine]:
    lines: list[HistoryLine] = []
    for number, text_line in enumerate(text_lines, start=1):
        if not text_line.strip():
            continue
        try:
            line = _parse_history_line(number, text_line)
            if lines and line.at < lines[-1].at:
                raise ValueError(f"is before the line above it, which is at {format_timestamp(lines[-1].at)}")
        except (ValueError, RecursionError) as error:
            raise InvalidHistory(f"{name}, line {number}: {error}") from None
        lines.append(line)
    return lines


def check_history_arguments(lines: Iterable[HistoryLine], name: str = "history") -> None:
    """Raise InvalidHistory for the first command with an argument that it does not have, or without one that it needs.

    `play` does not check this: it answers `invalid`, as the workers do.
    """
    for line in lines:
        if line.task in COMMANDS:
            answer = parse_command(COMMANDS[line.task].model, line.arguments, f"replay:{line.number}")
            errors = answer.errors if isinstance(answer, Answer) else ()
            problems = [f"{e['path']}: {e['message']}" for e in errors if e["message"] in UNFITTING_ARGUMENT_ERRORS]
            if problems:
                raise InvalidHistory(f"{name}, line {line.number}: {line.task}: {'; '.join(problems)}")


def play(
    lines: Iterable[HistoryLine], simulation: Simulation, *, until: datetime | None = None
) -> Iterator[HistoryLine]:
    """Play lines on a simulation whose clock is at or before the first line, then advance it to `until`.

    Lines after `until` are not played. Message ids are `replay:1`, `replay:2` …, by line number, so that a history
    returns the same answers each time it is played.
    """
    for line in lines:
        if until is not None and line.at > until:
            break
        simulation.advance(line.at)  # runs the outbox tasks of the previous line first
        if line.show is None:
            result = simulation.execute(line.task, line.arguments, f"replay:{line.number}")
        else:
            with simulation.database.transaction() as conn:
                result = parse_query(line.show).read(conn, line.at)
        yield replace(line, result=result)
    simulation.process_outbox()
    if until is not None and until > simulation.clock.instant:
        simulation.advance(until)


def _parse_history_line(number: int, written: str) -> HistoryLine:
    try:
        fields = json.loads(written, object_pairs_hook=refuse_duplicate_names, parse_constant=_refuse_history_constants)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at character {error.colno}") from None
    if not isinstance(fields, dict):
        raise ValueError("must be a JSON object")
    at = _parse_line_instant(fields)
    known = {"at", "show"} if "show" in fields else {"at", "task", "kwargs"}
    if extra := sorted(fields.keys() - known):
        raise ValueError(f"has unknown fields: {', '.join(extra)}")
    if "show" in fields:
        words = fields["show"]
        if not isinstance(words, list):
            raise ValueError('`show` must be a list such as ["order", 1003]')
        parse_query(words)
        return HistoryLine(number, at, show=tuple(words))
    task, arguments = fields.get("task"), fields.get("kwargs", {})
    if not isinstance(task, str) or task not in app.tasks or task.startswith("celery."):
        raise ValueError("`task` must be the name of a task such as orders.submit, or `show` must be a query")
    if not isinstance(arguments, dict):
        raise ValueError("`kwargs` must be an object")
    if task not in COMMANDS:
        try:
            inspect.signature(app.tasks[task].run).bind(**arguments)
        except TypeError as error:
            raise ValueError(f"{task}: {error}") from None
    return HistoryLine(number, at, task, arguments)


def _parse_line_instant(fields: dict[str, Any]) -> datetime:
    if not isinstance(fields.get("at"), str):
        raise ValueError("`at` is missing: an instant such as 2026-03-28T10:00:00Z")
    try:
        at = parse_timestamp(fields["at"])
    except ValueError as error:
        raise ValueError(f"`at` {error}") from None
    if not 1970 <= at.year <= 9000:  # so that adding deadlines to it never leaves the calendar
        raise ValueError("`at` must lie between the years 1970 and 9000")
    return at


def _refuse_history_constants(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
