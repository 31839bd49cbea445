"""Runs rounds of load and faults; after each, waits until all work is done and runs all checks.

Celery's view of a task does not count.  The producers' record, the workers' file of answers and the database do.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import redis

from policies.timestamps import format_timestamp
from stress import plan
from stress.answer_checks import compare_answers, find_private_words
from stress.clients import BulkClient, Client
from stress.db_checks import compare_with_reference, open_connection, unexpected_rows, unfinished_outbox_messages
from stress.diagnostics import dump_state
from stress.environment import GROUPS, Environment, running_environment
from stress.fault_injector import FaultInjector
from stress.oracle import Oracle
from stress.sent_commands import Ledger, Sent
from workers.broker.redis_url import connect_to_redis
from workers.simulation.engine import simulation_in_empty_database
from workers.simulation.replay import parse_lines, play
from workers.transport.reclaim import PROCESSING_LISTS_KEY

CLIENTS = (plan.BROKER, plan.BROKER, plan.SQL, plan.HTTP)
LIVES_PER_CLIENT = 8
BULK_CLIENTS = 2
JOIN_TIMEOUT_SECONDS = 15.0
PROGRESS_TIMEOUT_SECONDS = 60.0
"""Seconds without any progress after which a run that waits for its work to finish has failed."""
WAITING = """
    SELECT (SELECT count(*) FROM unwind.submissions WHERE state = 'waiting'),
           (SELECT count(*) FROM unwind.outbox WHERE state = 'due'),
           -- Emails that a silent mail server deferred wait for their next attempt; only due ones count.
           (SELECT count(*) FROM unwind.notices WHERE state = 'pending' AND attempts = 0
               AND next_try_at <= clock_timestamp()),
           (SELECT count(*) FROM unwind.alerts WHERE state = 'open' AND unlocked_at IS NULL AND NOT penalty_stands
            AND unlocks_at <= clock_timestamp()) + (SELECT count(*) FROM unwind.v_automation_forecast
                -- The alerts of new orders are a week away.
                WHERE at < clock_timestamp() + interval '1 minute'),
           (SELECT count(*) FROM unwind.requests),
           (SELECT count(*) FROM unwind.notices WHERE state = 'sent')
"""
LONG_WAIT_SECONDS = 15.0
"""Seconds after the last fault from which the report says what is still waiting: half of the guaranteed time."""
WAITED_FOR = """
    SELECT 'command by SQL, ' || task || ', taken ' || attempts || CASE attempts WHEN 1 THEN ' time' ELSE ' times' END,
        count(*) FROM unwind.submissions WHERE state = 'waiting' GROUP BY task, attempts
    UNION ALL SELECT 'outbox message, ' || task || ', published ' || publish_count
            || CASE publish_count WHEN 1 THEN ' time' ELSE ' times' END,
        count(*) FROM unwind.outbox WHERE state = 'due' GROUP BY task, publish_count
    UNION ALL SELECT 'email not tried', count(*) FROM unwind.notices
    WHERE state = 'pending' AND attempts = 0 AND next_try_at <= clock_timestamp() HAVING count(*) > 0
    UNION ALL SELECT 'alert to be unlocked', count(*) FROM unwind.alerts WHERE state = 'open' AND unlocked_at IS NULL
    AND NOT penalty_stands AND unlocks_at <= clock_timestamp() HAVING count(*) > 0
    UNION ALL SELECT 'automatic act', count(*) FROM unwind.v_automation_forecast
    WHERE at < clock_timestamp() + interval '1 minute' HAVING count(*) > 0
"""
DEAD = "SELECT message_id, task FROM unwind.dead_jobs WHERE replayed_at IS NULL"
TOTALS = """
    SELECT (SELECT count(*) FROM unwind.requests WHERE request_id LIKE 't-%%'),
           (SELECT count(*) FROM unwind.outbox), (SELECT COALESCE(sum(publish_count), 0) FROM unwind.outbox),
           (SELECT COALESCE(max(publish_count), 0) FROM unwind.outbox),
           (SELECT count(*) FROM unwind.orders WHERE status = 'CANCELLED'),
           (SELECT count(*) FROM unwind.notices WHERE state = 'sent')
"""


@dataclass
class RunOptions:
    """Duration, seed and intensity.  `faults` limits the kinds of faults."""

    seed: int
    seconds: float
    round: float = plan.ROUND_SECONDS
    faults: frozenset[str] | None = None
    intensity: float = 1.0
    """Multiplier of the usual kills, losses and storms."""
    sentinel: bool = False
    """The broker is a primary with a replica, watched by Sentinel, and fails over."""
    wave: int = 50
    """Orders that a bulk client buys, has cancelled and cancels at once."""


@dataclass
class Outcome:
    """Violations and counts of a run."""

    options: RunOptions
    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    seconds_to_idle: list[float] = field(default_factory=list)
    waited_for: list[dict[str, Any]] = field(default_factory=list)
    """What was still unfinished more than `LONG_WAIT_SECONDS` after the last fault of a round."""
    timeline: list[dict[str, Any]] = field(default_factory=list)
    judged: list[tuple[datetime, str, dict[str, Any]]] = field(default_factory=list)
    publishes_per_outbox_message: float | None = None
    max_publishes: int | None = None
    began: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    lasted: float = 0.0
    dump: str = ""


class NoProgress(Exception):
    """Work did not finish within the timeout."""


class Run:
    def __init__(self, environment: Environment, options: RunOptions, say: Callable[[dict[str, Any]], None]) -> None:
        self.environment = environment
        self.options = options
        self.ledger = Ledger()
        self.oracle = Oracle(self.ledger)
        self.began = time.monotonic()
        self.injector = FaultInjector(environment, self.began)
        self.outcome = Outcome(options, began=datetime.now(UTC))  # noqa: TID251 - when the report was made
        self.stop_requested = threading.Event()
        self.say = say
        self.phase = "starting"
        self._clients: list[Client | BulkClient] = [
            Client(
                f"storefront {n}", environment, self.ledger, plan.lives(options.seed, n, interface), LIVES_PER_CLIENT
            )
            for n, interface in enumerate(CLIENTS)
        ]
        self._clients += [
            BulkClient(
                f"bulk client {n}", environment, self.ledger, plan.waves(options.seed, len(CLIENTS) + n, options.wave)
            )
            for n in range(BULK_CLIENTS)
        ]

    def go(self) -> Outcome:
        """Run all rounds and stop at the first violation: later ones prove nothing."""
        for client in self._clients:
            client.start()
        try:
            options = self.options
            for faults in plan.faults(options.seed, options.round, options.intensity, sentinel=options.sentinel):
                kinds = options.faults
                self._round([fault for fault in faults if kinds is None or fault.kind in kinds])
                over = time.monotonic() - self.began + options.round > options.seconds
                if self.outcome.violations or over or self.stop_requested.is_set():
                    break
        except NoProgress as still:
            self.outcome.violations.append(str(still))
            self.outcome.dump = dump_state(self.environment)
        finally:
            for client in self._clients:
                client.stop_requested.set()
            for client in self._clients:
                client.join(JOIN_TIMEOUT_SECONDS)
        if stuck := [client.name for client in self._clients if client.is_alive()]:
            raise RuntimeError(f"{', '.join(stuck)}: still running {JOIN_TIMEOUT_SECONDS:g} s after the last round")
        self._sum_up()
        return self.outcome

    def _round(self, faults: list[plan.Fault]) -> None:
        self.phase = "injecting faults"
        for client in self._clients:
            client.busy.set()
        reporter = threading.Thread(target=self._report_until, args=(stop := threading.Event(),), daemon=True)
        reporter.start()
        try:
            self.injector.run_round(faults, self.options.round, self.stop_requested)
            self.phase = "waiting for work to finish"
            for client in self._clients:
                client.busy.clear()
            self._wait_until_idle()
            self.phase = "comparing with the reference model"
            self._compare()
        finally:
            stop.set()
            reporter.join(5)
        self.outcome.counts["rounds"] += 1

    def _report_until(self, stop: threading.Event) -> None:
        while not stop.wait(0.5):
            self.say(self.progress())

    def progress(self) -> dict[str, Any]:
        return {
            "phase": self.phase,
            "seconds": time.monotonic() - self.began,
            "commands": self.ledger.counts["commands"],
            "outstanding": len(self.ledger.outstanding),
            "rounds": self.outcome.counts["rounds"],
            "restarts": self.environment.supervisor.restarts,
            "faults": dict(self.injector.counts),
            "violations": len(self.outcome.violations),
        }

    def _wait_until_idle(self) -> None:
        """Wait until two checks in a row find nothing waiting or due."""
        last_progress, progressed_at, idle_checks = (-1, -1, -1), time.monotonic(), 0
        while idle_checks < 2:
            for client in self._clients:
                if client.error is not None:
                    raise NoProgress(f"{client.name} ended: {client.error!r}")
            unfinished, progress = self._count_unfinished()
            if unfinished:
                self._record_wait_reasons()
            idle_checks = idle_checks + 1 if unfinished == 0 else 0
            if progress != last_progress:
                last_progress, progressed_at = progress, time.monotonic()
            elif time.monotonic() - progressed_at > PROGRESS_TIMEOUT_SECONDS:
                self.outcome.counts["lost"] = len(self.ledger.outstanding)
                raise NoProgress(
                    f"no progress for {PROGRESS_TIMEOUT_SECONDS:.0f} s with {unfinished} unfinished: "
                    f"{self._describe_unfinished()}"
                )
            if idle_checks < 2:
                self.stop_requested.wait(0.15)
        self.outcome.seconds_to_idle.append(round(time.monotonic() - self.injector.last, 2))

    def _count_unfinished(self) -> tuple[int, tuple[int, int, int]]:
        try:
            with open_connection(self.environment.database_url) as conn:
                row = conn.execute(WAITING).fetchone()
                dead = dict(conn.execute(DEAD).fetchall())
            assert row is not None
            self._answer_dead_job(dead)
            queued = self._queued()
        except (psycopg.Error, redis.RedisError, OSError):
            return 1, (-2, -2, -2)
        outstanding = len(self.ledger.outstanding)
        return sum(row[:4]) + queued + outstanding, (row[4] + row[5], row[1], outstanding)

    def _record_wait_reasons(self) -> None:
        after = round(time.monotonic() - self.injector.last)
        wait_records = self.outcome.waited_for
        if after <= LONG_WAIT_SECONDS or (
            wait_records and (wait_records[-1]["round"], wait_records[-1]["after"]) == (self._rounds, after)
        ):
            return
        waiting_for = Counter(f"answer to {sent.task}" for sent in self.ledger.waiting())
        with contextlib.suppress(psycopg.Error), open_connection(self.environment.database_url) as conn:
            waiting_for.update(dict(conn.execute(WAITED_FOR).fetchall()))
        wait_records.append({"round": self._rounds, "after": after, "what": dict(sorted(waiting_for.items()))})

    @property
    def _rounds(self) -> int:
        return self.outcome.counts["rounds"]

    def _answer_dead_job(self, dead: dict[str | None, str]) -> None:
        """Mark a dead job as answered: it is visible, so it is not lost."""
        for sent in self.ledger.waiting():
            if sent.request_id in dead:
                self.ledger.count("given up")
                self.ledger.answered(sent, {"outcome": "dead"})

    def _queued(self) -> int:
        with contextlib.closing(
            connect_to_redis(self.environment.broker_url, timeout=3, decode_responses=True)
        ) as client:
            processing_lists = [str(name) for name in client.hgetall(PROCESSING_LISTS_KEY)]
            return sum(client.llen(name) for name in ("commands", "consequences", *processing_lists))

    def _describe_unfinished(self) -> str:
        waiting = self.ledger.waiting()
        return (
            ", ".join(f"{sent.request_id} {sent.task} (sent {sent.times} times)" for sent in waiting[:10])
            or "outbox messages"
        )

    def _compare(self) -> None:
        violations = self.outcome.violations
        with open_connection(self.environment.database_url) as conn:
            judged_before = len(self.oracle.judged)
            violations += self.oracle.judge(conn)
            newly_judged = list(self.oracle.judged.values())[judged_before:]
            touched_orders = [sent.arguments["order_id"] for _, sent in newly_judged if "order_id" in sent.arguments]
            touched_orders += [
                self.oracle.reference.removals[sent.arguments["removal_id"]].order_id
                for _, sent in newly_judged
                if sent.arguments.get("removal_id") in self.oracle.reference.removals
            ]
            violations += compare_with_reference(conn, self.oracle, touched_orders)
            violations += unexpected_rows(conn, self.environment.smtp_stub.taken)
            lost, doubled, answer_violations = compare_answers(self.environment, self.ledger, conn)
        self.outcome.counts["lost"] += lost
        self.outcome.counts["doubled"] += doubled
        violations += answer_violations
        violations += unfinished_outbox_messages(self.environment.database_url)

    def _sum_up(self) -> None:
        outcome = self.outcome
        outcome.lasted = round(time.monotonic() - self.began, 1)
        outcome.counts.update(self.ledger.counts)
        outcome.counts["early"] = self.oracle.early
        outcome.counts.update({f"automatic {act}": times for act, times in self.oracle.automatic.items()})
        # `invalid` is not stored: the command asked for more time so late that its end is in the past.
        # A second delivery may come so late that the command is refused instead, which is stored.
        not_stored = [
            sent.answer
            for sent in self.ledger.sent.values()
            if sent.answer and sent.request_id not in self.oracle.judged
        ]
        outcome.counts["invalid"] = sum(answer["outcome"] == "invalid" for answer in not_stored)
        outcome.counts["restarts"] = self.environment.supervisor.restarts
        for kind, times in self.injector.counts.items():
            outcome.counts[f"fault {kind}"] = times
        if self.environment.sentinel_group is not None:
            outcome.counts["failovers"] = self.environment.sentinel_group.failovers()
            outcome.counts["lost tail bytes"] = self.injector.lost_tail_bytes
        outcome.timeline = self.injector.timeline
        outcome.judged = [
            (at, sent.task, self._replay_arguments(sent))
            for at, sent in self.oracle.judged.values()
            if sent.part_of is None
        ]
        with contextlib.suppress(psycopg.Error), open_connection(self.environment.database_url) as conn:
            row = conn.execute(TOTALS).fetchone()
            assert row is not None
            outcome.counts["accepted"] = row[0]
            outcome.counts["cancelled"] = row[4]
            outcome.counts["emails sent"] = row[5]
            outcome.publishes_per_outbox_message = round(float(row[2]) / max(1, row[1]), 3)
            outcome.max_publishes = row[3]
        outcome.violations += find_private_words(self.environment.folder)

    def _replay_arguments(self, sent: Sent) -> dict[str, Any]:
        """Return the arguments for a replay, where removal requests are numbered without gaps."""
        arguments = {**sent.arguments, "request_id": sent.request_id}
        if "removal_id" in arguments:
            arguments["removal_id"] = list(self.oracle.reference.removals).index(arguments["removal_id"]) + 1
        return arguments


def seed_lines(ended: timedelta = timedelta(minutes=1), past_orders: int = 0) -> Iterator[dict[str, Any]]:
    """History before the run, of a week ago: terms of seconds, members, lots, and orders that are on hold.

    `ended` is how long ago its orders became old enough to be filed.
    """
    at = datetime.now(UTC) - ended - timedelta(days=7)  # noqa: TID251 - the present, at which the history ends

    def line(task: str, **arguments: Any) -> dict[str, Any]:
        return {"at": format_timestamp(at), "task": task, "kwargs": arguments}

    yield line("terms.apply", terms=plan.terms_arguments(), staff="kim", **{"from": format_timestamp(at)})
    for member in (*plan.SELLERS, plan.AUTOMATED, plan.STRANGER):
        yield line("members.record", **plan.member_arguments(member))
    yield line("sellers.set_automation", member_id=plan.AUTOMATED, **plan.AUTOMATION)
    for seller in plan.SELLERS:
        yield line("sellers.set_automation", member_id=seller, **plan.EXCLUSIONS)
    for seller in (*plan.SELLERS, plan.AUTOMATED):
        for number in range(plan.LOTS_EACH):
            yield line("inventory.record_lot", lot=plan.lot_arguments(seller, number))
    for number in range(past_orders):
        order = plan.past_order_arguments(number)
        yield line("members.record", **plan.member_arguments(order["buyer_id"]))
        yield line("orders.submit", **order)
        yield line("orders.hold_automation", order_id=order["order_id"], staff="kim", **plan.COMMENT)


def write_seed(database_url: str, lines: list[dict[str, Any]]) -> None:
    parsed = parse_lines(json.dumps(sent) for sent in lines)
    with simulation_in_empty_database(database_url, parsed[0].at, allow_short=True) as simulation:
        for played in play(parsed, simulation):
            if played.result["outcome"] != "done":
                raise RuntimeError(f"the history does not fit: {played.as_json()}")


@contextlib.contextmanager
def prepare_run(
    folder: Path, options: RunOptions, say: Callable[[dict[str, Any]], None] = lambda _progress: None
) -> Iterator[tuple[Run, list[dict[str, Any]]]]:
    lines = list(seed_lines(past_orders=len(CLIENTS) * plan.PAST_ORDERS_EACH))
    skew = plan.CLOCK_SKEW_SECONDS if options.seed % 2 else -plan.CLOCK_SKEW_SECONDS
    with running_environment(
        folder, lambda url: write_seed(url, lines), skew, sentinel=options.sentinel
    ) as environment:
        assert len(GROUPS) > 1
        yield Run(environment, options, say), lines
