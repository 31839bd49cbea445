"""How are people told, step by step?  Record, send, mark: each on its own, so that nothing ever waits for a mail.

The followers `notices.tell_seller` and `notices.tell_buyer` turn promises into notices.  `notices.deliver` sends what
is due: it is rung after each recording and stands on the timetable for whatever has to be tried again (R102).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from celery import shared_task

from models import dead_jobs, members, notices, outbox, sweeps
from models.notices import ClaimedNotice, DeliveryOutcome
from models.outbox import DueMessage
from models.unit_of_work import UnitOfWork, retry_on_conflict, unit_of_work
from policies import notices as policy
from policies.emails import compose_email
from policies.emails.context import EmailContext
from policies.emails.email import Email, sanitize_line
from policies.verdicts import OutboxMessage
from tasks import mailer
from tasks.mailer import OutgoingEmail, ServerUnavailable, TemporaryFailure, Undeliverable
from tasks.sweeps import TaskResult

log = structlog.get_logger(__name__)

BATCH_SIZE = 50
"""Letters of one claim: what a mail server takes over one connection well within the lease, at a second each."""
MAX_BATCHES = 100
"""What is left after that waits for the next tick, so that one run has an end."""


@shared_task(name="notices.tell_seller")
def tell_seller(rows: list[int] | None = None, order_id: int | None = None) -> TaskResult:
    """Record what sellers are to be told."""
    return _record("notices.tell_seller", rows, order_id)


@shared_task(name="notices.tell_buyer")
def tell_buyer(rows: list[int] | None = None, order_id: int | None = None) -> TaskResult:
    """Record what buyers are to be told."""
    return _record("notices.tell_buyer", rows, order_id)


@shared_task(name="notices.deliver")
def deliver(rows: list[int] | None = None, order_id: int | None = None, notice_id: int | None = None) -> TaskResult:
    """Send every letter that is due.  `notice_id` sets one going again that was parked."""
    totals = {"sent": 0, "parked": 0, "later": 0}
    for _ in range(MAX_BATCHES):
        work: UnitOfWork[Any]
        with unit_of_work() as work:
            outbox.mark_done(
                work.conn, outbox.claim(work.conn, "notices.deliver", rows=rows, order_id=order_id), work.now
            )
            if notice_id is not None:
                notices.requeue(work.conn, notice_id, work.now)
                notice_id = None
            claimed = notices.claim(
                work.conn, work.now, until=work.now + policy.DELIVERY_LEASE, limit=BATCH_SIZE, order_id=order_id
            )
            addresses = members.load_contacts(work.conn, {c.recipient for c in claimed})
            if not claimed:
                sweeps.record_run(work.conn, "notices.deliver", 0, work.now)
        if not claimed:
            break
        outcomes = _send(claimed, addresses)
        # Tried again by itself when it clashes: what was sent must not be sent again for a lock's sake.
        for outcome in retry_on_conflict(partial(_mark, outcomes)):
            totals["later" if outcome.state == "pending" else outcome.state] += 1
        if any(o.server_unreachable for o in outcomes):
            break
    return totals


def _mark(outcomes: Sequence[DeliveryOutcome]) -> list[DeliveryOutcome]:
    """Write what became of a round; gives what was written."""
    work: UnitOfWork[Any]
    with unit_of_work() as work:
        written = notices.record_outcomes(work.conn, [_dated(o, work) for o in outcomes], work.now)
        for outcome in written:
            _park_if_given_up(work, outcome)
        sweeps.record_run(work.conn, "notices.deliver", len(written), work.now)
    return written


def _record(task: str, rows: list[int] | None, order_id: int | None) -> TaskResult:
    """Compose a letter for each promise; one that cannot be composed is in the end parked, and stops no other."""
    work: UnitOfWork[Any]
    with unit_of_work() as work:
        due = outbox.claim(work.conn, task, rows=rows, order_id=order_id)
        if not due:
            return {"recorded": 0}
        addresses = members.load_contacts(work.conn, {str(d.payload.get("recipient")) for d in due})
        parties = notices.load_parties(work.conn, [d.order_id for d in due if d.order_id is not None])
        told: list[DueMessage] = []
        composed = []
        for one in due:
            try:
                address = addresses.get(one.payload["recipient"])
                letter = _letter(one, parties, address.time_zone if address else "UTC")
            except Exception as error:  # noqa: BLE001 - one promise that makes no sense must not silence the others (P8)
                _failed(work, one, error)
                continue
            told.append(one)
            composed.append(_row(one, letter, work))
        recorded = notices.insert_pending(work.conn, composed, work.now)
        outbox.mark_done(work.conn, told, work.now)
        if recorded:
            work.enqueue([OutboxMessage("notices.deliver", f"deliver:{told[0].outbox_id}", None)])
    return {"recorded": recorded}


def _letter(one: DueMessage, parties: dict[int, notices.Parties], zone: str) -> Email:
    between = parties.get(one.order_id or 0)
    return compose_email(
        EmailContext(
            event=one.payload["event"],
            role=one.payload["role"],
            order_id=one.order_id,
            facts=one.payload.get("facts") or {},
            zone=zone,
            buyer=sanitize_line(between.buyer) if between else "",
            seller=sanitize_line(between.seller) if between else "",
        )
    )


def _row(one: DueMessage, letter: Email, work: UnitOfWork[Any]) -> dict[str, Any]:
    return {
        "key": one.key,
        "event": one.payload["event"],
        "order_id": one.order_id,
        "recipient": one.payload["recipient"],
        "role": one.payload["role"],
        "email": letter.as_json(),
        "message_id": policy.message_id(one.key, work.now),
    }


def _failed(work: UnitOfWork[Any], one: DueMessage, error: Exception) -> None:
    reason = f"{type(error).__name__}: {error}"
    log.warning("a notice could not be composed", outbox_id=one.outbox_id, error=type(error).__name__)
    if first := outbox.record_failure(work.conn, [one.outbox_id], reason):
        dead_jobs.park(
            work.conn,
            task=one.task,
            arguments={"rows": [one.outbox_id]},
            error=reason,
            first_error=first[one.outbox_id],
            attempts=one.attempts + 1,
            now=work.now,
            outbox_id=one.outbox_id,
        )


def _send(claimed: Sequence[ClaimedNotice], addresses: dict[str, members.Contact]) -> list[DeliveryOutcome]:
    """Try each letter, outside any transaction.  When the server is silent the rest of the round is put off untried."""
    outcomes: list[DeliveryOutcome] = []
    box = mailer.current_mailer()
    silent = False
    try:
        for one in claimed:
            if silent:
                outcomes.append(
                    DeliveryOutcome(one, "pending", error="the mail server did not answer", counts_as_attempt=False)
                )
                continue
            outcome = _send_one(box, one, addresses.get(one.recipient))
            silent = outcome.server_unreachable
            outcomes.append(outcome)
    finally:
        box.close()
    return outcomes


def _send_one(box: mailer.Mailer, one: ClaimedNotice, address: members.Contact | None) -> DeliveryOutcome:
    if address is None:
        return DeliveryOutcome(one, "parked", error="there is no member with this id")
    try:
        box.send(
            OutgoingEmail(
                message_id=one.message_id,
                event=one.event,
                order_id=one.order_id,
                email=address.email,
                handle=address.handle,
                written_at=one.created_at,
                content=one.email,
            )
        )
    except Undeliverable as error:
        return DeliveryOutcome(one, "parked", error=str(error))
    except ServerUnavailable as error:
        return DeliveryOutcome(one, "pending", error=str(error), server_unreachable=True, counts_as_attempt=error.tried)
    except TemporaryFailure as error:
        return DeliveryOutcome(one, "pending", error=str(error))
    except Exception as error:  # noqa: BLE001 - a letter that breaks the postbox is tried again and in the end parked (P8)
        log.warning("a letter broke the postbox", notice_id=one.notice_id, error=type(error).__name__)
        return DeliveryOutcome(one, "pending", error=f"{type(error).__name__}: {error}")
    return DeliveryOutcome(one, "sent")


def _dated(outcome: DeliveryOutcome, work: UnitOfWork[Any]) -> DeliveryOutcome:
    """When it is tried again, or that it is given up."""
    if outcome.state != "pending":
        return outcome
    again = policy.next_retry_at(outcome.notice.attempts if outcome.counts_as_attempt else 1, work.now)
    return replace(outcome, next_try_at=again, state="pending" if again else "parked")


def _park_if_given_up(work: UnitOfWork[Any], outcome: DeliveryOutcome) -> None:
    """A parked letter is seen where all given-up jobs are seen, and can be set going again from there."""
    if outcome.state != "parked":
        return
    log.warning("a letter is parked", notice_id=outcome.notice.notice_id, event_told=outcome.notice.event)
    dead_jobs.park(
        work.conn,
        task="notices.deliver",
        arguments={"notice_id": outcome.notice.notice_id},
        error=outcome.error or "given up",
        first_error=outcome.notice.first_error,
        reason="UNDELIVERABLE",
        attempts=outcome.notice.attempts,
        now=work.now,
    )
