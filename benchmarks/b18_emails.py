"""B18: emails per second from the outbox to a local mail server, against a bare smtplib loop.

The product takes its whole path: woken as by a commit, `notices.tell_buyer` composes and records the notices of outbox
rows, and `notices.deliver` sends them, in the group of emails with two processes. The reference sends the same finished
messages from memory, in two processes with a connection each.
"""

from __future__ import annotations

import contextlib
import json
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from celery import Celery
from psycopg.rows import dict_row

from benchmarks import queue_load
from benchmarks.environment import Environment, wait_until
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, check_equal, result, with_progress
from policies.emails.email import email_from_json
from schedules.routes import queue_of
from tasks.mailer import OutgoingEmail
from workers.mail.mime_message import MailBranding, build_mime_message
from workers.settings import CHECKOUT, Settings

DATABASE = "emails"
PROCESSES = 2
MEMBERS = """
    INSERT INTO unwind.members (member_id, handle, email, time_zone, recorded_at)
    SELECT 'b-' || g, 'B-' || g, 'b-' || g || '@example.org', 'UTC', now() - interval '60 days'
    FROM generate_series(1, %(count)s) g
"""
OUTBOX_MESSAGES = """
    INSERT INTO unwind.outbox (key, task, order_id, payload, created_at, due_at, publish_count)
    SELECT 'order_cancelled:' || g || ':' || %(run)s || ':b-' || g, 'notices.tell_buyer', g,
        jsonb_build_object('role', 'buyer', 'event', 'order_cancelled', 'recipient', 'b-' || g, 'facts',
            jsonb_build_object('by', 'seller', 'basis', 'NPB', 'strike', true, 'returns', true, 'lines_returned', 5,
                'units_returned', 10)),
        clock_timestamp(), clock_timestamp() + interval '10 seconds', 1
    FROM generate_series(1, %(count)s) g
"""
LEFT = "SELECT %(count)s - count(*) FROM unwind.notices WHERE state = 'sent'"
FINISHED = """
    SELECT n.message_id, n.event, n.order_id, m.email, m.handle, n.created_at AS written_at, n.email AS content
    FROM unwind.notices n JOIN unwind.members m ON m.member_id = n.recipient ORDER BY n.notice_id
"""


@dataclass
class Emails:
    """A database with `count` members, one email each, and a mail server."""

    environment: Environment
    conn: psycopg.Connection
    client: Celery
    settings: Settings
    port: int
    count: int
    runs: int = 0

    def by_product(self) -> float:
        """Return emails per second; the finished messages are left in files for the reference."""
        self.runs += 1
        self.conn.execute("TRUNCATE unwind.notices, unwind.outbox")
        self.conn.execute(OUTBOX_MESSAGES, {"run": self.runs, "count": self.count})
        before = self.received()
        began = queue_load.value(self.conn, "SELECT clock_timestamp()")
        self.client.send_task("notices.tell_buyer", kwargs={"rows": []}, queue=queue_of("notices.tell_buyer"))
        wait_until(lambda: self._left() == 0, queue_load.MAX_DURATION, every=0.1)
        ended = queue_load.value(self.conn, "SELECT max(sent_at) FROM unwind.notices")
        self._check_received(before)
        return self.count / float((ended - began).total_seconds())

    def by_loops(self) -> float:
        """Return emails per second of the smtplib loops."""
        messages, before = self._finished_messages(), self.received()
        with contextlib.ExitStack() as stack:
            loops = []
            for number in range(PROCESSES):
                file = self.environment.folder / f"messages-{number}.json"
                file.write_text(json.dumps(messages[number::PROCESSES]))
                words = [sys.executable, "-m", "benchmarks.smtp_client", str(self.port), str(file)]
                loops.append(stack.enter_context(running_process(words)))
            for loop in loops:
                assert loop.stdout is not None
                check_equal("the loop says", loop.stdout.readline().strip(), "ready")
            for loop in loops:
                assert loop.stdin is not None
                loop.stdin.write("go\n")
                loop.stdin.flush()
            spent = [float(loop.communicate()[0]) for loop in loops]
        self._check_received(before)
        return self.count / max(spent)

    def received(self) -> tuple[int, int]:
        """Return how many emails the mail server has received, and how many different ones."""
        with smtplib.SMTP("127.0.0.1", self.port) as server:
            received, different = server.help().split()
        return int(received), int(different)

    def _left(self) -> Any:
        row = self.conn.execute(LEFT, {"count": self.count}).fetchone()
        return row and row[0]

    def _check_received(self, before: tuple[int, int]) -> None:
        received, different = self.received()
        check_equal(
            "emails received, and different ones",
            (received - before[0], different),
            (self.count, self.count * self.runs),
        )

    def _finished_messages(self) -> list[tuple[str, str]]:
        branding = MailBranding(self.settings.mail_from, self.settings.site_name, self.settings.marketplace_url)
        with self.conn.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(FINISHED).fetchall()
        emails = [OutgoingEmail(**row | {"content": email_from_json(row["content"])}) for row in rows]
        return [(email.email, build_mime_message(email, branding).decode()) for email in emails]


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    count = scale.of(300, 10_000)
    step("starting workers and a mail server")
    with prepare_emails(environment, count) as emails:
        step("warming up")
        emails.by_product()
        ratios = alternate(
            scale.pairs,
            with_progress(step, "notices and emails", emails.by_product),
            with_progress(step, "smtplib", emails.by_loops),
        )
    what = f"emails from the outbox to a mail server / {PROCESSES} bare smtplib loops"
    return [result("B18", what, "emails/s", Bar(0.5, 0.8), *ratios)]


@contextlib.contextmanager
def prepare_emails(environment: Environment, count: int) -> Iterator[Emails]:
    environment.create(DATABASE)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running_process([sys.executable, "-m", "benchmarks.smtp_server"]))
        assert server.stdout is not None
        port = int(server.stdout.readline())
        conn = stack.enter_context(environment.connect(DATABASE))
        conn.execute(MEMBERS, {"count": count})
        settings = environment.settings(DATABASE, smtp_url=f"smtp://127.0.0.1:{port}")
        stack.enter_context(environment.programs(environment.workers(settings, "emails", processes=PROCESSES)))
        client = Celery("beat", broker=environment.broker(0), set_as_current=False)
        stack.callback(client.close)
        yield Emails(environment, conn, client, settings, port, count)
    environment.drop(DATABASE)


@contextlib.contextmanager
def running_process(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    # A process with pipes that is killed at the end.
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as process:
        try:
            yield process
        finally:
            process.kill()


BENCH = Bench("B18", "emails against bare smtplib", lambda s: 2 + 2 * s.pairs, {"quick": 15, "normal": 120}, run)
