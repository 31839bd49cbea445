"""Tests of triggers and grants: the database refuses forbidden changes from the owner and the application."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from models.db import database as db
from models.ddl import grants
from models.ddl.complete_metadata import ddl_statements
from models.migrations import upgrade
from tests.plugins.servers import in_database
from workers.embedded.client import ServerUrls

ORDER = """
    INSERT INTO unwind.members (member_id, handle, email, time_zone, recorded_at)
    VALUES ('b', 'B', 'b@x.invalid', 'UTC', '2026-03-01Z'), ('s', 'S', 's@x.invalid', 'UTC', '2026-03-01Z');
    INSERT INTO unwind.orders (order_id, buyer_id, seller_id, status, payment_status, submitted_at, order_date,
        currency,
        usd_rate, total, fee, version, last_event_at, cancelled_at, basis, cancelled_by)
    VALUES (1, 'b', 's', 'CANCELLED', 'None', '2026-03-01Z', '2026-03-01Z', 'USD', 1, 0, 0, 1, '2026-03-01Z',
            '2026-03-01Z', 'NPB', 's');
    INSERT INTO unwind.events (order_id, seq, at, type, actor, role, note, changes)
    VALUES (1, 1, '2026-03-01Z', 'orders.submitted', 'marketplace', 'system', '', '{}');
"""


@pytest.fixture
def owner(database_url: str) -> Iterator[Connection]:
    """The owner of the tables, in a transaction that is rolled back."""
    engine = create_engine(database_url)
    with engine.connect() as conn:
        conn.exec_driver_sql(ORDER)
        yield conn
        conn.rollback()
    engine.dispose()


@pytest.fixture
def app(database_url: str) -> Iterator[Connection]:
    """The application's role, as workers connect."""
    database = db.connect(database_url)
    with database.engine.connect() as conn:
        yield conn
        conn.rollback()
    database.dispose()


@pytest.mark.guarantee("P5")
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE unwind.orders SET status = 'PENDING', cancelled_at = NULL, basis = NULL, cancelled_by = NULL",
        "UPDATE unwind.orders SET payment_status = 'Received'",
        "UPDATE unwind.orders SET fee = 1",
        "UPDATE unwind.orders SET cancelled_at = '2026-04-01Z'",
        "DELETE FROM unwind.orders",
        "TRUNCATE unwind.orders CASCADE",
        "UPDATE unwind.events SET note = 'it was otherwise'",
        "DELETE FROM unwind.events",
        "TRUNCATE unwind.events",
    ],
)
def test_owner_cannot_change_final_rows(owner: Connection, change: str) -> None:
    """P5, R60: the owner can't change a cancelled order or an event."""
    with pytest.raises(DBAPIError, match=r"final|append-only"):
        owner.execute(text(change))


@pytest.mark.parametrize(
    ("seller", "order_id", "accepted"),
    [("s", 1, True), ("s", 2, False), ("b", 1, False), ("s", None, True), ("x", None, False)],
    ids=["order of the seller", "no such order", "order of another seller", "seller alone", "no such member"],
)
def test_a_ledger_line_belongs_to_a_seller_and_an_order_of_theirs(
    owner: Connection, seller: str, order_id: int | None, accepted: bool
) -> None:
    refusal = pytest.raises(DBAPIError, match="no such order of this seller, or no such member")
    insert = text(
        "INSERT INTO unwind.ledger_lines (key, seller_id, billing_month, kind, amount, order_id, note, at) "
        "VALUES ('k', :seller, '2026-03-01', 'manual_credit', -1, :order_id, '', '2026-03-01Z')"
    )
    with contextlib.nullcontext() if accepted else refusal:
        owner.execute(insert, {"seller": seller, "order_id": order_id})


def test_members_cannot_be_deleted(owner: Connection) -> None:
    owner.execute(
        text(
            "INSERT INTO unwind.members (member_id, handle, email, time_zone, recorded_at) "
            "VALUES ('x', 'X', 'x@x.invalid', 'UTC', '2026-03-01Z')"
        )
    )
    with pytest.raises(DBAPIError, match="append-only"):
        owner.execute(text("DELETE FROM unwind.members WHERE member_id = 'x'"))


def test_cancelled_order_accepts_new_events(owner: Connection) -> None:
    """R39: staff may remove a completed alert, which adds an event."""
    changed = owner.execute(text("UPDATE unwind.orders SET version = 2, last_event_at = '2026-04-01Z'"))
    assert changed.rowcount == 1


def test_workers_use_the_application_role(app: Connection) -> None:
    assert app.execute(text("SELECT current_user")).scalar() == db.APP_ROLE


@pytest.mark.parametrize("table", grants.GRANTED_INSERT_ONLY)
@pytest.mark.parametrize("privilege", ["UPDATE", "DELETE", "TRUNCATE"])
def test_application_cannot_change_append_only_tables(app: Connection, table: str, privilege: str) -> None:
    """P5: privileges refuse it before any trigger does."""
    granted = app.execute(text("SELECT has_table_privilege(:t, :p)"), {"t": f"unwind.{table}", "p": privilege}).scalar()
    assert granted is False


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE unwind.mine (x int)", "DROP TABLE unwind.sweeps", "ALTER TABLE unwind.lots DROP bulk"]
)
def test_application_cannot_change_the_schema(app: Connection, statement: str) -> None:
    with pytest.raises(DBAPIError, match=r"permission denied|must be owner"):
        app.execute(text(statement))


def test_readers_cannot_read_email_addresses(database_url: str) -> None:
    """P9: dashboards need no email addresses."""
    engine = create_engine(database_url)
    with engine.connect() as conn:
        conn.execute(text(f"SET ROLE {grants.READER_ROLE}"))
        assert conn.execute(text("SELECT count(*) FROM unwind.orders")).scalar() == 0
        with pytest.raises(DBAPIError, match="permission denied"):
            conn.execute(text("SELECT email FROM unwind.members"))
    engine.dispose()


def test_no_trigger_check_or_default_reads_the_clock(database_url: str) -> None:
    """Replay supplies its own timestamps."""
    engine = create_engine(database_url)
    with engine.connect() as conn:
        defaults = conn.execute(
            text(
                "SELECT column_default FROM information_schema.columns WHERE table_schema = 'unwind' "
                "AND column_default <> ''"
            )
        ).scalars()
        checks = conn.execute(
            text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'unwind'::regnamespace")
        )
        triggers = [g for g in ddl_statements() if re.search("RETURNS trigger|CREATE TRIGGER", g)]
        texts = [*defaults, *checks.scalars(), *triggers]
    engine.dispose()
    clock = re.compile(
        r"\b(now|clock_timestamp|statement_timestamp|transaction_timestamp)\s*\(|\bcurrent_(date|timestamp|time)\b",
        re.IGNORECASE,
    )
    assert [t for t in texts if clock.search(t)] == []


def test_login_without_createrole_can_migrate(empty_database_url: str, servers: ServerUrls) -> None:
    name = make_url(empty_database_url).database
    engine = create_engine(in_database(servers.admin_url, str(name)))
    with engine.begin() as conn:
        conn.execute(
            text(
                "DO $$ BEGIN CREATE ROLE plain_owner LOGIN PASSWORD 'plain'; "
                "EXCEPTION WHEN duplicate_object THEN NULL; END $$"
            )
        )
        conn.execute(text(f'GRANT ALL ON DATABASE "{name}" TO plain_owner'))
    plain = (
        make_url(empty_database_url).set(username="plain_owner", password="plain").render_as_string(hide_password=False)
    )
    try:
        upgrade(plain)
        database = db.connect(plain)
        with database.engine.connect() as conn:
            assert conn.execute(text("SELECT current_user")).scalar() == "plain_owner"
            owners = conn.execute(
                text("SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE proname = 'submit_command'")
            )
            assert owners.scalar() == "plain_owner"  # which the doctor warns of
            with pytest.raises(DBAPIError, match="append-only"):
                conn.execute(text("DELETE FROM unwind.events"))
        database.dispose()
    finally:
        with engine.begin() as conn:
            conn.execute(text("DROP OWNED BY plain_owner CASCADE"))
            conn.execute(text(f'REVOKE ALL ON DATABASE "{name}" FROM plain_owner'))
            conn.execute(text("DROP ROLE IF EXISTS plain_owner"))
        engine.dispose()
