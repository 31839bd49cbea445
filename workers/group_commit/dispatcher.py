"""Dispatch of commands to pool processes, alone or in batches.

A command that arrives while a process is free goes to it at once.  Commands that arrive together, because they waited
in the queue while all processes worked (`workers.transport.channel`), go to one process as a batch.  Two commands about
one order never run at the same time in this worker, so they run in their order of arrival.  A batch whose process dies
or takes too long is repeated in batches of a tenth of its size, until the message that causes it stands alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any
from weakref import ref

import structlog
from billiard.einfo import ExceptionWithTraceback
from celery.bootsteps import RUN
from celery.exceptions import TaskRevokedError
from celery.worker import state

from tasks.command import MAX_REQUEST_ID_LENGTH
from workers.errors import summarize_error
from workers.group_commit.execution import Trace, execute_messages, list_ids_of_executed_command
from workers.transport.acknowledgement import acknowledged_together

log = structlog.get_logger(__name__)

MAX_BATCH_SIZE = 100  # the dispatcher's larger batches are not faster (docs/speed.md)
MAX_BATCH_BYTES = 64 * 1024  # of its messages; a longer command runs alone, as in the SQL interface
# By what the dispatcher divides the size of a batch when its process dies: a hundred, ten, one.  By two, a command that
# kills its process would end seven; one by one at once, a hundred messages would pay for a process that died by chance.
DIVISOR = 10


class WaitingCommand:
    def __init__(self, request: Any) -> None:
        self.request = request
        request_id = request.kwargs.get("request_id")
        if not isinstance(request_id, str):
            request_id = request.id
        self.subjects = {("request_id", request_id[:MAX_REQUEST_ID_LENGTH])}
        self.subjects.update(named for named in list_ids_of_executed_command(request.kwargs) if named[0] == "order_id")
        self.size = len(request.body)
        runs_alone = (
            request.task.command_model.runs_alone or request.request_dict.get("retries") or self.size > MAX_BATCH_BYTES
        )
        self.max_batch_size = 1 if runs_alone else MAX_BATCH_SIZE


class CommandDispatcher:
    """The commands of one connection that wait for a process or run in one."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._waiting: deque[WaitingCommand] = deque()
        self._running: dict[Any, WaitingCommand] = {}
        self._running_subjects: set[tuple[str, str]] = set()
        self._is_closed = False
        self.is_held = False
        """Nothing is dispatched, so that what a batch releases is dispatched together afterwards."""

    def add(self, request: Any) -> None:
        """Take a command that was received; it is dispatched with those that are received together with it."""
        self._waiting.append(WaitingCommand(request))
        request.on_finished = self._finish
        request.message.channel.after_delivery(self.dispatch)

    def close(self) -> None:
        """Forget the commands: the connection is lost, and their messages are delivered again."""
        self._is_closed = True
        self._waiting.clear()

    def dispatch(self) -> None:
        while not (self._is_closed or self.is_held) and self._consumer.blueprint.state == RUN:
            commands = self._take_next_batch()
            if not commands:
                return
            for command in commands:
                self._running[command.request] = command
                self._running_subjects.update(command.subjects)
            requests = [command.request for command in commands]
            self._consumer.execute_request(requests[0] if len(requests) == 1 else DispatchedBatch(requests, self))

    def run_again(self, requests: Sequence[Any], max_batch_size: int) -> None:
        """Dispatch commands again, before those that arrived later, in batches of at most that size."""
        commands = [self._running[request] for request in requests if request in self._running]
        for command in commands:
            command.max_batch_size = max_batch_size
            self._stop(command)
            state.active_requests.discard(command.request)
            command.request.time_start = command.request.worker_pid = None
        if commands and not self._is_closed:
            self._waiting.extendleft(reversed(commands))
            # After the pool has noticed the end of the process.
            self._consumer.call_soon(self.dispatch)

    def _finish(self, request: Any) -> None:
        command = self._running.get(request)
        if command is not None:
            self._stop(command)
            if self._waiting:
                self.dispatch()

    def _stop(self, command: WaitingCommand) -> None:
        del self._running[command.request]
        self._running_subjects.difference_update(command.subjects)

    def _take_next_batch(self) -> list[WaitingCommand]:
        # The next batch: the first command that may run, and those that may join it.
        chosen: list[WaitingCommand] = []
        blocked = set(self._running_subjects)
        size, max_batch_size = 0, MAX_BATCH_SIZE
        for command in self._waiting:
            may_run = blocked.isdisjoint(command.subjects)
            blocked.update(command.subjects)
            if not may_run or len(chosen) >= command.max_batch_size:
                continue
            if chosen and size + command.size > MAX_BATCH_BYTES:
                break
            chosen.append(command)
            size += command.size
            max_batch_size = min(max_batch_size, command.max_batch_size)
            if len(chosen) == max_batch_size:
                break
        for command in chosen:
            self._waiting.remove(command)
        return chosen


class DispatchedBatch:
    """Commands that go to one pool process together, in the place of a celery.worker.request.Request."""

    def __init__(self, requests: Sequence[Any], dispatcher: CommandDispatcher) -> None:
        self._requests = requests
        self._dispatcher = dispatcher

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        self._requests = [request for request in self._requests if not request.revoked()]
        if not self._requests:
            raise TaskRevokedError
        messages = [(r.type, r.id, r.request_dict, r.body, r.content_type, r.content_encoding) for r in self._requests]
        result = pool.apply_async(
            execute_messages,
            args=(messages,),
            accept_callback=self._on_accepted,
            callback=self._on_success,
            error_callback=self._on_failure,
        )
        for request in self._requests:
            request._apply_result = ref(result) if result is not None else None
        return result

    def _on_accepted(self, pid: int, accepted_at: float) -> None:
        for request in self._requests:
            request.on_accepted(pid, accepted_at)

    def _on_success(self, traces: Sequence[Trace | None]) -> None:
        rest = []
        self._dispatcher.is_held = True
        try:
            with acknowledged_together():
                for request, trace in zip(self._requests, traces, strict=True):
                    if trace is None:
                        rest.append(request)
                    else:
                        self._report(request, trace)
            self._dispatcher.run_again(rest, 1)
        finally:
            self._dispatcher.is_held = False
            self._dispatcher.dispatch()

    @staticmethod
    def _report(request: Any, trace: Trace) -> None:
        try:
            request.on_success(trace)
        except Exception as error:  # noqa: BLE001 - it concerns one message
            log.error("report_failed", message=request.id, error=summarize_error(error))

    def _on_failure(self, failure: Any) -> None:
        # The process died, was killed after the time limit, or could not execute the batch at all.
        if state.should_terminate:
            return  # nothing is acknowledged, so all messages go back to the queue
        error = failure.exception
        error = error.exc if isinstance(error, ExceptionWithTraceback) else error
        stopped = [r for r in self._requests if r._already_cancelled or r._already_revoked]
        for request in stopped:
            request.on_failure(failure)
        rest = [request for request in self._requests if request not in stopped]
        log.warning("command_batch_failed", commands=len(rest), error=type(error).__name__)
        self._dispatcher.run_again(rest, max(1, len(self._requests) // DIVISOR))
