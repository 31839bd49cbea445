"""Purchases, batches, statuses, payments and item removals in the reference model."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from stress.reference_model.automation import AutomatedOrders
from stress.reference_model.market import (
    ADD_TO,
    BUYER_SETS,
    FLOW,
    INVALID,
    SELLER_SETS,
    Answer,
    LatePayment,
    Line,
    Order,
    Removal,
    accept,
    is_blank,
    refuse,
)

RequestedLines = list[tuple[int, int]]


class Reference(AutomatedOrders):
    """The whole reference model."""

    def orders_submit(
        self,
        order_id: int,
        buyer: str,
        seller: str,
        at: datetime,
        requested: RequestedLines,
        rate: Decimal = Decimal(1),
    ) -> Answer:
        if buyer not in self.people or seller not in self.people:
            return refuse("MEMBER_UNKNOWN")
        if buyer == seller:
            return INVALID
        if order_id in self.orders:
            return refuse("ALREADY_EXISTS")
        if refused := self._unknown(requested, buyer, seller) or self._may_trade(buyer, seller):
            return refused
        if refused := self._stock(requested):
            return refused

        def do() -> None:
            order = Order(order_id, buyer, seller, rate, at, {})
            self.orders[order_id] = order
            self._take_stock(order, requested)
            self.charge(order, "charge", at)

        return accept(do)

    def orders_add_batch(self, order_id: int, at: datetime, requested: RequestedLines) -> Answer:
        """Add a batch of lots to the order (T21)."""
        order = self.orders.get(order_id)
        if order is None:
            return refuse("ORDER_UNKNOWN")
        if refused := self._unknown(requested, order.buyer, order.seller):
            return refused
        if order.status == "CANCELLED":
            return refuse("ALREADY_CANCELLED")
        if order.status not in ADD_TO:
            return refuse("WRONG_STATUS" if order.status in FLOW else "ORDER_HAS_PROBLEM")
        if refused := self._may_trade(order.buyer, order.seller) or self._stock(requested):
            return refused

        def do() -> None:
            self._take_stock(order, requested)
            self._restart(order, at)

        return accept(do)

    def inventory_delete_lot(self, lot_id: int, seller: str) -> Answer:
        """Delete a lot of the seller's (R109)."""
        lot = self.stock.lots.get(lot_id)
        if lot is None:
            return refuse("LOT_UNKNOWN")
        return accept(lambda: self.stock.lots.pop(lot_id)) if lot.seller == seller else refuse("NOT_A_PARTY")

    def _unknown(self, requested: RequestedLines, buyer: str, seller: str) -> Answer | None:
        for lot_id, _ in requested:
            lot = self.stock.lots.get(lot_id)
            if lot is None or lot.seller != seller or lot.room is not None or lot.reserved_for not in (None, buyer):
                return refuse("LOT_UNKNOWN")
        return None

    def _may_trade(self, buyer: str, seller: str) -> Answer | None:
        if self.people[buyer].terminated or self.people[seller].terminated:
            return refuse("MEMBER_TERMINATED")
        if not self.people[buyer].can_buy or not self.people[seller].can_sell:
            return refuse("PRIVILEGE_REVOKED")
        if any((o.buyer, o.seller, o.status) == (buyer, seller, "NPB") for o in self.orders.values()):
            return refuse("BUYER_BLOCKED_IN_STORE")  # R25
        return None

    def _stock(self, requested: RequestedLines) -> Answer | None:
        left = {lot_id: self.stock.lots[lot_id].quantity for lot_id, _ in requested}
        for lot_id, units in requested:
            if units % self.stock.lots[lot_id].bulk and units != left[lot_id]:
                return INVALID  # R105
            left[lot_id] -= units
        return refuse("NOT_ENOUGH_STOCK") if min(left.values()) < 0 else None

    def _take_stock(self, order: Order, requested: RequestedLines) -> None:
        prices = [self.stock.lots[lot_id].price_of_one(units) for lot_id, units in requested]
        for (lot_id, units), price in zip(requested, prices, strict=True):
            sold = self.stock.sell(lot_id, units)
            order.lines[len(order.lines) + 1] = Line(sold, units, price)

    def _restart(self, order: Order, at: datetime) -> None:
        """Restart order date, payment and fee because the items changed (T20, T21)."""
        order.status, order.payment, order.date = "UPDATED", "None", at
        self.charge(order, "charge", at)

    def orders_set_status(self, order_id: int, actor: str | None, at: datetime, status: str) -> Answer:
        """Set the order's status as the buyer or the seller, but not while it has a problem (R46)."""
        order = self.gate(order_id, actor, "buyer", "seller")
        if isinstance(order, Answer):
            return order
        own_statuses: tuple[str, ...] = SELLER_SETS
        other_statuses: tuple[str, ...] = tuple(BUYER_SETS)
        if self.role(order, actor) == "buyer":
            own_statuses, other_statuses = other_statuses, own_statuses
        if status in other_statuses and status not in own_statuses:
            return refuse("WRONG_ROLE")
        if order.status not in FLOW:
            return refuse("ORDER_HAS_PROBLEM")
        if status not in own_statuses or status == order.status:
            return refuse("WRONG_STATUS")
        if self.role(order, actor) == "buyer" and order.status not in BUYER_SETS[status]:
            return refuse("WRONG_STATUS")

        def do() -> None:
            order.status = status

        return accept(do)

    def orders_record_payment(self, order_id: int, at: datetime, payment_status: str) -> Answer:
        """Record the payment status; a voided payment makes a PAID order READY (T23)."""
        order = self.orders.get(order_id)
        if order is None:
            return refuse("ORDER_UNKNOWN")
        if order.status == "CANCELLED" and payment_status == "None":
            return refuse("ALREADY_CANCELLED")

        def do() -> None:
            if order.status == "CANCELLED":
                if order.open_late is not None:
                    order.open_late.payment = payment_status
                elif payment_status != order.payment:
                    order.late.append(LatePayment(payment_status))
                return
            was = order.paid
            order.payment = payment_status
            if was and not order.paid and order.status == "PAID":
                order.status = "READY"

        return accept(do)

    def orders_settle_late_payment(self, order_id: int, actor: str | None, at: datetime, comment: str) -> Answer:
        """Mark a payment that came after the cancellation as settled (R107)."""
        order = self.orders.get(order_id)
        if order is None:
            return refuse("ORDER_UNKNOWN")
        if actor is not None and actor not in self.people:
            return refuse("MEMBER_UNKNOWN")
        role = self.role(order, actor)
        if role is None:
            return refuse("NOT_A_PARTY")
        if role == "buyer":
            return refuse("WRONG_ROLE")
        late = order.open_late
        if late is None:
            return refuse("NO_LATE_PAYMENT")
        if is_blank(comment):
            return refuse("COMMENT_REQUIRED")

        def do() -> None:
            late.settled = True

        return accept(do)

    def removals_request(
        self, order_id: int, actor: str | None, at: datetime, lines: dict[int, int], returns: bool | None = None
    ) -> Answer:
        """Request the removal of units of some lines (A11)."""
        order = self.gate(order_id, actor, "buyer", "seller")
        if isinstance(order, Answer):
            return order
        role = str(self.role(order, actor))
        if order.status not in FLOW:
            return refuse("ORDER_HAS_PROBLEM")
        if role == "buyer" and returns is not None:
            return INVALID
        if refused := self._fits(order, lines):
            return refused
        returned = returns if role == "buyer" or returns is not None else True
        return accept(lambda: Removal(order_id, role, dict(lines), returned))

    def _fits(self, order: Order, lines: dict[int, int]) -> Answer | None:
        if any(n not in order.lines or units > order.lines[n].remaining for n, units in lines.items()):
            return INVALID
        if sum(lines.values()) >= sum(line.remaining for line in order.lines.values()):
            return refuse("NOTHING_WOULD_REMAIN")
        return None

    def removals_approve(self, removal_id: int, actor: str | None, at: datetime, returns: bool | None = None) -> Answer:
        """Approve a removal as the other party, after all checks are repeated (T20)."""
        taking = self.removals.get(removal_id)
        decision = self._find_decidable(taking, actor, of_other=True)
        if isinstance(decision, Answer) or taking is None:
            return decision if isinstance(decision, Answer) else refuse("REMOVAL_UNKNOWN")
        if decision.status not in FLOW:
            return refuse("ORDER_HAS_PROBLEM")
        if taking.by == "seller" and returns is not None:
            return INVALID
        if refused := self._fits(decision, taking.lines):
            return refused
        back = taking.returns if taking.by == "seller" else returns is not False

        def do() -> None:
            taking.state = "approved"
            self.stock.begin(release=self.terms_at(at).release)
            for number, units in sorted(taking.lines.items()):
                line = decision.lines[number]
                line.removed += units
                if back and not self.people[decision.seller].terminated:
                    self.stock.return_units(line.sold, units)
            self._restart(decision, at)

        return accept(do)

    def removals_deny(self, removal_id: int, actor: str | None, at: datetime) -> Answer:
        return self._close_removal(removal_id, actor, "denied", of_other=True)

    def removals_withdraw(self, removal_id: int, actor: str | None, at: datetime) -> Answer:
        return self._close_removal(removal_id, actor, "withdrawn", of_other=False)

    def _close_removal(self, removal_id: int, actor: str | None, state: str, *, of_other: bool) -> Answer:
        taking = self.removals.get(removal_id)
        decision = self._find_decidable(taking, actor, of_other=of_other)
        if isinstance(decision, Answer) or taking is None:
            return decision if isinstance(decision, Answer) else refuse("REMOVAL_UNKNOWN")

        def do() -> None:
            taking.state = state

        return accept(do)

    def _find_decidable(self, taking: Removal | None, actor: str | None, *, of_other: bool) -> Answer | Order:
        if taking is None:
            return refuse("REMOVAL_UNKNOWN")
        requested_lot = "seller" if taking.by == "buyer" else "buyer"
        order = self.gate(taking.order_id, actor, requested_lot if of_other else taking.by)
        if isinstance(order, Order) and taking.state != "pending":
            return refuse("REMOVAL_NOT_PENDING")
        return order

    def members_terminate(self, member: str, closed: bool) -> Answer:
        """Close or reopen an account; reopening clears all strikes."""
        person = self.people.get(member)
        if person is None:
            return refuse("MEMBER_UNKNOWN")

        def do() -> None:
            person.terminated = closed
            if not closed:
                person.can_buy = person.can_sell = True
                person.bought_badly, person.sold_badly = [], []

        return accept(do)
