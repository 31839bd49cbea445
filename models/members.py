"""The tables of members (privileges, address, time zone, automation settings) and of their strikes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, ForeignKey, Index, Text, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Mapped, mapped_column

from models import events
from models.db.arrays import is_any, is_any_of_ids, text_array
from models.db.bulk import insert_rows, update_rows
from models.db.pipeline import Fetch, execute, pipeline
from models.db.row_mapping import from_row
from models.db.schema import Base, BigInt, check_in
from policies.automation_settings import AutomationSettings, settings_from_json, settings_to_json
from policies.cases import Member
from policies.statuses import Role


class MemberRow(Base):
    __tablename__ = "members"

    member_id: Mapped[str] = mapped_column(primary_key=True)
    handle: Mapped[str]
    email: Mapped[str]
    time_zone: Mapped[str]
    recorded_at: Mapped[datetime]
    terminated_at: Mapped[datetime | None]
    buying_revoked_at: Mapped[datetime | None]
    selling_suspended_at: Mapped[datetime | None]
    reinstated_at: Mapped[datetime | None]
    automation: Mapped[dict[str, Any] | None]
    """The `AutomationSettings`, in the row that commands lock: none of them reads old settings."""


class StrikeRow(Base):
    __tablename__ = "strikes"

    order_id: Mapped[BigInt] = mapped_column(primary_key=True)
    member_id: Mapped[str] = mapped_column(ForeignKey("unwind.members.member_id"))
    role: Mapped[str]
    at: Mapped[datetime]
    withdrawn_at: Mapped[datetime | None]

    __table_args__ = (
        check_in("role", (Role.BUYER, Role.SELLER)),
        Index("ix_strikes_member_id", "member_id"),
    )


NO_LOCK, FOR_SHARE, FOR_UPDATE = "no lock", "for share", "for update"


def _current_strikes(role: Role) -> ColumnElement[Any]:
    reinstated_at = MemberRow.reinstated_at
    strikes = select(StrikeRow.order_id).where(
        StrikeRow.member_id == MemberRow.member_id,
        StrikeRow.role == role,
        StrikeRow.withdrawn_at.is_(None),
        reinstated_at.is_(None) | (StrikeRow.at > reinstated_at),
    )
    return func.array(strikes.order_by(StrikeRow.at, StrikeRow.order_id).correlate(MemberRow).scalar_subquery())


_MEMBER_ID = func.unnest(bindparam("ids", type_=ARRAY(Text))).column_valued("member_id")
_IS_EXCLUDED = MemberRow.automation.op("->")("exclude_buyers").op("?")(_MEMBER_ID)
_EXCLUDED = func.array(select(_MEMBER_ID).where(_IS_EXCLUDED).correlate(MemberRow).scalar_subquery())
_SELECT_MEMBERS = (
    select(
        MemberRow.member_id,
        MemberRow.handle,
        MemberRow.terminated_at.is_not(None).label("terminated"),
        MemberRow.buying_revoked_at.is_(None).label("can_buy"),
        MemberRow.selling_suspended_at.is_(None).label("can_sell"),
        MemberRow.automation.op("||")(func.jsonb_build_object("exclude_buyers", _EXCLUDED)).label("automation"),
        _current_strikes(Role.BUYER).label("strikes_as_buyer"),
        _current_strikes(Role.SELLER).label("strikes_as_seller"),
    )
    .where(is_any_of_ids(MemberRow.member_id))
    .order_by(MemberRow.member_id)
)
_SELECT_MEMBERS_BY_LOCK = {
    NO_LOCK: _SELECT_MEMBERS,
    FOR_SHARE: _SELECT_MEMBERS.with_for_update(read=True),
    FOR_UPDATE: _SELECT_MEMBERS.with_for_update(key_share=True),
}
_LOCK_MEMBERS = _SELECT_MEMBERS.with_only_columns(MemberRow.member_id).with_for_update(key_share=True)


def load_members(conn: Connection, member_ids: Iterable[str], *, lock: str = NO_LOCK) -> dict[str, Member]:
    with pipeline(conn):
        fetch = send_members_query(conn, member_ids, lock=lock)
    return fetch()


def send_members_query(conn: Connection, member_ids: Iterable[str], *, lock: str = NO_LOCK) -> Fetch[dict[str, Member]]:
    ids = {"ids": text_array(sorted(set(member_ids)))}
    if lock == FOR_UPDATE:
        # Lock first, then read: a statement that waits for a lock still reads strikes as of its start, so concurrent
        # cancellations would not see each other's strikes (R95).
        execute(conn, _LOCK_MEMBERS, ids)
    rows = execute(conn, _SELECT_MEMBERS_BY_LOCK[lock], ids)
    return lambda: {
        row.member_id: from_row(
            Member,
            row,
            strikes_as_buyer=tuple(row.strikes_as_buyer),
            strikes_as_seller=tuple(row.strikes_as_seller),
            automation=settings_from_json(row.automation),
        )
        for row in rows
    }


def load_member_contacts(conn: Connection, member_ids: Iterable[str]) -> dict[str, Any]:
    """Return the `handle`, `email` and `time_zone` by member."""
    columns = (MemberRow.member_id, MemberRow.handle, MemberRow.email, MemberRow.time_zone)
    rows = conn.execute(select(*columns).where(is_any(MemberRow.member_id, set(member_ids))))
    return {row.member_id: row for row in rows}


def time_zone_of(conn: Connection, member_id: str) -> str:
    return conn.execute(select(MemberRow.time_zone).where(MemberRow.member_id == member_id)).scalar_one()


def upsert_members(conn: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Upsert members by id: handle, email and time zone are replaced; privileges and history stay."""
    for row in rows:
        contact = {name: row[name] for name in ("handle", "email", "time_zone")}
        conn.execute(insert(MemberRow).values(row).on_conflict_do_update(index_elements=["member_id"], set_=contact))


def update_member_standing(
    conn: Connection, before: dict[str, Member], after: Iterable[Member], now: datetime
) -> list[dict[str, Any]]:
    """Write changes of accounts and privileges; return the event of each changed privilege, as a row."""
    event_rows, rows = [], []
    for member in after:
        old = before[member.member_id]
        for role, privilege, was_allowed, allowed in (
            (Role.BUYER, "buying", old.can_buy, member.can_buy),
            (Role.SELLER, "selling", old.can_sell, member.can_sell),
        ):
            if allowed != was_allowed:
                type_ = f"members.{privilege}_{'restored' if allowed else 'revoked'}"
                facts = {"member_id": member.member_id, "note": f"Strikes that count: {len(member.strikes(role))}."}
                event_rows.append(events.event_row(type_, now, actor="system", role="system", **facts))
        if (old.can_buy, old.can_sell, old.terminated) != (member.can_buy, member.can_sell, member.terminated):
            rows.append(
                {
                    "member_id": member.member_id,
                    "terminated_at": now if member.terminated else None,
                    "buying_revoked_at": None if member.can_buy else now,
                    "selling_suspended_at": None if member.can_sell else now,
                }
            )
    update_rows(conn, MemberRow, ["member_id"], rows)
    return event_rows


def load_automation(conn: Connection, member_id: str) -> AutomationSettings:
    written = conn.execute(select(MemberRow.automation).where(MemberRow.member_id == member_id)).scalar()
    return settings_from_json(written)


def update_automation(conn: Connection, member_id: str, automation: AutomationSettings) -> None:
    update_rows(conn, MemberRow, ["member_id"], [{"member_id": member_id, "automation": settings_to_json(automation)}])


def mark_member_reinstated(conn: Connection, member_id: str, now: datetime) -> None:
    update_rows(conn, MemberRow, ["member_id"], [{"member_id": member_id, "reinstated_at": now}])


def insert_strikes(conn: Connection, new_strikes: Sequence[tuple[int, str, Role, datetime]]) -> None:
    """Insert strikes, given as (order_id, member_id, role, at). The order is the key, so none counts twice (R97)."""
    rows = [{"order_id": o, "member_id": m, "role": r, "at": at} for o, m, r, at in new_strikes]
    insert_rows(conn, StrikeRow, rows, skip_existing=True)


def withdraw_strikes(conn: Connection, order_ids: Sequence[int], now: datetime) -> None:
    update_rows(conn, StrikeRow, ["order_id"], [{"order_id": o, "withdrawn_at": now} for o in order_ids])
