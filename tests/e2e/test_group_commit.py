"""Tests of bursts of single commands, which workers execute in batches."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from operator import attrgetter
from threading import Event, Thread
from typing import Any

import psycopg
import pytest
import redis
from celery import Celery
from celery.result import AsyncResult

from models.dead_jobs import DeadJobRow
from models.stored_answers import RequestRow
from models.sweeps import SweepRow
from schedules.routes import HEARTBEAT, QUEUES
from tests.e2e.conftest import Run
from tests.plugins.servers import count_in_flight, libpq_url
from tests.plugins.stored_rows import DatabaseRows
from tests.waiting import wait_until
from tests.workers.transport.hostile_messages import EMBED, message

pytestmark = pytest.mark.e2e

TRANSACTIONS = "SELECT count(DISTINCT xmin::text) AS number FROM unwind.requests"
BURST = RequestRow.request_id.startswith("burst-")


@pytest.fixture
def broker(broker_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(broker_url) as client:
        yield client


def push(broker: Any, *commands: tuple[str, dict[str, Any]]) -> list[str]:
    """Push commands in one step; return their ids."""
    ids = [f"burst-{number}" for number in range(len(commands))]
    broker.lpush(
        "commands",
        *[
            json.dumps(message([[], arguments, EMBED], headers={"task": task, "id": known}))
            for known, (task, arguments) in zip(ids, commands, strict=True)
        ],
    )
    return ids


def record(member_id: str) -> tuple[str, dict[str, Any]]:
    return "members.record", {"member_id": member_id, "handle": member_id, "email": "a@example.org"}


def is_queued(broker: Any) -> bool:
    return bool(broker.llen("commands") or count_in_flight(broker))


@pytest.mark.guarantee("P1")
def test_burst_runs_in_few_transactions_and_is_reported_message_by_message(
    run: Run, broker: Any, upstream: Celery, database_rows: DatabaseRows
) -> None:
    run("worker")
    events: Counter[str] = Counter()
    uuids: set[str] = set()
    listening, done = Event(), Event()

    def count(event: dict[str, Any]) -> None:
        events[event["type"]] += 1
        uuids.add(event["uuid"])

    def listen() -> None:
        with upstream.connection() as connection:
            handlers = {f"task-{kind}": count for kind in ("received", "started", "succeeded")}
            receiver = upstream.events.Receiver(connection, handlers=handlers)
            with receiver.consumer_context() as (own_connection, *_):
                listening.set()
                while not done.is_set():
                    try:
                        own_connection.drain_events(timeout=0.2)
                    except TimeoutError:
                        continue

    thread = Thread(target=listen, daemon=True)
    thread.start()
    assert listening.wait(30)
    ids = push(broker, *[record(f"m-{number}") for number in range(150)])
    answers = [AsyncResult(known, app=upstream).get(timeout=60) for known in ids]
    assert {answer["outcome"] for answer in answers} == {"done"}
    wait_until(lambda: not is_queued(broker), what="the acknowledgements")
    wait_until(
        lambda: len(events) == 3 and set(events.values()) == {150}, what=f"an event of each kind per message: {events}"
    )
    done.set()
    thread.join(30)
    assert uuids == set(ids)
    assert database_rows.count(RequestRow) == 150
    assert database_rows.row(TRANSACTIONS).number < 75


@pytest.mark.guarantee("P8")
@pytest.mark.long
def test_failing_command_stops_no_other_of_its_burst(
    run: Run, broker: Any, database_rows: DatabaseRows, conn: psycopg.Connection
) -> None:
    conn.execute(
        "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.member_id = 'poison' THEN RAISE EXCEPTION 'poison'; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER poison BEFORE INSERT ON unwind.members FOR EACH ROW EXECUTE FUNCTION poison()"
    )
    run("worker", application="tests.e2e.failing_steps", TEST_FAILING="/nonexistent")
    push(broker, *[record("poison" if number == 17 else f"m-{number}") for number in range(60)])
    wait_until(lambda: database_rows.count(RequestRow) == 59, what="all other answers")
    wait_until(lambda: database_rows.count(DeadJobRow) == 1 and not is_queued(broker), what="the dead job")
    dead_job = database_rows.stored_one(DeadJobRow)
    assert (dead_job.arguments["member_id"], dead_job.reason, dead_job.attempts) == ("poison", "FAILED", 9)


@pytest.mark.guarantee("P8")
@pytest.mark.long
@pytest.mark.parametrize(("member", "reason", "limit"), [("deadly", "WORKER_DIED", ""), ("endless", "TOO_LONG", "5")])
def test_command_that_ends_its_process_stops_no_other_of_its_burst(
    member: str, reason: str, limit: str, run: Run, broker: Any, database_rows: DatabaseRows
) -> None:
    run("worker", application="tests.e2e.deadly_command", TEST_TIME_LIMIT=limit)
    push(broker, *[record(member if number == 17 else f"m-{number}") for number in range(60)])
    wait_until(lambda: database_rows.count(RequestRow) == 59, what="all other answers")
    wait_until(lambda: database_rows.count(DeadJobRow) == 1 and not is_queued(broker), what="the dead job")
    dead_job = database_rows.stored_one(DeadJobRow)
    assert (dead_job.arguments["member_id"], dead_job.reason) == (member, reason)


@pytest.mark.guarantee("P1")
def test_commands_about_one_order_run_in_their_order_of_arrival(
    seed_two_alerts: None, run: Run, broker: Any, database_rows: DatabaseRows
) -> None:
    party = {"member_id": "buyer"}
    kinds = [("ocr.withdraw", party), ("orders.cancel", party), ("npb.file", {"member_id": "seller"})]
    ids = push(
        broker,
        *[
            (task, {"order_id": order_id, **arguments})
            for _ in range(10)
            for task, arguments in kinds
            for order_id in (1001, 1002)
        ],
    )
    run("worker")
    wait_until(lambda: not is_queued(broker), what="the acknowledgements")
    for order_id in (1001, 1002):
        answered = sorted(database_rows.stored(RequestRow, BURST, order_id=order_id), key=attrgetter("answered_at"))
        assert [request.request_id for request in answered] == ids[order_id - 1001 :: 2]


@pytest.mark.guarantee("P8")
@pytest.mark.long
def test_burst_of_single_commands_delays_no_bulk_command_and_no_other_queue(
    seed_two_alerts: None, run: Run, broker: Any, database_rows: DatabaseRows
) -> None:
    """A bulk command waits for the commands before it and in its batch, another queue for one or two batches."""
    items = [{"order_id": order_id, "member_id": "seller"} for order_id in (1001, 1002)]
    singles = [record(f"m-{number}") for number in range(800)]
    push(broker, *singles[:300], ("orders.cancel_many", {"orders": items}), *singles[300:])
    for queue in set(QUEUES) - {"commands"}:
        headers, info = {"task": HEARTBEAT, "id": queue}, {"exchange": "", "routing_key": queue}
        broker.lpush(queue, json.dumps(message([[], {}, EMBED], headers=headers, properties={"delivery_info": info})))
    run("worker", "-c", "1")
    wait_until(lambda: not is_queued(broker), 120, what="the acknowledgements")
    done = [(request.answered_at, request.task) for request in database_rows.stored(RequestRow, BURST)]
    done += [
        (sweep.ran_at, sweep.name) for sweep in database_rows.stored(SweepRow, SweepRow.name.startswith("heartbeat."))
    ]
    names = [name for _, name in sorted(done)]
    assert names.index("orders.cancel_many") in range(200, 420)
    places = {name: place for place, name in enumerate(names) if name.startswith("heartbeat.")}
    assert len(places) == len(QUEUES) - 1
    assert max(places.values()) < 420, places


@pytest.mark.guarantee("P1")
@pytest.mark.long
def test_warm_shutdown_finishes_batches_and_requeues_the_rest(
    run: Run, broker: Any, database_rows: DatabaseRows, database_url: str
) -> None:
    node = run("worker")
    with psycopg.connect(libpq_url(database_url)) as holder:
        holder.execute("LOCK TABLE unwind.members IN ACCESS EXCLUSIVE MODE")
        push(broker, *[record(f"m-{number}") for number in range(300)])
        wait_until(lambda: count_in_flight(broker) == 200, what="two batches")
        node.kill(signal.SIGTERM)
        wait_until(lambda: b"Warm shutdown" in node.logs(), what="the shutdown")
        holder.rollback()
    node.wait(60)
    answered = database_rows.count(RequestRow)
    assert (count_in_flight(broker), answered + broker.llen("commands")) == (0, 300)
    node.start()
    wait_until(lambda: database_rows.count(RequestRow) == 300 and not is_queued(broker), what="the rest")
    assert database_rows.count(DeadJobRow) == 0
