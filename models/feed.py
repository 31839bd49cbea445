"""The change feed: CloudEvents over all append-only tables, read by cursor.

Transactions commit in another order than their rows are numbered.  So the feed is ordered by the transaction that wrote
a row, and returns only rows below the oldest transaction still running: a reader meets no gap and no repeat.

Transaction ids belong to a server.  After a restore on another server, `advance_feed_base` lets them continue from the
newest row; every migration and every restore calls it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from models.db.schema import FEED_BASE

_INSTANT = "regexp_replace(to_char({at} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '\\.?0*$', '') || 'Z'"

# One branch per table: (number in the cursor, table, its id, SQL of type, subject, sequence and data).  Texts that
# people wrote stay out (docs/guarantees.md).
_SOURCES = (
    (
        1,
        "events",
        "event_id",
        "e.at",
        "e.type",
        "coalesce('order/' || e.order_id, 'member/' || e.member_id)",
        "e.seq",
        (
            "jsonb_build_object('order_id', e.order_id, 'member_id', e.member_id, 'actor', e.actor, 'role', e.role, "
            "'from', e.from_status, 'to', e.to_status, 'request_id', e.request_id, 'changes', e.changes)"
        ),
    ),
    (
        2,
        "stock_moves",
        "move_id",
        "e.at",
        "'inventory.lot_changed'",
        "'lot/' || e.lot_id",
        "NULL::integer",
        (
            "jsonb_build_object('lot_id', e.lot_id, 'seller_id', e.seller_id, 'delta', e.delta, 'kind', e.kind, "
            "'order_id', e.order_id, 'line_no', e.line_no)"
        ),
    ),
    (
        3,
        "ledger_lines",
        "line_id",
        "e.at",
        (
            "CASE e.kind WHEN 'charge' THEN 'fees.charged' WHEN 'reversal' THEN 'fees.reversed' "
            "WHEN 'payment' THEN 'bills.payment_recorded' ELSE 'credits.posted' END"
        ),
        "'bill/' || e.seller_id || '/' || to_char(e.billing_month, 'YYYY-MM')",
        "NULL::integer",
        (
            "jsonb_build_object('seller_id', e.seller_id, 'kind', e.kind, "
            "'billing_month', to_char(e.billing_month, 'YYYY-MM'), "
            "'amount', e.amount::text, 'order_id', e.order_id, 'payment_id', e.payment_id)"
        ),
    ),
    (
        4,
        "bills",
        "bill_id",
        "e.issued_at",
        "'bills.issued'",
        "'bill/' || e.seller_id || '/' || to_char(e.billing_month, 'YYYY-MM')",
        "NULL::integer",
        (
            "jsonb_build_object('seller_id', e.seller_id, 'billing_month', to_char(e.billing_month, 'YYYY-MM'), "
            "'total', e.total::text, 'opening_credit', e.opening_credit::text, "
            "'carried_forward', e.carried_forward::text, "
            "'due_on', e.due_on)"
        ),
    ),
)


def _branch(number: int, table: str, key: str, at: str, type_: str, subject: str, sequence: str, data: str) -> str:
    return f"""
        (SELECT e.written_in AS tx, {number} AS source, e.{key} AS id, {type_} AS type, {subject} AS subject,
                {sequence} AS sequence, {_INSTANT.format(at=at)} AS at, {data} AS data
         FROM unwind.{table} AS e
         WHERE (e.written_in, e.{key}) > (after_tx, CASE WHEN {number} = after_source THEN after_id
                   WHEN {number} > after_source THEN -1 ELSE 9223372036854775807 END)
           AND e.written_in < settled
         ORDER BY e.written_in, e.{key} LIMIT wanted)"""  # noqa: S608 - built from constants of this module


EVENTS_AFTER_SIGNATURE = "unwind.events_after(text, integer)"
FEED_DEFINER = "unwind_feed_definer"
"""Owns `events_after` and may only read the tables of the feed."""
FEED_DEFINER_GRANTS = (
    *(f"SELECT ON unwind.{table}" for _, table, *_ in _SOURCES),
    "EXECUTE ON FUNCTION unwind.feed_base()",
)

EVENTS_AFTER = f"""
CREATE OR REPLACE FUNCTION unwind.events_after(after_cursor text DEFAULT NULL, max_events integer DEFAULT 100)
RETURNS TABLE (cursor text, event jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    after_tx bigint := 0;
    after_source integer := 0;
    after_id bigint := 0;
    wanted integer := least(greatest(coalesce(max_events, 100), 1), 10000);
    running bigint;
    settled bigint;
BEGIN
    -- Everything below the oldest running transaction is finished. Numbers are assigned for the whole server, so those
    -- that surely belong to another database are left out: a transaction there must not hold this feed back.
    SELECT min(x::text::bigint) INTO running FROM pg_snapshot_xip(pg_current_snapshot()) AS x
    WHERE x::text::bigint % 4294967296 NOT IN (
        SELECT l.transactionid::text::bigint FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
        WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
            AND a.datname <> current_database());
    settled := coalesce(running, pg_snapshot_xmax(pg_current_snapshot())::text::bigint) + unwind.feed_base();
    IF after_cursor IS NOT NULL THEN
        IF after_cursor !~ '^[0-9]{{1,18}}\\.[0-9]\\.[0-9]{{1,18}}$' THEN
            RAISE EXCEPTION 'this is no cursor that events_after gave' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        after_tx := split_part(after_cursor, '.', 1)::bigint;
        after_source := split_part(after_cursor, '.', 2)::integer;
        after_id := split_part(after_cursor, '.', 3)::bigint;
    END IF;
    RETURN QUERY SELECT f.tx || '.' || f.source || '.' || f.id,
        jsonb_strip_nulls(jsonb_build_object('specversion', '1.0', 'id', f.source || '.' || f.id, 'source', '/unwind',
            'type', f.type, 'subject', f.subject, 'time', f.at, 'datacontenttype', 'application/json',
            'sequence', f.sequence)) || jsonb_build_object('data', f.data)
    FROM ({" UNION ALL ".join(_branch(*source) for source in _SOURCES)}) AS f
    ORDER BY f.tx, f.source, f.id LIMIT wanted;
END
$body$
"""  # noqa: S608 - built from constants of this module

DDL: tuple[str, ...] = (
    EVENTS_AFTER,
    f"REVOKE ALL ON FUNCTION {EVENTS_AFTER_SIGNATURE} FROM PUBLIC",
)


_NEWEST = ", ".join(f"(SELECT max(written_in) FROM unwind.{table})" for _, table, *_ in _SOURCES)  # noqa: S608 - constants
_AHEAD = text(f"SELECT GREATEST({_NEWEST}) - (pg_current_xact_id()::text)::bigint - unwind.feed_base()")


def transaction_id_gap(conn: Connection) -> int:
    return max(0, conn.execute(_AHEAD).scalar() or 0)


def advance_feed_base(conn: Connection) -> int:
    """Continue transaction ids from the newest row after a restore on another server; return by how many.

    Only the owner may.  Without it new events would sort before old ones, and no reader would see them.
    """
    missing = transaction_id_gap(conn)
    if missing:
        base = conn.execute(text("SELECT unwind.feed_base()")).scalar_one() + missing
        conn.execute(text(FEED_BASE.format(base=int(base))))
    return missing


def events_after(conn: Connection, cursor: str | None, limit: int) -> list[tuple[str, dict[str, Any]]]:
    rows = conn.execute(
        text("SELECT cursor, event FROM unwind.events_after(:cursor, :limit)"), {"cursor": cursor, "limit": limit}
    )
    return [(row.cursor, row.event) for row in rows]
