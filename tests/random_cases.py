"""Random lives of orders, from the policies alone, without database or clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random

from policies import alerts, automation, cancellation, late_payments, npb, ocr, orders, seller_alerts
from policies.cases import Actor, AlertKind, Case
from policies.statuses import PaymentStatus, Role, Status
from policies.verdicts import Event, Granted, Invalid, Refused, Verdict
from tests.builders import BUYER, SELLER, STAFF, a_case, unlock_due

Move = Callable[[Case, Actor, Random, datetime], Verdict | None]
PARTIES = (BUYER, SELLER)
GAPS = tuple(timedelta(seconds=s) for s in (0, 1, 3600, 86400, 3 * 86400, 7 * 86400 - 1, 7 * 86400, 14 * 86400))


@dataclass(frozen=True)
class Step:
    """One move: the case, the request, and the verdict."""

    move: str
    before: Case
    actor: Actor | None
    verdict: Verdict
    now: datetime

    @property
    def role(self) -> Role:
        return (self.before.role_of(self.actor) if self.actor else None) or Role.SYSTEM


def _batch(case: Case, _actor: Actor, _random: Random, now: datetime) -> Verdict | None:
    return orders.check_may_add_batch(case) or orders.restart_order(
        case, total=case.order.total + 1, event=Event("orders.batch_added"), now=now
    )


def _terminated(case: Case, _actor: Actor, random: Random, _now: datetime) -> Verdict | None:
    role = random.choice(("buyer", "seller"))
    member = replace(getattr(case, role), terminated=random.random() < 0.5)
    return Granted(replace(case, buyer=member) if role == "buyer" else replace(case, seller=member))


MOVES: dict[str, Move] = {
    "ocr.file": lambda c, a, r, now: ocr.file_ocr(
        c, a, r.choice(("B_MUTUAL", "S_MUTUAL", "B_CHANGED_MIND")), "why", now
    ),
    "ocr.decline": lambda c, a, _, now: ocr.decline_ocr(c, a, now),
    "ocr.withdraw": lambda c, a, _, now: ocr.withdraw_ocr(c, a, now),
    "npb.file": lambda c, a, _, now: npb.file_npb(c, a, None, now),
    "npb.respond": lambda c, a, _, now: npb.respond_to_npb(c, a, "will pay", now),
    "npb.extend": lambda c, a, r, now: npb.extend_npb(
        c, a, (c.alert.unlocks_at if c.alert else now) + r.randint(1, 30) * timedelta(days=1), "more time", now
    ),
    "npb.accept_penalty": lambda c, a, _, now: npb.accept_penalty(c, a, now),
    "npb.take_back": lambda c, a, _, now: npb.take_back(c, a, now),
    "alerts.remove": lambda c, a, r, now: alerts.remove_alert(c, r.choice(list(AlertKind)), a, None, now),
    "nrs.file": lambda c, a, _, now: seller_alerts.file_seller_alert(c, AlertKind.NRS, a, None, "silent", now),
    "nss.file": lambda c, a, _, now: seller_alerts.file_seller_alert(
        c, AlertKind.NSS, a, "INCOMPLETE", "parts missing", now
    ),
    "alerts.respond": lambda c, a, r, now: seller_alerts.respond_to_seller_alert(
        c, r.choice((AlertKind.NRS, AlertKind.NSS)), a, "sent yesterday", now
    ),
    "orders.cancel": lambda c, a, _, now: cancellation.cancel(c, a, None, None, now),
    "orders.set_status": lambda c, a, r, _now: orders.set_order_status(c, a, r.choice(list(Status))),
    "orders.record_payment": lambda c, _, r, now: orders.record_order_payment(c, r.choice(list(PaymentStatus)), now),
    "orders.settle_late_payment": lambda c, a, _, now: late_payments.settle_late_payment(c, a, "sent back", now),
    "orders.hold_automation": lambda c, a, r, now: automation.hold_automation(
        c, a, r.choice((None, now + timedelta(days=20))), "wait", now
    ),
    "orders.release_automation": lambda c, a, _, now: automation.release_automation_hold(c, a, "go on", now),
    "orders.add_batch": _batch,
    "unlock": lambda c, _, __, now: unlock_due(c, now),
    "members": _terminated,
}
ACTORLESS_MOVES = ("orders.record_payment", "orders.add_batch", "unlock", "members")
RARE_MOVES = ("orders.cancel", "members", "orders.hold_automation", "orders.release_automation")


def random_life(seed: int, moves: int = 25) -> Iterator[Step]:
    """The steps of one order's life: granted ones continue from the new case, refused ones from the old."""
    random = Random(seed)
    case = a_case(random.choice((Status.PENDING, Status.READY, Status.PAID, Status.SHIPPED)))
    case = replace(case, order=replace(case.order, total=Decimal(750)))
    now = case.order.order_date
    for _ in range(moves):
        now += random.choice(GAPS)
        name = random.choice(list(MOVES))
        if name in RARE_MOVES and random.random() < 0.7:
            continue
        actor = None if name in ACTORLESS_MOVES else random.choice((*PARTIES, *PARTIES, STAFF))
        verdict = MOVES[name](case, actor or BUYER, random, now)
        if verdict is None:
            continue
        assert not isinstance(verdict, Invalid)
        yield Step(name, case, actor, verdict, now)
        if not isinstance(verdict, Refused):
            after = verdict.case.order
            case = replace(verdict.case, order=replace(after, version=after.version + 1, last_event_at=now))
