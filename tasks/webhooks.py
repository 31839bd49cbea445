"""The task that sends events to due webhook endpoints, a thread each."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from time import monotonic

import structlog
from celery import shared_task

from models import sweeps, webhooks
from models.unit_of_work import unit_of_work
from models.webhooks import Endpoint, WebhookDelivery
from tasks.process_services import WebhookSender, services
from tasks.sweeps import TaskResult

log = structlog.get_logger(__name__)

SEND_TIMEOUT_SECONDS = 10.0
"""For one event, from resolving the name to the last byte of the answer."""
MAX_SENDING_SECONDS = 5.0
"""After which a run begins no further event, so that it ends within its lease however slow an endpoint is."""


class WebhookRejected(Exception):
    def __init__(self, reason: str, *, is_gone: bool = False) -> None:
        super().__init__(reason)
        self.is_gone = is_gone


@shared_task(name="webhooks.deliver")
def deliver_events() -> TaskResult:
    """Send the next events to every webhook that is due."""
    totals = {"delivered": 0, "failed": 0}
    sender, started_at = services.webhook_sender, monotonic()
    while sender and _deliver_webhook_round(sender, totals) and monotonic() - started_at < MAX_SENDING_SECONDS:
        pass
    return totals


def _deliver_webhook_round(sender: WebhookSender, totals: TaskResult) -> bool:
    # Send a page to every due endpoint; return whether one has more.
    with unit_of_work() as work:
        endpoints = webhooks.lease_endpoints(work.conn, work.now)
    deliveries = _send_to_endpoints(sender, endpoints)
    with unit_of_work() as work:
        for delivery in deliveries:
            webhooks.record_webhook_delivery(work.conn, delivery, work.now)
        sweeps.record_sweep_run(work.conn, "webhooks.deliver", sum(d.delivered for d in deliveries), work.now)
    for delivery in deliveries:
        totals["delivered"] += delivery.delivered
        if delivery.error is not None:
            totals["failed"] += 1
            log.warning("webhook_failed", webhook=delivery.endpoint.webhook_id, error=delivery.error)
    return any(delivery.error is None and delivery.endpoint.page_was_full for delivery in deliveries)


def _send_to_endpoints(sender: WebhookSender, endpoints: Sequence[Endpoint]) -> list[WebhookDelivery]:
    # Threads without a database. One that does not end in time counts as failed and is left to its own timeouts.
    progress = {e.webhook_id: WebhookDelivery(e, e.read_to, 0) for e in endpoints}
    threads = []
    for endpoint in endpoints:
        if endpoint.events:
            late = WebhookDelivery(endpoint, endpoint.cursor, 0, "it did not answer in time")
            progress[endpoint.webhook_id] = late
            thread = threading.Thread(
                target=_send_events, args=(sender, endpoint, progress), name="webhook", daemon=True
            )
            thread.start()
            threads.append(thread)
    deadline = monotonic() + MAX_SENDING_SECONDS + SEND_TIMEOUT_SECONDS + 1
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    return list(progress.values())


def _send_events(sender: WebhookSender, endpoint: Endpoint, progress: dict[int, WebhookDelivery]) -> None:
    started_at, sent, cursor = monotonic(), 0, endpoint.cursor
    error, is_gone = None, False
    for position, event in endpoint.events:
        if monotonic() - started_at > MAX_SENDING_SECONDS:
            break
        try:
            sender(endpoint.url, endpoint.secret, event)
        except WebhookRejected as rejected:
            error, is_gone = str(rejected), rejected.is_gone
            break
        except Exception as problem:  # noqa: BLE001 - whatever it is, it concerns this endpoint only
            error = type(problem).__name__
            break
        sent, cursor = sent + 1, position
    if error is None and sent == len(endpoint.events):
        cursor = endpoint.read_to
    progress[endpoint.webhook_id] = WebhookDelivery(endpoint, cursor, sent, error, is_gone)
