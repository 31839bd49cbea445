"""When does a message leave the broker?  Only when its answer, its dead job, its dead letter or its retry is durable.

Celery acknowledges a message for many reasons, also for a task that ended in an exception of any kind, for one whose retry could
not be published, and before it tells of a job whose process died.  So the transport's one place of acknowledgement
(`workers.transport.channel.QoS`) lets a message of somebody's command go only once it is settled; until then the
message goes back to
its queue with back-off.  What settles it is said here, in the worker's main process.
"""

from __future__ import annotations

from typing import Any

import structlog
from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import Retry
from celery.worker import state
from celery.worker.request import Request

from workers.errors import TaskFailed, summarize

log = structlog.get_logger(__name__)


def settle(message: Any) -> None:
    """What became of a message is durable: it may be acknowledged."""
    message.settled = True


def is_settled(message: Any) -> bool:
    """Whether it may be acknowledged."""
    return getattr(message, "settled", False)


class SettledRequest(Request):
    """A request whose message is settled by what its process reports, and by nothing else."""

    _lost_for: str | None = None
    """Why its process can report nothing: one of models.dead_jobs.REASONS."""
    _is_sent_again = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Celery makes a class for each task, with an `on_success` of its own (celery.worker.request.create_request_cls)."""
        super().__init_subclass__(**options)
        report = cls.on_success

        def on_success(self: SettledRequest, failed__retval__runtime: Any, **kwargs: Any) -> Any:
            failed, *_ = failed__retval__runtime
            if not failed:
                settle(
                    self.message
                )  # `Job` returns an answer when it is committed, or when there was nothing to commit
            return report(self, failed__retval__runtime, **kwargs)

        cls.on_success = on_success

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """celery.worker.request.Request.on_failure: also of a job whose process died, which is parked first."""
        error = exc_info.exception
        error = error.exc if isinstance(error, ExceptionWithTraceback) else error
        if isinstance(error, TaskFailed | Retry):  # parked, or published again
            settle(self.message)
        elif isinstance(error, WorkerLostError | SystemExit) and self._context.retries >= self.task.max_retries:
            self._lost_for = "WORKER_DIED"
        elif isinstance(error, TimeLimitExceeded):
            self._lost_for = "TOO_LONG"
        return self._to_its_end(lambda: super(SettledRequest, self).on_failure(exc_info, send_failed_event, return_ok))

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """celery.worker.request.Request.on_timeout: the job is parked before its message goes."""
        if not soft:
            self._lost_for = "TOO_LONG"
        self._to_its_end(lambda: super(SettledRequest, self).on_timeout(soft, timeout), done=not soft)

    def _to_its_end(self, report: Any, *, done: bool = True) -> Any:
        """A result backend that is away keeps no message in the hand of this worker."""
        try:
            return report()
        except Exception as error:
            if done and not self.acknowledged:
                log.warning("what became of a job cannot be told", message=self.id, error=summarize(error))
                self.acknowledge()
            raise

    def _retry_worker_lost(self, exc: Any, exc_info: Any) -> bool:
        """celery.worker.request.Request._retry_worker_lost: acknowledges once the new message is published."""
        self._is_sent_again = True
        try:
            sent: bool = super()._retry_worker_lost(exc, exc_info)
        finally:
            self._is_sent_again = False
        return sent

    def _success_was_stored(self) -> Any:
        """celery.worker.request.Request._success_was_stored: the process died after its answer was there."""
        answer = super()._success_was_stored()
        if answer:
            settle(self.message)
        return answer

    def acknowledge(self) -> None:
        """celery.worker.request.Request.acknowledge: what is not settled goes back."""
        if not self.acknowledged and not is_settled(self.message) and (self._is_sent_again or self._is_parked()):
            settle(self.message)
        super().acknowledge()

    def reject(self, requeue: bool = False) -> None:  # noqa: ARG002 - Celery's signature
        """celery.worker.request.Request.reject: never drops a job, as Celery does when its retry cannot be published."""
        super().reject(requeue=True)

    def _is_parked(self) -> bool:
        from workers.task import command_model
        from workers.worker_lost import park_lost_job

        if self._lost_for is None or state.should_terminate or command_model(self.task) is None:
            return False
        return park_lost_job(self.task.name, self.id, self.kwargs, self._lost_for, self._context.retries + 1)
