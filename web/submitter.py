"""Submits commands through the SQL interface and waits for their answers.

Commands that arrive while a batch is being committed form the next batch, so that fifty callers share one commit. One
connection listens for answers on behalf of all callers.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import psycopg
import structlog
from starlette.concurrency import run_in_threadpool

from models import submissions
from models.db.database import Database, open_database_connection
from models.ddl.grants import WEB_ROLE
from models.submissions import SubmissionReceipt

log = structlog.get_logger(__name__)

MAX_SUBMITTED_COMMANDS, MAX_SUBMITTED_BYTES = 100, 2**21
POLL_INTERVAL = 1.0
"""Seconds after which answers are looked up without a notification, while somebody waits."""
RECONNECT_INTERVAL = 0.5

_LOAD = "SELECT request_id, answer FROM unwind.command_answers WHERE request_id = ANY(%s) AND state = 'answered'"
SubmitterEntry = tuple[tuple[str, str, str], "asyncio.Future[SubmissionReceipt]"]


class Submitter:
    def __init__(self, database: Database, listener_url: str) -> None:
        self._database = database
        self._listener_url = listener_url
        self._pending: list[SubmitterEntry] = []
        self._flushing: asyncio.Task[None] | None = None
        self._waiting: dict[str, list[asyncio.Future[dict[str, Any]]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = threading.Event()
        self.listening = threading.Event()
        self._thread = threading.Thread(target=self._run_listener, name="answers", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(2 * POLL_INTERVAL)

    async def submit(self, task: str, payload: str, request_id: str, wait: float) -> SubmissionReceipt:
        """Submit a command; its answer is in the result if it comes within `wait` seconds."""
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        futures = self._waiting.setdefault(request_id, [])
        futures.append(answered)
        try:
            result = await self._submit(task, payload, request_id)
            if result.code is None and result.answer is None and wait > 0:
                with contextlib.suppress(TimeoutError):
                    return SubmissionReceipt(request_id, None, await asyncio.wait_for(answered, wait))
            return result
        finally:
            futures.remove(answered)
            if not futures and self._waiting.get(request_id) is futures:
                del self._waiting[request_id]

    async def _submit(self, task: str, payload: str, request_id: str) -> SubmissionReceipt:
        future: asyncio.Future[SubmissionReceipt] = asyncio.get_running_loop().create_future()
        self._pending.append(((task, payload, request_id), future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush_submissions())
        return await future

    async def _flush_submissions(self) -> None:
        try:
            while self._pending:
                gathered = 0
                while gathered < len(self._pending) < MAX_SUBMITTED_COMMANDS:  # while requests that have arrived join
                    gathered = len(self._pending)
                    await asyncio.sleep(0)
                entries = self._next_batch()
                try:
                    results = await run_in_threadpool(self._submit_batch, [command for command, _ in entries])
                except Exception as error:  # noqa: BLE001 - every caller of the batch gets it
                    for _, future in entries:
                        if not future.done():
                            future.set_exception(error)
                else:
                    for (_, future), result in zip(entries, results, strict=True):
                        if not future.done():  # its caller may have gone
                            future.set_result(result)
        finally:
            self._flushing = None

    def _next_batch(self) -> list[SubmitterEntry]:
        size = count = 0
        for (_, payload, _), _ in self._pending[:MAX_SUBMITTED_COMMANDS]:
            size += len(payload)
            if count and size > MAX_SUBMITTED_BYTES:
                break
            count += 1
        entries, self._pending = self._pending[:count], self._pending[count:]
        return entries

    def _submit_batch(self, commands: list[tuple[str, str, str]]) -> list[SubmissionReceipt]:
        with self._database.transaction() as conn:
            return submissions.submit_commands(conn, commands)

    def _run_listener(self) -> None:
        while not self._closed.is_set():
            try:
                self._listen_for_answers()
            except (psycopg.Error, OSError) as error:
                log.warning("answers_disconnected", error=type(error).__name__)
            self.listening.clear()
            self._closed.wait(RECONNECT_INTERVAL)

    def _listen_for_answers(self) -> None:
        options = {"application_name": "unwind web", "role": WEB_ROLE}
        with contextlib.closing(open_database_connection(self._listener_url, autocommit=True, **options)) as conn:
            conn.execute(f"LISTEN {submissions.ANSWER_CHANNEL}")
            self.listening.set()
            while not self._closed.is_set():
                self._resolve_answers(conn)
                list(conn.notifies(timeout=POLL_INTERVAL, stop_after=1))

    def _resolve_answers(self, conn: psycopg.Connection[Any]) -> None:
        assert self._loop is not None
        if (waiting := list(self._waiting)) and (rows := conn.execute(_LOAD, [waiting]).fetchall()):
            self._loop.call_soon_threadsafe(self._set_answers, dict(rows))

    def _set_answers(self, answers: dict[str, dict[str, Any]]) -> None:
        for request_id, answer in answers.items():
            for future in self._waiting.get(request_id, ()):
                if not future.done():
                    future.set_result(answer)
