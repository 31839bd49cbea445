"""Checks that the orders, events, units and ledger lines of any history fit together."""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal
from itertools import pairwise
from operator import attrgetter

from models.alerts import AlertRow
from models.events import EventRow
from models.inventory import LotRow
from models.ocr import OcrRow
from models.orders import OrderRow
from models.removals import RemovalRow
from models.stock_moves import StockMoveRow
from tests.plugins.stored_rows import StoredRows

AFTER_CANCELLATION = {"removals.cancelled", "orders.paid_after_cancellation"}


def order_histories(rows: StoredRows) -> dict[int, tuple[list[EventRow], int]]:
    """The events of each order and the number of its last one, which the order or an alert has."""
    events: dict[int, list[EventRow]] = defaultdict(list)
    for event in sorted(rows.events(EventRow.order_id.is_not(None)), key=attrgetter("seq")):
        events[event.order_id or 0].append(event)
    last = {order.order_id: order.version for order in rows.stored(OrderRow)}
    for alert in rows.alerts(AlertRow.unlock_seq.is_not(None)):
        last[alert.order_id] = max(last[alert.order_id], alert.unlock_seq or 0)
    return {order_id: (events[order_id], seq) for order_id, seq in last.items()}


def units_out_of_balance(rows: StoredRows) -> dict[tuple[object, ...], int]:
    """The units of each item that moved and are not in stock, or are in stock and did not move."""
    item = attrgetter("seller_id", "item_type", "item_no", "color_id", "new_or_used", "completeness")
    units: Counter[tuple[object, ...]] = Counter()
    for move in rows.stored(StockMoveRow):
        units[item(move)] += move.delta
    for lot in rows.stored(LotRow):
        units[item(lot)] -= lot.quantity
    return {key: number for key, number in units.items() if number}


def check_orders(rows: StoredRows) -> None:
    """Check each order against its events, its ledger lines, and what may stay open."""
    histories = order_histories(rows)
    open_cases = {
        *(alert.order_id for alert in rows.alerts(state="open")),
        *(ocr.order_id for ocr in rows.stored(OcrRow, state="open")),
        *(removal.order_id for removal in rows.stored(RemovalRow, state="pending")),
    }
    charged: dict[int | None, Decimal] = defaultdict(Decimal)
    for line in rows.ledger_lines():
        charged[line.order_id] += line.amount
    for order in rows.stored(OrderRow):
        events, last_seq = histories[order.order_id]
        types = [event.type for event in events]
        assert len(events) == last_seq, (order.order_id, types)
        assert all(before.at <= after.at for before, after in pairwise(events)), (order.order_id, types)
        cancelled = order.status == "CANCELLED"
        assert types.count("orders.cancelled") == cancelled, (order.order_id, types)
        if cancelled:
            assert order.order_id not in open_cases, order.order_id
            assert set(types[types.index("orders.cancelled") + 1 :]) <= AFTER_CANCELLATION, (order.order_id, types)
        if order.order_id in charged:
            owed = 0 if cancelled and order.basis not in ("NRS", "NSS") else order.fee
            assert charged[order.order_id] == owed, order.order_id
