"""Replays every answered command on the reference model, in the order in which the database decided.

The commands come from the producers' record; the database contributes only the order and the time of each decision.
Answers and final states must agree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg import Connection

from stress.plan import (
    AUTOMATED,
    AUTOMATION,
    BROKER,
    EXCLUSIONS,
    FIRST_ORDER,
    FIRST_PAST_ORDER,
    LOTS_EACH,
    SELLERS,
    SILENCE,
    STRANGER,
    UNLOCK,
    UNLOCK_ANSWERED,
    lot_arguments,
    past_order_arguments,
)
from stress.reference_model.automation import UNITS
from stress.reference_model.market import Answer, Member, Order, Removal, Settings
from stress.reference_model.money import Posting
from stress.reference_model.orders import Reference
from stress.reference_model.stock import StockLot
from stress.sent_commands import Ledger, Sent

NEW_ANSWERS = """
    SELECT request_id, task, outcome, answer, answered_at FROM unwind.requests
    WHERE answered_at >= %s AND request_id LIKE 't-%%' ORDER BY answered_at, request_id COLLATE "C"
"""
NEW_EVENTS = """
    SELECT event_id, request_id, order_id, at, actor, type FROM unwind.events WHERE event_id > %s ORDER BY event_id
"""
HISTORY = "SELECT order_id, order_date FROM unwind.orders WHERE order_id < %s ORDER BY order_id"
AUTOMATIC_ACTS = {"npb.filed": "file", "orders.cancelled": "cancel", "ocr.declined": "decline"}
"""What automation did, by the event of it."""


class ReplayReference(Reference):
    """The reference model with an index of orders by buyer, because a run has thousands of orders."""

    def __init__(self, terms: Settings) -> None:
        super().__init__(terms)
        self.of_buyer: dict[str, dict[int, Order]] = defaultdict(dict)

    def _may_trade(self, buyer: str, seller: str) -> Answer | None:
        all_orders, self.orders = self.orders, self.of_buyer[buyer]
        try:
            return super()._may_trade(buyer, seller)
        finally:
            self.orders = all_orders


class Oracle:
    """Replays new answers each time the run is idle."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        short, long = timedelta(seconds=UNLOCK), timedelta(seconds=UNLOCK_ANSWERED)
        terms = Settings(
            limit=1000, file_after=timedelta(0), short=short, long=long, silence=("decline", timedelta(seconds=SILENCE))
        )
        self.reference = ReplayReference(terms)
        self.reference.people |= {member: Member() for member in (*SELLERS, AUTOMATED, STRANGER)}
        for seller, settings in (*((seller, EXCLUSIONS) for seller in SELLERS), (AUTOMATED, AUTOMATION)):
            values = {name: settings[name] for name in UNITS if name in settings}
            self.reference.sellers_set_automation(seller, values, settings["exclude_buyers"]).do()
        self._automatic: list[tuple[datetime, int, str]] = []
        """When automation did what with which order, oldest first, as far as it is not replayed."""
        self.automatic: Counter[str] = Counter()
        for seller in (*SELLERS, AUTOMATED):
            for number in range(LOTS_EACH):
                self._stock(lot_arguments(seller, number))
        self.judged: dict[str, tuple[datetime, Sent]] = {}
        """Every answered request, in the order of the decisions, with its instant."""
        self._since = datetime(2000, 1, 1, tzinfo=UTC)
        self._last_event = 0
        self._event_at: dict[str, datetime] = {}
        self._happened: dict[int, list[datetime]] = defaultdict(list)
        self.early = 0

    def replay_history(self, conn: Connection[Any]) -> None:
        """Buy and hold the orders of the history, at the times at which they were bought."""
        for order_id, bought_at in conn.execute(HISTORY, [FIRST_ORDER]).fetchall():
            arguments = past_order_arguments(order_id - FIRST_PAST_ORDER)
            buyer, lines = arguments["buyer_id"], arguments["lines"]
            self.reference.people[buyer] = Member()
            requested = [(line["lot_id"], line["quantity"]) for line in lines]
            self.reference.orders_submit(order_id, buyer, AUTOMATED, bought_at, requested).do()
            self.reference.orders_hold_automation(order_id, None, bought_at, "-").do()
            self.reference.of_buyer[buyer][order_id] = self.reference.orders[order_id]

    def _stock(self, lot_arguments: dict[str, Any]) -> None:
        item = (lot_arguments["item"]["no"], lot_arguments["color_id"], lot_arguments["new_or_used"])
        self.reference.stock.lots[lot_arguments["lot_id"]] = StockLot(
            lot_arguments["lot_id"],
            lot_arguments["seller_id"],
            item,
            lot_arguments["quantity"],
            Decimal(lot_arguments["unit_price"]),
        )

    def judge(self, conn: Connection[Any]) -> list[str]:
        """Replay the answers since the last call; return a sentence for each violation."""
        if not self.reference.orders:
            self.replay_history(conn)
        for event_id, request_id, order_id, at, actor, event_type in conn.execute(NEW_EVENTS, [self._last_event]):
            self._last_event = event_id
            if request_id is not None:
                self._event_at.setdefault(request_id, at)
            if order_id is not None:
                self._happened[order_id].append(at)
            if actor == "automation":
                self._automatic.append((at, order_id, AUTOMATIC_ACTS[event_type]))
        self._automatic.sort()
        violations = []
        for request_id, task, outcome, answer, answered_at in conn.execute(NEW_ANSWERS, [self._since]).fetchall():
            self._since = answered_at
            if request_id in self.judged:
                continue
            sent = self._ledger.sent.get(request_id)
            if sent is None or sent.task != task:
                violations.append(f"{request_id}: {task} was answered without having been sent")
                continue
            violations += self._follow_automation(until=answered_at)
            at = self._instant(sent, answered_at)
            self.judged[request_id] = (at, sent)
            violations += self._compare(sent, at, outcome, answer)
        return violations + self._follow_automation()

    def _follow_automation(self, until: datetime | None = None) -> list[str]:
        """Replay what automation did up to a time (R115 to R118, R121, R123)."""
        violations = []
        while self._automatic and (until is None or self._automatic[0][0] < until):
            at, order_id, act = self._automatic.pop(0)
            verdict = self.reference.act_automatically(order_id, act, at)
            if verdict is None:
                violations.append(f"order {order_id}: automation did {act} at {at}, by the rules that is not due")
                continue
            verdict.do()
            self.automatic[act] += 1
        return violations

    def _instant(self, sent: Sent, answered_at: datetime) -> datetime:
        """Return the time of the command's event; a command refused by SQL counts from its insert."""
        return self._event_at.get(sent.request_id, answered_at)

    def _compare(self, sent: Sent, at: datetime, outcome: str, answer: dict[str, Any]) -> list[str]:
        verdict = self._verdict(sent, at)
        if verdict is None:
            return []
        answered = (outcome, answer["code"])
        expected = (verdict.outcome, verdict.code)
        if answered != expected:
            if expected == ("refused", "TOO_EARLY") and outcome == "done":
                self.early += 1
            if sent.interface != BROKER and "TOO_EARLY" in (answered[1], expected[1]) and outcome == "refused":
                return []  # decided by the time of its insert, slightly before the time in its row
            return [f"{sent.request_id}: {sent.task} answered {answered}, by the rules {expected}"]
        if verdict.possible_from and answer["possible_from"]:
            possible_from = datetime.fromisoformat(answer["possible_from"])
            if possible_from != verdict.possible_from:
                return [f"{sent.request_id}: possible from {possible_from}, by the rules from {verdict.possible_from}"]
        if outcome == "done":
            self._apply(sent, verdict, answer)
        return []

    def _verdict(self, sent: Sent, at: datetime) -> Answer | None:
        arguments = {k: v for k, v in sent.arguments.items() if k not in ("member_id", "staff")}
        member_id = sent.arguments.get("member_id")
        reference = self.reference
        if sent.task == "members.record":
            return Answer("done", do=lambda: reference.people.setdefault(member_id or "", Member()))
        if sent.task == "members.terminate":
            return reference.members_terminate(member_id or "", closed=True)
        if sent.task == "orders.cancel_many":
            return Answer("done")
        if sent.task == "orders.submit":
            requested = [(line["lot_id"], line["quantity"]) for line in arguments["lines"]]
            return reference.orders_submit(
                arguments["order_id"], arguments["buyer_id"], arguments["seller_id"], at, requested
            )
        if sent.task == "orders.add_batch":
            return reference.orders_add_batch(
                arguments["order_id"], at, [(line["lot_id"], line["quantity"]) for line in arguments["lines"]]
            )
        if sent.task == "orders.record_payment":
            return reference.orders_record_payment(arguments["order_id"], at, arguments["payment_status"])
        if sent.task == "removals.request":
            lines = {line["line_no"]: line["quantity"] for line in arguments["lines"]}
            return reference.removals_request(arguments["order_id"], member_id, at, lines)
        judge = getattr(reference, sent.task.replace(".", "_"))
        about = arguments.pop("removal_id", None) or arguments.pop("order_id")
        verdict: Answer = judge(about, member_id, at, **arguments)
        return verdict

    def _apply(self, sent: Sent, verdict: Answer, answer: dict[str, Any]) -> None:
        change = verdict.do()
        if isinstance(change, Removal):
            self.reference.removals[answer["effects"]["removal_id"]] = change
        if sent.task == "orders.submit":
            order = self.reference.orders[sent.arguments["order_id"]]
            self.reference.of_buyer[order.buyer][order.order_id] = order

    def postings(self) -> dict[int, list[Posting]]:
        postings: dict[int, list[Posting]] = defaultdict(list)
        for posting in self.reference.ledger.postings:
            postings[posting.order_id].append(posting)
        return postings
