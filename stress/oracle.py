"""Replays every answered command on the reference model, in the order in which the database decided.

The commands come from the producers' record; the database contributes only the order and the time of each decision.
Answers and final states must agree.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg import Connection

from stress.plan import LOTS_EACH, SELLERS, SQL, STRANGER, UNLOCK, UNLOCK_ANSWERED, lot_arguments
from stress.reference_model.market import Answer, Member, Order, Removal, Settings
from stress.reference_model.money import Posting
from stress.reference_model.orders import Reference
from stress.reference_model.stock import StockLot
from stress.sent_commands import Ledger, Sent

NEW_ANSWERS = """
    SELECT request_id, task, outcome, answer, answered_at FROM unwind.requests
    WHERE answered_at >= %s AND request_id LIKE 't-%%' ORDER BY answered_at, request_id COLLATE "C"
"""
NEW_EVENTS = "SELECT event_id, request_id, order_id, at FROM unwind.events WHERE event_id > %s ORDER BY event_id"


class ReplayReference(Reference):
    """The reference model with an index of orders by buyer, because a run has thousands of orders."""

    def __init__(self, terms: Settings) -> None:
        super().__init__(terms)
        self.of_buyer: dict[str, dict[int, Order]] = defaultdict(dict)

    def _may_trade(self, buyer: str, seller: str) -> Answer | None:
        everybody, self.orders = self.orders, self.of_buyer[buyer]
        try:
            return super()._may_trade(buyer, seller)
        finally:
            self.orders = everybody


class Oracle:
    """Replays new answers each time the run has come to rest."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        short, long = timedelta(seconds=UNLOCK), timedelta(seconds=UNLOCK_ANSWERED)
        self.reference = ReplayReference(Settings(limit=1000, file_after=timedelta(0), short=short, long=long))
        self.reference.people |= {member: Member() for member in (*SELLERS, STRANGER)}
        for seller in SELLERS:
            for number in range(LOTS_EACH):
                self._stock(lot_arguments(seller, number))
        self.judged: dict[str, tuple[datetime, Sent]] = {}
        """Every answered request, in the order of the decisions, with its instant."""
        self._since = datetime(2000, 1, 1, tzinfo=UTC)
        self._last_event = 0
        self._event_at: dict[str, datetime] = {}
        self._happened: dict[int, list[datetime]] = defaultdict(list)
        self.early = 0

    def _stock(self, written: dict[str, Any]) -> None:
        item = (written["item"]["no"], written["color_id"], written["new_or_used"])
        self.reference.stock.lots[written["lot_id"]] = StockLot(
            written["lot_id"], written["seller_id"], item, written["quantity"], Decimal(written["unit_price"])
        )

    def judge(self, conn: Connection[Any]) -> list[str]:
        """Replay the answers since the last call; returns a sentence for each wrong one."""
        for event_id, request_id, order_id, at in conn.execute(NEW_EVENTS, [self._last_event]):
            self._last_event = event_id
            if request_id is not None:
                self._event_at.setdefault(request_id, at)
            if order_id is not None:
                self._happened[order_id].append(at)
        wrong = []
        for request_id, task, outcome, answer, answered_at in conn.execute(NEW_ANSWERS, [self._since]).fetchall():
            self._since = answered_at
            if request_id in self.judged:
                continue
            sent = self._ledger.sent.get(request_id)
            if sent is None or sent.task != task:
                wrong.append(f"{request_id}: {task} was answered, and nobody sent it")
                continue
            at = self._instant(sent, answered_at)
            self.judged[request_id] = (at, sent)
            wrong += self._compare(sent, at, outcome, answer)
        return wrong

    def _instant(self, sent: Sent, answered_at: datetime) -> datetime:
        """Return the time of the command's event; a command refused by SQL counts from its insert."""
        return self._event_at.get(sent.request_id, answered_at)

    def _compare(self, sent: Sent, at: datetime, outcome: str, answer: dict[str, Any]) -> list[str]:
        verdict = self._verdict(sent, at)
        if verdict is None:
            return []
        said = (outcome, answer["code"])
        expected = (verdict.outcome, verdict.code)
        if said != expected:
            if expected == ("refused", "TOO_EARLY") and outcome == "done":
                self.early += 1
            if sent.interface == SQL and "TOO_EARLY" in (said[1], expected[1]) and outcome == "refused":
                return []  # decided by the instant of its insert, a moment before what stands in its row
            return [f"{sent.request_id}: {sent.task} answered {said}, by the rules {expected}"]
        if verdict.possible_from and answer["possible_from"]:
            promised = datetime.fromisoformat(answer["possible_from"])
            if promised != verdict.possible_from:
                return [f"{sent.request_id}: possible from {promised}, by the rules from {verdict.possible_from}"]
        if outcome == "done":
            self._carry_out(sent, verdict, answer)
        return []

    def _verdict(self, sent: Sent, at: datetime) -> Answer | None:
        given = {k: v for k, v in sent.arguments.items() if k not in ("member_id", "staff")}
        who = sent.arguments.get("member_id")
        reference = self.reference
        if sent.task == "members.record":
            return Answer("done", do=lambda: reference.people.setdefault(who or "", Member()))
        if sent.task == "members.terminate":
            return reference.members_terminate(who or "", closed=True)
        if sent.task == "orders.cancel_many":
            return Answer("done")
        if sent.task == "orders.submit":
            wanted = [(line["lot_id"], line["quantity"]) for line in given["lines"]]
            return reference.orders_submit(given["order_id"], given["buyer_id"], given["seller_id"], at, wanted)
        if sent.task == "orders.add_batch":
            return reference.orders_add_batch(
                given["order_id"], at, [(line["lot_id"], line["quantity"]) for line in given["lines"]]
            )
        if sent.task == "orders.record_payment":
            return reference.orders_record_payment(given["order_id"], at, given["payment_status"])
        if sent.task == "removals.request":
            lines = {line["line_no"]: line["quantity"] for line in given["lines"]}
            return reference.removals_request(given["order_id"], who, at, lines)
        judge = getattr(reference, sent.task.replace(".", "_"))
        about = given.pop("removal_id", None) or given.pop("order_id")
        verdict: Answer = judge(about, who, at, **given)
        return verdict

    def _carry_out(self, sent: Sent, verdict: Answer, answer: dict[str, Any]) -> None:
        made = verdict.do()
        if isinstance(made, Removal):
            self.reference.removals[answer["effects"]["removal_id"]] = made
        if sent.task == "orders.submit":
            order = self.reference.orders[sent.arguments["order_id"]]
            self.reference.of_buyer[order.buyer][order.order_id] = order

    def postings(self) -> dict[int, list[Posting]]:
        found: dict[int, list[Posting]] = defaultdict(list)
        for posting in self.reference.ledger.postings:
            found[posting.order_id].append(posting)
        return found
