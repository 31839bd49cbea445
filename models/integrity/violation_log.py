"""The violation log: which rows the invariants are checked on in each run, and the violations found.

Every minute it is recent changes and a slice of the rest; every night everything, one invariant at a time. A violation
stays an open row of `violations` until a check of everything no longer finds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, null, select, text
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Mapped, mapped_column

from models import events, feed, sweeps
from models.bills import BillRow
from models.db.arrays import is_any
from models.db.named_locks import lock_named, try_lock_named
from models.db.schema import Base, BigIntKey, partial_index, table_of
from models.db.session_settings import set_local
from models.events import EventRow
from models.integrity import invariants, month_audit
from models.integrity.invariants import INVARIANT_PLANS, MAX_IDS, MONTHS_INVARIANT, InvariantScope, Violations
from models.inventory import LotRow
from models.ledger import LedgerLineRow
from models.members import MemberRow
from models.orders import OrderRow
from models.outbox import OutboxRow
from models.stock_moves import StockMoveRow

VIOLATION_LOG_RECENT_SWEEP = "audit.check_invariants"
VIOLATION_LOG_NIGHTLY_SWEEP = "audit.check_everything"
VIOLATION_LOG_MONTHS_SWEEP = "audit.months"
VIOLATION_LOG_LOCK = "audit.check"
"""Held by each transaction that checks and records, so that none clears what another has just found."""
VIOLATION_LOG_MONTH_INTERVAL = timedelta(hours=1)
"""How often the books of one closed month are recomputed, which reads every event of the month's orders."""
MAX_RECENT = 5000
"""Rows of one table that one run checks; at a peak the rest is left to the next runs."""
SLICE_SIZE = 500
"""Orders and lots checked in turn besides the recent ones: a hundred thousand in a little over three hours."""
SELLER_SLICE_SIZE = 20
AUDITED_ANSWER_LAG = timedelta(minutes=5)
"""Answers are selected by their instant, which is read before the commit."""
VIOLATION_LOG_NIGHTLY_AT = timedelta(hours=3)
"""UTC.  The check of everything is due again at this time."""
AUDIT_STATEMENT_TIMEOUT = "55s"


class ViolationRow(Base):
    __tablename__ = "violations"
    __table_args__ = (
        partial_index("uq_violations_open", "sentence", "subject", unique=True, where="cleared_at IS NULL"),
    )

    violation_id: Mapped[BigIntKey]
    sentence: Mapped[str]
    subject: Mapped[str]
    found_at: Mapped[datetime]
    cleared_at: Mapped[datetime | None]


class AuditPositionRow(Base):
    __tablename__ = "audit_positions"

    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[Any] = mapped_column(JSONB)


def open_violations(conn: Connection) -> Violations:
    rows = conn.execute(
        select(ViolationRow.sentence, ViolationRow.subject)
        .where(ViolationRow.cleared_at.is_(None))
        .order_by(ViolationRow.violation_id)
    )
    return _subjects_by_sentence(rows)


def _subjects_by_sentence(rows: Iterable[Any]) -> Violations:
    subjects: Violations = {}
    for row in rows:
        subjects.setdefault(row.sentence, []).append(row.subject)
    return subjects


def log_recent_violations(conn: Connection, now: datetime) -> Violations | None:
    """Check what changed since the last run and the next slice, and record violations.

    Waits for a slice of the nightly check. Returns None if another run is in progress.
    """
    if not try_lock_named(conn, VIOLATION_LOG_RECENT_SWEEP):
        return None
    lock_named(conn, VIOLATION_LOG_LOCK)
    scope, positions = recent_violation_scope(conn, now)
    violations = invariants.query_invariants(conn, now, scope=scope, months=_month_due_for_violation_log(conn, now))
    log_violations(conn, violations, now, checked_everywhere=invariants.INVARIANTS_WITHOUT_SCOPE)
    _store_audit_positions(conn, positions)
    sweeps.record_sweep_run(conn, VIOLATION_LOG_RECENT_SWEEP, len(violations), now)
    return violations


def log_violations_of_next_invariant(conn: Connection, now: datetime) -> Violations | None:
    """Check the next invariant of this night's check of everything.

    Returns None when all have been checked, or if another check is in progress.
    """
    night_number = (now.astimezone(UTC) - VIOLATION_LOG_NIGHTLY_AT).toordinal()
    if not try_lock_named(conn, VIOLATION_LOG_LOCK):
        return None
    positions = _load_audit_positions(conn)
    if positions.get("night") == night_number:  # not a later one: the clock may have been ahead
        return None
    index = positions.get("next_check", 0)
    checks = [*invariants.ALWAYS, *month_audit.months_to_audit(conn)]
    if index >= len(checks):
        _store_audit_positions(conn, {"night": night_number, "next_check": 0})
        sweeps.record_sweep_run(conn, VIOLATION_LOG_NIGHTLY_SWEEP, len(open_violations(conn)), now)
        return None
    set_local(conn, statement_timeout=AUDIT_STATEMENT_TIMEOUT, **INVARIANT_PLANS)
    check = checks[index]
    if isinstance(check, date):
        sentence, ids = MONTHS_INVARIANT, month_audit.months_with_differences(conn, [check])
    else:
        sentence, ids = check.sentence, check.find_violations(conn, now)
    violations = {sentence: ids} if ids else {}
    checked_everywhere = [] if sentence == MONTHS_INVARIANT else [sentence]  # a run checks one month of many
    log_violations(conn, violations, now, checked_everywhere=checked_everywhere)
    _store_audit_positions(conn, {"next_check": index + 1})
    return violations


def _month_due_for_violation_log(conn: Connection, now: datetime) -> list[date]:
    # One closed month an hour, alternating between the newest and the older ones, so that a month just closed is
    # checked at once.
    last = sweeps.last_sweep_runs(conn).get(VIOLATION_LOG_MONTHS_SWEEP)
    # A time that is further ahead was recorded by a wrong clock.
    if last is not None and abs(now - last) < VIOLATION_LOG_MONTH_INTERVAL:
        return []
    closed = month_audit.months_to_audit(conn)
    if not closed:
        return []
    sweeps.record_sweep_run(conn, VIOLATION_LOG_MONTHS_SWEEP, 0, now)
    hour = int(now.timestamp()) // int(VIOLATION_LOG_MONTH_INTERVAL.total_seconds())
    return [closed[-1]] if hour % 2 else [closed[hour // 2 % len(closed)]]


def log_violations(
    conn: Connection, violations: Violations, now: datetime, *, checked_everywhere: Iterable[str] = ()
) -> None:
    # Finding and clearing a violation are events, so that mirrors of the feed have them too.
    pairs = [(sentence, subject) for sentence, ids in violations.items() for subject in ids]
    values = {"sentences": [s for s, _ in pairs], "subjects": [i for _, i in pairs], "now": now}
    new = conn.execute(_RECORD_VIOLATIONS, values).all() if pairs else []
    capped = {sentence for sentence, ids in violations.items() if len(ids) >= MAX_IDS}
    fully_checked = sorted(set(checked_everywhere) - capped)
    cleared = conn.execute(_CLEAR_VIOLATIONS, values | {"checked": fully_checked}).all() if fully_checked else []
    events.append_events(
        conn, [*_violation_events("audit.violated", new, now), *_violation_events("audit.settled", cleared, now)]
    )


def recent_violation_scope(conn: Connection, now: datetime) -> tuple[InvariantScope, dict[str, Any]]:
    positions = _load_audit_positions(conn)

    def next_slice(name: str, key: Any, size: int, *more: Any, first: Any = 0) -> Sequence[Row[Any]]:
        rows = _next_keys(conn, key, positions.get(name, first), size, *more)
        positions[name] = rows[-1][0] if len(rows) == size else first
        return rows

    # The bound is read before the rows: transactions below it have ended, so every later statement sees their rows.
    end = feed.first_unsettled_transaction(conn)
    since = positions["written_in"] if "written_in" in positions else _first_audit_position(conn)
    order_ids: set[int] = set()
    sellers: set[str] = set()
    items: set[tuple[str, str]] = set()
    for table in (EventRow, LedgerLineRow, BillRow, StockMoveRow):
        rows = _rows_written(conn, table, since)
        if len(rows) == MAX_RECENT:
            end = min(end, max(rows[-1].written_in, since + 1))
        order_ids |= {row.order_id for row in rows if row.order_id is not None}
        sellers |= {row.seller_id for row in rows if row.seller_id is not None}
        items |= {(row.seller_id, row.item_no) for row in rows if row.item_no is not None}
    order_slice = next_slice("order", OrderRow.order_id, SLICE_SIZE)
    seller_slice = next_slice("seller", MemberRow.member_id, SELLER_SLICE_SIZE, first="")
    lot_slice = next_slice("lot", LotRow.lot_id, SLICE_SIZE, LotRow.seller_id, LotRow.item_no)

    first_due = positions.get("outbox", 0)
    of_message = (OutboxRow.order_id, OutboxRow.state)
    messages = _next_keys(conn, OutboxRow.outbox_id, first_due - 1, MAX_RECENT, *of_message)
    last = messages[-1].outbox_id if messages else first_due
    order_ids |= {row.order_id for row in (*order_slice, *messages) if row.order_id is not None}
    message_ids = conn.execute(select(OutboxRow.outbox_id).where(is_any(OutboxRow.order_id, order_ids))).scalars()
    answered = datetime.fromtimestamp(positions["answers"], UTC) if "answers" in positions else now
    items |= {(row.seller_id, row.item_no) for row in lot_slice}
    scope = {
        "orders": sorted(order_ids),
        "sellers": sorted({*sellers, *(row.member_id for row in seller_slice)}),
        "item_sellers": [seller_id for seller_id, _ in items],
        "item_nos": [item_no for _, item_no in items],
        "messages": sorted({*message_ids, *(row.outbox_id for row in messages)}),
        "answers": min(answered, now) - AUDITED_ANSWER_LAG,
    }
    return scope, positions | {
        "written_in": max(since, end),
        "answers": int(now.timestamp()),
        "outbox": min((row.outbox_id for row in messages if row.state == "due"), default=last),
    }


def _violation_events(type_: str, rows: Iterable[Any], now: datetime) -> list[dict[str, Any]]:
    system = {"actor": "system", "role": "system"}
    return [
        events.event_row(type_, now, note=sentence, changes={"audit": {"sentence": sentence, "ids": ids}}, **system)
        for sentence, ids in sorted(_subjects_by_sentence(rows).items())
    ]


def _load_audit_positions(conn: Connection) -> dict[str, Any]:
    return {row.name: row.position for row in conn.execute(select(AuditPositionRow))}


def _store_audit_positions(conn: Connection, positions: dict[str, Any]) -> None:
    new = insert(AuditPositionRow).values([{"name": name, "position": at} for name, at in positions.items()])
    conn.execute(new.on_conflict_do_update(index_elements=["name"], set_={"position": new.excluded.position}))


def _rows_written(conn: Connection, table: type[Base], since: int) -> Sequence[Row[Any]]:
    columns = table_of(table).c
    subjects = [columns.get(name, null()).label(name) for name in ("order_id", "seller_id", "item_no")]
    written = select(columns.written_in, *subjects).where(columns.written_in >= since)
    return conn.execute(written.order_by(columns.written_in).limit(MAX_RECENT)).all()


def _next_keys(conn: Connection, key: Any, after: int | str, limit: int, *more: Any) -> Sequence[Row[Any]]:
    return conn.execute(select(key, *more).where(key > after).order_by(key).limit(limit)).all()


def _first_audit_position(conn: Connection) -> int:
    # What is older than the first run's start is left to the slices and the nightly check.
    newest = select(EventRow.written_in).order_by(EventRow.written_in.desc(), EventRow.event_id.desc())
    return int(conn.execute(newest.offset(MAX_RECENT).limit(1)).scalar() or 0)


_RECORD_VIOLATIONS = text("""
    INSERT INTO unwind.violations (sentence, subject, found_at)
    SELECT DISTINCT sentence, subject, CAST(:now AS timestamptz)
    FROM unnest(CAST(:sentences AS text[]), CAST(:subjects AS text[])) AS f(sentence, subject)
    ON CONFLICT (sentence, subject) WHERE cleared_at IS NULL DO NOTHING
    RETURNING sentence, subject
""")
_CLEAR_VIOLATIONS = text("""
    UPDATE unwind.violations SET cleared_at = :now
    WHERE cleared_at IS NULL AND sentence = ANY(CAST(:checked AS text[])) AND (sentence, subject) NOT IN (
        SELECT * FROM unnest(CAST(:sentences AS text[]), CAST(:subjects AS text[])))
    RETURNING sentence, subject
""")
