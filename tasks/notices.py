"""Notices to members: recorded, sent and marked in separate transactions, so that no transaction waits for email.

`notices.tell_seller` and `notices.tell_buyer` consume outbox messages and record notices. `notices.deliver` sends the
due ones: each commit that records notices wakes it, and the timetable runs it for retries and lost wake-ups (R102).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from celery import shared_task

from models import dead_jobs, members, notices, orders, outbox, pauses, sweeps
from models.db.conflicts import retry_on_conflict
from models.notices import ClaimedNotice, ClaimedNoticeOutcome
from models.outbox import DueMessage
from models.unit_of_work import unit_of_work
from policies import notices as policy
from policies.emails import compose_email
from policies.emails.context import EmailContext
from policies.emails.email import sanitize_email_line
from policies.timestamps import format_timestamp
from tasks.mailer import MailerOutOfTime, OutgoingEmail, ServerUnavailable, TemporaryFailure, UndeliverableEmail
from tasks.process_services import services
from tasks.sweeps import TaskResult

log = structlog.get_logger(__name__)

BATCH_SIZE = 400
"""Notices of one run: sent well within their lease, and few enough that other work of the process waits briefly."""
Delivery = tuple[ClaimedNotice, Exception | None]
"""A notice, and why it was not sent; None if it was."""


@shared_task(name="notices.tell_seller")
def record_seller_notices(rows: list[int] | None = None, order_id: int | None = None) -> TaskResult:
    return {"recorded": _record_notices("notices.tell_seller", rows, order_id)}


@shared_task(name="notices.tell_buyer")
def record_buyer_notices(rows: list[int] | None = None, order_id: int | None = None) -> TaskResult:
    return {"recorded": _record_notices("notices.tell_buyer", rows, order_id)}


@shared_task(name="notices.deliver")
def deliver_notices(order_id: int | None = None, notice_id: int | None = None) -> TaskResult:
    """Send a batch of due notices. `notice_id` requeues a parked one first."""
    with unit_of_work() as work:
        if notice_id is not None:
            notices.requeue_notice(work.conn, notice_id, work.now)
        claimed = notices.claim_notices(
            work.conn, work.now, until=work.now + policy.DELIVERY_LEASE, limit=BATCH_SIZE, order_id=order_id
        )
        addresses = members.load_member_contacts(work.conn, {c.recipient for c in claimed})
        if not claimed:
            sweeps.record_sweep_run(work.conn, "notices.deliver", 0, work.now)
    totals = {"sent": 0, "parked": 0, "later": 0}
    if claimed:
        deliveries = _send_notices(claimed, addresses)
        # Retried by itself on a conflict: sent emails must not be sent again.
        for outcome in retry_on_conflict(partial(_record_deliveries, deliveries)):
            totals["later" if outcome.state == "pending" else outcome.state] += 1
    return totals


def _record_deliveries(deliveries: Sequence[Delivery]) -> list[ClaimedNoticeOutcome]:
    with unit_of_work() as work:
        outcomes = [_delivery_outcome(notice, error, work.now) for notice, error in deliveries]
        written = notices.record_notice_deliveries(work.conn, outcomes, work.now)
        for outcome in written:
            if outcome.state != "parked":
                continue
            notice = outcome.notice
            log.warning("notice_parked", notice_id=notice.notice_id, notice_event=notice.event)
            dead_jobs.park_job(
                work.conn,
                task="notices.deliver",
                arguments={"notice_id": notice.notice_id},
                error=outcome.error or "parked",
                first_error=notice.first_error,
                reason="UNDELIVERABLE",
                attempts=notice.attempts,
                now=work.now,
            )
        sweeps.record_sweep_run(work.conn, "notices.deliver", len(written), work.now)
        full = len(deliveries) == BATCH_SIZE and not any(isinstance(e, ServerUnavailable) for _, e in deliveries)
        if full or any(isinstance(e, MailerOutOfTime) for _, e in deliveries):
            work.tasks_to_wake.add("notices.deliver")
    return written


def record_notices_at_once(task: str, rows: Sequence[int]) -> None:
    """Do for these outbox rows what `task` does, unless something is paused. The relay publishes what is left."""
    if not rows:
        return
    try:
        with unit_of_work() as work:
            if pauses.list_pauses_in_effect(work.conn, work.now):
                return
        _record_notices(task, rows)
    except Exception as error:  # noqa: BLE001 - the sweep that wrote the rows has done its work
        log.warning("notices_left_to_relay", task=task, error=type(error).__name__)


def _record_notices(task: str, rows: Sequence[int] | None, order_id: int | None = None) -> int:
    # Compose and record a notice per outbox row. A row that fails is retried, then parked; others continue.
    with unit_of_work() as work:
        due = work.claim_messages(task, rows, order_id)
        if not due:
            return 0
        order_ids = [d.order_id for d in due if d.order_id is not None]
        parties = orders.send_order_parties_query(work.conn, order_ids)().by_order
        recipients = {str(d.payload.get("recipient")) for d in due}
        contacts = members.load_member_contacts(work.conn, recipients.union(*parties.values()))
        composed: list[DueMessage] = []
        notice_rows = []
        for message in due:
            try:
                row = _compose_notice_row(message, parties.get(message.order_id), contacts, work.now)
            except Exception as error:  # noqa: BLE001 - one bad row must not stop the others
                log.warning("notice_not_composed", outbox_id=message.outbox_id, error=type(error).__name__)
                reason = f"{type(error).__name__}: {error}"
                outbox.record_outbox_failure(work.conn, message.outbox_id, reason, work.now)
                continue
            composed.append(message)
            notice_rows.append(row)
        recorded = notices.insert_pending_notices(work.conn, notice_rows, work.now)
        outbox.mark_messages_done(work.conn, composed, work.now)
        if recorded:
            work.tasks_to_wake.add("notices.deliver")
    return recorded


def _compose_notice_row(
    message: DueMessage, parties: tuple[str, str] | None, contacts: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    payload, recipient = message.payload, contacts.get(message.payload["recipient"])
    buyer, seller = (sanitize_email_line(contacts[party].handle) for party in parties) if parties else ("", "")
    row = {"event": payload["event"], "role": payload["role"], "order_id": message.order_id}
    context = EmailContext(
        **row,
        facts=payload.get("facts") or {},
        zone=recipient.time_zone if recipient else "UTC",
        buyer=buyer,
        seller=seller,
    )
    return row | {
        "key": message.key,
        "recipient": payload["recipient"],
        "email": asdict(compose_email(context)),
        # The local part of the Message-ID: unique per event and recipient, the same at every attempt.
        "message_id": hashlib.sha256(f"{message.key} {format_timestamp(now)}".encode()).hexdigest()[:32],
    }


def _send_notices(claimed: Sequence[ClaimedNotice], addresses: Mapping[str, Any]) -> list[Delivery]:
    # Outside any transaction.
    known = [notice for notice in claimed if notice.recipient in addresses]
    emails = [
        OutgoingEmail(
            message_id=notice.message_id,
            event=notice.event,
            order_id=notice.order_id,
            email=addresses[notice.recipient].email,
            handle=addresses[notice.recipient].handle,
            written_at=notice.created_at,
            content=notice.email,
        )
        for notice in known
    ]
    errors = services.mailer.send(emails) if services.mailer else [None] * len(emails)
    unknown = UndeliverableEmail("there is no member with this id")
    undeliverable = ((notice, unknown) for notice in claimed if notice.recipient not in addresses)
    return [*undeliverable, *zip(known, errors, strict=True)]


def _delivery_outcome(notice: ClaimedNotice, error: Exception | None, now: datetime) -> ClaimedNoticeOutcome:
    if error is None:
        return ClaimedNoticeOutcome(notice, "sent")
    if isinstance(error, UndeliverableEmail):
        return ClaimedNoticeOutcome(notice, "parked", error=str(error))
    if isinstance(error, MailerOutOfTime):
        return ClaimedNoticeOutcome(notice, "pending", now, str(error), counts_as_attempt=False)
    reason = str(error)
    if not isinstance(error, TemporaryFailure):
        log.warning("mailer_failed", notice_id=notice.notice_id, error=type(error).__name__)
        reason = f"{type(error).__name__}: {error}"
    tried = not isinstance(error, ServerUnavailable) or error.tried
    retry_at = policy.next_retry_at(notice.attempts if tried else 1, now)
    return ClaimedNoticeOutcome(notice, "pending" if retry_at else "parked", retry_at, reason, counts_as_attempt=tried)
