"""Tests of the changes that the database refuses or allows, by table, operation and role (R39, R60, R86)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from models.db import database as db
from models.ddl import grants
from models.ddl.complete_metadata import metadata
from models.feed import FEED_BASE

TABLES = sorted(table.name for table in metadata.tables.values())
FINAL = r"final|append-only"
NO_RIGHT = "permission denied"

# For each table with final rows a change.  Order 1 was cancelled through its alert, 4 through the
# penalty, 5 and 9 by request; 9 had a removal request that went with it, 7 one that was approved.
CHANGES = {
    "events": "UPDATE unwind.events SET note = 'it was otherwise' WHERE order_id = 1",
    "ledger_lines": "UPDATE unwind.ledger_lines SET amount = amount * 2",
    "stock_moves": "UPDATE unwind.stock_moves SET delta = delta",
    "bills": "UPDATE unwind.bills SET due_on = due_on + 30",
    "billing_months": "UPDATE unwind.billing_months SET closed_at = closed_at",
    "requests": "UPDATE unwind.requests SET answer = '{}' WHERE request_id = 'cancel-1'",
    "terms": "UPDATE unwind.terms SET settings = '{}'",
    "orders": "UPDATE unwind.orders SET status = 'PENDING', cancelled_at = NULL, basis = NULL, cancelled_by = NULL "
    "WHERE order_id = 1",
    "order_lines": "UPDATE unwind.order_lines SET returned = 0 WHERE order_id = 1",
    "alerts": "UPDATE unwind.alerts SET state = 'open', closed_at = NULL WHERE order_id = 1",
    "ocrs": "UPDATE unwind.ocrs SET state = 'declined' WHERE order_id = 5",
    "removals": "UPDATE unwind.removals SET state = 'approved' WHERE order_id = 9",
    "strikes": "UPDATE unwind.strikes SET member_id = 'b2' WHERE order_id = 1",
    "submissions": "UPDATE unwind.submissions SET answer = '{}' WHERE request_id = 'answered'",
}
BY_RIGHT = {*grants.GRANTED_INSERT_ONLY}
"""Of these the application may update nothing at all, so it is refused before any trigger runs."""
ADDITIONS = {
    "order_lines": "SELECT order_id, 2, batch_no, lot_id, quantity, 0, 0, NULL, NULL, unit_price, snapshot "
    "FROM unwind.order_lines WHERE order_id = 5",
    "alerts": "(order_id, kind, state, terms_id, penalty_stands, filed_at, unlocks_at) "
    "VALUES (5, 'NPB', 'open', 0, false, '2026-06-01Z', '2026-06-08Z')",
    "ocrs": "(order_id, filed_by, state, terms_id, filed_at, previous_status, reason, comment) "
    "VALUES (5, 'seller', 'open', 0, '2026-06-01Z', 'PENDING', 'S_MUTUAL', 'x')",
    "removals": (
        "(order_id, requested_by, state, lines, requested_at) VALUES (5, 'buyer', 'pending', '[]', '2026-06-01Z')"
    ),
}
KEPT = sorted(set(CHANGES) - {"submissions", "requests", "terms"})
"""Of these not even the owner deletes.  Answers are pruned by the owner when they are old; terms are empty here."""


@pytest.fixture
def owner(seeded_engine: Engine) -> Iterator[Connection]:
    """The owner of the tables, in a transaction that is rolled back."""
    with seeded_engine.connect() as conn:
        conn.execute(
            text(
                "INSERT INTO unwind.submissions (request_id, task, payload, submitted_by, submitted_at, state, due_at) "
                "VALUES ('answered', 'npb.file', '{}', 'x', '2026-06-01Z', 'answered', '2026-06-01Z')"
            )
        )
        conn.execute(
            text(
                "INSERT INTO unwind.terms (valid_from, settings, applied_by, applied_at) "
                "VALUES ('2027-01-01Z', '{}', 'x', '2026-06-01Z')"
            )
        )
        yield conn
        conn.rollback()


@pytest.fixture
def app(owner: Connection) -> Connection:
    """The same transaction with the application role."""
    owner.execute(text(f"SET LOCAL ROLE {db.APP_ROLE}"))
    return owner


def refused(conn: Connection, statement: str, why: str) -> None:
    """Whether the statement fails for this reason."""
    with pytest.raises(DBAPIError, match=why):
        conn.execute(text(statement))


@pytest.mark.guarantee("P5")
@pytest.mark.parametrize("table", CHANGES)
def test_application_cannot_change_final_rows(app: Connection, table: str) -> None:
    """P5, R60: by raw SQL with the application role."""
    refused(app, CHANGES[table], NO_RIGHT if table in BY_RIGHT else FINAL)


@pytest.mark.guarantee("P5")
@pytest.mark.parametrize("table", CHANGES)
def test_owner_cannot_change_final_rows(owner: Connection, table: str) -> None:
    """P5: triggers bind the owner too."""
    refused(owner, CHANGES[table], FINAL)


@pytest.mark.parametrize("operation", ["DELETE FROM", "TRUNCATE"])
@pytest.mark.parametrize("table", TABLES)
def test_application_deletes_only_sold_out_lots_and_old_dead_letters(
    app: Connection, table: str, operation: str
) -> None:
    """P5: only sold-out lots and old dead letters are deleted, and no table is truncated."""
    statement = f"{operation} unwind.{table}"
    if table in grants.DELETABLE and operation == "DELETE FROM":
        app.execute(text(f"{statement} WHERE false"))
    else:
        refused(app, statement, NO_RIGHT)


@pytest.mark.parametrize("operation", ["DELETE FROM {}", "TRUNCATE {} CASCADE"])
@pytest.mark.parametrize("table", KEPT)
def test_owner_cannot_delete_history(owner: Connection, table: str, operation: str) -> None:
    """P5: whatever its privileges."""
    refused(owner, operation.format(f"unwind.{table}"), FINAL)


@pytest.mark.parametrize("table", ADDITIONS)
def test_cancelled_order_accepts_no_additions(app: Connection, table: str) -> None:
    """R60: no line, alert or request joins a cancelled order."""
    refused(app, f"INSERT INTO unwind.{table} {ADDITIONS[table]}", "order 5 is cancelled and final")


@pytest.mark.parametrize("feed_base", [0, 1_000_000])
def test_cancelling_transaction_may_write_lines_after_the_order(owner: Connection, feed_base: int) -> None:
    """R60: only another transaction is refused, on a server with lower transaction ids too (docs/decisions/0006)."""
    owner.execute(text(FEED_BASE.format(base=feed_base)))
    owner.execute(
        text(
            "INSERT INTO unwind.events (order_id, seq, at, type, actor, role, from_status, to_status, note, changes) "
            "SELECT order_id, version + 1, '2026-06-11Z', 'orders.cancelled', seller_id, 'seller', status, "
            "'CANCELLED', '', '{}' FROM unwind.orders WHERE order_id = 3"
        )
    )
    owner.execute(
        text(
            "UPDATE unwind.orders SET status = 'CANCELLED', cancelled_at = '2026-06-11Z', basis = 'NPB', "
            "cancelled_by = seller_id, previous_status = status WHERE order_id = 3"
        )
    )
    assert owner.execute(text("UPDATE unwind.order_lines SET removed = 1 WHERE order_id = 3")).rowcount == 1


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE unwind.alerts SET state = 'removed', closed_at = '2026-06-11Z' WHERE order_id = 1",
        "UPDATE unwind.strikes SET withdrawn_at = '2026-06-11Z' WHERE order_id = 1",
        "UPDATE unwind.orders SET version = version + 1, last_event_at = '2026-06-11Z' WHERE order_id = 1",
        "UPDATE unwind.alerts SET reminders = 1 WHERE order_id = 2",
        "UPDATE unwind.order_lines SET removed = 1 WHERE order_id = 3",
    ],
)
def test_allowed_changes_are_not_refused(app: Connection, change: str) -> None:
    """R39: staff may remove a completed alert, and the strike with it."""
    assert app.execute(text(change)).rowcount == 1


def test_removed_alert_cannot_be_reopened(app: Connection) -> None:
    """R39 allows one step and not the way back."""
    app.execute(text("UPDATE unwind.alerts SET state = 'removed', closed_at = '2026-06-11Z' WHERE order_id = 1"))
    with app.begin_nested() as step:
        refused(app, "UPDATE unwind.alerts SET state = 'completed' WHERE order_id = 1", FINAL)
        step.rollback()
    app.execute(text("UPDATE unwind.strikes SET withdrawn_at = '2026-06-11Z' WHERE order_id = 1"))
    refused(app, "UPDATE unwind.strikes SET withdrawn_at = NULL WHERE order_id = 1", FINAL)


# What each role may do with each table, one letter for each right: s(elect), i(nsert), u(pdate), d(elete).
def _rights(conn: Connection, role: str, table: str) -> str:
    query = text("SELECT has_table_privilege(:role, :table, :right)")
    return "".join(
        right[0].lower()
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
        if conn.execute(query, {"role": role, "table": f"unwind.{table}", "right": right}).scalar()
    )


@pytest.mark.guarantee("P9")
@pytest.mark.parametrize("table", TABLES)
def test_role_has_exactly_its_rights(owner: Connection, table: str) -> None:
    inserts = "" if table in grants.READ_ONLY else "i"
    changes = "" if table in (*grants.READ_ONLY, *grants.GRANTED_INSERT_ONLY) else "u"
    deletes = "d" if table in grants.DELETABLE else ""
    assert _rights(owner, db.APP_ROLE, table) == f"s{inserts}{changes}{deletes}"
    assert _rights(owner, grants.READER_ROLE, table) == ("" if table in grants.PRIVATE_TO_READERS else "s")
    assert _rights(owner, grants.SUBMIT_ROLE, table) == ""


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        (grants.SUBMIT_ROLE, "SELECT count(*) FROM unwind.orders"),
        (grants.SUBMIT_ROLE, "SELECT * FROM unwind.command_answers"),
        (grants.SUBMIT_ROLE, "SELECT * FROM unwind.events_after(NULL, 1)"),
        (grants.SUBMIT_ROLE, "SELECT unwind.prune_requests('2026-01-01Z', 1)"),
        (grants.SUBMIT_ROLE, "CREATE TABLE unwind.mine (x int)"),
        (grants.READER_ROLE, "SELECT unwind.submit_command('npb.file', '{}', 'x')"),
        (grants.READER_ROLE, "SELECT email FROM unwind.members"),
        (grants.READER_ROLE, "UPDATE unwind.orders SET fee = 0"),
        (grants.READER_ROLE, "SELECT unwind.prune_requests('2026-01-01Z', 1)"),
        (db.APP_ROLE, "SELECT unwind.prune_requests('2026-01-01Z', 1)"),
        (db.APP_ROLE, "ALTER TABLE unwind.events DISABLE TRIGGER ALL"),
        (db.APP_ROLE, "SET session_replication_role = replica"),
        (db.APP_ROLE, "CREATE TABLE unwind.mine (x int)"),
    ],
)
def test_role_is_refused_anything_beyond_its_interface(owner: Connection, role: str, statement: str) -> None:
    """P9: and no role can disable triggers."""
    owner.execute(text(f"SET LOCAL ROLE {role}"))
    refused(owner, statement, r"permission denied|must be owner")


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        (
            grants.SUBMIT_ROLE,
            "SELECT unwind.submit_command('npb.file', '{\"order_id\": 2, \"member_id\": \"seller\"}', 'x')",
        ),
        (grants.READER_ROLE, "SELECT count(*) FROM unwind.orders"),
        (grants.READER_ROLE, "SELECT * FROM unwind.events_after(NULL, 1)"),
        (db.APP_ROLE, "SELECT count(*) FROM unwind.requests"),
    ],
)
def test_role_can_use_its_interface(owner: Connection, role: str, statement: str) -> None:
    owner.execute(text(f"SET LOCAL ROLE {role}"))
    assert owner.execute(text(statement.replace(":", "\\:"))).first() is not None
