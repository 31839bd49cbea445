"""The demo's screen: one row per order, with a countdown in seconds to its unlock.

If standard output is no terminal, `workers/cli/demo.py` prints the same events line by line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from workers.simulation.demo.runner import TimelineEvent
from workers.simulation.demo.sample_market import SELLERS, SampleMarket

EVENT_STYLES = {
    "npb.unlocked": ("unlocked", "bold yellow", "the wait is over: the seller may cancel"),
    "nss.unlocked": ("unlocked", "bold yellow", "two weeks unshipped: the buyer may cancel"),
    "npb.penalty_accepted": ("penalty accepted", "cyan", "the seller may cancel at once"),
    "ocr.filed": ("cancel asked for", "cyan", "by the buyer; the seller is told"),
    "ocr.declined": ("declined", "cyan", "by the seller; all is as it was before"),
    "npb.removed": ("alert removed", "magenta", "the money came: pending again"),
    "orders.cancelled": ("cancelled", "bold green", "for ever, and all that belongs to it"),
    "removals.cancelled": ("removal dropped", "green", "it was pending, and goes with the order"),
    "members.buying_revoked": ("buying revoked", "red", "a third order cancelled unpaid"),
    "members.selling_revoked": ("selling suspended", "red", "a third order that the seller failed"),
}
"""For each type of event: the word on the screen, its style, and an explanation."""


@dataclass
class _Row:
    case: str
    word: str
    colour: str = "dim"
    means: str = ""
    followed: str = ""


@dataclass
class Dashboard:
    """A Rich renderable of the demo. Pass each event to `apply`; `now` is the clock for the countdown."""

    sample: SampleMarket
    unlocks: dict[int, datetime]
    now: Callable[[], datetime]
    addresses: dict[str, str]
    _rows: dict[int, _Row] = field(default_factory=dict)
    _others: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        sample = self.sample
        cases = {
            **dict.fromkeys(sorted(sample.unlocking - sample.buyers_cancel), "unpaid, seller's alert"),
            **dict.fromkeys(sorted(sample.buyers_cancel), "not sent, buyer's alert"),
            **dict.fromkeys(sorted(sample.penalty_accepted), "unpaid, the buyer gives in"),
            **dict.fromkeys(sorted(sample.asked_and_agreed | sample.asked_and_declined), "the buyer asks to cancel"),
        }
        self._rows = {order_id: _Row(case, "waiting") for order_id, case in cases.items()}

    def apply(self, news: TimelineEvent) -> None:
        word, colour, means = EVENT_STYLES.get(news.type, (news.type, "white", news.note))
        row = self._rows.get(news.order_id) if news.order_id is not None else None
        if row is None:
            self._others.append(f"{news.member_id or f'order {news.order_id}'}: {word}, {means}")
        elif news.type == "removals.cancelled":
            row.followed += ", removal dropped"
        else:
            row.word, row.colour, row.means = word, colour, means
            if news.type == "orders.cancelled":
                row.followed = _what_came_back(news.changes)

    def __rich__(self) -> RenderableType:
        now = self.now()
        table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
        table.add_column("order", no_wrap=True)
        table.add_column("store", no_wrap=True)
        table.add_column("case", no_wrap=True, overflow="ellipsis")
        table.add_column("now", no_wrap=True)
        table.add_column("what follows", no_wrap=True, overflow="ellipsis", ratio=1)
        for order_id, row in self._rows.items():
            store = SELLERS[self.sample.parties[order_id][0]][0]
            table.add_row(
                str(order_id), store, Text(row.case, "dim"), self._state(order_id, row, now), row.followed or row.means
            )
        header = Text.assemble(
            *(part for name, said in self.addresses.items() for part in ((f"{name} ", "dim"), f"{said}   "))
        )
        done = sum(self._has_ended(order_id, row) for order_id, row in self._rows.items())
        footer = Text(
            f"{done} of {len(self._rows)} orders have come to their end. " + "  ".join(self._others[-2:]), "dim"
        )
        return Panel(Group(header, Text(), table, Text(), footer), title="Unwind, live", border_style="blue")

    def _has_ended(self, order_id: int, row: _Row) -> bool:
        # Whether the order has reached its last state; one that is left alone does so by unlocking.
        return row.word not in ("waiting", "unlocked") or (
            order_id in self.sample.left_alone and row.word == "unlocked"
        )

    def _state(self, order_id: int, row: _Row, now: datetime) -> Text:
        if row.word != "waiting" or order_id not in self.unlocks:
            return Text(row.word, row.colour)
        left = (self.unlocks[order_id] - now).total_seconds()
        return Text(f"unlocks in {left:.0f} s", "white") if left > 0 else Text("due", "yellow")


def _what_came_back(changes: dict[str, Any]) -> str:
    units = sum(line["returned"] for line in changes.get("returned", ()))
    fee = changes.get("fee", {})
    amount = str(fee.get("amount", "0.00")).removeprefix("-")
    stock = f"{units} units back" if units else "nothing comes back"
    money = {
        "credit": f"{amount} USD credited",
        "reset": f"{amount} USD reset",
    }.get(str(fee.get("kind")), "the fee stays")
    return f"{stock}, {money}"
