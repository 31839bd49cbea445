"""Generates markets of up to millions of orders in SQL, on the product's own schema.

Orders have the numbers 1..N.  A hundred neighbors belong to one store and use lots of their own, so a batch of a
hundred is one store's; two orders of a buyer are half the table apart.  A market with lines satisfies every invariant
(a test checks it); one without lines omits what scans never read.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from models.db.pipeline import driver_sql
from models.db.schema import table_of
from models.inventory import LotRow, insert_item_locks

BLOCK = 100
"""Neighbouring orders of one store."""
UNITS = 2
STOCK = 10_000


@dataclass(frozen=True)
class Market:
    """Number of orders and lines, and the state of the NPB alerts: `unlocked`, `due` or `waiting`.

    `automated`: each order has deadlines of every automatic act to come, more than one order ever has.
    """

    orders: int
    lines: int = 5
    state: str = "unlocked"
    history: bool = True
    stores: int = 200
    automated: bool = False

    @property
    def sellers(self) -> int:
        return max(1, min(self.stores, self.orders // BLOCK))

    @property
    def buyers(self) -> int:
        return max(1, (self.orders + 1) // 2)


def build(conn: psycopg.Connection, market: Market) -> None:
    """Fill an empty, migrated database; secondary indexes are created afterwards."""
    values = {
        "orders": market.orders,
        "lines": market.lines,
        "sellers": market.sellers,
        "buyers": market.buyers,
        "block": BLOCK,
        "units": UNITS,
        "stock": STOCK,
        "unlocked": market.state == "unlocked",
        "automated": market.automated,
        "filed_days": 8 if market.state != "waiting" else 4,
    }
    with conn.transaction():
        # The rows fit by construction: checking each foreign key would take most of the time.
        conn.execute("SET LOCAL session_replication_role = replica")
        conn.execute("SET LOCAL synchronous_commit = off")
        conn.execute("SET LOCAL maintenance_work_mem = '512MB'")
        indexes = _drop_indexes(conn)
        for statement in (MEMBERS, ORDERS, ALERTS, *([REQUESTS] if market.automated else [])):
            conn.execute(statement.format(**values))
        if market.lines:
            for statement in (LOTS, RECORDED, ITEM_LOCKS, LINES, SOLD, CHARGES):
                conn.execute(statement.format(**values))
        if market.history:
            for statement in (SUBMITTED, FILED, *([UNLOCKED, NOTICES] if market.state == "unlocked" else [])):
                conn.execute(statement.format(**values))
        for definition in indexes:
            conn.execute(definition)
    conn.execute("VACUUM (ANALYZE, FREEZE)")
    conn.execute("CHECKPOINT")


def _drop_indexes(conn: psycopg.Connection) -> list[str]:
    indexes = conn.execute(
        """
        SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index i
        JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'unwind' AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)
        """
    ).fetchall()
    for name, _ in indexes:
        conn.execute(f"DROP INDEX {name}")
    return [definition for _, definition in indexes]


ORDERED = "date_trunc('day', now()) - interval '20 days'"
SELLER = "'s-' || (({o} - 1) / {{block}} % {{sellers}})"
OF_ORDER = SELLER.format(o="o")
FILING = "now() - interval '{filed_days} days' - interval '1 hour' + o * (interval '30 minutes' / {orders})"
AUTOMATIC = f"CASE WHEN {{automated}} THEN {FILING} + interval '17 days' END"
LOT = "((o - 1) / {block} % {sellers}) * ({block} * {lines}) + ((o - 1) % {block}) * {lines} + l"

MEMBERS = """
    INSERT INTO unwind.members (member_id, handle, email, time_zone, recorded_at)
    SELECT m, initcap(m), m || '@example.org', 'UTC', now() - interval '60 days' FROM (
        SELECT 's-' || g AS m FROM generate_series(0, {sellers} - 1) g
        UNION ALL SELECT 'b-' || g FROM generate_series(0, {buyers} - 1) g) AS everybody
"""
ORDERS = f"""
    INSERT INTO unwind.orders (order_id, buyer_id, seller_id, status, payment_status, submitted_at, order_date,
        currency,
        usd_rate, total, fee, fee_month, npb_filed_at, files_npb_at, version, last_event_at)
    SELECT o, 'b-' || (o % {{buyers}}), {OF_ORDER}, 'NPB', 'None', {ORDERED}, {ORDERED}, 'USD', 1,
        {{lines}} * {{units}},
        round(0.03 * {{lines}} * {{units}}, 2),
        date_trunc('month', ({ORDERED}) AT TIME ZONE 'America/New_York')::date, {FILING}, {AUTOMATIC},
        2, {FILING}
    FROM generate_series(1, {{orders}}) o
"""
ALERTS = f"""
    INSERT INTO unwind.alerts (order_id, kind, state, terms_id, unlock_seq, penalty_stands, filed_at, unlocks_at,
        unlocked_at, cancels_at, remind_from, remind_at, previous_status)
    SELECT o, 'NPB', 'open', 0, CASE WHEN {{unlocked}} THEN 3 END, false, {FILING}, {FILING} + interval '7 days',
        CASE WHEN {{unlocked}} THEN {FILING} + interval '7 days' END, {AUTOMATIC},
        CASE WHEN {{unlocked}} THEN {FILING} + interval '7 days' END,
        CASE WHEN {{unlocked}} THEN {FILING} + interval '10 days' END, 'PENDING'
    FROM generate_series(1, {{orders}}) o
"""
REQUESTS = f"""
    INSERT INTO unwind.ocrs (order_id, filed_by, reason, comment, state, terms_id, filed_at, previous_status,
        agrees_at, declines_at)
    SELECT o, 'buyer', 'B_MUTUAL', '-', 'open', 0, {FILING}, 'PENDING',
        CASE WHEN o % 2 = 0 THEN {AUTOMATIC} END, CASE WHEN o % 2 = 1 THEN {AUTOMATIC} END
    FROM generate_series(1, {{orders}}) o
"""
LOTS = """
    INSERT INTO unwind.lots (lot_id, seller_id, item_type, item_no, color_id, new_or_used, quantity, unit_price,
        bind_id,
        description, remarks, bulk, is_retain, is_stock_room, auto_stockroom, sale_rate)
    SELECT s * {block} * {lines} + n, 's-' || s, 'PART', (3000 + n)::text, 5, 'N',
        {stock} - {units} * (SELECT count(*) FROM generate_series(s * {block} + (n - 1) / {lines} + 1, {orders},
                                                                 {block} * {sellers})),
        1.0, 0, '', '', 1, false, false, false, 0
    FROM generate_series(0, {sellers} - 1) s, generate_series(1, {block} * {lines}) n
"""
RECORDED = """
    INSERT INTO unwind.stock_moves (seller_id, item_type, item_no, color_id, new_or_used, lot_id, delta, kind, at)
    SELECT seller_id, item_type, item_no, color_id, new_or_used, lot_id, {stock}, 'recorded', now() - interval '50 days'
    FROM unwind.lots ORDER BY lot_id
"""
ITEM_LOCKS = driver_sql(insert_item_locks(table_of(LotRow)))
"""Recording a lot leaves a row that locks its item."""
LINES = f"""
    INSERT INTO unwind.order_lines (order_id, line_no, batch_no, lot_id, quantity, unit_price, snapshot)
    SELECT o, l, 1, t.lot_id, {{units}}, t.unit_price, t.snapshot
    FROM generate_series(1, {{orders}}) o CROSS JOIN generate_series(1, {{lines}}) l
    JOIN (SELECT lot_id, unit_price, jsonb_build_object('lot_id', lot_id, 'seller_id', seller_id, 'item',
            jsonb_build_object('no', item_no, 'type', item_type), 'color_id', color_id, 'quantity', {{stock}},
            'new_or_used', new_or_used, 'completeness', completeness, 'unit_price', '1.0000', 'bind_id', 0,
            'description', '', 'remarks', '', 'bulk', 1, 'is_retain', false, 'is_stock_room', false,
            'stock_room_id', NULL, 'my_cost', NULL, 'my_weight', NULL, 'sale_rate', 0, 'tier_quantity1', NULL,
            'tier_price1', NULL, 'tier_quantity2', NULL, 'tier_price2', NULL, 'tier_quantity3', NULL,
            'tier_price3', NULL, 'reserved_for', NULL) AS snapshot FROM unwind.lots) AS t ON t.lot_id = {LOT}
    ORDER BY o, l
"""
SOLD = f"""
    INSERT INTO unwind.stock_moves (seller_id, item_type, item_no, color_id, new_or_used, lot_id, delta, kind, order_id,
        line_no, at)
    SELECT t.seller_id, t.item_type, t.item_no, t.color_id, t.new_or_used, t.lot_id, -{{units}}, 'sold', l.order_id,
        l.line_no, {ORDERED}
    FROM unwind.order_lines l JOIN unwind.lots t USING (lot_id) ORDER BY l.order_id, l.line_no
"""
CHARGES = """
    INSERT INTO unwind.ledger_lines (key, seller_id, billing_month, kind, amount, order_id, charged_month, note, at)
    SELECT 'charge:' || order_id || ':1', seller_id, fee_month, 'charge', fee, order_id, fee_month,
        'Fee for order ' || order_id || '.', order_date FROM unwind.orders WHERE fee > 0 ORDER BY order_id
"""
SUBMITTED = """
    INSERT INTO unwind.events (order_id, seq, at, type, actor, role, to_status, note, changes)
    SELECT order_id, 1, order_date, 'orders.submitted', 'marketplace', 'system', 'PENDING', 'Submitted.',
        jsonb_build_object('order', jsonb_build_object('fee', fee::text, 'basis', NULL, 'total', total::text, 'status',
            'PENDING', 'fee_month', to_char(fee_month, 'YYYY-MM'), 'order_date', order_date, 'cancelled_at', NULL,
            'cancelled_by', NULL, 'payment_status', 'None', 'previous_status', NULL, 'npb_filed_at', NULL,
            'held_at', NULL, 'held_until', NULL))
    FROM unwind.orders ORDER BY order_id
"""
FILED = """
    INSERT INTO unwind.events (order_id, seq, at, type, actor, role, from_status, to_status, note, changes)
    SELECT o.order_id, 2, a.filed_at, 'npb.filed', o.seller_id, 'seller', 'PENDING', 'NPB',
        'The seller says the buyer has not paid.',
        jsonb_build_object('order', jsonb_build_object('status', 'NPB', 'npb_filed_at', a.filed_at), 'alert',
            jsonb_build_object('kind', 'NPB', 'state', 'open', 'grounds', NULL, 'filed_at', a.filed_at, 'closed_at',
            NULL, 'unlocks_at', a.unlocks_at, 'unlocked_at', NULL, 'responded_at', NULL, 'penalty_accepted_at', NULL,
            'penalty_withdrawn_at', NULL, 'extended_until', NULL))
    FROM unwind.orders o JOIN unwind.alerts a USING (order_id) ORDER BY o.order_id
"""
UNLOCKED = """
    INSERT INTO unwind.events (order_id, seq, at, type, actor, role, from_status, to_status, note, changes)
    SELECT order_id, 3, unlocked_at, 'npb.unlocked', 'system', 'system', 'NPB', 'NPB',
        'Cancellation through the alert is possible now.',
        jsonb_build_object('alert', jsonb_build_object('unlocked_at', unlocked_at))
    FROM unwind.alerts ORDER BY order_id
"""
NOTICES = """
    INSERT INTO unwind.notices (key, event, order_id, recipient, role, state, email, message_id, created_at,
        attempts, sent_at)
    SELECT 'npb_unlocked:' || order_id || ':3:' || seller_id, 'npb_unlocked', order_id, seller_id, 'seller', 'sent',
        jsonb_build_object('subject', 'Order ' || order_id || ': you can cancel now', 'happened', '[]'::jsonb, 'means',
            '[]'::jsonb, 'next', '[]'::jsonb, 'quote', NULL), md5(order_id::text), last_event_at, 1, last_event_at
    FROM unwind.orders ORDER BY order_id
"""
