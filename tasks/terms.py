"""The command that applies an operator's terms, with effect from a date. Open cases keep their terms."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, JsonValue, WithJsonSchema

from models import automation, terms
from models.db import database as db
from models.db.named_locks import lock_named
from models.stored_answers import Answer
from models.unit_of_work import UnitOfWork, unit_of_work
from policies.term_parsing import terms_from_mapping, terms_to_mapping
from policies.texts import is_storable
from policies.timestamps import format_timestamp
from tasks.command import CodeText, Command, StaffName, TimestampText
from tasks.declarations import command_task

PlainTermValue = Annotated[JsonValue, WithJsonSchema({})]
MAX_TERMS = 100
MAX_TERMS_AHEAD = timedelta(days=36525)
MAX_TERMS_LENGTH = 100_000
"""Characters of all settings together, as JSON."""


def _validate_terms_to_apply(settings: dict[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(settings, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise ValueError("must not contain NaN or an infinite number") from None
    if len(text) > MAX_TERMS_LENGTH:
        raise ValueError(f"must have at most {MAX_TERMS_LENGTH} characters as JSON")
    if "\\u0000" in text or not is_storable(text):
        raise ValueError("must not contain NUL or unpaired surrogates")
    return settings


class ApplyTerms(Command):
    """Arguments of `terms.apply`: settings by their names in docs/rules.md, and `from` when they apply."""

    task: ClassVar[str] = "terms.apply"
    terms: Annotated[
        dict[CodeText, PlainTermValue],
        Field(min_length=1, max_length=MAX_TERMS),
        AfterValidator(_validate_terms_to_apply),
    ]
    from_: Annotated[TimestampText, Field(alias="from")]
    staff: StaffName


@command_task(
    ApplyTerms,
    example={
        "terms": {"NPB_UNLOCK_NO_RESPONSE": "7d"},
        "from": "2027-01-01T00:00:00Z",
        "staff": "Kim, support",
    },
)
def apply_terms(commands: list[ApplyTerms]) -> list[Answer]:
    """Apply these terms to cases filed at that time or later. An omitted setting keeps the value it has by then."""
    with unit_of_work(commands) as work:
        for command in work.pending:
            work.answer(command, _apply_terms_command(work, command))
    return work.answers


def _apply_terms_command(work: UnitOfWork[ApplyTerms], command: ApplyTerms) -> Answer:
    lock_named(work.conn, "terms")
    if command.from_ < work.now:
        return Answer.invalid(command.request_id, [("from", "must not be in the past: decisions already made stand")])
    if command.from_ > work.now + MAX_TERMS_AHEAD:
        return Answer.invalid(command.request_id, [("from", "must not be more than a hundred years ahead")])
    base = terms.load_terms(work.conn).at(command.from_)
    new_terms = terms_from_mapping(command.terms, base=base, allow_short=db.current_database().allow_short_terms)
    if isinstance(new_terms, list):
        return Answer.invalid(command.request_id, [(f"terms.{name}", message) for name, message in new_terms])
    before, after = terms_to_mapping(base), terms_to_mapping(new_terms)
    changed = {name: value for name, value in after.items() if value != before[name]}
    terms_id = terms.insert_terms(work.conn, after, command.from_, command.staff, work.now)
    if new_terms.npb_file_after < base.npb_file_after:
        automation.bring_automatic_filings_forward(work.conn, new_terms.npb_file_after, command.from_)
    note = "; ".join(f"{name}: {before[name]} becomes {value}" for name, value in changed.items()) or "Nothing changes."
    work.record_event(
        "terms.applied",
        command,
        f"From {format_timestamp(command.from_)}: {note}",
        actor=f"staff:{command.staff}",
        role="staff",
        changes={"terms": {"terms_id": terms_id, "from": format_timestamp(command.from_), "settings": changed}},
    )
    return Answer.done(command, {"terms_id": terms_id, "from": format_timestamp(command.from_), "changed": changed})
