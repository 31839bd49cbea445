"""Tests of table storage options: the migrated database has the options that the code declares."""

from __future__ import annotations

from models.ddl.complete_metadata import metadata
from models.ddl.table_options import TABLE_OPTIONS
from tests.plugins.market import Market


def test_tables_have_the_declared_storage_options(market: Market) -> None:
    rows = market.rows(
        "SELECT c.relname AS name, c.reloptions AS options FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'unwind' AND c.relkind = 'r' AND c.reloptions IS NOT NULL"
    )
    options_by_table = {row.name: dict(option.split("=") for option in row.options) for row in rows}
    assert options_by_table == TABLE_OPTIONS
    assert set(TABLE_OPTIONS) <= {table.name for table in metadata.tables.values()}


def test_small_installations_have_statistics_of_their_last_hundreds_of_changes() -> None:
    """With statistics from before its first cancellations, one of 2,000 orders had an audit that was never done."""
    assert max(int(options.get("autovacuum_analyze_threshold", 50)) for options in TABLE_OPTIONS.values()) <= 500


def test_new_event_updates_its_order_in_place(market: Market) -> None:
    """An event changes its order's version; no index may prevent a heap-only update."""
    indexed = market.row(
        "SELECT count(*) AS n FROM pg_index i WHERE i.indrelid = 'unwind.orders'::regclass AND "
        "(pg_get_indexdef(i.indexrelid) LIKE '%version%' OR pg_get_indexdef(i.indexrelid) LIKE '%last_event_at%')"
    )
    assert indexed.n == 0
