"""Commands about members: recorded by the marketplace, terminated and reinstated by staff."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import AfterValidator, StringConstraints

from models import automation, members
from models.stored_answers import Answer
from models.unit_of_work import unit_of_work
from policies import members as policy
from policies.cases import Member
from policies.members import member_unknown
from policies.preconditions import check_comment
from policies.texts import is_identifier
from policies.zones import validate_zone
from tasks.command import Command, Comment, Handle, MemberId, StaffName, Text, must
from tasks.declarations import command_task

_MEMBER_EMAIL = re.compile(r"[^@\s<>\"(),:;\[\]\\]{1,64}@[^@\s<>\"(),:;\[\]\\]{1,189}")


class RecordMember(Command):
    task: ClassVar[str] = "members.record"
    member_id: MemberId
    handle: Handle
    email: Annotated[
        Text,
        must(
            "be one mail address such as name@example.org",
            lambda email: _MEMBER_EMAIL.fullmatch(email) is not None and is_identifier(email),
        ),
    ]
    time_zone: Annotated[Text, StringConstraints(max_length=64), AfterValidator(validate_zone)] = "UTC"


class StaffDecision(Command):
    member_id: MemberId
    staff: StaffName
    comment: Comment


@command_task(
    RecordMember,
    example={
        "member_id": "s-881",
        "handle": "BrickBarn",
        "email": "barn@example.org",
        "time_zone": "America/New_York",
    },
)
def record_member(commands: list[RecordMember]) -> list[Answer]:
    """Record a member, or another handle, email address or time zone of one, as the marketplace reports them."""
    with unit_of_work(commands) as work:
        rows = [
            c.model_dump(include={"member_id", "handle", "email", "time_zone"}) | {"recorded_at": work.now}
            for c in work.pending
        ]
        members.upsert_members(work.conn, rows)
        for command in work.pending:
            work.answer(command, Answer.done(command, {"member_id": command.member_id}))
    return work.answers


@command_task(
    StaffDecision,
    name="members.terminate",
    example={"member_id": "s-881", "staff": "Kim, support", "comment": "closed at the member's own wish"},
)
def terminate_member(commands: list[StaffDecision]) -> list[Answer]:
    """Close an account. The other party of each of its orders may then cancel at once (R53, R54)."""
    return _change_accounts(commands, "terminated", lambda member: replace(member, terminated=True))


@command_task(
    StaffDecision,
    name="members.reinstate",
    example={"member_id": "s-881", "staff": "Kim, support", "comment": "identity confirmed"},
)
def reinstate_member(commands: list[StaffDecision]) -> list[Answer]:
    """Reopen an account. Its privileges return, and strikes before now no longer count."""
    return _change_accounts(commands, "reinstated", policy.reinstate_member)


def _change_accounts(
    commands: Sequence[StaffDecision], change: str, decide: Callable[[Member], Member]
) -> list[Answer]:
    with unit_of_work(commands) as work:
        known = members.load_members(work.conn, [c.member_id for c in work.pending], lock=members.FOR_UPDATE)
        for command in work.pending:
            member = known.get(command.member_id)
            if member is None:
                work.answer(command, member_unknown(command.member_id))
            elif refused := check_comment(command.comment):
                work.answer(command, refused)
            elif (changed := decide(member)) == member:
                work.answer(command, Answer.done(command, {}))
            else:
                known[command.member_id] = changed
                if not changed.terminated:
                    members.mark_member_reinstated(work.conn, command.member_id, work.now)
                members.update_member_standing(work.conn, {member.member_id: member}, [changed], work.now)
                # R118: a terminated seller has no deadlines.
                automation.update_automation_deadlines(work.conn, command.member_id, work.now)
                work.record_event(
                    f"members.{change}",
                    command,
                    command.comment,
                    actor=f"staff:{command.staff}",
                    role="staff",
                    member_id=command.member_id,
                )
                work.answer(command, Answer.done(command, {change: True}))
    return work.answers
