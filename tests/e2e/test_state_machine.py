"""Property tests: random histories on a real database against the reference model of `stress/reference_model`.

After every step both must give the same answer and have the same state (`compared_market`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from stress.reference_model.market import NO_REASONS, REASONS, Member, Order, Settings
from stress.reference_model.money import billing_month, issued_at
from stress.reference_model.orders import Reference
from stress.reference_model.stock import StockLot
from tests.e2e.compared_market import BUYERS, DAY, HOUR, SECOND, SELLERS, ComparedMarket, DatabaseMaker, write_instant
from tests.e2e.random_choices import (
    BEGINNINGS,
    CLOSED,
    COMMENTS,
    ITEMS,
    NEEDS_COMMENT,
    OPTIONAL_COMMENT,
    PARTY_TASKS,
    PAYMENTS,
    STATUSES,
    Choices,
    lot_json,
    random_settings,
)
from tests.plugins.servers import fresh_database
from workers.embedded.client import ServerUrls

SEEDS = st.integers(0, 2**64 - 1)
MEMBERS = (*SELLERS, *BUYERS)


class Histories(ComparedMarket):
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
            known = self.stored_rows.stored_order(order_id).last_event_at if order else self.now
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

    def advance_without_sweeps(self, choices: Choices) -> None:
        self.simulation.clock.instant = self.next_instant(choices)


def as_replayed(answer: dict[str, Any]) -> dict[str, Any]:
    if "answers" in answer["effects"]:
        items = [as_replayed(item) for item in answer["effects"]["answers"]]
        answer = answer | {"effects": answer["effects"] | {"answers": items}}
    return answer | {"replayed": True}


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
    play(make_database, histories=30, steps=100, deterministic=False)
