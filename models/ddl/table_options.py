"""Storage parameters of the tables: room in pages for updates in place, and early vacuum.

By default PostgreSQL vacuums a table when a fifth of it has changed.  Of two million orders that is 400,000 dead rows
in the indexes that every sweep reads first, so such tables are vacuumed by count (docs/decisions/0012-table-growth.md).
"""

from __future__ import annotations

_MOVING = {
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_threshold": "5000",
    "autovacuum_analyze_scale_factor": "0.02",
    # With statistics from before its first cancellations, a small installation audits each order by reading all events.
    "autovacuum_analyze_threshold": "500",
}
"""For tables whose rows are due, then done: a sweep first reads the entries that the last one left dead."""
_GROWING = {
    "autovacuum_vacuum_insert_scale_factor": "0.05",
    "autovacuum_analyze_scale_factor": "0.02",
}
"""For append-only tables: frozen in small steps while their pages are cached, not by one long vacuum."""

TABLE_OPTIONS: dict[str, dict[str, str]] = {
    # Most events of an order count up its version, and no index knows that column: with room in the page it is a HOT
    # update, one row written instead of one and three index entries.
    "orders": {"fillfactor": "85", **_MOVING},
    # A lot's quantity moves with every sale and return, and no index knows it.  What was recorded together is sold and
    # comes back together: at 80 % three of four returned lots found their page full, at 50 % none, for 80 bytes more a
    # lot.
    "lots": {"fillfactor": "50", **_MOVING},
    # Every update of these rows moves them out of a partial index, so it is never a HOT update and room would not help.
    "alerts": _MOVING,
    "ocrs": _MOVING,
    "outbox": _MOVING,
    "notices": _MOVING,
    "submissions": _MOVING,
    "events": _GROWING,
    "stock_moves": _GROWING,
    "ledger_lines": _GROWING,
    "requests": _GROWING,
    # A dozen rows updated all day long: they stay in their page.
    "sweeps": {"fillfactor": "20", "autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "500"},
}

DDL: tuple[str, ...] = tuple(
    f"ALTER TABLE unwind.{table} SET ({', '.join(f'{name} = {value}' for name, value in options.items())})"
    for table, options in TABLE_OPTIONS.items()
)
