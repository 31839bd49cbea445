"""Cancel requests, alerts and cancellation in the reference model."""

from __future__ import annotations

from datetime import datetime, timedelta

from stress.reference_model.market import (
    ALERT_STATUSES,
    INVALID,
    OCR_FROM,
    Alert,
    Answer,
    CancelRequest,
    Order,
    State,
    accept,
    check_reason,
    is_blank,
    refuse,
)
from stress.reference_model.money import billing_month


class ProblemOrders(State):
    """The Problem Order page: requests, alerts and cancellation."""

    def ocr_file(self, order_id: int, actor: str | None, at: datetime, reason: str, comment: str) -> Answer:
        """File a cancel request; the order goes to OCR (T1, T2)."""
        order = self.gate(order_id, actor, "buyer", "seller")
        if isinstance(order, Answer):
            return order
        role = self.role(order, actor)
        assert role is not None
        if order.status in ("OCR", *ALERT_STATUSES):
            return refuse("ORDER_HAS_PROBLEM")
        if order.status not in OCR_FROM:
            return refuse("WRONG_STATUS")
        if refused := check_reason(role, reason, comment):
            return refused
        if is_blank(comment):
            return refuse("COMMENT_REQUIRED")

        def do() -> None:
            order.ocr = CancelRequest(role, order.status, at, self.terms_at(at))
            order.status = "OCR"

        return accept(do)

    def ocr_decline(self, order_id: int, actor: str | None, at: datetime) -> Answer:
        """Decline the buyer's cancel request as the seller (T3)."""
        order = self.gate(order_id, actor, "seller")
        return order if isinstance(order, Answer) else self._close_request(order, "buyer", "declined")

    def ocr_withdraw(self, order_id: int, actor: str | None, at: datetime) -> Answer:
        """Withdraw the cancel request as the party that filed it (T6)."""
        order = self.gate(order_id, actor, "buyer", "seller")
        if isinstance(order, Answer):
            return order
        return self._close_request(order, str(self.role(order, actor)), "withdrawn")

    def _close_request(self, order: Order, filed_by: str, state: str) -> Answer:
        open_request = order.open_request
        if open_request is None:
            return refuse("NO_OPEN_REQUEST")
        if open_request.by != filed_by:
            return refuse("WRONG_ROLE")

        def do() -> None:
            order.status, open_request.state = open_request.back_to, state

        return accept(do)

    def npb_file(self, order_id: int, actor: str | None, at: datetime, comment: str | None = None) -> Answer:
        """File a non-paying buyer alert as the seller (T7, R19 to R24)."""
        order = self.gate(order_id, actor, "seller")
        return order if isinstance(order, Answer) else self._file_alert(order, "NPB", at, comment)

    def nrs_file(self, order_id: int, actor: str | None, at: datetime, comment: str) -> Answer:
        """File a non-responding seller alert as the buyer (T14)."""
        order = self.gate(order_id, actor, "buyer")
        return order if isinstance(order, Answer) else self._file_alert(order, "NRS", at, comment)

    def nss_file(self, order_id: int, actor: str | None, at: datetime, comment: str, grounds: str) -> Answer:
        """File a non-shipping seller alert as the buyer (T15)."""
        order = self.gate(order_id, actor, "buyer")
        return order if isinstance(order, Answer) else self._file_alert(order, "NSS", at, comment)

    def _file_alert(self, order: Order, kind: str, at: datetime, comment: str | None) -> Answer:
        if order.status in ALERT_STATUSES:
            return refuse("ORDER_HAS_PROBLEM")
        earliest = order.date + self.terms_at(at).file_after
        if at < earliest:
            return refuse("TOO_EARLY", earliest)
        if order.paid and kind != "NSS":
            return refuse("ALREADY_PAID")
        if not order.paid and kind == "NSS":
            return refuse("NOT_PAID")
        if is_blank(comment):
            return refuse("COMMENT_REQUIRED")

        def do() -> None:
            if order.open_request:
                order.open_request.state = "superseded"
            order.status, order.alert = kind, Alert(kind, at, self.terms_at(at))
            if kind == "NPB":
                order.npb_filed = at

        return accept(do)

    def _open(self, order: Order, kind: str) -> Alert | Answer:
        alert = order.open_alert
        return refuse("NO_OPEN_ALERT") if alert is None or alert.kind != kind else alert

    def npb_respond(self, order_id: int, actor: str | None, at: datetime, comment: str) -> Answer:
        """Record the buyer's first answer; with `relock` a late one clears the unlock mark (T8, R27 to R31)."""
        order = self.gate(order_id, actor, "buyer")
        if isinstance(order, Answer):
            return order
        alert = self._open(order, "NPB")
        if isinstance(alert, Answer):
            return alert
        if order.status == "NPX":
            return refuse("WRONG_STATUS")
        if is_blank(comment):
            return refuse("COMMENT_REQUIRED")
        return accept(lambda: self._answered(alert, at))

    def _answered(self, alert: Alert, at: datetime) -> None:
        if alert.responded is None:
            alert.responded = at
            if alert.unlocks() > at:
                alert.unlocked = None

    def npb_extend(self, order_id: int, actor: str | None, at: datetime, until: str, comment: str) -> Answer:
        """Extend the alert's deadline (R122)."""
        order = self.gate(order_id, actor, "seller", "staff")
        if isinstance(order, Answer):
            return order
        alert = self._open(order, "NPB")
        if isinstance(alert, Answer):
            return alert
        if at >= alert.unlocks():
            return refuse("WRONG_STATUS")
        if is_blank(comment):
            return refuse("COMMENT_REQUIRED")
        end = datetime.fromisoformat(until)
        if not alert.unlocks() < end <= alert.unlocks() + timedelta(days=30):
            return INVALID

        def do() -> None:
            alert.extended = end

        return accept(do)

    def npb_accept_penalty(self, order_id: int, actor: str | None, at: datetime) -> Answer:
        """Accept the penalty as the buyer; the order goes to NPX (T9)."""
        order = self.gate(order_id, actor, "buyer")
        if isinstance(order, Answer):
            return order
        alert = self._open(order, "NPB")
        if isinstance(alert, Answer):
            return alert
        if order.status == "NPX":
            return refuse("WRONG_STATUS")

        def do() -> None:
            order.status, alert.accepted = "NPX", at

        return accept(do)

    def npb_take_back(self, order_id: int, actor: str | None, at: datetime) -> Answer:
        """Take back the accepted penalty, which counts as an answer unless one exists (T10, R34)."""
        order = self.gate(order_id, actor, "buyer")
        if isinstance(order, Answer):
            return order
        alert = self._open(order, "NPB")
        if isinstance(alert, Answer):
            return alert
        if order.status != "NPX":
            return refuse("WRONG_STATUS")

        def do() -> None:
            order.status, alert.accepted = "NPB", None
            self._answered(alert, at)

        return accept(do)

    def nrs_respond(self, order_id: int, actor: str | None, at: datetime, comment: str) -> Answer:
        """Record the seller's answer, which changes no deadline (R48)."""
        return self._seller_responds(order_id, actor, at, comment, "NRS")

    def nss_respond(self, order_id: int, actor: str | None, at: datetime, comment: str) -> Answer:
        """Record the seller's answer, which changes no deadline (R48)."""
        return self._seller_responds(order_id, actor, at, comment, "NSS")

    def _seller_responds(self, order_id: int, actor: str | None, at: datetime, comment: str, kind: str) -> Answer:
        order = self.gate(order_id, actor, "seller")
        if isinstance(order, Answer):
            return order
        alert = self._open(order, kind)
        if isinstance(alert, Answer):
            return alert
        if is_blank(comment):
            return refuse("COMMENT_REQUIRED")

        def do() -> None:
            alert.responded = alert.responded or at

        return accept(do)

    def npb_remove(self, order_id: int, actor: str | None, at: datetime, comment: str | None = None) -> Answer:
        """Remove the NPB or NPX as the seller or staff (T11)."""
        return self._remove(order_id, actor, "NPB", "seller", comment)

    def nrs_remove(self, order_id: int, actor: str | None, at: datetime, comment: str | None = None) -> Answer:
        """Remove the NRS as the buyer or staff (T16)."""
        return self._remove(order_id, actor, "NRS", "buyer", comment)

    def nss_remove(self, order_id: int, actor: str | None, at: datetime, comment: str | None = None) -> Answer:
        """Remove the NSS as the buyer or staff (T16)."""
        return self._remove(order_id, actor, "NSS", "buyer", comment)

    def _remove(self, order_id: int, actor: str | None, kind: str, filer: str, comment: str | None) -> Answer:
        held = self.orders.get(order_id)
        done = held.alert if held and held.alert and held.alert.state == "completed" else None
        if held and actor is None and done and done.kind == kind:
            return refuse("COMMENT_REQUIRED") if is_blank(comment) else accept(lambda: self._remove_strike(held, done))
        if held and actor is None and held.alert and (held.alert.kind, held.alert.state) == (kind, "removed"):
            return refuse("NO_OPEN_ALERT")
        order = self.gate(order_id, actor, filer, "staff")
        if isinstance(order, Answer):
            return order
        alert = self._open(order, kind)
        if isinstance(alert, Answer):
            return alert
        if is_blank(comment):
            return refuse("COMMENT_REQUIRED")

        def do() -> None:
            order.status, alert.state = "PENDING", "removed"

        return accept(do)

    def _remove_strike(self, order: Order, alert: Alert) -> None:
        """Remove a completed alert and its strike; the order stays cancelled."""
        alert.state = "removed"
        for member, strikes in (
            (order.buyer, self.people[order.buyer].bought_badly),
            (order.seller, self.people[order.seller].sold_badly),
        ):
            if order.order_id in strikes:
                strikes.remove(order.order_id)
                self.judge_privilege(member, alert.terms.limit)

    def basis(self, order: Order, actor: str | None, at: datetime) -> str | Answer:
        """Return the ground on which this party could cancel now (R13 to R15, R26, R53, R54)."""
        alert, open_request = order.open_alert, order.open_request
        due = alert.unlocks() if alert else at
        if self.role(order, actor) == "seller":
            if open_request:
                return "OCR_SELLER" if open_request.by == "seller" else "OCR_BUYER"
            if order.status == "NPX":
                return "NPX"
            if order.status == "NPB" and at >= due:
                return "NPB"
            if self.people[order.buyer].terminated:
                return "BUYER_TERMINATED"
            if order.status == "NPB":
                return refuse("TOO_EARLY", due)
            return refuse("WRONG_ROLE" if alert else "NO_OPEN_REQUEST")
        if alert and alert.kind != "NPB" and at >= due:
            return alert.kind
        if self.people[order.seller].terminated:
            return "SELLER_TERMINATED"
        if open_request or (alert and alert.kind == "NPB"):
            return refuse("WRONG_ROLE")
        return refuse("TOO_EARLY", due) if alert else refuse("NO_OPEN_ALERT")

    def orders_cancel(
        self,
        order_id: int,
        actor: str | None,
        at: datetime,
        reason: str | None = None,
        comment: str | None = None,
    ) -> Answer:
        """Cancel the order on the ground that this party has now (T4, T5, T13, T17 to T19)."""
        order = self.gate(order_id, actor, "buyer", "seller")
        if isinstance(order, Answer):
            return order
        basis = self.basis(order, actor, at)
        if isinstance(basis, Answer):
            return basis
        if reason is not None and (refused := check_reason(str(self.role(order, actor)), reason, comment)):
            return refused
        if is_blank(comment):
            return refuse("COMMENT_REQUIRED")
        return accept(lambda: self._cancel(order, basis, at))

    def _cancel(self, order: Order, basis: str, at: datetime) -> None:
        alert, open_request = order.open_alert, order.open_request
        order.status, order.basis = "CANCELLED", basis
        if open_request:
            open_request.state = "agreed" if basis.startswith("OCR") else "superseded"
        if alert:
            alert.state = "completed" if basis in ALERT_STATUSES else "superseded"
        for taking in self.removals.values():
            if taking.order_id == order.order_id and taking.state == "pending":
                taking.state = "cancelled"  # R59
        if alert and basis in ("NPB", "NPX"):
            self.people[order.buyer].bought_badly.append(order.order_id)
            self.judge_privilege(order.buyer, alert.terms.limit)
        if alert and basis in ("NRS", "NSS"):
            self.people[order.seller].sold_badly.append(order.order_id)
            self.judge_privilege(order.seller, alert.terms.limit)
            return  # R64, R85
        if not self.people[order.seller].terminated:  # R65
            self.stock.begin(release=self.terms_at(at).release)
            for line in order.lines.values():
                self.stock.return_units(line.sold, line.remaining)
                line.returned += line.remaining
        same_month = billing_month(at) == order.fee_month
        kind = "reset" if same_month else "credit"
        self.ledger.post(order.seller, billing_month(at), kind, order.order_id, -order.fee, order.fee_month)
