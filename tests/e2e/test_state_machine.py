"""Property tests: random histories on a real database against the reference model of `stress/reference_model`.

After every step both must give the same answer and have the same state.  At the end units and cents are conserved, and
folding an order's events yields its row.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from psycopg.rows import namedtuple_row

from stress.reference_model.market import (
    ALERT_STATUSES,
    FLOW,
    INVALID,
    NO_REASONS,
    REASONS,
    Answer,
    Member,
    Order,
    Removal,
    Settings,
    clear_unlock_mark,
)
from stress.reference_model.money import billing_month, issued_at, next_month
from stress.reference_model.orders import Reference
from stress.reference_model.stock import StockLot
from tests.plugins.servers import fresh_database, libpq_url
from tests.whatif import list_differences_without_a_reason
from workers import show_queries
from workers.embedded import ServerUrls
from workers.simulation.engine import Simulation

DatabaseMaker = Callable[[], AbstractContextManager[str]]

T = TypeVar("T")
SEEDS = st.integers(0, 2**64 - 1)
NEVER = datetime.max.replace(tzinfo=UTC)
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
BEGINNINGS = (
    datetime(2026, 3, 1, 4, 30, tzinfo=UTC),  # 28 February in the billing zone, and its clocks change on 8 March
    datetime(2026, 3, 28, 10, tzinfo=UTC),  # the days of the worked examples
    datetime(2026, 10, 27, 12, tzinfo=UTC),  # clocks go back on 1 November
    datetime(2026, 12, 26, 23, 59, 59, tzinfo=UTC),  # over the end of a year
    datetime(2028, 2, 24, tzinfo=UTC),  # over a leap day
)
SELLERS, BUYERS = ("anna", "ben"), ("cleo", "dan")
MEMBERS = (*SELLERS, *BUYERS)
ITEMS = (("3001", 5, "N"), ("3001", 5, "U"), ("", 0, "N"))
STATUSES = (*FLOW, "OCR", *ALERT_STATUSES, "CANCELLED")
PAYMENTS = ("None", "Pending", "Sent", "Received", "Completed")
COMMENTS = ("We spoke about it.", "It is this and nothing else.", " ", "\t\n")
PARTY_TASKS = (
    "ocr.file", "ocr.decline", "ocr.withdraw", "npb.file", "npb.respond", "npb.accept_penalty", "npb.take_back",
    "npb.remove", "nrs.file", "nrs.respond", "nrs.remove", "nss.file", "nss.respond", "nss.remove", "orders.cancel",
    "orders.set_status", "orders.settle_late_payment", "npb.extend", "orders.hold_automation",
    "orders.release_automation",
)  # fmt: skip
OPTIONAL_COMMENT = ("npb.file", "npb.remove", "nrs.remove", "nss.remove", "orders.cancel")
NEEDS_COMMENT = (
    "ocr.file", "npb.respond", "nrs.file", "nrs.respond", "nss.file", "nss.respond", "orders.settle_late_payment",
    "npb.extend", "orders.hold_automation", "orders.release_automation",
)  # fmt: skip
AUTOMATIC_ACTS = {"npb.filed": "file", "orders.cancelled": "cancel", "ocr.declined": "decline"}
"""What automation did, by the event of it."""
ANNOUNCED_ACTS = {"npb.file": "file", "orders.cancel": "cancel", "ocr.decline": "decline"}
CLOSED = ("removals.approve", "removals.deny", "removals.withdraw")


def random_settings(choices: Choices) -> Settings:
    short = choices.of((7, 7, 3))
    return Settings(
        relock=choices.yes(),
        limit=choices.of((2, 3)),
        release=choices.yes(),
        file_after=choices.of((7, 7, 1)) * DAY,
        short=short * DAY,
        long=2 * short * DAY,
        silence=choices.of((None, None, ("decline", 3 * DAY), ("cancel", 5 * DAY))),
    )


def write_instant(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def parse_instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


class Choices:
    def __init__(self, seed: int, step: int) -> None:
        self._random = random.Random(f"{seed}/{step}")

    def of(self, choices: Iterable[T]) -> T:
        return self._random.choice(tuple(choices))

    def number(self, lower: int, upper: int) -> int:
        return self._random.randint(lower, upper)

    def yes(self) -> bool:
        return self._random.random() < 0.5


class Histories(RuleBasedStateMachine):
    make_database: DatabaseMaker
    checks_replay: bool

    def __init__(self) -> None:
        super().__init__()
        self._database = self.make_database()
        url = self._database.__enter__()
        self.simulation = Simulation(url)
        self.simulation.__enter__()
        # Eight queries after every step take most of the time: a plain connection is the fastest.
        self.observer = psycopg.connect(libpq_url(url), autocommit=True, row_factory=namedtuple_row)
        self.numbers = itertools.count(1)
        self.log: list[str] = []
        self.last: tuple[str, dict[str, Any], str, dict[str, Any]] | None = None
        self.last_automatic = 0

    def teardown(self) -> None:
        try:
            if hasattr(self, "book"):
                self.check_end()
        finally:
            self.observer.close()
            self.simulation.__exit__(None, None, None)
            self._database.__exit__(None, None, None)

    # ------------------------------------------------------------------------------------------------- steps
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
            known = self.last_event(subject.order_id)
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

    def last_event(self, order_id: int) -> datetime:
        (row,) = self.rows("SELECT last_event_at FROM unwind.orders WHERE order_id = %(id)s", id=order_id)
        value: datetime = row.last_event_at
        return value

    def rows(self, sql: str, **values: Any) -> list[Any]:
        return self.observer.execute(sql, values).fetchall()

    def check_answer(self, answer: dict[str, Any], expected: Answer, context: object) -> None:
        possible_from = parse_instant(answer["possible_from"]) if answer["possible_from"] else None
        got = (answer["outcome"], answer["code"], possible_from)
        assert got == (expected.outcome, expected.code, expected.possible_from), self.story(context, answer)

    def story(self, *more: object) -> str:
        return "\n".join([*self.log[-25:], *map(str, more)])

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

    # ------------------------------------------------------------------------------------------------- rules
    @initialize(seed=SEEDS)
    def start_market(self, seed: int) -> None:
        choices = Choices(seed, 0)
        begins, terms = choices.of(BEGINNINGS), random_settings(choices)
        self.simulation.clock.instant = begins
        self.book = Reference(terms)
        self.apply_terms(terms)
        for member in (*MEMBERS, "eve"):
            self.do("members.record", member_id=member, handle=member, email=f"{member}@example.org")
            self.book.people[member] = Member()
        for seller in SELLERS:
            for _ in range(3):
                self.record_lot(choices, seller)
        for _ in range(choices.number(0, 2)):
            self.set_automation(choices)
        self.submit_order(choices)

    def apply_terms(self, terms: Settings) -> None:
        chosen = {
            "NPB_LATE_RESPONSE": "relock" if terms.relock else "sticky",
            "STRIKE_LIMIT": terms.limit,
            "RELEASE_AUTO_STOCKROOM": terms.release,
            "NPB_FILE_AFTER": f"{terms.file_after.days}d",
            "SELLER_ALERT_FILE_AFTER": f"{terms.file_after.days}d",
            "NPB_UNLOCK_NO_RESPONSE": f"{terms.short.days}d",
            "NPB_UNLOCK_RESPONSE": f"{terms.long.days}d",
            "SELLER_ALERT_UNLOCK": f"{terms.long.days}d",
            "OCR_SILENCE": self.write_silence(terms),
        }
        begins = write_instant(self.now)
        answer = self.do("terms.apply", terms=chosen, staff="kim", **{"from": begins})
        assert answer["outcome"] == "done", answer
        self.book.apply_terms(terms, self.now)

    def write_silence(self, terms: Settings) -> Any:
        if terms.silence is None:
            return "none"
        act, after = terms.silence
        return {"agree_after" if act == "cancel" else "decline_after": f"{after.days}d"}

    def set_automation(self, choices: Choices) -> None:
        seller = choices.of((*SELLERS, *SELLERS, *SELLERS, "nobody"))
        values: dict[str, Any] = {}
        if choices.yes():
            values["file_npb_after"] = choices.of((None, 7, 8))
        if choices.yes():
            values["cancel_after_unlock"] = choices.of((None, 0, 2))
        if choices.yes():
            values["agree_to_requests_within"] = choices.of((None, 0, 48))
        excluded = choices.of((None, None, [], ["cleo"], ["cleo", "anna"]))
        expected = self.book.sellers_set_automation(seller, values, excluded)
        named = values if excluded is None else values | {"exclude_buyers": excluded}
        answer = self.do("sellers.set_automation", member_id=seller, **named)
        self.check_answer(answer, expected, ("sellers.set_automation", seller, named))
        expected.do()

    def act_rarely(self, choices: Choices) -> None:
        kind = choices.of(("stock", "terms", "standing", "several", "again", "automation"))
        if kind == "stock":
            (self.record_lot if choices.yes() else self.delete_lot)(choices, choices.of(SELLERS))
        elif kind == "terms":
            self.apply_terms(random_settings(choices))
        elif kind == "standing":
            member = choices.of((*MEMBERS, "nobody"))
            self.set_account_state(member, closed=choices.of((True, False, False)))
        elif kind == "several":
            self.cancel_many(choices)
        elif kind == "automation":
            self.set_automation(choices)
        elif self.last is not None:
            self.repeat_last_command()

    def cancel_many(self, choices: Choices) -> None:
        chosen = [choices.of([*sorted(self.book.orders), 4711]) for _ in range(choices.number(2, 4))]
        items = []
        for order_id in chosen:
            order = self.book.orders.get(order_id)
            member = choices.of([order.seller, order.seller, order.buyer] if order else ["anna"])
            items.append({"order_id": order_id, "member_id": member})
        bulk_answer = self.do("orders.cancel_many", orders=items)
        assert bulk_answer["outcome"] == "done", bulk_answer
        for item, answer in zip(items, bulk_answer["effects"]["answers"], strict=True):
            expected = self.expected("orders.cancel", item)
            self.check_answer(answer, expected, ("orders.cancel_many", item))
            if expected.outcome == "done":
                expected.do()
                self.check_cancellation(answer)

    def record_lot(self, choices: Choices, seller: str) -> None:
        lot_id = choices.number(1, 6) + (100 if seller == "ben" else 0)
        stockroom = choices.of((None, None, None, "B"))
        lot = StockLot(
            lot_id,
            seller,
            choices.of(ITEMS),
            choices.number(1, 24),
            choices.of((Decimal("0.0833"), Decimal("12.5000"), Decimal("99.9900"), Decimal("0.0100"))),
            bulk=choices.of((1, 1, 2)),
            sale=choices.of((0, 0, 33)),
            retain=choices.yes(),
            room=stockroom,
            reserved_for=None if stockroom else choices.of((None, None, None, "cleo")),
            bind=choices.of((0, 0, 0, 7)),
        )
        if choices.yes():
            lot.tier = (4, (lot.price / 2).quantize(Decimal("0.0001")))
        known = self.book.stock.lots.get(lot_id)
        lot.put_away_by_sale = bool(known and known.put_away_by_sale and lot.room == known.room)
        answer = self.do("inventory.record_lot", lot=lot_json(lot))
        assert answer["outcome"] == "done", answer
        self.book.stock.lots[lot_id] = lot

    def delete_lot(self, choices: Choices, seller: str) -> None:
        lot_id = choices.of([*sorted(self.book.stock.lots), 77])
        expected = self.book.inventory_delete_lot(lot_id, seller)
        answer = self.do("inventory.delete_lot", lot_id=lot_id, seller_id=seller)
        self.check_answer(answer, expected, ("inventory.delete_lot", lot_id, seller))
        expected.do()

    def submit_order(self, choices: Choices) -> None:
        buyer = choices.of((*BUYERS, *BUYERS, "anna", "nobody"))
        seller = choices.of(SELLERS)
        order_id = choices.of([len(self.book.orders) + 1] * 5 + [1])
        rate = choices.of(("1", "1", "1.0832"))
        chosen_lines = self.choose_lines(choices, buyer, seller)
        expected = self.book.orders_submit(order_id, buyer, seller, self.now, chosen_lines, Decimal(rate))
        lines = [{"lot_id": lot_id, "quantity": units} for lot_id, units in chosen_lines]
        currency = {"currency": "EUR", "usd_rate": rate} if rate != "1" else {}
        answer = self.do("orders.submit", order_id=order_id, buyer_id=buyer, seller_id=seller, lines=lines, **currency)
        self.check_answer(answer, expected, ("orders.submit", chosen_lines))
        expected.do()

    def choose_lines(self, choices: Choices, buyer: str, seller: str) -> list[tuple[int, int]]:
        lots = self.book.stock.lots
        good = sorted(
            x.lot_id
            for x in lots.values()
            if x.seller == seller and x.room is None and x.reserved_for in (None, buyer) and x.quantity
        )
        ids = choices.of([good or [77]] * 9 + [[*sorted(lots), 77]])
        chosen = []
        for _ in range(choices.number(1, 2)):
            lot_id = choices.of(ids)
            available = lots[lot_id].quantity if lot_id in lots else 1
            chosen.append(
                (lot_id, choices.of(sorted({1, 2, 4, max(1, available - 2), max(1, available), available + 2})))
            )
        return chosen

    def add_batch(self, choices: Choices) -> None:
        order = self.book.orders[choices.of(sorted(self.book.orders))]
        chosen_lines = self.choose_lines(choices, order.buyer, order.seller)
        expected = self.book.orders_add_batch(order.order_id, self.now, chosen_lines)
        lines = [{"lot_id": lot_id, "quantity": units} for lot_id, units in chosen_lines]
        answer = self.do("orders.add_batch", order_id=order.order_id, lines=lines)
        self.check_answer(answer, expected, ("orders.add_batch", chosen_lines))
        expected.do()

    def record_payment(self, choices: Choices, payment: str) -> None:
        order_id = choices.of(sorted(self.book.orders))
        expected = self.book.orders_record_payment(order_id, self.now, payment)
        answer = self.do("orders.record_payment", order_id=order_id, payment_status=payment)
        self.check_answer(answer, expected, ("orders.record_payment", payment))
        expected.do()

    @rule(seed=SEEDS)
    def step(self, seed: int) -> None:
        choices = Choices(seed, len(self.log))
        live = sum(o.status != "CANCELLED" for o in self.book.orders.values())
        steps = [self.act_validly] * 6 + [self.advance_with_sweeps] * 3 + [self.act_randomly] * 2
        steps += [self.advance_without_sweeps, self.act_rarely, self.pay_or_add_batch]
        choices.of(steps if live > 1 else [self.submit_order])(choices)

    def pay_or_add_batch(self, choices: Choices) -> None:
        if not self.book.orders:
            return
        if choices.yes():
            self.record_payment(choices, choices.of(PAYMENTS))
        else:
            self.add_batch(choices)

    def act_validly(self, choices: Choices) -> None:
        live = [o for o in self.book.orders.values() if o.status != "CANCELLED"] or list(self.book.orders.values())
        order = choices.of(sorted(live, key=lambda o: o.order_id))
        valid = [command for command in self.possible_commands(order) if self.expected(*command).outcome == "done"]
        if not valid:
            return
        problem = [command for command in valid if command[0] != "orders.set_status"]
        task, arguments = choices.of(problem or valid)
        self.act(task, **arguments)

    def possible_commands(self, order: Order) -> list[tuple[str, dict[str, Any]]]:
        commands: list[tuple[str, dict[str, Any]]] = []
        for actor in ({"member_id": order.buyer}, {"member_id": order.seller}, {"staff": "kim"}):
            for task in PARTY_TASKS:
                base: dict[str, Any] = {"order_id": order.order_id, **actor}
                if task in NEEDS_COMMENT:
                    base["comment"] = COMMENTS[0]
                if task == "ocr.file":
                    base["reason"] = REASONS["buyer" if actor.get("member_id") == order.buyer else "seller"][2]
                if task == "nss.file":
                    base["grounds"] = "INCOMPLETE"
                if task == "npb.extend":
                    unlocks = order.open_alert.unlocks() if order.open_alert else self.now
                    base["until"] = write_instant(unlocks + 2 * DAY)
                if task == "orders.set_status":
                    commands.extend(
                        (task, base | {"status": status}) for status in ("READY", "PAID", "SHIPPED", "RECEIVED")
                    )
                else:
                    commands.append((task, base))
            taking: dict[str, Any] = {"lines": [{"line_no": 1, "quantity": 1}], "order_id": order.order_id}
            commands.append(("removals.request", taking | actor))
            for removal_id, removal in self.book.removals.items():
                if removal.order_id == order.order_id:
                    commands.extend((task, {"removal_id": removal_id, **actor}) for task in CLOSED)
        return commands

    def act_randomly(self, choices: Choices) -> None:
        order_id = choices.of([*sorted(self.book.orders), 4711])
        order = self.book.orders.get(order_id)
        parties = [order.buyer, order.seller] * 3 if order else []
        member = choices.of([*parties, "eve", "nobody", None])
        arguments: dict[str, Any] = {"staff": "kim"} if member is None else {"member_id": member}
        task = choices.of((*PARTY_TASKS, *PARTY_TASKS, "removals.request", *CLOSED))
        if task in CLOSED:
            arguments["removal_id"] = choices.of([*sorted(self.book.removals), 4711])
            if task == "removals.approve" and choices.yes():
                arguments["return_items"] = choices.yes()
        else:
            arguments["order_id"] = order_id
        arguments |= self.further_arguments(choices, task)
        occurs = choices.of((None, None, None, None, "now", "last", "hour", "due", "old", "future"))
        if occurs is not None:
            known = self.last_event(order_id) if order else self.now
            at = {
                "now": self.now,
                "last": known,
                "hour": self.now - HOUR,
                "due": (order.alert.unlocks() if order and order.alert else self.now) - SECOND,
                "old": self.now - DAY - SECOND,
                "future": self.now + SECOND,
            }[occurs]
            arguments["occurred_at"] = write_instant(at)
        self.act(task, **arguments)

    def further_arguments(self, choices: Choices, task: str) -> dict[str, Any]:
        extra: dict[str, Any] = {}
        if task in NEEDS_COMMENT or (task in OPTIONAL_COMMENT and choices.yes()):
            extra["comment"] = choices.of(COMMENTS)
        if task == "ocr.file" or (task == "orders.cancel" and choices.yes()):
            every = [*REASONS["buyer"], *REASONS["seller"], *NO_REASONS["buyer"], *NO_REASONS["seller"], "NO_SUCH"]
            extra["reason"] = choices.of(every)
        if task == "nss.file":
            extra["grounds"] = choices.of(("NOT_SHIPPED", "INCOMPLETE", "NOT_AS_DESCRIBED"))
        if task == "orders.set_status":
            extra["status"] = choices.of(STATUSES)
        if task == "npb.extend":
            extra["until"] = write_instant(self.now + choices.number(-1, 45) * DAY)
        if task == "orders.hold_automation" and choices.yes():
            extra["until"] = write_instant(self.now + choices.number(0, 9) * DAY)
        if task == "removals.request":
            numbers = sorted({choices.number(1, 3) for _ in range(choices.number(1, 2))})
            extra["lines"] = [{"line_no": n, "quantity": choices.number(1, 4)} for n in numbers]
            if choices.yes():
                extra["return_items"] = choices.yes()
        return extra

    def repeat_last_command(self) -> None:
        assert self.last is not None
        task, arguments, request_id, first = self.last
        again = self.simulation.execute(task, arguments, request_id)
        self.simulation.process_outbox()
        self.last = None
        if first["outcome"] in ("done", "refused"):
            assert again == as_replayed(first), self.story(first, again)

    def set_account_state(self, member: str, *, closed: bool) -> None:
        expected = self.book.members_terminate(member, closed)
        task = "members.terminate" if closed else "members.reinstate"
        answer = self.do(task, member_id=member, staff="kim", comment="looked into it")
        self.check_answer(answer, expected, (task, member))
        expected.do()

    def next_instant(self, choices: Choices) -> datetime:
        live = [o for o in self.book.orders.values() if o.status != "CANCELLED"]
        unlocks = [o.open_alert.unlocks() for o in live if o.open_alert]
        automatic = [at for o in live for at in self.book.automatic_acts(o.order_id).values()]
        due = choices.of(
            (
                unlocks,
                unlocks,
                automatic,
                [o.held_until for o in live if o.held_until],
                [o.date + self.book.terms.file_after for o in live if not o.open_alert],
                [issued_at(billing_month(self.now))],
                [],
            )
        )
        exact = sorted({at + off for at in due for off in (-SECOND, timedelta(0), SECOND) if at + off > self.now})
        steps = [self.now + step for step in (timedelta(0), SECOND, HOUR, DAY, 7 * DAY)]
        return choices.of(exact or steps)

    def advance_with_sweeps(self, choices: Choices) -> None:
        started, to = self.now, self.next_instant(choices)
        self.sweep(to)
        self.log.append(f"{started.isoformat()} to {to.isoformat()} sweeps ran")

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
        for row in self.rows(
            "SELECT e.event_id, e.order_id, e.type, e.at, a.unlocked_at FROM unwind.events e "
            "LEFT JOIN unwind.alerts a ON a.order_id = e.order_id AND a.state = 'completed' "
            "WHERE e.actor = 'automation' AND e.event_id > %(last)s ORDER BY e.event_id",
            last=self.last_automatic,
        ):
            self.last_automatic = row.event_id
            self.log.append(f"{row.at.isoformat()} automation {row.type} order {row.order_id}")
            self.book.scan(started, row.at)
            act = AUTOMATIC_ACTS[row.type]
            due = self.book.automatic_acts(row.order_id).get(act)
            verdict = self.book.act_automatically(row.order_id, act, row.at)
            assert verdict is not None, self.story("is not due", due)
            assert due is not None
            assert row.at == max(due, started), self.story("was due", due)
            assert verdict.outcome == "done", self.story(verdict)
            verdict.do()
            alert = self.book.orders[row.order_id].alert
            if act == "cancel" and alert is not None and due < started and row.unlocked_at is None:
                alert.unlocked = None  # a late sweep cancels what no other has unlocked yet

    def advance_without_sweeps(self, choices: Choices) -> None:
        self.simulation.clock.instant = self.next_instant(choices)

    # ------------------------------------------------------------------------------------------------- invariants
    @invariant()
    def states_match(self) -> None:
        if not hasattr(self, "book"):
            return
        self.follow_automation(self.now)
        self.check_orders()
        self.check_alerts()
        self.check_lots()
        people = {
            r.member_id: (r.terminated, r.can_buy, r.can_sell)
            for r in self.rows(
                "SELECT member_id, terminated_at IS NOT NULL AS terminated, buying_revoked_at IS NULL AS can_buy, "
                "selling_suspended_at IS NULL AS can_sell FROM unwind.members"
            )
        }
        expected = {name: (p.terminated, p.can_buy, p.can_sell) for name, p in self.book.people.items()}
        assert people == expected, self.story(people, expected)
        states = {r.removal_id: r.state for r in self.rows("SELECT removal_id, state FROM unwind.removals")}
        assert states == {number: removal.state for number, removal in self.book.removals.items()}, self.story(states)
        posted = sorted(
            (r.order_id, r.month, r.kind, r.amount)
            for r in self.rows(
                "SELECT order_id, to_char(billing_month, 'YYYY-MM') AS month, kind, amount FROM unwind.ledger_lines"
            )
        )
        meant = sorted((p.order_id, p.month, p.kind, p.amount) for p in self.book.ledger.postings)
        assert posted == meant, self.story(posted, meant)

    def check_orders(self) -> None:
        actual = {
            r.order_id: (r.status, r.payment_status, r.order_date, r.fee, r.month, r.basis, r.total)
            for r in self.rows("SELECT *, to_char(fee_month, 'YYYY-MM') AS month FROM unwind.orders")
        }
        expected = {
            o.order_id: (o.status, o.payment, o.date, o.fee, o.fee_month, o.basis, o.total)
            for o in self.book.orders.values()
        }
        assert actual == expected, self.story(actual, expected)
        lines = {
            (r.order_id, r.line_no): (r.quantity, r.unit_price, r.removed)
            for r in self.rows("SELECT * FROM unwind.order_lines")
        }
        expected_lines = {
            (o.order_id, number): (line.quantity, line.price, line.removed)
            for o in self.book.orders.values()
            for number, line in o.lines.items()
        }
        assert lines == expected_lines, self.story(lines, expected_lines)
        late = [
            (r.order_id, f"{r.payment_status} {'settled' if r.settled_at else 'open'}")
            for r in self.rows("SELECT * FROM unwind.late_payments ORDER BY order_id, late_payment_id")
        ]
        owed = [(o.order_id, str(one)) for _, o in sorted(self.book.orders.items()) for one in o.late]
        assert late == owed, self.story(late, owed)

    def check_alerts(self) -> None:
        actual = {
            r.order_id: (r.kind, r.state, r.filed_at, r.responded_at, r.unlocks_at if r.open else None, r.unlocked_at)
            for r in self.rows(
                "SELECT DISTINCT ON (order_id) *, state = 'open' AS open FROM unwind.alerts "
                "ORDER BY order_id, alert_id DESC"
            )
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
        requests = {
            r.order_id: (r.filed_by, r.state)
            for r in self.rows("SELECT DISTINCT ON (order_id) * FROM unwind.ocrs ORDER BY order_id, ocr_id DESC")
        }
        expected_requests = {o.order_id: (o.ocr.by, o.ocr.state) for o in self.book.orders.values() if o.ocr}
        assert requests == expected_requests, self.story(requests, expected_requests)

    def check_lots(self) -> None:
        rows = {r.lot_id: r for r in self.rows("SELECT * FROM unwind.lots ORDER BY lot_id")}
        expected_lots = self.book.stock.lots
        unnamed = sorted(lot_id for lot_id in rows if lot_id not in expected_lots)
        for provisional in sorted(
            (lot_id for lot_id in expected_lots if lot_id < 0), reverse=True
        ):  # -1 is older than -2
            candidates = [
                n
                for n in unnamed
                if (rows[n].item_no, rows[n].color_id, rows[n].new_or_used) == expected_lots[provisional].item
                and (rows[n].seller_id, rows[n].quantity)
                == (expected_lots[provisional].seller, expected_lots[provisional].quantity)
            ]
            assert candidates, self.story("no new lot like", expected_lots[provisional], rows)
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

    # ------------------------------------------------------------------------------------------------- end of a history
    def check_end(self) -> None:
        self.sweep(issued_at(billing_month(self.now)) + HOUR)
        self.states_match()
        self.check_units()
        self.check_bills()
        self.check_events()
        assert not self.rows("SELECT 1 FROM unwind.outbox WHERE state <> 'done'"), self.story(
            "outbox messages are left"
        )
        assert not self.rows("SELECT 1 FROM unwind.dead_jobs"), self.story("jobs died")
        if self.checks_replay:
            with self.simulation.database.transaction() as conn:
                differing = list_differences_without_a_reason(conn)
            assert not differing, self.story(differing)

    def check_units(self) -> None:
        moved = {
            r.key: r.units
            for r in self.rows(
                "SELECT concat_ws('/', seller_id, item_type, item_no, color_id, new_or_used, completeness) AS key, "
                "sum(delta) AS units FROM unwind.stock_moves GROUP BY 1"
            )
            if r.units
        }
        stock = {
            r.key: r.units
            for r in self.rows(
                "SELECT concat_ws('/', seller_id, item_type, item_no, color_id, new_or_used, completeness) AS key, "
                "sum(quantity) AS units FROM unwind.lots GROUP BY 1"
            )
            if r.units
        }
        assert moved == stock, self.story(moved, stock)

    def check_bills(self) -> None:
        for seller in SELLERS:
            month = min(
                (p.month for p in self.book.ledger.postings if p.seller == seller), default=billing_month(self.now)
            )
            while month <= billing_month(self.now):
                with self.simulation.database.transaction() as conn:
                    bill = show_queries.run_query(conn, ["bill", seller, month], now=self.now)
                sums = {name: Decimal(bill[name]) for name in ("opening_credit", "total", "carried_forward")}
                assert sums == self.book.ledger.bill(seller, month), self.story(bill)
                lines = sorted((x["kind"], x["order_id"], Decimal(x["amount"])) for x in bill["lines"])
                assert lines == self.book.ledger.listed_lines(seller, month), self.story(bill)
                if issued_at(month) <= self.now:
                    assert bill["state"] in (("paid",) if bill["total"] == "0.00" else ("issued", "past_due")), bill
                month = next_month(month)

    def check_events(self) -> None:
        for row in self.rows(
            "SELECT *, to_char(fee_month, 'YYYY-MM') AS month, GREATEST(version, (SELECT max(unlock_seq) "
            "FROM unwind.alerts a WHERE a.order_id = o.order_id)) AS last_seq FROM unwind.orders o"
        ):
            events = self.rows("SELECT * FROM unwind.events WHERE order_id = %(id)s ORDER BY seq", id=row.order_id)
            assert [e.seq for e in events] == list(range(1, row.last_seq + 1)), self.story(events)
            assert [e.at for e in events] == sorted(e.at for e in events), self.story(events)
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
                "fee_month": row.month,
            }
            assert {name: replayed.get(name) for name in held} == held, self.story(replayed, held)
            assert (Decimal(replayed["fee"]), Decimal(replayed["total"])) == (row.fee, row.total), self.story(replayed)
            assert parse_instant(replayed["order_date"]) == row.order_date, self.story(replayed)
            final = [e for e in events if e.to_status == "CANCELLED" and e.from_status != "CANCELLED"]
            assert len(final) == (row.status == "CANCELLED"), self.story(events)


def as_replayed(answer: dict[str, Any]) -> dict[str, Any]:
    if "answers" in answer["effects"]:
        items = [as_replayed(item) for item in answer["effects"]["answers"]]
        answer = answer | {"effects": answer["effects"] | {"answers": items}}
    return answer | {"replayed": True}


def lot_json(lot: StockLot) -> dict[str, Any]:
    tier = {"tier_quantity1": lot.tier[0], "tier_price1": str(lot.tier[1])} if lot.tier else {}
    return tier | {
        "lot_id": lot.lot_id,
        "seller_id": lot.seller,
        "item": {"no": lot.item[0], "type": "PART"},
        "color_id": lot.item[1],
        "new_or_used": lot.item[2],
        "quantity": lot.quantity,
        "unit_price": str(lot.price),
        "bulk": lot.bulk,
        "sale_rate": lot.sale,
        "is_retain": lot.retain,
        "is_stock_room": lot.room is not None,
        "stock_room_id": lot.room,
        "reserved_for": lot.reserved_for,
        "bind_id": lot.bind,
    }


def play(make_database: DatabaseMaker, *, histories: int, steps: int, deterministic: bool) -> None:
    attributes = {"make_database": staticmethod(make_database), "checks_replay": deterministic}
    machine = type("OneHistory", (Histories,), attributes)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=histories,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=deterministic,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.generate),
        ),
    )


@pytest.fixture
def make_database(servers: ServerUrls, admin: psycopg.Connection, template_database: str) -> DatabaseMaker:
    return lambda: fresh_database(servers, admin, template_database)


@pytest.mark.guarantee("P6")
def test_random_histories_follow_the_rules(make_database: DatabaseMaker) -> None:
    """R1 to R60, R63 to R69, R75 to R80, R82 to R91, R93 to R97, R99, R100, T1 to T23: against the reference model."""
    play(make_database, histories=10, steps=60, deterministic=True)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_many_random_histories_follow_the_rules(make_database: DatabaseMaker) -> None:
    play(make_database, histories=60, steps=100, deterministic=False)
