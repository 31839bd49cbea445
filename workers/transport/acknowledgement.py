"""Settlement of messages: a command's message leaves the broker only when its outcome is durable.

The outcome is an answer, a dead job, a dead letter or a retry.  Celery acknowledges a message for many reasons: also
for a task that ended in an exception of any kind, for one whose retry could not be published, and before it reports a
task whose process died.  So the transport's only place of acknowledgement (`workers.transport.qos.QoS`)
acknowledges a command's message only once it is settled; until then the message goes back to its queue with backoff.
This module, in the worker's parent process, settles messages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import structlog
from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import Retry
from celery.worker import state
from celery.worker.request import Request

from schedules.routes import is_internal_task
from workers.errors import SanitizedError, summarize_error
from workers.transport.lost_jobs import park_lost_job

log = structlog.get_logger(__name__)


def settle(message: Any) -> None:
    """Mark a message as settled: its outcome is durable, and it may be acknowledged."""
    message.settled = True


def is_settled(message: Any) -> bool:
    return getattr(message, "settled", False)


def is_unsettled_command(message: Any) -> bool:
    # Whether it is a command without a durable outcome. Internal tasks do not count: they are sent again.
    task = message.headers.get("task") if isinstance(message.headers, dict) else None
    return isinstance(task, str) and not is_internal_task(task) and not is_settled(message)


_settled_messages: list[Any] | None = None
"""The settled messages that are acknowledged together at the end of the block `acknowledged_together`."""


@contextlib.contextmanager
def acknowledged_together() -> Iterator[None]:
    """Acknowledge the messages that are settled inside the block in one trip to the broker."""
    global _settled_messages  # noqa: PLW0603 - the worker's loop has one thread
    messages: list[Any] = []
    _settled_messages = messages
    try:
        yield
    finally:
        _settled_messages = None
        for message in messages:
            message._state = "ACK"
        try:
            if messages:
                messages[0].channel.qos.ack_settled([message.delivery_tag for message in messages])
        except Exception as error:  # noqa: BLE001 - the messages come again and find their answers
            log.warning("acknowledgement_failed", messages=len(messages), error=summarize_error(error))


class SettledRequest(Request):
    acknowledged: bool = False
    on_finished: Callable[[SettledRequest], None] | None = None
    """Called when the worker has done with the message; more than once is possible."""
    _lost_reason: str | None = None
    """Why its process can report nothing: one of models.dead_jobs.DEAD_JOB_REASONS."""
    _is_resent = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Wrap `on_success` of the class that celery.worker.request.create_request_cls makes for each task."""
        super().__init_subclass__(**options)
        report = cls.on_success

        def on_success(self: SettledRequest, failed__retval__runtime: Any, **kwargs: Any) -> Any:
            failed, *_ = failed__retval__runtime
            if not failed:  # BaseTask returns an answer after its commit, or when there is nothing to commit
                settle(self.message)
            try:
                return report(self, failed__retval__runtime, **kwargs)
            finally:
                self._finish()

        cls.on_success = on_success

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """celery.worker.request.Request.on_failure: first park a command whose process died."""
        error = exc_info.exception
        error = error.exc if isinstance(error, ExceptionWithTraceback) else error
        if isinstance(error, SanitizedError | Retry):  # parked, or published again
            settle(self.message)
        elif isinstance(error, WorkerLostError | SystemExit) and self._context.retries >= self.task.max_retries:
            self._lost_reason = "WORKER_DIED"
        elif isinstance(error, TimeLimitExceeded):
            self._lost_reason = "TOO_LONG"
        return self._report_outcome(
            lambda: super(SettledRequest, self).on_failure(exc_info, send_failed_event, return_ok)
        )

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """celery.worker.request.Request.on_timeout: park the command before its message is acknowledged."""
        if not soft:
            self._lost_reason = "TOO_LONG"
        self._report_outcome(lambda: super(SettledRequest, self).on_timeout(soft, timeout), is_final=not soft)

    def _report_outcome(self, report: Any, *, is_final: bool = True) -> Any:
        # Call Celery's handler, and acknowledge even if the result backend is away: the message must not occupy a slot.
        try:
            return report()
        except Exception as error:
            if is_final and not self.acknowledged:
                log.warning("result_store_failed", message=self.id, error=summarize_error(error))
                self.acknowledge()
            raise
        finally:
            if is_final:
                self._finish()

    def _retry_worker_lost(self, exc: Any, exc_info: Any) -> Any:
        """celery.worker.request.Request._retry_worker_lost: acknowledges once the new message is published."""
        self._is_resent = True
        try:
            return super()._retry_worker_lost(exc, exc_info)
        finally:
            self._is_resent = False

    def _success_was_stored(self) -> Any:
        """celery.worker.request.Request._success_was_stored: the process died after it had stored its answer."""
        answer = super()._success_was_stored()
        if answer:
            settle(self.message)
        return answer

    def acknowledge(self) -> None:
        """celery.worker.request.Request.acknowledge: a message that is not settled goes back."""
        if not self.acknowledged and not is_settled(self.message) and (self._is_resent or self._park_if_lost()):
            settle(self.message)
        if _settled_messages is not None and is_settled(self.message) and not self.acknowledged:
            _settled_messages.append(self.message)
            self.acknowledged = True
        else:
            super().acknowledge()
        self._finish()

    def reject(self, requeue: bool = False) -> None:  # noqa: ARG002 - Celery's signature
        """celery.worker.request.Request.reject: always requeue, also where Celery drops a task it could not retry."""
        super().reject(requeue=True)
        self._finish()

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:  # noqa: ARG002 - Celery's signature
        """celery.worker.request.Request.cancel: store no RETRY, which would wait for the lost broker once per message.

        The message is delivered again.
        """
        super().cancel(pool, signal, emit_retry=False)

    def _finish(self) -> None:
        if self.on_finished is not None:
            self.on_finished(self)

    def _park_if_lost(self) -> bool:
        if self._lost_reason is None or state.should_terminate or self.task.command_model is None:
            return False
        return park_lost_job(self.task.name, self.id, self.kwargs, self._lost_reason, self._context.retries + 1)
