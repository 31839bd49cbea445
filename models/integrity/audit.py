"""The continuous audit: checks the invariants and records violations.

Every minute it checks what changed lately and a slice of the rest; every night everything, one invariant at a time.  A
finding stays an open row of `violations` until a check of everything no longer finds it.  Finding and clearing are
events, so mirrors of the feed learn of them too.

Measured with 100,000 orders of five lines on two cores under eightfold load: two seconds a minute for a slice and
recent rows, sixteen with 5,000 recent rows, and everything in 57 seconds, the slowest query in 7.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Index, select, text
from sqlalchemy.orm import Mapped, mapped_column

from models import events, sweeps
from models.db.locks import try_lock_named
from models.db.schema import Base, BigInt, BigIntKey
from models.integrity import invariants, month_audit
from models.integrity.invariants import MONTHS_PROVEN, Violation
from models.integrity.invariants.invariant import MAX_IDS, Invariant, Scope

RECENT_SWEEP = "audit.check_invariants"
FULL_SWEEP = "audit.check_everything"
MONTHS_SWEEP = "audit.months"
MONTH_INTERVAL = timedelta(hours=1)
"""How often the books of one closed month are computed again: it reads every event of the month's orders."""
MAX_RECENT = 5000
"""Rows of one table that one run checks; at a peak the rest is left to the next runs."""
SLICE_SIZE = 500
"""Orders and lots beside what is fresh, round and round: a hundred thousand in a little over three hours."""
SELLER_SLICE_SIZE = 20
ANSWER_LAG = timedelta(minutes=5)
"""Answers are found by their instant, which is read before the commit."""
FULL_AUDIT_TIME_OF_DAY = timedelta(hours=3)
"""UTC.  From then on the question of everything is due once more."""
MAX_STATEMENT_TIMEOUT = "55s"


class ViolationRow(Base):
    """An invariant that one order, alert, bill or row violates; open while `cleared_at` is null."""

    __tablename__ = "violations"
    __table_args__ = (
        Index("uq_violations_open", "sentence", "subject", unique=True, postgresql_where=text("cleared_at IS NULL")),
    )

    violation_id: Mapped[BigIntKey]
    sentence: Mapped[str]
    subject: Mapped[str]
    found_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    cleared_at: Mapped[datetime | None]


class AuditMarkRow(Base):
    __tablename__ = "audit_marks"

    name: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[BigInt]
    word: Mapped[str]


def open_violations(conn: Connection) -> list[Violation]:
    rows = conn.execute(
        select(ViolationRow.sentence, ViolationRow.subject)
        .where(ViolationRow.cleared_at.is_(None))
        .order_by(ViolationRow.violation_id)
    )
    found: dict[str, list[str]] = {}
    for sentence, subject in rows:
        found.setdefault(sentence, []).append(subject)
    return [Violation(sentence, ids) for sentence, ids in found.items()]


def check_recent(conn: Connection, now: datetime) -> list[Violation] | None:
    """Check what changed since the last run and the next slice, and record violations.

    Returns None if another run is in progress.
    """
    if not _alone(conn):
        return None
    scope, marks = recent_scope(conn, now)
    found = invariants.check(conn, now, scope=scope, months=_month_in_turn(conn, now))
    record_findings(conn, found, now, checked_everywhere=[one.sentence for one in _always_whole()])
    _set_marks(conn, marks)
    sweeps.record_run(conn, RECENT_SWEEP, len(found), now)
    return found


def check_next_slice(conn: Connection, now: datetime) -> list[Violation] | None:
    """Check the next invariant of this night's check of everything.

    Returns None when all have been checked, or if another run is in progress.
    """
    night = (now.astimezone(UTC) - FULL_AUDIT_TIME_OF_DAY).toordinal()
    if not _alone(conn):
        return None
    marks = _marks(conn)
    if marks.get("night", (0, ""))[0] == night:  # not a later one: the clock may have been ahead, and was set right
        return None
    at = marks.get("question", (0, ""))[0]
    months = month_audit.closed_months(conn)
    questions = len(invariants.ALWAYS) + len(months)
    if at >= questions:
        _set_marks(conn, {"night": (night, ""), "question": (0, "")})
        sweeps.record_run(conn, FULL_SWEEP, len(open_violations(conn)), now)
        return None
    set_statement_timeout(conn, MAX_STATEMENT_TIMEOUT)
    if at < len(invariants.ALWAYS):
        one = invariants.ALWAYS[at]
        broken = one.broken(conn, now)
        found = [Violation(one.sentence, broken)] if broken else []
        record_findings(conn, found, now, checked_everywhere=[one.sentence])
    else:
        found = check_month(conn, now, months[at - len(invariants.ALWAYS)])
    _set_marks(conn, {"question": (at + 1, "")})
    return found


def _month_in_turn(conn: Connection, now: datetime) -> list[date]:
    # One closed month an hour, alternating between the newest and the older ones, so that a month just closed is
    # checked at once.
    last = sweeps.last_runs(conn).get(MONTHS_SWEEP)
    if last is not None and abs(now - last) < MONTH_INTERVAL:  # one further ahead is of a clock that was set right
        return []
    closed = month_audit.closed_months(conn)
    if not closed:
        return []
    sweeps.record_run(conn, MONTHS_SWEEP, 0, now)
    hour = int(now.timestamp()) // int(MONTH_INTERVAL.total_seconds())
    return [closed[-1]] if hour % 2 else [closed[hour // 2 % len(closed)]]


def check_month(conn: Connection, now: datetime, month: date) -> list[Violation]:
    unproven = month_audit.months_with_differences(conn, [month])
    found = [Violation(MONTHS_PROVEN, unproven)] if unproven else []
    record_findings(conn, found, now)
    return found


def record_findings(
    conn: Connection, found: Sequence[Violation], now: datetime, *, checked_everywhere: Iterable[str] = ()
) -> None:
    """Record new violations, and clear those no longer found by the invariants in `checked_everywhere`."""
    written = [(one.sentence, subject) for one in found for subject in one.ids]
    fresh: dict[str, list[str]] = {}
    if written:
        columns = {"sentences": [s for s, _ in written], "subjects": [i for _, i in written], "now": now}
        for row in conn.execute(_FOUND, columns):
            if row.is_new:
                fresh.setdefault(row.sentence, []).append(row.subject)
    capped = {one.sentence for one in found if len(one.ids) >= MAX_IDS}
    settled: dict[str, list[str]] = {}
    wholly = sorted(set(checked_everywhere) - capped)
    if wholly:
        still = {"still": [sentence for sentence, _ in written], "broken": [subject for _, subject in written]}
        for row in conn.execute(_SETTLED, {"sentences": wholly, "now": now} | still):
            settled.setdefault(row.sentence, []).append(row.subject)
    events.append(conn, [*_told("audit.violated", fresh, now), *_told("audit.settled", settled, now)])


def set_statement_timeout(conn: Connection, patience: str = "0") -> None:
    conn.execute(text("SELECT set_config('statement_timeout', :patience, true)"), {"patience": patience})


def recent_scope(conn: Connection, now: datetime) -> tuple[Scope, dict[str, tuple[int, str]]]:
    """Return what changed since the marks plus the next slice, and the marks to store after the check."""
    marks = _marks(conn)
    # First the bound, then the rows: whatever is below it was finished before and is seen by every later statement.
    settled = int(conn.execute(text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")).scalar_one())
    since = marks["written_in"][0] if "written_in" in marks else _newest_begin(conn)
    order_ids: set[int] = set()
    sellers: set[str] = set()
    items: set[tuple[str, str]] = set()
    for statement in _FRESH:
        rows = conn.execute(statement, {"since": since, "most": MAX_RECENT}).all()
        if len(rows) == MAX_RECENT:
            settled = min(settled, max(rows[-1].written_in, since + 1))
        order_ids |= {row.order_id for row in rows if row.order_id is not None}
        sellers |= {row.seller_id for row in rows if row.seller_id is not None}
        items |= {(row.seller_id, row.item_no) for row in rows if row.item_no is not None}
    after = {"written_in": (max(since, settled), ""), "answers": (int(now.timestamp()), "")}

    order_slice = list(conn.execute(_ORDERS, {"after": marks.get("order", (0, ""))[0], "most": SLICE_SIZE}).scalars())
    after["order"] = (order_slice[-1] if len(order_slice) == SLICE_SIZE else 0, "")
    seller_slice = list(
        conn.execute(_SELLERS, {"after": marks.get("seller", (0, ""))[1], "most": SELLER_SLICE_SIZE}).scalars()
    )
    after["seller"] = (0, seller_slice[-1] if len(seller_slice) == SELLER_SLICE_SIZE else "")
    lot_slice = conn.execute(_LOTS, {"after": marks.get("lot", (0, ""))[0], "most": SLICE_SIZE}).all()
    after["lot"] = (lot_slice[-1].lot_id if len(lot_slice) == SLICE_SIZE else 0, "")

    low = marks.get("outbox", (0, ""))[0]
    fresh_promises = conn.execute(_PROMISES, {"low": low, "most": MAX_RECENT}).all()
    after["outbox"] = (min((row.outbox_id for row in fresh_promises if row.state == "due"), default=low), "")
    if all(row.state != "due" for row in fresh_promises) and fresh_promises:
        after["outbox"] = (fresh_promises[-1].outbox_id, "")
    order_ids |= {*order_slice, *(row.order_id for row in fresh_promises if row.order_id is not None)}
    of_orders = conn.execute(_PROMISES_OF, {"orders": sorted(order_ids)}).scalars()
    answered = datetime.fromtimestamp(marks["answers"][0], UTC) if "answers" in marks else now
    scope = Scope(
        orders=tuple(sorted(order_ids)),
        sellers=tuple(sorted({*sellers, *seller_slice})),
        items=tuple(sorted({*items, *((row.seller_id, row.item_no) for row in lot_slice)})),
        promises=tuple(sorted({*of_orders, *(row.outbox_id for row in fresh_promises)})),
        answers=min(answered, now) - ANSWER_LAG,
    )
    return scope, after


def _always_whole() -> list[Invariant]:
    return [one for one in (*invariants.ALWAYS, *invariants.IN_TIME) if not one.narrows]


def _told(type_: str, found: dict[str, list[str]], now: datetime) -> list[dict[str, Any]]:
    return [
        events.event_row(
            type_,
            now,
            actor="system",
            role="system",
            note=sentence,
            changes={"audit": {"sentence": sentence, "ids": ids}},
        )
        for sentence, ids in sorted(found.items())
    ]


def _alone(conn: Connection) -> bool:
    return try_lock_named(conn, RECENT_SWEEP)


def _marks(conn: Connection) -> dict[str, tuple[int, str]]:
    return {row.name: (row.number, row.word) for row in conn.execute(select(AuditMarkRow))}


def _set_marks(conn: Connection, marks: dict[str, tuple[int, str]]) -> None:
    conn.execute(
        _MARK,
        {
            "names": list(marks),
            "numbers": [number for number, _ in marks.values()],
            "words": [word for _, word in marks.values()],
        },
    )


def _newest_begin(conn: Connection) -> int:
    # What is older than the first run's start is left to the slices and the nightly check.
    return int(conn.execute(_NEWEST, {"most": MAX_RECENT}).scalar() or 0)


_NEWEST = text("SELECT written_in FROM unwind.events ORDER BY written_in DESC, event_id DESC OFFSET :most LIMIT 1")
_FRESH = (
    text(
        "SELECT written_in, order_id, NULL AS seller_id, NULL AS item_no FROM unwind.events "
        "WHERE written_in >= :since ORDER BY written_in, event_id LIMIT :most"
    ),
    text(
        "SELECT written_in, order_id, seller_id, NULL AS item_no FROM unwind.ledger_lines "
        "WHERE written_in >= :since ORDER BY written_in, line_id LIMIT :most"
    ),
    text(
        "SELECT written_in, NULL AS order_id, seller_id, NULL AS item_no FROM unwind.bills "
        "WHERE written_in >= :since ORDER BY written_in, bill_id LIMIT :most"
    ),
    text(
        "SELECT written_in, order_id, seller_id, item_no FROM unwind.stock_moves "
        "WHERE written_in >= :since ORDER BY written_in, move_id LIMIT :most"
    ),
)
_ORDERS = text("SELECT order_id FROM unwind.orders WHERE order_id > :after ORDER BY order_id LIMIT :most")
_SELLERS = text("SELECT member_id FROM unwind.members WHERE member_id > :after ORDER BY member_id LIMIT :most")
_LOTS = text("SELECT lot_id, seller_id, item_no FROM unwind.lots WHERE lot_id > :after ORDER BY lot_id LIMIT :most")
_PROMISES = text(
    "SELECT outbox_id, order_id, state FROM unwind.outbox WHERE outbox_id >= :low ORDER BY outbox_id LIMIT :most"
)
_PROMISES_OF = text("SELECT outbox_id FROM unwind.outbox WHERE order_id = ANY(CAST(:orders AS bigint[]))")
_FOUND = text(
    """
    INSERT INTO unwind.violations AS v (sentence, subject, found_at, seen_at)
    SELECT DISTINCT sentence, subject, CAST(:now AS timestamptz), CAST(:now AS timestamptz)
    FROM unnest(CAST(:sentences AS text[]), CAST(:subjects AS text[])) AS f(sentence, subject)
    ON CONFLICT (sentence, subject) WHERE cleared_at IS NULL DO UPDATE SET seen_at = EXCLUDED.seen_at
    RETURNING v.sentence, v.subject, v.xmax = 0 AS is_new
    """
)
_SETTLED = text(
    """
    UPDATE unwind.violations SET cleared_at = :now
    WHERE cleared_at IS NULL AND sentence = ANY(CAST(:sentences AS text[])) AND (sentence, subject) NOT IN (
        SELECT * FROM unnest(CAST(:still AS text[]), CAST(:broken AS text[])))
    RETURNING sentence, subject
    """
)
_MARK = text(
    """
    INSERT INTO unwind.audit_marks (name, number, word)
    SELECT * FROM unnest(CAST(:names AS text[]), CAST(:numbers AS bigint[]), CAST(:words AS text[]))
    ON CONFLICT (name) DO UPDATE SET number = EXCLUDED.number, word = EXCLUDED.word
    """
)
