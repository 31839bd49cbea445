"""Size of the tables under churn: alerts that fall due, notify and wait again, for twenty minutes.

`python -m benchmarks.table_churn --minutes 20` prints the size and the dead rows of each table every minute.  It has
no bar; docs/decisions/0012-table-growth.md has the results.
"""

from __future__ import annotations

import time

import click
import psycopg

from benchmarks.environment import Environment, running_environment
from benchmarks.market import Market, build
from models.db import database as db
from workers.app import app

DATABASE = "churn"
ORDERS = 50_000
WAVE = 500
"""Alerts that fall due together; ten such waves touch a tenth of all orders."""
TABLES = ("orders", "alerts", "outbox", "notices", "sweeps")

# Unlocked alerts wait again, as if just filed, and the next ones are due.
_NEXT_WAVE = """
    UPDATE unwind.alerts SET unlocked_at = NULL, remind_at = NULL, remind_from = NULL,
        unlocks_at = now() + interval '3 days'
    WHERE unlocked_at IS NOT NULL;
    UPDATE unwind.alerts SET unlocks_at = now() WHERE order_id BETWEEN %(first)s AND %(last)s
"""
_SIZES = """
    SELECT s.relname, pg_relation_size(s.relid) / 1024 AS kilobytes, pg_indexes_size(s.relid) / 1024 AS of_indexes,
        s.n_dead_tup,
        s.autovacuum_count, round(100.0 * s.n_tup_hot_upd / greatest(s.n_tup_upd, 1)) AS hot
    FROM pg_stat_user_tables AS s WHERE s.schemaname = 'unwind' AND s.relname = ANY (%s) ORDER BY s.relname
"""


def churn(where: Environment, minutes: float) -> None:
    where.create(DATABASE)
    with where.connect(DATABASE) as conn:
        build(conn, Market(ORDERS, lines=1, state="waiting"))
    database = db.connect(where.url(DATABASE))
    db.set_database(database)
    began, minute, waves = time.monotonic(), 0, 0
    try:
        with where.connect(DATABASE) as conn:
            while (spent := time.monotonic() - began) < minutes * 60:
                first = waves * WAVE % ORDERS + 1
                with psycopg.ClientCursor(conn) as cursor:
                    cursor.execute(_NEXT_WAVE, {"first": first, "last": first + WAVE - 1})
                for task in ("npb.scan_open_alerts", "outbox.relay", "notices.tell_seller"):
                    app.tasks[task].run()
                waves += 1
                if spent >= minute * 60:
                    minute += 1
                    show(conn, spent, waves)
            show(conn, spent, waves)
    finally:
        db.set_database(None)
        database.dispose()


def show(conn: psycopg.Connection, spent: float, waves: int) -> None:
    click.echo(f"after {spent / 60:.1f} min, {waves * WAVE:,} alerts unlocked")
    for table, kilobytes, of_indexes, dead, vacuums, hot in conn.execute(_SIZES, [list(TABLES)]).fetchall():
        click.echo(
            f"  {table:<8} {kilobytes:>9,} KB {of_indexes:>9,} KB of indexes {dead:>8,} dead {vacuums:>4} vacuums "
            f"{hot:>4} % HOT"
        )


@click.command()
@click.option("--minutes", default=20.0, show_default=True, help="How long to go on.")
def main(minutes: float) -> None:
    """Measure how the tables keep their size."""
    with running_environment() as where:
        churn(where, minutes)


if __name__ == "__main__":
    main()
