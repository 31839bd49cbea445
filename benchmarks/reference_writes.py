"""The SQL function that leaves the same rows as one cancellation, and the checks that both sides wrote alike.

`bench.cancel_orders` writes what `orders.cancel` leaves for an order whose NPB alert has unlocked, without checking any
rule.  pgbench calls it with a hundred orders, a bare Celery task with one.
"""

from __future__ import annotations

from typing import Any

import psycopg

from benchmarks.harness import check_equal
from benchmarks.market import UNITS

INSTALL = """
DROP SCHEMA IF EXISTS bench CASCADE;
CREATE SCHEMA bench;
CREATE FUNCTION bench.cancel_orders(ids bigint[], request_prefix text) RETURNS integer LANGUAGE plpgsql
SET enable_seqscan = off AS $body$
DECLARE
    moment timestamptz;
    written_at text;
    month text;
    done integer;
BEGIN
    PERFORM FROM unwind.orders WHERE order_id = ANY (ids) ORDER BY order_id FOR NO KEY UPDATE;
    moment := clock_timestamp();
    written_at := to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
    month := to_char(moment AT TIME ZONE 'America/New_York', 'YYYY-MM');
    WITH due AS MATERIALIZED (
        SELECT o.order_id, o.seller_id, o.buyer_id, GREATEST(o.version, a.unlock_seq) + 1 AS version, a.alert_id,
            jsonb_build_object('kind', CASE WHEN to_char(o.fee_month, 'YYYY-MM') = month THEN 'reset' ELSE 'credit' END,
                'amount', (-o.fee)::text, 'bill', month) AS fee, to_char(o.fee_month, 'YYYY-MM') AS charged
        FROM unwind.orders o JOIN unwind.alerts a ON a.order_id = o.order_id AND a.state = 'open'
        WHERE o.order_id = ANY (ids) AND o.status = 'NPB' AND a.unlocks_at <= moment
    ), cancelled_orders AS (
        UPDATE unwind.orders o SET status = 'CANCELLED', previous_status = o.status, cancelled_at = moment,
            basis = 'NPB',
            cancelled_by = o.seller_id, version = d.version, last_event_at = moment
        FROM due d WHERE o.order_id = d.order_id
    ), closed_alerts AS (
        UPDATE unwind.alerts a SET state = 'completed', closed_at = moment FROM due d
        WHERE a.order_id = d.order_id AND a.alert_id = d.alert_id
    ), lines AS (
        UPDATE unwind.order_lines l SET returned = l.quantity - l.removed, returned_to_lot = l.lot_id
        FROM due d WHERE l.order_id = d.order_id RETURNING l.order_id, l.line_no, l.lot_id, l.returned
    ), stock AS (
        UPDATE unwind.lots t SET quantity = t.quantity + v.units
        FROM (SELECT lot_id, sum(returned)::integer AS units FROM lines GROUP BY lot_id) AS v WHERE t.lot_id = v.lot_id
        RETURNING t.lot_id, t.seller_id, t.item_type, t.item_no, t.color_id, t.new_or_used, t.completeness
    ), new_stock_moves AS (
        INSERT INTO unwind.stock_moves (seller_id, item_type, item_no, color_id, new_or_used, completeness, lot_id,
            delta,
            kind, order_id, line_no, at)
        SELECT s.seller_id, s.item_type, s.item_no, s.color_id, s.new_or_used, s.completeness, s.lot_id, l.returned,
            'returned', l.order_id, l.line_no, moment FROM lines l JOIN stock s USING (lot_id)
    ), new_strikes AS (
        INSERT INTO unwind.strikes (order_id, member_id, role, at) SELECT order_id, buyer_id, 'buyer', moment FROM due
    ), returned AS MATERIALIZED (
        SELECT order_id, count(*) AS lines, sum(returned) AS units, jsonb_agg(jsonb_build_object('line_no', line_no,
            'returned', returned, 'lot_id', lot_id, 'note', NULL) ORDER BY line_no) AS returned_lines
        FROM lines GROUP BY order_id
    ), facts AS MATERIALIZED (
        SELECT d.*, r.returned_lines, jsonb_build_object('by', 'seller', 'basis', 'NPB', 'strike', true,
            'returns', true, 'lines_returned', r.lines, 'units_returned', r.units) AS facts
        FROM due d JOIN returned r USING (order_id)
    ), new_events AS (
        INSERT INTO unwind.events (order_id, seq, at, type, actor, role, from_status, to_status, note, changes,
            request_id)
        SELECT order_id, version, moment, 'orders.cancelled', seller_id, 'seller', 'NPB', 'CANCELLED',
            'Cancelled by the seller on the ground of the non-paying buyer alert.',
            jsonb_build_object('fee', fee, 'alert', jsonb_build_object('state', 'completed', 'closed_at', written_at),
                'order',
                jsonb_build_object('basis', 'NPB', 'status', 'CANCELLED', 'cancelled_at', written_at, 'cancelled_by',
                    seller_id,
                    'previous_status', 'NPB'), 'returned', returned_lines), request_prefix || ':' || order_id
        FROM facts
    ), outbox_rows AS (
        INSERT INTO unwind.outbox (key, task, order_id, payload, created_at, due_at)
        SELECT p.key, p.task, f.order_id, p.payload, moment, moment FROM facts f CROSS JOIN LATERAL (VALUES
            ('order_cancelled:' || f.order_id || ':' || f.version || ':' || f.seller_id, 'notices.tell_seller',
             jsonb_build_object('role', 'seller', 'event', 'order_cancelled', 'recipient', f.seller_id,
                'facts', f.facts || jsonb_build_object('fee', f.fee))),
            ('order_cancelled:' || f.order_id || ':' || f.version || ':' || f.buyer_id, 'notices.tell_buyer',
             jsonb_build_object('role', 'buyer', 'event', 'order_cancelled', 'recipient', f.buyer_id, 'facts',
                 f.facts)),
            ('fee:' || f.order_id, 'credits.post_to_next_invoice', jsonb_build_object('kind', f.fee ->> 'kind', 'month',
                month, 'amount', f.fee ->> 'amount', 'seller_id', f.seller_id, 'cancelled_at', written_at,
                'charged_month', f.charged))) AS p (key, task, payload)
    ), new_requests AS (
        INSERT INTO unwind.requests (request_id, task, fingerprint, order_id, outcome, answer, answered_at)
        SELECT request_prefix || ':' || order_id, 'orders.cancel', sha256(order_id::text::bytea), order_id, 'done',
            jsonb_build_object('code', NULL, 'errors', '[]'::jsonb, 'effects', jsonb_build_object('fee', fee,
                'basis', 'NPB', 'lines', returned_lines, 'removals_cancelled', 0),
                'message', 'Done.', 'outcome', 'done', 'order_id', order_id,
                'replayed', false, 'request_id', request_prefix || ':' || order_id, 'possible_from', NULL), moment
        FROM facts
    )
    SELECT count(*) INTO done FROM facts;
    RETURN done;
END
$body$;
"""

_COUNTS = """
    SELECT (SELECT count(*) FROM unwind.orders WHERE order_id BETWEEN %(first)s AND %(last)s
            AND status = 'CANCELLED' AND basis = 'NPB') AS orders,
        (SELECT count(*) FROM unwind.alerts WHERE order_id BETWEEN %(first)s AND %(last)s
            AND state = 'completed') AS alerts,
        (SELECT coalesce(sum(returned), 0) FROM unwind.order_lines
            WHERE order_id BETWEEN %(first)s AND %(last)s AND returned_to_lot = lot_id) AS units,
        (SELECT count(*) FROM unwind.stock_moves WHERE order_id BETWEEN %(first)s AND %(last)s
            AND kind = 'returned' AND removal_id IS NULL) AS stock_moves,
        (SELECT count(*) FROM unwind.strikes WHERE order_id BETWEEN %(first)s AND %(last)s) AS strikes,
        (SELECT count(*) FROM unwind.events WHERE order_id BETWEEN %(first)s AND %(last)s AND seq = 4) AS events,
        (SELECT count(*) FROM unwind.outbox WHERE order_id BETWEEN %(first)s AND %(last)s) AS outbox,
        (SELECT count(*) FROM unwind.requests WHERE order_id BETWEEN %(first)s AND %(last)s) AS requests
"""


def install(conn: psycopg.Connection) -> None:
    conn.execute(INSTALL)


def check(conn: psycopg.Connection, first: int, last: int, lines: int) -> None:
    """Raise WorkMismatch unless every order of the range was cancelled with all its rows."""
    count = last - first + 1
    row = conn.execute(_COUNTS, {"first": first, "last": last}).fetchone()
    assert row is not None
    names = ("orders", "alerts", "units", "stock_moves", "strikes", "events", "outbox", "requests")
    expected = (count, count, count * lines * UNITS, count * lines, count, count, count * 3, count)
    check_equal(
        f"orders {first} to {last}", dict(zip(names, row, strict=True)), dict(zip(names, expected, strict=True))
    )


_ROWS = {
    "orders": "order_id = %s",
    "alerts": "order_id = %s",
    "order_lines": "order_id = %s",
    "lots": "lot_id IN (SELECT lot_id FROM unwind.order_lines WHERE order_id = %s)",
    "stock_moves": "order_id = %s AND kind = 'returned'",
    "strikes": "order_id = %s",
    "events": "order_id = %s AND seq = 4",
    "outbox": "order_id = %s",
    "requests": "order_id = %s",
}


def check_alike(conn: psycopg.Connection, ours: int, reference: int) -> None:
    """Raise WorkMismatch unless both sides left the same columns filled and the same keys in every JSON."""
    for table, condition in _ROWS.items():
        query = f"SELECT to_jsonb(t) FROM unwind.{table} t WHERE {condition} ORDER BY 1"
        shapes = [
            sorted(repr(_shape(row[0])) for row in conn.execute(query, [order_id])) for order_id in (ours, reference)
        ]
        check_equal(f"{table} of the reference's order {reference}", shapes[1], shapes[0])


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return [_shape(inner) for inner in value]
    return type(value).__name__
