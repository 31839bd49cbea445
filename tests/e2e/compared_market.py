"""A market whose every answer and state is compared with the reference model of `stress/reference_model`.

At its end units and cents are conserved, and folding an order's events yields its row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from operator import attrgetter
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, invariant

from models.alerts import AlertRow
from models.events import EventRow
from models.late_payments import LatePaymentRow
from models.members import MemberRow
from models.ocr import OcrRow
from models.orders import OrderLineRow, OrderRow
from models.outbox import OutboxRow
from models.removals import RemovalRow
from stress.reference_model.market import INVALID, Answer, Removal, clear_unlock_mark
from stress.reference_model.money import billing_month, issued_at, next_month
from stress.reference_model.orders import Reference
from tests.e2e.history_checks import order_histories, units_out_of_balance
from tests.plugins.stored_rows import ConnectedRows, describe
from tests.whatif import list_differences_without_a_reason
from workers import show_queries
from workers.simulation.engine import Simulation

DatabaseMaker = Callable[[], AbstractContextManager[str]]
NEVER = datetime.max.replace(tzinfo=UTC)
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
SELLERS, BUYERS = ("anna", "ben"), ("cleo", "dan")
AUTOMATIC_ACTS = {"npb.filed": "file", "orders.cancelled": "cancel", "ocr.declined": "decline"}
"""What automation did, by the event of it."""
ANNOUNCED_ACTS = {"npb.file": "file", "orders.cancel": "cancel", "ocr.decline": "decline"}


def write_instant(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def parse_instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def fee_month(order: OrderRow) -> str | None:
    return None if order.fee_month is None else f"{order.fee_month:%Y-%m}"


class ComparedMarket(RuleBasedStateMachine):
    make_database: DatabaseMaker
    checks_replay: bool
    book: Reference

    def __init__(self) -> None:
        super().__init__()
        self._database = self.make_database()
        url = self._database.__enter__()
        self.simulation = Simulation(url)
        self.simulation.__enter__()
        self.stored_rows = ConnectedRows(url)
        self.numbers = itertools.count(1)
        self.log: list[str] = []
        self.last: tuple[str, dict[str, Any], str, dict[str, Any]] | None = None
        self.last_automatic = 0

    def teardown(self) -> None:
        try:
            if hasattr(self, "book"):
                self.check_end()
        finally:
            self.stored_rows.close()
            self.simulation.__exit__(None, None, None)
            self._database.__exit__(None, None, None)

    @property
    def now(self) -> datetime:
        return self.simulation.clock.instant

    def do(self, task: str, **arguments: Any) -> dict[str, Any]:
        request_id = f"h-{next(self.numbers)}"
        answer = self.simulation.execute(task, arguments, request_id)
        self.simulation.process_outbox()
        if not arguments.get("dry_run"):
            self.last = (task, arguments, request_id, answer)
        self.log.append(f"{self.now.isoformat()} {task} {arguments} -> {answer['outcome']} {answer['code']}")
        return answer

    def expected(self, task: str, arguments: dict[str, Any]) -> Answer:
        remaining = {k: v for k, v in arguments.items() if k not in ("occurred_at", "member_id", "staff")}
        at = parse_instant(arguments["occurred_at"]) if "occurred_at" in arguments else self.now
        order_id = remaining.pop("order_id", None)
        taking = self.book.removals.get(remaining.get("removal_id", 0))
        subject = self.book.orders.get(order_id or (taking.order_id if taking else 0))
        member = arguments.get("member_id")
        if "occurred_at" in arguments and subject is not None and (member is None or member in self.book.people):
            known = self.stored_rows.stored_order(subject.order_id).last_event_at
            if at > self.now or at < self.now - DAY or at < known:
                return INVALID
        judge = getattr(self.book, task.replace(".", "_"))
        if "lines" in remaining and task.startswith("removals"):
            remaining["lines"] = {line["line_no"]: line["quantity"] for line in remaining["lines"]}
            remaining["returns"] = remaining.pop("return_items", None)
        elif task == "removals.approve":
            remaining["returns"] = remaining.pop("return_items", None)
        if "removal_id" in remaining:
            verdict = judge(remaining.pop("removal_id"), member, at, **remaining)
        else:
            verdict = judge(order_id, member, at, **remaining)
        assert isinstance(verdict, Answer)
        return verdict

    def check_answer(self, answer: dict[str, Any], expected: Answer, context: object) -> None:
        possible_from = parse_instant(answer["possible_from"]) if answer["possible_from"] else None
        got = (answer["outcome"], answer["code"], possible_from)
        assert got == (expected.outcome, expected.code, expected.possible_from), self.story(context, answer)

    def story(self, *more: object) -> str:
        return "\n".join([*self.log[-25:], *map(describe, more)])

    def act(self, task: str, **arguments: Any) -> None:
        announced_option = self.announced_option(task, arguments)
        expected = self.expected(task, arguments)
        foreseen = None
        if task == "orders.cancel" and expected.outcome == "done":
            foreseen = self.do(task, **arguments, dry_run=True)
        answer = self.do(task, **arguments)
        self.check_answer(answer, expected, (task, arguments))
        if announced_option is not None and "occurred_at" not in arguments:
            self.check_announcement(announced_option, task, arguments, answer)
        if expected.outcome != "done":
            return
        change = expected.do()
        if (subject := self.book.orders.get(answer["order_id"] or 0)) is not None:
            clear_unlock_mark(
                subject, parse_instant(arguments["occurred_at"]) if "occurred_at" in arguments else self.now
            )
        if foreseen is not None:
            assert foreseen["effects"] == answer["effects"], self.story(foreseen["effects"], answer["effects"])
            self.check_cancellation(answer)
        if isinstance(change, Removal):
            self.book.removals[answer["effects"]["removal_id"]] = change

    def announced_option(self, task: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
        taking = self.book.removals.get(arguments.get("removal_id", 0))
        order = self.book.orders.get(arguments.get("order_id", taking.order_id if taking else 0))
        member = arguments.get("member_id")
        if order is None or member is None or self.book.role(order, member) is None:
            return None
        answer = self.simulation.do("orders.options", order_id=order.order_id, member_id=member)
        assert answer["outcome"] == "done", answer
        announced = {ANNOUNCED_ACTS[act["act"]]: parse_instant(act["at"]) for act in answer["effects"]["automation"]}
        assert announced == self.book.automatic_acts(order.order_id), self.story(announced)
        for option in answer["effects"]["options"]:
            candidate: dict[str, Any] = option
            if option["action"] == task and option.get("removal_id") == arguments.get("removal_id"):
                return candidate
        return None

    def check_announcement(
        self, announced_option: dict[str, Any], task: str, arguments: dict[str, Any], answer: dict[str, Any]
    ) -> None:
        about_arguments = ("COMMENT_REQUIRED", "REASON_NOT_VALID", "REASON_OF_OTHER_PARTY", "REASON_UNKNOWN")
        if answer["code"] in about_arguments or answer["outcome"] == "invalid":
            return
        if task in ("orders.set_status", "removals.request"):  # the status or the number of units decides too
            if answer["outcome"] == "done":
                assert announced_option["possible"], self.story(announced_option)
            if task == "orders.set_status" and announced_option["possible"]:
                assert (arguments["status"] in announced_option["values"]) == (answer["outcome"] == "done"), self.story(
                    announced_option
                )
            return
        got = (announced_option["possible"], announced_option["code"], announced_option["possible_from"])
        assert got == (answer["outcome"] == "done", answer["code"], answer["possible_from"]), self.story(
            announced_option
        )

    def check_cancellation(self, answer: dict[str, Any]) -> None:
        order = self.book.orders[answer["order_id"]]
        effects = answer["effects"]
        assert effects["basis"] == order.basis, self.story(effects)
        got = {line["line_no"]: line["returned"] for line in effects["lines"]}
        assert got == {number: line.returned for number, line in order.lines.items()}, self.story(effects)
        posted = [
            p for p in self.book.ledger.postings if p.order_id == order.order_id and p.kind in ("reset", "credit")
        ]
        kinds = ("none",) if order.basis in ("NRS", "NSS") else ("reset", "credit")
        assert effects["fee"]["kind"] in kinds, self.story(effects)
        if posted:
            fee = {"kind": posted[0].kind, "amount": str(posted[0].amount), "bill": posted[0].month}
            assert effects["fee"] == fee, self.story(effects)

    def sweep(self, to: datetime) -> None:
        started = self.now
        self.simulation.advance(to)
        self.follow_automation(started)
        self.book.scan(started, to)
        acts = {order_id: self.book.automatic_acts(order_id) for order_id in self.book.orders}
        left = {order_id: due for order_id, due in acts.items() if min(due.values(), default=NEVER) <= to}
        assert not left, self.story("automation left undone", left)

    def follow_automation(self, started: datetime) -> None:
        """Do in the reference model what automation did since `started`, each at its time or then if it was late."""
        events = self.stored_rows.events(EventRow.event_id > self.last_automatic, actor="automation")
        for event in sorted(events, key=attrgetter("event_id")):
            assert event.order_id is not None
            self.last_automatic = event.event_id
            self.log.append(f"{event.at.isoformat()} automation {event.type} order {event.order_id}")
            self.book.scan(started, event.at)
            act = AUTOMATIC_ACTS[event.type]
            due = self.book.automatic_acts(event.order_id).get(act)
            verdict = self.book.act_automatically(event.order_id, act, event.at)
            assert verdict is not None, self.story("is not due", due)
            assert due is not None
            assert event.at == max(due, started), self.story("was due", due)
            assert verdict.outcome == "done", self.story(verdict)
            order = self.book.orders[event.order_id]
            by_alert = act == "cancel" and order.open_alert
            verdict.do()
            if by_alert and order.alert is not None and due < started:
                alert = self.stored_rows.stored_one(AlertRow, order_id=event.order_id, state="completed")
                if alert.unlocked_at is None:
                    order.alert.unlocked = None  # a late sweep cancels what no other has unlocked yet

    @invariant()
    def states_match(self) -> None:
        if not hasattr(self, "book"):
            return
        self.follow_automation(self.now)
        self.check_orders()
        self.check_alerts()
        self.check_lots()
        people = {
            m.member_id: (m.terminated_at is not None, m.buying_revoked_at is None, m.selling_suspended_at is None)
            for m in self.stored_rows.stored(MemberRow)
        }
        expected = {name: (p.terminated, p.can_buy, p.can_sell) for name, p in self.book.people.items()}
        assert people == expected, self.story(people, expected)
        states = {r.removal_id: r.state for r in self.stored_rows.stored(RemovalRow)}
        assert states == {number: removal.state for number, removal in self.book.removals.items()}, self.story(states)
        posted = sorted(
            (line.order_id, f"{line.billing_month:%Y-%m}", line.kind, line.amount)
            for line in self.stored_rows.ledger_lines()
        )
        meant = sorted((p.order_id, p.month, p.kind, p.amount) for p in self.book.ledger.postings)
        assert posted == meant, self.story(posted, meant)

    def check_orders(self) -> None:
        actual = {
            o.order_id: (o.status, o.payment_status, o.order_date, o.fee, fee_month(o), o.basis, o.total)
            for o in self.stored_rows.stored(OrderRow)
        }
        expected = {
            o.order_id: (o.status, o.payment, o.date, o.fee, o.fee_month, o.basis, o.total)
            for o in self.book.orders.values()
        }
        assert actual == expected, self.story(actual, expected)
        lines = {
            (r.order_id, r.line_no): (r.quantity, r.unit_price, r.removed)
            for r in self.stored_rows.stored(OrderLineRow)
        }
        expected_lines = {
            (o.order_id, number): (line.quantity, line.price, line.removed)
            for o in self.book.orders.values()
            for number, line in o.lines.items()
        }
        assert lines == expected_lines, self.story(lines, expected_lines)
        late = [
            (r.order_id, f"{r.payment_status} {'settled' if r.settled_at else 'open'}")
            for r in sorted(self.stored_rows.stored(LatePaymentRow), key=attrgetter("order_id", "late_payment_id"))
        ]
        owed = [(o.order_id, str(payment)) for _, o in sorted(self.book.orders.items()) for payment in o.late]
        assert late == owed, self.story(late, owed)

    def check_alerts(self) -> None:
        latest = {alert.order_id: alert for alert in self.stored_rows.alerts()}
        actual = {
            order_id: (
                alert.kind,
                alert.state,
                alert.filed_at,
                alert.responded_at,
                alert.unlocks_at if alert.state == "open" else None,
                alert.unlocked_at,
            )
            for order_id, alert in latest.items()
        }
        expected = {
            o.order_id: (
                o.alert.kind,
                o.alert.state,
                o.alert.filed,
                o.alert.responded,
                o.alert.unlocks() if o.open_alert else None,
                o.alert.unlocked,
            )
            for o in self.book.orders.values()
            if o.alert
        }
        assert actual == expected, self.story(actual, expected)
        requests = {ocr.order_id: (ocr.filed_by, ocr.state) for ocr in self.stored_rows.stored(OcrRow)}  # the latest
        expected_requests = {o.order_id: (o.ocr.by, o.ocr.state) for o in self.book.orders.values() if o.ocr}
        assert requests == expected_requests, self.story(requests, expected_requests)

    def check_lots(self) -> None:
        rows = {lot.lot_id: lot for lot in self.stored_rows.lots()}
        expected_lots = self.book.stock.lots
        unnamed = sorted(lot_id for lot_id in rows if lot_id not in expected_lots)
        for provisional in sorted((n for n in expected_lots if n < 0), reverse=True):  # -1 is older than -2
            candidates = [
                n
                for n in unnamed
                if (rows[n].item_no, rows[n].color_id, rows[n].new_or_used) == expected_lots[provisional].item
                and (rows[n].seller_id, rows[n].quantity)
                == (expected_lots[provisional].seller, expected_lots[provisional].quantity)
            ]
            assert candidates, self.story("no new lot like", expected_lots[provisional], [*rows.values()])
            unnamed.remove(candidates[0])
            self.book.stock.renumber(provisional, candidates[0])
        actual = {
            n: (
                r.seller_id,
                r.quantity,
                r.unit_price,
                r.stock_room_id if r.is_stock_room else None,
                r.reserved_for,
                r.bind_id,
            )
            for n, r in rows.items()
        }
        expected = {
            n: (x.seller, x.quantity, x.price, x.room, x.reserved_for, x.bind) for n, x in expected_lots.items()
        }
        assert actual == expected, self.story(actual, expected)

    def check_end(self) -> None:
        self.sweep(issued_at(billing_month(self.now)) + HOUR)
        self.states_match()
        assert units_out_of_balance(self.stored_rows) == {}, self.story()
        self.check_bills()
        self.check_events()
        assert not self.stored_rows.outbox(OutboxRow.state != "done"), self.story("outbox messages are left")
        assert not self.stored_rows.dead_jobs(), self.story("jobs died")
        if self.checks_replay:
            with self.simulation.database.transaction() as conn:
                differing = list_differences_without_a_reason(conn)
            assert not differing, self.story(differing)

    def check_bills(self) -> None:
        for seller in SELLERS:
            month = min(
                (p.month for p in self.book.ledger.postings if p.seller == seller), default=billing_month(self.now)
            )
            while month <= billing_month(self.now):
                with self.simulation.database.transaction() as conn:
                    bill = show_queries.parse_query(["bill", seller, month]).read(conn, self.now)
                sums = {name: Decimal(bill[name]) for name in ("opening_credit", "total", "carried_forward")}
                assert sums == self.book.ledger.bill(seller, month), self.story(bill)
                lines = sorted((x["kind"], x["order_id"], Decimal(x["amount"])) for x in bill["lines"])
                assert lines == self.book.ledger.listed_lines(seller, month), self.story(bill)
                if issued_at(month) <= self.now:
                    assert bill["state"] in (("paid",) if bill["total"] == "0.00" else ("issued", "past_due")), bill
                month = next_month(month)

    def check_events(self) -> None:
        histories = order_histories(self.stored_rows)
        for row in self.stored_rows.stored(OrderRow):
            events, last_seq = histories[row.order_id]
            assert [e.seq for e in events] == list(range(1, last_seq + 1)), self.story(events)
            times = [e.at for e in events if not e.type.endswith(".unlocked")]  # an act in time may overtake an unlock
            assert times == sorted(times), self.story(events)
            replayed: dict[str, Any] = {}
            status = None
            for event in events:
                replayed |= event.changes.get("order", {})
                assert event.from_status == status, self.story(events)
                status = event.to_status
            assert status == row.status
            held = {
                "status": row.status,
                "payment_status": row.payment_status,
                "previous_status": row.previous_status,
                "basis": row.basis,
                "cancelled_by": row.cancelled_by,
                "fee_month": fee_month(row),
            }
            assert {name: replayed.get(name) for name in held} == held, self.story(replayed, held)
            assert (Decimal(replayed["fee"]), Decimal(replayed["total"])) == (row.fee, row.total), self.story(replayed)
            assert parse_instant(replayed["order_date"]) == row.order_date, self.story(replayed)
            final = [e for e in events if e.to_status == "CANCELLED" and e.from_status != "CANCELLED"]
            assert len(final) == (row.status == "CANCELLED"), self.story(events)
