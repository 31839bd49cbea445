"""Automation in the reference model: settings, holds, and what happens in a seller's name when (R114 to R118, R123)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from stress.reference_model.market import ADD_TO, INVALID, Answer, Automation, Order, accept, is_blank, refuse
from stress.reference_model.problem_orders import ProblemOrders

UNITS = {
    "file_npb_after": ("file_after", timedelta(days=1)),
    "cancel_after_unlock": ("cancel_after", timedelta(days=1)),
    "agree_to_requests_within": ("agree_within", timedelta(hours=1)),
}


def change_automation(
    before: Automation, values: Mapping[str, int | None], excluded: Iterable[str] | None
) -> Automation:
    """Return the settings after a command that names some of them; None switches one off (R114)."""
    for name, value in values.items():
        attribute, unit = UNITS[name]
        changed: dict[str, Any] = {attribute: None if value is None else value * unit}
        before = replace(before, **changed)
    return before if excluded is None else replace(before, excluded=frozenset(excluded))


class AutomatedOrders(ProblemOrders):
    """The Problem Order page, and what happens on it without a person."""

    def sellers_set_automation(
        self, seller: str, values: Mapping[str, int | None], excluded: Iterable[str] | None
    ) -> Answer:
        """Change the named settings of a seller's automation (R114)."""
        person = self.people.get(seller)
        if person is None:
            return refuse("MEMBER_UNKNOWN")
        if seller in (excluded or ()):
            return INVALID

        def do() -> None:
            person.automation = change_automation(person.automation, values, excluded)

        return accept(do)

    def orders_hold_automation(
        self, order_id: int, actor: str | None, at: datetime, comment: str, until: str | None = None
    ) -> Answer:
        """Keep automation from the order, until a time or until it is released (R118)."""
        order = self.gate(order_id, actor, "seller", "staff")
        if isinstance(order, Answer):
            return order
        if is_blank(comment):
            return refuse("COMMENT_REQUIRED")
        end = datetime.fromisoformat(until) if until else None
        return INVALID if end and end <= at else accept(lambda: self._hold(order, held=True, until=end))

    def orders_release_automation(self, order_id: int, actor: str | None, at: datetime, comment: str) -> Answer:
        """End the order's hold (R118)."""
        order = self.gate(order_id, actor, "seller", "staff")
        if isinstance(order, Answer):
            return order
        if not order.held or (order.held_until and order.held_until <= at):
            return refuse("WRONG_STATUS")
        return refuse("COMMENT_REQUIRED") if is_blank(comment) else accept(lambda: self._hold(order, held=False))

    def _hold(self, order: Order, *, held: bool, until: datetime | None = None) -> None:
        order.held, order.held_until = held, until

    def automatic_acts(self, order_id: int) -> dict[str, datetime]:
        """Return when what will happen in the seller's name ("file", "cancel" or "decline") if nothing changes."""
        order = self.orders[order_id]
        seller = self.people[order.seller]
        if order.status == "CANCELLED" or seller.terminated or order.buyer in seller.automation.excluded:
            return {}
        if order.held and order.held_until is None:
            return {}
        acts = [act for act in (self._filing(order), self._cancellation(order), self._answer(order)) if act]
        return {act: max(at, order.held_until or at) for act, at in acts}

    def _filing(self, order: Order) -> tuple[str, datetime] | None:
        """Return when automation files an NPB alert (R115)."""
        wait = self.people[order.seller].automation.file_after
        again = order.npb_filed is not None and order.npb_filed >= order.date
        if wait is None or again or order.payment != "None" or order.open_alert:
            return None
        return "file", order.date + max(wait, self.terms.file_after)

    def _cancellation(self, order: Order) -> tuple[str, datetime] | None:
        """Return when automation cancels through the NPB alert (R116)."""
        wait, alert = self.people[order.seller].automation.cancel_after, order.open_alert
        if wait is None or alert is None or alert.kind != "NPB" or order.payment != "None":
            return None
        return "cancel", (alert.accepted or alert.unlocks()) + wait

    def _answer(self, order: Order) -> tuple[str, datetime] | None:
        """Return how and when automation or silence answers the buyer's cancel request (R117, R123)."""
        request, wait = order.open_request, self.people[order.seller].automation.agree_within
        if request is None or request.by != "buyer":
            return None
        if wait is not None and not order.paid and request.back_to in ADD_TO and request.filed <= order.date + wait:
            return "cancel", request.filed
        if request.terms.silence is None:
            return None
        act, after = request.terms.silence
        return None if act == "cancel" and order.paid else (act, request.filed + after)

    def act_automatically(self, order_id: int, act: str, at: datetime) -> Answer | None:
        """Return the act of this kind in the seller's name; None if none is due (R121)."""
        order, due = self.orders[order_id], self.automatic_acts(order_id).get(act)
        if due is None or due > at:
            return None
        if act == "file":
            return self._file_alert(order, "NPB", at, None)
        if act == "decline":
            return self._close_request(order, "buyer", "declined")
        return accept(lambda: self._cancel(order, order.status if order.open_alert else "OCR_BUYER", at))
