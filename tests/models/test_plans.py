"""Tests of query plans on 100,000 orders: queries use their indexes and an idle sweep touches few pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from benchmarks.market import Market, build
from models import alerts, bills, feed, notices, outbox, retention, submissions
from models.db import database as db
from policies.bills import billing_month_of
from policies.terms import DEFAULT_TERMS
from policies.timestamps import format_timestamp
from tests.models.plans import Plans, record_plans
from tests.plugins.servers import fresh_database, libpq_url
from workers import show_queries
from workers.app import app
from workers.embedded.client import ServerUrls

pytestmark = pytest.mark.long

ORDERS = 100_000
BIG = 10_000
"""Tables with at least this many rows must not be scanned sequentially."""

# One order in twenty has an open alert: NRS that wait or are due, NPB that wait, are due or are unlocked.
_VARIED_STATES = """
    SET session_replication_role = replica;
    UPDATE unwind.alerts SET state = 'removed', closed_at = filed_at + interval '1 day' WHERE order_id % 20 <> 0;
    UPDATE unwind.orders SET status = 'COMPLETED', payment_status = 'Received' WHERE order_id % 20 <> 0;
    UPDATE unwind.orders SET status = 'PENDING', payment_status = 'None' WHERE order_id % 20 = 1;
    UPDATE unwind.alerts SET kind = 'NRS', unlocks_at = filed_at + interval '14 days' WHERE order_id % 200 = 0;
    UPDATE unwind.alerts SET kind = 'NRS', unlocks_at = filed_at WHERE order_id % 4000 = 0;
    UPDATE unwind.orders SET status = 'NRS' WHERE order_id % 200 = 0;
    UPDATE unwind.alerts SET filed_at = filed_at - interval '4 days', unlocks_at = unlocks_at - interval '4 days'
    WHERE order_id % 1000 IN (20, 40) OR order_id % 1000 BETWEEN 300 AND 600;
    UPDATE unwind.alerts SET unlocked_at = unlocks_at, remind_from = unlocks_at,
        remind_at = now() + (order_id % 90) * interval '1 hour'
        WHERE order_id % 1000 BETWEEN 300 AND 600 AND state = 'open';
    UPDATE unwind.alerts SET remind_at = now() - interval '1 hour' WHERE order_id % 1000 = 340;
    INSERT INTO unwind.ocrs (order_id, filed_by, state, terms_id, filed_at, remind_at, closed_at, previous_status,
        reason,
        comment) SELECT order_id, 'buyer', CASE WHEN order_id % 20 = 1 THEN 'open' ELSE 'declined' END, 0, order_date,
        CASE WHEN order_id % 20 = 1 THEN now() + (order_id % 77) * interval '1 hour' END,
        CASE WHEN order_id % 20 <> 1 THEN now() END, 'PENDING', 'B_OTHER', 'Please.'
        FROM unwind.orders WHERE order_id % 4 = 1;
    UPDATE unwind.alerts SET cancels_at = now() + interval '2 days' + (order_id % 90) * interval '1 hour'
    WHERE state = 'open' AND kind = 'NPB';
    UPDATE unwind.orders SET files_npb_at = now() + interval '1 hour' + (order_id % 90) * interval '1 hour'
    WHERE order_id % 20 = 2;
    UPDATE unwind.ocrs SET agrees_at = now() + interval '1 hour' + (order_id % 90) * interval '1 hour'
    WHERE state = 'open' AND order_id % 40 = 1;
    UPDATE unwind.ocrs SET declines_at = now() + interval '1 hour' + (order_id % 90) * interval '1 hour'
    WHERE state = 'open' AND order_id % 40 <> 1;
    INSERT INTO unwind.outbox (key, task, order_id, payload, state, created_at, due_at, publish_count, attempts,
        done_at)
    SELECT 'filed:' || order_id,
        CASE WHEN order_id % 9 = 0 THEN 'credits.post_to_next_invoice' ELSE 'notices.tell_buyer' END,
        order_id, jsonb_build_object('event', 'npb_filed', 'recipient', buyer_id, 'role', 'buyer'),
        CASE WHEN order_id % 1000 = 7 THEN 'due' ELSE 'done' END,
        now() - interval '20 days' + order_id * interval '15 s',
        now() - interval '1 minute', 1, 1, CASE WHEN order_id % 1000 <> 7 THEN now() - interval '20 days' + order_id
        * interval '15 s' END FROM unwind.orders;
    INSERT INTO unwind.requests (request_id, task, fingerprint, order_id, outcome, answer, answered_at)
    SELECT 'r-' || order_id, 'orders.submit', '\\x00', order_id, 'done', '{"outcome": "done", "request_id": "x"}',
        now() - interval '40 days' + order_id * interval '30 s' FROM unwind.orders;
    INSERT INTO unwind.notices (key, event, order_id, recipient, role, state, email, message_id, created_at,
        next_try_at,
        attempts, sent_at) SELECT key, 'npb_filed', order_id, payload ->> 'recipient', 'buyer',
        CASE WHEN order_id % 100 = 7 THEN 'pending' ELSE 'sent' END,
        '{"subject": "An email", "happened": ["Something."], "means": [], "next": []}', key || '@example.org',
        created_at,
        CASE WHEN order_id % 100 = 7 THEN now() + (order_id % 7 - 3) * interval '1 minute' END, order_id % 3,
        CASE WHEN order_id % 100 <> 7 THEN created_at END FROM unwind.outbox WHERE state = 'done' OR order_id % 100 = 7;
    INSERT INTO unwind.submissions (request_id, task, payload, order_id, submitted_by, submitted_at, state, due_at,
        attempts, answer, answered_at)
    SELECT 's-' || order_id, 'npb.file', jsonb_build_object('order_id', order_id), order_id, 'shop', order_date,
        CASE WHEN order_id % 500 = 1 THEN 'waiting' ELSE 'answered' END, order_date, 1, '{"outcome": "done"}',
        CASE WHEN order_id % 500 <> 1 THEN now() - interval '40 days' + order_id * interval '30 s' END
    FROM unwind.orders;
    SET session_replication_role = DEFAULT;
"""


class BigMarket:
    """A database of 100,000 orders, on the real clock."""

    def __init__(self, url: str, database: db.Database, big: set[str], now: datetime) -> None:
        self.url, self.database, self.big, self.now = url, database, big, now

    def ask(self, function: Callable[[Any], Any]) -> Callable[[], Any]:
        """Return a callable that runs a function in a transaction of its own."""

        def run_in_transaction() -> Any:
            with self.database.transaction() as conn:
                return function(conn)

        return run_in_transaction

    def vacuum(self) -> None:
        """Remove the dead rows that sweeps left."""
        with psycopg.connect(libpq_url(self.url), autocommit=True) as conn:
            conn.execute("VACUUM (INDEX_CLEANUP ON)")

    def plans(self, body: Callable[[], Any]) -> Plans:
        """The plans of the statements that the body executes."""
        with record_plans(self.database) as plans:
            body()
        assert plans.statements
        return plans


@pytest.fixture(scope="module")
def big_market(servers: ServerUrls, admin: psycopg.Connection, template_database: str) -> Iterator[BigMarket]:
    with fresh_database(servers, admin, template_database) as url:
        with psycopg.connect(libpq_url(url), autocommit=True) as conn:
            build(conn, Market(ORDERS, lines=1, state="waiting"))
            conn.execute(_VARIED_STATES)
            conn.execute("VACUUM (ANALYZE)")
            rows = conn.execute(
                "SELECT relname, now() FROM pg_class WHERE relnamespace = 'unwind'::regnamespace AND relkind = 'r' "
                "AND reltuples >= %s",
                [BIG],
            ).fetchall()
        database = db.connect(url)
        db.set_database(database)
        yield BigMarket(url, database, {name for name, _ in rows}, rows[0][1])
        db.set_database(None)
        database.dispose()


def run(task: str, **arguments: Any) -> Callable[[BigMarket], Callable[[], Any]]:
    """A sweep or a consumer of the outbox."""
    return lambda _town: lambda: app.tasks[task].run(**arguments)


def command(task: str, **arguments: Any) -> Callable[[BigMarket], Callable[[], Any]]:
    """A command that must be done."""

    def build(big_market: BigMarket) -> Callable[[], Any]:
        def body() -> None:
            answer = app.tasks[task].validate_and_run(arguments, f"plans-{task}-{arguments.get('order_id', 'set')}")
            assert answer["outcome"] == "done", answer

        return body

    return build


def query(*words: Any) -> Callable[[BigMarket], Callable[[], Any]]:
    """A query of `show` that must find something."""

    def build(big_market: BigMarket) -> Callable[[], Any]:
        def body(conn: Any) -> None:
            assert show_queries.parse_query(words).read(conn, big_market.now) is not None

        return big_market.ask(body)

    return build


def model(function: Callable[[Any, datetime], Any]) -> Callable[[BigMarket], Callable[[], Any]]:
    """A function of the models."""
    return lambda big_market: big_market.ask(lambda conn: function(conn, big_market.now))


SOON = timedelta(hours=1)
QUERIES: dict[str, tuple[Callable[[BigMarket], Callable[[], Any]], set[str]]] = {
    "scan of NPB alerts": (
        run("npb.scan_open_alerts"),
        {"ix_alerts_waiting", "pk_orders", "uq_alerts_one_open_per_order"},
    ),
    "scan of seller alerts": (run("alerts.scan_seller_alerts"), {"ix_alerts_waiting", "pk_orders"}),
    "reminders": (run("reminders.scan"), {"ix_alerts_remind", "ix_ocrs_remind", "pk_orders"}),
    "automatic alerts": (run("automation.file_alerts"), {"ix_orders_files_npb"}),
    "automatic cancellations": (run("automation.cancel"), {"ix_alerts_cancel"}),
    "automatic answers": (run("automation.resolve_requests"), {"ix_ocrs_agrees", "ix_ocrs_declines"}),
    "relay": (run("outbox.relay"), {"ix_outbox_due", "pk_outbox"}),
    "consumer of rows": (run("notices.tell_buyer", rows=[7, 1007]), {"pk_outbox"}),
    "consumer of anything due": (run("notices.tell_seller"), {"ix_outbox_due"}),
    "consumer of one order": (run("notices.tell_buyer", order_id=3007), {"pk_outbox"}),
    "credits": (run("credits.post_to_next_invoice"), {"ix_outbox_due"}),
    "emails": (
        model(lambda conn, now: notices.claim_notices(conn, now, until=now + SOON, limit=50)),
        {"ix_notices_due", "pk_notices"},
    ),
    "commands by SQL": (
        model(lambda conn, now: submissions.send_submissions_claim(conn, now, limit=100)()),
        {"ix_submissions_due", "pk_submissions"},
    ),
    "answer of a command by SQL": (
        model(
            lambda conn, _now: conn.execute(
                text("SELECT answer FROM unwind.command_answers WHERE request_id = 's-77'")
            ).one()
        ),
        {"uq_submissions_request_id", "pk_requests"},
    ),
    "cancel": (
        command("orders.cancel", order_id=320, member_id="s-3"),
        {"pk_orders", "pk_alerts", "pk_members", "pk_order_lines", "pk_requests"},
    ),
    "cancel many": (
        command(
            "orders.cancel_many",
            orders=[{"order_id": n, "member_id": f"s-{(n - 1) // 100}"} for n in range(1320, 1600, 20)],
        ),
        {"pk_orders", "pk_alerts"},
    ),
    "file": (command("npb.file", order_id=1421, member_id="s-14"), {"pk_orders", "pk_alerts"}),
    "options": (command("orders.options", order_id=320, member_id="s-3"), {"pk_orders"}),
    "show order": (
        query("order", 320),
        {"pk_orders", "uq_events_order_id_seq", "pk_order_lines", "ix_ledger_lines_order_id"},
    ),
    "show order as it was": (query("order", 660, "--at", "2030-01-01T00:00:00Z"), {"uq_events_order_id_seq"}),
    "explain order": (query("explain", "order", 340), {"pk_orders", "pk_alerts"}),
    "show lots": (query("lots", "s-3"), {"ix_lots_key"}),
    "show member": (query("member", "s-3"), {"pk_members"}),
    "show notices": (query("notices", "--order", 340), {"ix_notices_order_id"}),
    "show request": (query("request", "r-340"), {"pk_requests"}),
    "show credits": (query("credits", "s-3"), {"ix_ledger_lines_bill"}),
    "alerts due before": (
        lambda big_market: query("alerts", "--due-before", format_timestamp(big_market.now))(big_market),
        {"uq_alerts_one_open_per_order", "pk_orders"},
    ),
    "next unlock": (
        model(lambda conn, _now: alerts.next_unlock_at(conn)),
        {"ix_alerts_waiting"},
    ),
    "oldest outbox message": (model(lambda conn, _now: outbox.oldest_due_message(conn)), {"ix_outbox_due"}),
    "oldest submission": (model(lambda conn, _now: submissions.oldest_waiting_submission(conn)), set()),
    "parked emails": (model(lambda conn, _now: notices.count_parked_notices(conn)), {"ix_notices_parked"}),
    "next email": (model(lambda conn, _now: notices.next_delivery_at(conn)), {"ix_notices_due"}),
}


@pytest.mark.parametrize("name", QUERIES)
def test_query_uses_its_index_and_scans_no_big_table(big_market: BigMarket, name: str) -> None:
    """B16: each query uses its index, and none scans a big table."""
    ask, indexes = QUERIES[name]
    plans = big_market.plans(ask(big_market))
    assert plans.read_whole(big_market.big) == []
    assert indexes <= plans.indexes, plans.statements


def test_billing_reads_the_lines_of_its_sellers(big_market: BigMarket) -> None:
    """R86: billing reads only the lines of its sellers."""
    month: date = billing_month_of(big_market.now - timedelta(days=20), DEFAULT_TERMS)
    sellers = [f"s-{n}" for n in range(3)]

    def body(conn: Any) -> None:
        show_queries.parse_query(("bill", "s-3", f"{month:%Y-%m}")).read(conn, big_market.now)
        assert bills.sellers_to_bill(conn, month, limit=3)
        conn.execute(bills._SUMS_TO_BILL, {"month": month, "sellers": sellers}).all()

    plans = big_market.plans(big_market.ask(body))
    assert "ix_ledger_lines_bill" in plans.indexes
    assert [where for where in plans.read_whole(big_market.big) if "sellers_to_bill" not in where[1]] == []


def test_feed_and_pruning_scan_no_big_table(big_market: BigMarket, servers: ServerUrls) -> None:
    def read_feed(conn: Any) -> None:
        first = feed.events_after(conn, None, 100)
        assert len(first) == 100
        assert len(feed.events_after(conn, first[-1][0], 100)) == 100

    assert big_market.plans(big_market.ask(read_feed)).read_whole(big_market.big) == []
    owner = db.connect(big_market.url, as_app=False)
    with record_plans(owner) as plans, owner.transaction() as conn:
        assert retention.prune(conn, big_market.now - timedelta(days=31), batch=50) == 100
    assert plans.read_whole(big_market.big) == []


@pytest.mark.parametrize(
    "sweep",
    [
        *("npb.scan_open_alerts", "alerts.scan_seller_alerts", "reminders.scan", "outbox.relay"),
        *("automation.file_alerts", "automation.cancel", "automation.resolve_requests"),
    ],
)
def test_idle_sweep_touches_few_pages(big_market: BigMarket, sweep: str) -> None:
    """B8: an idle sweep's work does not grow with the number of waiting rows.

    The relay looks once for each consumer.
    """
    while any(app.tasks[sweep].run().values()):
        pass
    big_market.vacuum()  # the test servers have no autovacuum
    app.tasks[sweep].run()  # the first index scan marks dead entries
    with record_plans(big_market.database, analyze=True) as plans:
        counts = app.tasks[sweep].run()
    assert not any(counts.values())
    assert plans.statements
    assert plans.pages < (15 if sweep == "outbox.relay" else 10), "\n".join(
        f"{plan.pages} {plan.indexes} {plan.statement[:40]}" for plan in plans.statements
    )
