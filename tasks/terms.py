"""How do an operator's own terms come into force?  Dated, checked; a running case keeps its own."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Annotated, Any, ClassVar

from celery import shared_task
from pydantic import AfterValidator, Field, JsonValue, WithJsonSchema

from models import events, terms
from models.db import database as db
from models.requests import Answer, done, invalid
from models.unit_of_work import UnitOfWork, unit_of_work
from policies.terms import TermsProblem, terms_from_mapping, terms_to_mapping
from policies.timestamps import format_timestamp
from tasks.command import CodeText, Command, StaffName, TimestampText

Plain = Annotated[JsonValue, WithJsonSchema({})]
MAX_SETTINGS = 100
MAX_AHEAD = timedelta(days=36525)
MAX_SETTINGS_LENGTH = 100_000
"""Characters of all settings together, as JSON."""


def _storable(settings: dict[str, Any]) -> dict[str, Any]:
    written = json.dumps(settings, ensure_ascii=False, allow_nan=False)
    if len(written) > MAX_SETTINGS_LENGTH:
        raise ValueError("say more than terms can say")
    if "\\u0000" in written or any(0xD800 <= ord(c) <= 0xDFFF for c in written):
        raise ValueError("must not contain NUL or unpaired surrogates")
    return settings


class ApplyTerms(Command):
    """Arguments of `terms.apply`: settings by the names of the rule book, and the instant `from` which they hold."""

    task: ClassVar[str] = "terms.apply"
    terms: Annotated[dict[CodeText, Plain], Field(min_length=1, max_length=MAX_SETTINGS), AfterValidator(_storable)]
    from_: Annotated[TimestampText, Field(alias="from")]
    staff: StaffName


@shared_task(name=ApplyTerms.task)
def apply(commands: list[ApplyTerms]) -> list[Answer]:
    """New cases from that instant on are filed under these terms; what is not named stays as it is by then."""
    with unit_of_work(commands) as work:
        for command in work.pending:
            work.answer(command, _applied(work, command))
    return work.answers


def _applied(work: UnitOfWork[ApplyTerms], command: ApplyTerms) -> Answer:
    terms.lock(work.conn)
    if command.from_ < work.now:
        return invalid(command.request_id, [("from", "must not be in the past: what was decided stays decided")])
    if command.from_ > work.now + MAX_AHEAD:
        return invalid(command.request_id, [("from", "must not be more than a hundred years ahead")])
    held = terms.load_terms(work.conn).at(command.from_)
    wanted = terms_from_mapping(command.terms, base=held, allow_short=db.current_database().allow_short_terms)
    if isinstance(wanted, list):
        return invalid(command.request_id, [(_path(problem), problem.message) for problem in wanted])
    before, after = terms_to_mapping(held), terms_to_mapping(wanted)
    changed = {name: value for name, value in after.items() if value != before[name]}
    terms_id = terms.insert(work.conn, after, command.from_, command.staff, work.now)
    note = "; ".join(f"{name}: {before[name]} becomes {value}" for name, value in changed.items()) or "Nothing changes."
    events.append(
        work.conn,
        [
            events.event_row(
                "terms.applied",
                work.now,
                actor=f"staff:{command.staff}",
                role="staff",
                note=f"From {format_timestamp(command.from_)}: {note}",
                changes={"terms": {"terms_id": terms_id, "from": format_timestamp(command.from_), "settings": changed}},
                request_id=command.request_id,
            )
        ],
    )
    return done(command, {"terms_id": terms_id, "from": format_timestamp(command.from_), "changed": changed})


def _path(problem: TermsProblem) -> str:
    return f"terms.{problem.path}"
