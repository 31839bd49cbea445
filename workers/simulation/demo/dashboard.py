"""The demo's output: a live table of its orders with a countdown to each unlock, and finally sums and bills.

If standard output is no terminal, `workers/cli/demo.py` prints the events line by line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from sqlalchemy import Row, bindparam, func, select

from models import bills, terms
from models.db.database import Database
from models.db.schema import Timestamp
from models.db.selects import AnySelect, count_where
from models.events import EventRow
from models.ledger import LedgerLineRow
from models.members import StrikeRow, load_members
from models.notices import NoticeRow
from models.orders import OrderRow
from models.removals import RemovalRow
from models.stock_moves import StockMoveRow
from policies.bills import billing_month_of, previous_month
from policies.texts import pluralize
from policies.timestamps import describe_duration
from workers.simulation.demo.sample_market import SampleMarket

EVENT_STYLES = {
    "npb.unlocked": ("unlocked", "bold yellow", "the seller may cancel now"),
    "nss.unlocked": ("unlocked", "bold yellow", "the buyer may cancel now"),
    "npb.penalty_accepted": ("accepted", "cyan", "the penalty: the seller may cancel"),
    "ocr.filed": ("requested", "cyan", "a cancellation, by the buyer"),
    "ocr.declined": ("declined", "cyan", "the order is what it was before"),
    "npb.removed": ("alert removed", "magenta", "the buyer paid: the order is pending"),
    "orders.cancelled": ("cancelled", "bold green", "with stock, fee, strike and emails"),
    "removals.cancelled": ("removal cancelled", "green", "it was pending when the order was cancelled"),
    "members.buying_revoked": ("buying revoked", "red", "three strikes as a buyer"),
    "members.selling_revoked": ("selling suspended", "red", "three strikes as a seller"),
}
"""For each type of event: its label, its style, and an explanation."""


@dataclass
class _OrderRow:
    case: str
    label: str
    colour: str = "dim"
    explanation: str = ""
    effects: str = ""


class Dashboard:
    def __init__(
        self, sample: SampleMarket, unlocks: dict[int, datetime], now: Callable[[], datetime], flower_address: str
    ) -> None:
        self.sample, self.unlocks, self.now, self.flower_address = sample, unlocks, now, flower_address
        self._other_events: list[str] = []
        cases = {
            **dict.fromkeys(sorted(sample.unlocking - sample.buyers_cancel), "unpaid"),
            **dict.fromkeys(sorted(sample.automatic), "automatic"),
            **dict.fromkeys(sorted(sample.buyers_cancel), "not sent"),
            **dict.fromkeys(sorted(sample.penalty_accepted), "unpaid, penalty"),
            **dict.fromkeys(sorted(sample.agreed_requests | sample.declined_requests), "cancel request"),
        }
        self._rows = {order_id: _OrderRow(case, "waiting") for order_id, case in cases.items()}

    def apply(self, event: Row[Any]) -> None:
        label, colour, explanation = EVENT_STYLES.get(event.type, (event.type, "white", event.note))
        row = self._rows.get(event.order_id) if event.order_id is not None else None
        if row is None:
            self._other_events.append(f"{event.member_id or f'order {event.order_id}'}: {label}, {explanation}")
        elif event.type == "removals.cancelled":
            row.effects += ", 1 removal"
        else:
            row.label, row.colour, row.explanation = label, colour, explanation
            if event.type == "orders.cancelled":
                row.effects = _dashboard_effects(event.changes)

    def __rich__(self) -> RenderableType:
        now = self.now()
        table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
        for column in ("order", "case", "now"):
            table.add_column(column, no_wrap=True)
        table.add_column("effects", no_wrap=True, overflow="ellipsis", ratio=1)
        for order_id, row in self._rows.items():
            state = Text(row.label, row.colour)
            if row.label == "waiting" and order_id in self.unlocks:
                seconds = (self.unlocks[order_id] - now).total_seconds()
                state = Text(f"in {describe_duration(seconds)}", "white") if seconds > 0 else Text("due", "yellow")
            table.add_row(str(order_id), Text(row.case, "dim"), state, row.effects or row.explanation)
        header = Text.assemble(("Flower ", "dim"), f"{self.flower_address}   ")
        # One that is left alone reaches its last state by unlocking.
        done = sum(
            row.label not in ("waiting", "unlocked") or (order_id in self.sample.untouched and row.label == "unlocked")
            for order_id, row in self._rows.items()
        )
        footer = Text(f"{done} of {len(self._rows)} orders are done. " + "  ".join(self._other_events[-2:]), "dim")
        return Panel(Group(header, Text(), table, Text(), footer), title="Unwind, live", border_style="blue")


def format_demo_event(event: Row[Any]) -> str:
    verb, colour, note = EVENT_STYLES.get(event.type, (event.type, "white", event.note))
    about = f"order {event.order_id}" if event.order_id is not None else f"{event.member_id}"
    return f"{event.at.astimezone():%H:%M:%S}  [{colour}]{verb:<17}[/] {about:<12} {note}"


_SINCE = bindparam("since", type_=Timestamp)


def _count_emails(role: str) -> AnySelect:
    return count_where(NoticeRow.created_at >= _SINCE, NoticeRow.state == "sent", NoticeRow.role == role)


def _fees_summary(kind: str) -> AnySelect:
    fees = func.concat(func.count(), ", ", func.coalesce(-func.sum(LedgerLineRow.amount), 0), " USD")
    return select(fees).where(LedgerLineRow.at >= _SINCE, LedgerLineRow.kind == kind)


_RETURNED_UNITS = func.coalesce(func.sum(StockMoveRow.delta), 0)
DASHBOARD_SUMMARY = {
    "alerts unlocked, each once": count_where(EventRow.at >= _SINCE, EventRow.type.like("%.unlocked")),
    "orders cancelled": count_where(OrderRow.cancelled_at >= _SINCE),
    "units returned to inventory": select(
        func.concat(_RETURNED_UNITS, " in ", func.count(StockMoveRow.lot_id.distinct()), " lots")
    ).where(StockMoveRow.at >= _SINCE, StockMoveRow.kind == "returned"),
    "fees credited on the next bill": _fees_summary("credit"),
    "fees reset in the same month": _fees_summary("reset"),
    "pending removal requests cancelled": count_where(RemovalRow.decided_at >= _SINCE, RemovalRow.state == "cancelled"),
    "sellers notified": _count_emails("seller"),
    "buyers notified": _count_emails("buyer"),
    "strikes added": count_where(StrikeRow.at >= _SINCE),
}


def summary_table(database: Database, since: datetime) -> Table:
    table = Table(title="What happened while you watched", title_style="bold", show_header=False, min_width=60)
    with database.transaction() as conn:
        for label, query in DASHBOARD_SUMMARY.items():
            table.add_row(label, str(conn.execute(query, {"since": since}).scalar_one()))
    return table


def bills_table(database: Database, seller_id: str, now: datetime) -> Table:
    with database.transaction() as conn:
        handle = load_members(conn, [seller_id])[seller_id].handle
        table = Table(title=f"Bills of {handle}", title_style="bold", min_width=60)
        for column in ("month", "state", "charges", "credits", "carried in", "total", "carried out"):
            table.add_column(column, justify="left" if column in ("month", "state") else "right")
        this = billing_month_of(now, terms.load_terms(conn).at(now))
        for month in (previous_month(previous_month(this)), previous_month(this), this):
            if bill := bills.load_bill_json(conn, seller_id, month, now):
                amounts = [Decimal(line["amount"]) for line in bill["lines"]]
                sums = [sum((a for a in amounts if (a > 0) is positive), Decimal("0.00")) for positive in (True, False)]
                carried = (bill[name] for name in ("opening_credit", "total", "carried_forward"))
                table.add_row(bill["billing_month"], bill["state"], *map(str, sums), *carried)
    return table


def _dashboard_effects(changes: dict[str, Any]) -> str:
    units = sum(line["returned"] for line in changes.get("returned", ()))
    fee = changes.get("fee", {})
    amount = str(fee.get("amount", "0.00")).removeprefix("-")
    stock = f"+{pluralize(units, 'unit', 'units')}" if units else "nothing is returned"
    money = {"credit": f"{amount} USD credited", "reset": f"{amount} USD reset"}.get(fee.get("kind"), "the fee stays")
    return f"{stock}, {money}"
