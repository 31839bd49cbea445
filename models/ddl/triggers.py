"""Triggers that refuse changes to final rows, for every role, including the owner.

No trigger calls `now()`, so simulated and real time run against the same database.
"""

from __future__ import annotations

from sqlalchemy import Table

from models.alerts import AlertRow
from models.db.schema import table_of
from models.members import StrikeRow
from models.orders import OrderRow


def _changed_except(table: Table, *may_change: str) -> str:
    return " OR ".join(f'OLD."{c.name}" IS DISTINCT FROM NEW."{c.name}"' for c in table.c if c.name not in may_change)


_order_changed = _changed_except(table_of(OrderRow), "version", "last_event_at")
"""A cancelled order still gets events when staff removes a completed alert (R39) or a consumer reports its effect."""

CLOSED_CONDITIONS = {
    # R39: staff may still remove an alert that a cancellation completed.
    "alerts": "OLD.state <> 'open' AND NOT (OLD.state = 'completed' AND NEW.state = 'removed' "
    f"AND NOT ({_changed_except(table_of(AlertRow), 'state', 'closed_at')}))",
    "ocrs": "OLD.state <> 'open'",
    "removals": "OLD.state <> 'pending'",
    "strikes": f"OLD.withdrawn_at IS NOT NULL OR {_changed_except(table_of(StrikeRow), 'withdrawn_at')}",
    "submissions": "OLD.state = 'answered'",
}
"""The condition under which a row of a table is final."""

TRIGGERS: tuple[str, ...] = (
    # Its argument is the message, in which %1$s is the operation and %2$s the order of the row.
    """
    CREATE OR REPLACE FUNCTION unwind.refuse_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        RAISE EXCEPTION '%', format(TG_ARGV[0], TG_OP, to_jsonb(OLD) ->> 'order_id')
            USING ERRCODE = 'restrict_violation';
    END $$
    """,
    f"""
    CREATE OR REPLACE TRIGGER orders_cancelled_is_final BEFORE UPDATE ON unwind.orders FOR EACH ROW
    WHEN (OLD.status = 'CANCELLED' AND ({_order_changed}))
    EXECUTE FUNCTION unwind.refuse_change('order %2$s is cancelled and final')
    """,
    *(
        f"""
        CREATE OR REPLACE TRIGGER {table}_append_only BEFORE {operations} ON unwind.{table}
        FOR EACH STATEMENT EXECUTE FUNCTION unwind.refuse_change('{table} is append-only: %1$s is refused')
        """
        for table, operations in (
            *(
                (table, "UPDATE OR DELETE OR TRUNCATE")
                for table in ("events", "stock_moves", "ledger_lines", "bills", "billing_months", "terms", "commands")
            ),
            ("requests", "UPDATE OR TRUNCATE"),  # the owner may delete old rows (models/retention.py)
            *(
                (table, "DELETE OR TRUNCATE")
                for table in ("members", "orders", "order_lines", "alerts", "ocrs", "removals", "strikes")
            ),
        )
    ),
    # The condition is part of the trigger: updates of open rows, of which sweeps make thousands, cost nothing. BEFORE
    # the update it would lock each row first, and log the lock.
    *(
        f"""
        CREATE OR REPLACE TRIGGER {table}_closed_is_final AFTER UPDATE ON unwind.{table} FOR EACH ROW
        WHEN ({closed}) EXECUTE FUNCTION unwind.refuse_change('this row of {table} is closed and final')
        """
        for table, closed in CLOSED_CONDITIONS.items()
    ),
    # R86: the transition table lets one check cover the whole statement. If a bill was issued while a line was being
    # posted, the unit of work is retried (40001) and posts to a later open bill.
    """
    CREATE OR REPLACE FUNCTION unwind.issued_bills_are_frozen() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        IF EXISTS (
            SELECT FROM fresh f WHERE f.kind <> 'payment' AND (
                EXISTS (SELECT FROM unwind.bills b
                        WHERE b.seller_id = f.seller_id AND b.billing_month >= f.billing_month)
                OR EXISTS (SELECT FROM unwind.billing_months m WHERE m.billing_month >= f.billing_month))
        ) THEN
            RAISE EXCEPTION 'the bill of that month is issued and never changes'
                USING ERRCODE = 'serialization_failure';
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE OR REPLACE TRIGGER issued_bills_are_frozen AFTER INSERT ON unwind.ledger_lines
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION unwind.issued_bills_are_frozen()
    """,
    # Orders and members cannot be deleted, so a line only has to be checked once. Foreign keys are checked row by row,
    # which takes a third of the time of inserting many lines, and would not compare the sellers.
    """
    CREATE OR REPLACE FUNCTION unwind.ledger_lines_have_parties() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    DECLARE refused_line text;
    BEGIN
        SELECT f.key INTO refused_line FROM fresh f WHERE f.order_id IS NOT NULL AND NOT EXISTS (
            SELECT FROM unwind.orders o WHERE o.order_id = f.order_id AND o.seller_id = f.seller_id) LIMIT 1;
        IF NOT FOUND THEN
            SELECT f.key INTO refused_line FROM fresh f WHERE f.order_id IS NULL AND NOT EXISTS (
                SELECT FROM unwind.members m WHERE m.member_id = f.seller_id) LIMIT 1;
        END IF;
        IF FOUND THEN
            RAISE EXCEPTION 'ledger line %: there is no such order of this seller, or no such member', refused_line
                USING ERRCODE = 'foreign_key_violation';
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE OR REPLACE TRIGGER ledger_lines_have_parties AFTER INSERT ON unwind.ledger_lines
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION unwind.ledger_lines_have_parties()
    """,
    # One check per statement.  The cancelling transaction may write lines and order in any order, so only a
    # cancellation by another transaction makes them final.
    """
    CREATE OR REPLACE FUNCTION unwind.parts_of_cancelled_are_final() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    DECLARE refused_order bigint;
    BEGIN
        SELECT o.order_id INTO refused_order
        FROM (SELECT DISTINCT order_id FROM fresh) f JOIN unwind.orders o USING (order_id)
        WHERE o.status = 'CANCELLED' AND EXISTS (
            SELECT FROM unwind.events e WHERE e.order_id = o.order_id AND e.type = 'orders.cancelled'
            AND e.written_in <> pg_current_xact_id()::text::bigint + unwind.feed_base()) LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'order % is cancelled and final: % of % is refused', refused_order, TG_OP, TG_TABLE_NAME
                USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NULL;
    END $$
    """,
    *(
        f"""
        CREATE OR REPLACE TRIGGER {table}_{operation.lower()}_of_cancelled AFTER {operation} ON unwind.{table}
        REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION unwind.parts_of_cancelled_are_final()
        """
        for table, operation in (
            ("order_lines", "UPDATE"),
            ("order_lines", "INSERT"),
            ("alerts", "INSERT"),
            ("ocrs", "INSERT"),
            ("removals", "INSERT"),
        )
    ),
)
