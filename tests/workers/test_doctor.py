"""Does the doctor find what was broken on purpose, and nothing where nothing is wrong?  Contract 1, real servers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from aiosmtpd.controller import Controller
from click.testing import CliRunner, Result

from models import dead_jobs, odd_messages, outbox, session, sweeps
from models.migrations import upgrade
from policies.verdicts import Promise
from schedules.timetable import TIMETABLE
from tests.e2e.nodes import ProcessNode, wait_until
from tests.plugins.market import FILED, Market
from tests.plugins.servers import plain
from workers.cli.doctor import doctor
from workers.doctor import (
    Finding,
    Place,
    Severity,
    broker,
    database,
    examine,
    exit_status,
    look_at,
    opened,
    surroundings,
)
from workers.doctor.place import wall_clock
from workers.servers import ServerUrls, embedded_servers, free_port
from workers.servers.folder import write_json
from workers.servers.processes import mark_of
from workers.settings import load_settings

CHECKOUT = Path(__file__).resolve().parents[2]
LONG_AGO = timedelta(minutes=10)


@pytest.fixture
def place(database_url: str, tmp_path: Path) -> Iterator[Place]:
    """An installation that `up` has just started, seen from its database: nothing is wrong with it."""
    database = session.connect(database_url)
    yield Place(
        load_settings(database_url=database_url, data_dir=tmp_path),
        given_servers=False,
        supervised_since=real_now(),
        database=database,
        has_schema=True,
    )
    database.dispose()


@pytest.fixture
def with_broker(place: Place, broker_url: str, result_backend: str) -> Iterator[Place]:
    """The same with its broker."""
    settings = load_settings(
        database_url=place.settings.database_url,
        broker_url=broker_url,
        result_backend=result_backend,
        data_dir=place.settings.data_dir,
    )
    with contextlib.closing(redis.Redis.from_url(broker_url)) as client:
        everybody = {"worker@here": ["commands", "consequences", "notices", "sweeps"]}
        info: Any = client.info()
        yield replace(
            place, settings=settings, broker=client, broker_info=info, embedded_broker=True, consumers=everybody
        )


@pytest.fixture
def owner(database_url: str) -> Iterator[psycopg.Connection]:
    """Somebody who may break the test's database."""
    with psycopg.connect(plain(database_url), autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def bad_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUrls]:
    """Servers of its own for breaking what a whole server has in common."""
    with embedded_servers(
        tmp_path_factory.mktemp("bad") / "data",
        durable=False,
        postgres_settings={"max_connections": "12"},
        valkey_settings={"maxmemory-policy": "allkeys-lru", "databases": "1"},
    ) as urls:
        yield urls


@pytest.fixture
def at_bad_servers(bad_servers: ServerUrls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment names them, and nobody waits long for workers that are not there."""
    monkeypatch.setenv("DATABASE_URL", bad_servers.database_url)
    monkeypatch.setenv("CELERY_BROKER_URL", bad_servers.broker_url)
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path))
    monkeypatch.setattr(broker, "WORKERS_ANSWER_WITHIN", 0.05)


def real_now() -> datetime:
    """What the machine's clock says."""
    return datetime.fromtimestamp(wall_clock(), UTC)


def codes(found: list[Finding]) -> list[str]:
    """Their codes, sorted; every finding must have something to say and a way out."""
    assert all(one.message and one.mend and "\n" not in one.as_line() for one in found)
    return sorted(one.code for one in found)


def severity(found: list[Finding]) -> str:
    """Of the only finding there is."""
    (one,) = found
    return one.severity.value


def run(*words: str) -> Result:
    """`./run doctor …`."""
    return CliRunner().invoke(doctor, list(words))


# -- nothing wrong, nothing there --------------------------------------------------------------------------------------


def test_where_nothing_is_wrong_nothing_is_found(with_broker: Place) -> None:
    """Tables, rights, clocks, queues: a fresh installation is without findings, but for a broker that tests keep in memory."""
    found = look_at(with_broker)
    assert (codes(found), severity(found)) == (["BROKER_FORGETS"], "note")
    assert exit_status(found) == 0


def test_where_nothing_was_ever_started_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the first command after a clone."""
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path / "data"))
    said = run()
    assert said.exit_code == 0
    assert "SERVERS_NOT_RUNNING" in said.output
    assert "Nothing is wrong." in said.output
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("severities", "status"),
    [([], 0), (["note"], 0), (["note", "warning"], 1), (["warning", "error"], 2), (["error"], 2)],
)
def test_the_exit_code_is_that_of_the_worst_finding(severities: list[str], status: int) -> None:
    """Contract 1."""
    assert exit_status([Finding("X", Severity(one), "m", "d") for one in severities]) == status


@pytest.mark.e2e
def test_a_worker_is_asked_which_queues_it_reads(
    place: Place, broker_url: str, result_backend: str, database_url: str, tmp_path: Path
) -> None:
    """F19: by a broadcast, so that whoever answers is counted, however it was started."""
    environment = {
        "DATABASE_URL": database_url,
        "CELERY_BROKER_URL": broker_url,
        "CELERY_RESULT_BACKEND": result_backend,
        "UNWIND_DATA": str(tmp_path),
    }
    words = [
        "celery",
        "-A",
        "workers.app",
        "worker",
        "-Q",
        "commands,notices",
        "-c",
        "1",
        "-n",
        "doctors@%h",
        "-l",
        "INFO",
    ]
    node = ProcessNode("worker", [*words, "--without-gossip", "--without-mingle"], environment, tmp_path)
    try:
        wait_until(lambda: b" ready." in node.logs(), what="a worker that is ready")
        ((name, queues),) = broker.consumers(broker_url).items()
        assert name.startswith("doctors@")
        assert sorted(queues) == ["commands", "notices"]
    finally:
        node.kill()
    assert broker.consumers(broker_url) == {}


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_fresh_start_is_healthy_and_a_stopped_worker_is_seen(tmp_path: Path) -> None:
    """Contract 1: exit 0 after `up`. A worker that was stopped (not killed: nobody restarts it) leaves its queues unread."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "UNWIND_DATA": str(tmp_path / "data")}

    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "workers", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)

    started = typed("up", "--detach")
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        healthy = typed("doctor", "--json")
        assert (healthy.returncode, json.loads(healthy.stdout)) == (0, {"findings": []}), healthy.stderr
        worker = json.loads((tmp_path / "data" / "run" / "programs.json").read_text())["programs"]["sweeps"]["pid"]
        os.kill(worker, signal.SIGSTOP)
        try:
            ill = typed("doctor", "--json")
        finally:
            os.kill(worker, signal.SIGCONT)
        said = {one["code"]: one for one in json.loads(ill.stdout)["findings"]}
        assert set(said) <= {"QUEUE_UNREAD", "WORKERS_MISSING"}
        assert ill.returncode in (1, 2)
        assert all("commands" not in one["message"] for one in said.values())
    finally:
        typed("down")


# -- settings, disk, mail, Flower --------------------------------------------------------------------------------------


def test_settings_that_nobody_reads_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error in a variable's name."""
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path))
    monkeypatch.setenv("UNWIND_CONCURENCY", "4")
    assert codes(examine()) == ["SERVERS_NOT_RUNNING", "SETTING_UNREAD"]


def test_settings_that_do_not_fit_are_findings_and_show_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its variable; nothing else can be asked."""
    monkeypatch.setenv("UNWIND_LOG_FORMAT", "xml")
    monkeypatch.setenv("DATABASE_URL", "mysql://me:secret-word@host/db")
    said = run("--json")
    assert said.exit_code == 2
    assert [one["code"] for one in json.loads(said.output)["findings"]] == ["SETTING_WRONG", "SETTING_WRONG"]
    assert "secret-word" not in said.output


def test_flower_open_to_others_is_an_error_without_and_a_note_with_a_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F64, X10."""
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path))
    monkeypatch.setenv("UNWIND_FLOWER_ADDRESS", "0.0.0.0")
    assert codes(examine()) == ["FLOWER_EXPOSED"]
    monkeypatch.setenv("UNWIND_FLOWER_LOGIN", "ops:secret-word")
    found = examine()
    assert codes(found) == ["FLOWER_OPEN", "SERVERS_NOT_RUNNING"]
    assert exit_status(found) == 0
    assert "secret-word" not in str(found)


@pytest.mark.parametrize(("free", "worst"), [(1_500_000_000, "warning"), (1_000_000, "error")])
def test_a_disk_that_fills_up_is_seen_before_it_is_full(tmp_path: Path, free: int, worst: str) -> None:
    """Of the data folder."""
    found = look_at(Place(load_settings(data_dir=tmp_path), given_servers=False, free=lambda _folder: free))
    assert (codes(found), severity(found)) == (["DISK_LOW"], worst)


def test_the_mail_server_must_greet_and_keep_what_its_url_says(tmp_path: Path) -> None:
    """A closed port; a server without TLS that is asked for it; one that is as it should be."""

    def asked(url: str | None, *, given: bool = False) -> list[str]:
        settings = load_settings(smtp_url=url, data_dir=tmp_path)
        found = surroundings.mail_server(Place(settings, given_servers=given))
        assert "secret-word" not in str(found)
        return codes(found)

    port = free_port()
    assert asked(f"smtp://me:secret-word@127.0.0.1:{port}") == ["MAIL_SERVER_SILENT"]
    with mail_server("127.0.0.1", port):
        assert asked(f"smtp://127.0.0.1:{port}") == []
        assert asked(f"smtp://me:secret-word@127.0.0.1:{port}") == []
        assert asked(f"smtp://127.0.0.1:{port}?starttls=1") == ["MAIL_SERVER_NO_TLS"]
    with mail_server("127.0.0.2", port):  # still this machine, but not one of the names by which that is known
        assert asked(f"smtp://me:secret-word@127.0.0.2:{port}") == ["MAIL_PASSWORD_IN_CLEAR"]
    assert asked(None) == []
    assert asked(None, given=True) == ["MAIL_TO_FILES"]


@contextlib.contextmanager
def mail_server(host: str, port: int) -> Iterator[None]:
    """A real one without TLS."""
    server = Controller(object(), hostname=host, port=port)
    server.start()
    try:
        yield
    finally:
        server.stop()


# -- servers -----------------------------------------------------------------------------------------------------------


def test_servers_that_are_away_are_said_once_each_and_stop_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No password is shown."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody:secret-word@127.0.0.1:1/unwind")
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://:secret-word@127.0.0.1:1/0")
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path))
    said = run()
    assert said.exit_code == 2
    assert re.findall(r"[A-Z]+_[A-Z_]+(?=: )", said.output) == [
        "DATABASE_UNREACHABLE",
        "BROKER_UNREACHABLE",
        "MAIL_TO_FILES",
    ]
    assert "secret-word" not in said.output


def test_embedded_servers_that_cannot_be_joined_are_an_error(tmp_path: Path) -> None:
    """A keeper lives, but its folder is spoilt."""
    (tmp_path / "servers" / "starting.lock").mkdir(parents=True)
    us = mark_of(os.getpid())
    mark = {"pid": us.pid, "started": us.started, "port": 1}
    write_json(tmp_path / "servers" / "running.json", dict.fromkeys(("keeper", "postgres", "valkey"), mark))
    with opened(load_settings(data_dir=tmp_path)) as (_, trouble):
        assert codes(trouble) == ["SERVERS_UNREACHABLE"]


@pytest.mark.usefixtures("at_bad_servers")
def test_servers_that_are_not_fit_for_it_are_findings(bad_servers: ServerUrls) -> None:
    """F11, F15, F49: no tables, too few connections, a broker that evicts, forgets, and has no room for answers."""
    assert codes(examine()) == [
        "ANSWERS_UNREACHABLE",
        "BROKER_EVICTS",
        "BROKER_FORGETS",
        "CONNECTIONS_TOO_FEW",
        "MAIL_TO_FILES",
        "SCHEMA_MISSING",
        "WORKERS_MISSING",
    ]


@pytest.mark.usefixtures("at_bad_servers")
def test_a_program_that_may_rewrite_history_is_warned_of(
    bad_servers: ServerUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5: the role is there but not given to the login; a login of its own has too many rights; there is no role."""
    upgrade(bad_servers.database_url)

    def asked(check: Callable[[Place], list[Finding]] = database.rights) -> list[str]:
        settings = load_settings(concurrency=1)
        url = settings.app_database_url or settings.database_url
        assert url is not None
        place = Place(settings, database=session.connect(url.get_secret_value()), has_schema=True)
        assert place.database is not None
        try:
            with place.reading():
                return codes(check(place))
        finally:
            place.database.dispose()

    assert asked() == []
    outsider = re.sub(r"//[^@]*@", "//outsider:secret-word@", bad_servers.database_url)
    with psycopg.connect(plain(bad_servers.database_url), autocommit=True) as admin:
        admin.execute("CREATE ROLE outsider LOGIN PASSWORD 'secret-word'")
        admin.execute("GRANT USAGE ON SCHEMA unwind TO outsider")
        admin.execute("GRANT ALL ON ALL TABLES IN SCHEMA unwind TO outsider")
        monkeypatch.setenv("UNWIND_APP_DATABASE_URL", outsider)
        assert asked() == ["HISTORY_UNGUARDED"]
        monkeypatch.delenv("UNWIND_APP_DATABASE_URL")
        monkeypatch.setenv("DATABASE_URL", outsider)
        assert asked() == ["ROLE_NOT_GRANTED"]
        admin.execute("DROP OWNED BY unwind_app")
        admin.execute("DROP ROLE unwind_app")
        assert asked() == ["ROLE_MISSING"]
        monkeypatch.setenv("DATABASE_URL", bad_servers.database_url)
        with contextlib.ExitStack() as held:
            for _ in range(8):
                held.enter_context(psycopg.connect(plain(bad_servers.database_url)))
            assert asked(database.connections) == ["CONNECTIONS_NEARLY_USED"]


@pytest.mark.usefixtures("at_bad_servers")
def test_a_broker_that_is_full_or_takes_nothing_is_found(bad_servers: ServerUrls) -> None:
    """F13, F14."""
    with contextlib.closing(redis.Redis.from_url(bad_servers.broker_url)) as client:
        place = Place(load_settings(), broker=client, embedded_broker=False)

        def looked() -> Place:
            info: Any = client.info()
            return replace(place, broker_info=info)

        found = broker.persistence(looked())
        assert (codes(found), severity(found)) == (["BROKER_FORGETS"], "warning")
        client.config_set("maxmemory-policy", "noeviction")
        assert broker.memory(looked()) == []
        client.config_set("maxmemory", int(looked().broker_info["used_memory"] * 1.05))
        assert codes(broker.memory(looked())) == ["BROKER_NEARLY_FULL"]
        client.config_set("maxmemory", 0)
        client.replicaof("127.0.0.1", 1)
        assert codes(broker.persistence(looked())) == ["BROKER_IS_REPLICA"]
        said = codes(examine())
        assert "BROKER_IS_REPLICA" in said
        assert "BROKER_UNREACHABLE" not in said
        client.replicaof("NO", "ONE")
        failing = replace(place, broker_info={"aof_last_write_status": "err"})
        assert codes(broker.persistence(failing)) == ["BROKER_CANNOT_SAVE"]


@pytest.mark.parametrize(("version", "expected"), [("6.0.16", ["BROKER_TOO_OLD"]), ("6.2.0", []), ("10.1", [])])
def test_a_broker_without_blmove_is_too_old(tmp_path: Path, version: str, expected: list[str]) -> None:
    """0.2 of reliability: without BLMOVE killed workers lose messages."""
    place = Place(load_settings(data_dir=tmp_path), broker_info={"redis_version": version})
    assert codes(broker.version(place)) == expected


@pytest.mark.parametrize("off", [5.0, -5.0])
def test_clocks_that_differ_are_found(place: Place, off: float) -> None:
    """F34: more than two seconds."""
    found = look_at(replace(place, clock=lambda: wall_clock() + off))
    assert codes(found) == ["CLOCKS_DIFFER"]
    assert f"5 s {'ahead of' if off > 0 else 'behind'} the database's" in found[0].message
    assert look_at(replace(place, clock=lambda: wall_clock() + off / 5)) == []
    assert codes(database.apart("The broker's clock", 100.0 + off, 100.0, 0.1)) == ["CLOCKS_DIFFER"]


def test_messages_where_nobody_reads_are_found(with_broker: Place) -> None:
    """F19, F20: in an unread queue of ours, in Celery's own, and under a priority."""
    client = with_broker.broker
    client.rpush("notices", "{}")
    reading = {"worker@here": ["commands", "consequences", "sweeps"]}
    found = broker.queues(replace(with_broker, consumers=reading))
    assert (codes(found), severity(found)) == (["QUEUE_UNREAD"], "error")
    assert "1 in notices" in found[0].message
    assert "-Q notices" in found[0].mend
    client.delete("notices")
    assert codes(broker.queues(replace(with_broker, consumers=reading))) == ["WORKERS_MISSING"]
    assert codes(broker.queues(replace(with_broker, consumers={}, supervised_since=None))) == ["NOTHING_RUNS"]
    client.rpush("celery", json.dumps({"headers": {"task": "orders.cancel", "id": "a"}}))
    client.rpush("commands\x06\x163", "no message")
    found = broker.strays(with_broker)
    assert codes(found) == ["STRAY_MESSAGES", "STRAY_MESSAGES"]
    assert "orders.cancel" in found[0].message


# -- the database ------------------------------------------------------------------------------------------------------


def test_a_schema_that_is_not_the_programs_is_an_error(place: Place, owner: psycopg.Connection) -> None:
    """Changed by hand, or of another release; what needs the tables is then not asked."""
    owner.execute("DROP INDEX unwind.ix_outbox_due")
    assert codes(look_at(place)) == ["SCHEMA_DIFFERS"]
    owner.execute("UPDATE unwind.alembic_version SET version_num = '0000'")
    owner.execute("DROP TABLE unwind.dead_jobs")
    assert codes(look_at(place)) == ["SCHEMA_NOT_AT_HEAD"]


def test_a_check_that_breaks_is_a_finding_and_stops_no_other(place: Place, owner: psycopg.Connection) -> None:
    """Rights that somebody took away, and a promise that is late."""
    owner.execute("REVOKE SELECT ON unwind.dead_jobs FROM unwind_app")
    promise(place)
    found = look_at(place)
    assert "CHECK_FAILED" in codes(found)
    assert codes([one for one in found if one.code != "CHECK_FAILED"]) == ["PROMISES_LATE"]


def promise(place: Place) -> None:
    """A promise that was due ten minutes ago."""
    assert place.database is not None
    with place.database.transaction() as conn:
        outbox.promise(conn, [Promise("notices.tell_seller", "a", 1)], real_now() - LONG_AGO)


def test_a_promise_that_waits_is_late_only_while_workers_run(place: Place) -> None:
    """P7: after a minute."""
    promise(place)
    found = look_at(place)
    assert (codes(found), severity(found)) == (["PROMISES_LATE"], "warning")
    assert "10 minutes" in found[0].message
    assert look_at(replace(place, supervised_since=None)) == []


def test_a_submission_that_waits_is_late(place: Place, owner: psycopg.Connection) -> None:
    """The second door."""
    owner.execute("SELECT unwind.submit_command('orders.options', '{\"order_id\": 1}')")
    assert look_at(place) == []
    owner.execute("UPDATE unwind.submissions SET submitted_at = submitted_at - interval '10 minutes'")
    assert codes(look_at(place)) == ["SUBMISSIONS_LATE"]


def test_sweeps_are_judged_by_when_they_last_came_to_their_end(place: Place) -> None:
    """X8, F41: a silent beat still answers pings."""
    running_long = replace(place, supervised_since=real_now() - LONG_AGO)
    assert codes(look_at(running_long)) == ["SWEEPS_LATE"]
    never = look_at(replace(place, supervised_since=None, given_servers=True))
    assert codes(never) == ["MAIL_TO_FILES", "SWEEPS_NEVER_RAN"]
    assert exit_status(never) == 1
    assert place.database is not None
    with place.database.transaction() as conn:
        for entry in TIMETABLE:
            late = entry.task == "bills.issue"
            sweeps.ran(conn, entry.task, 0, real_now() - (LONG_AGO if late else timedelta(0)))
    found = look_at(running_long)
    assert codes(found) == ["SWEEPS_LATE"]
    assert "bills.issue (last 10 minutes ago)." in found[0].message
    assert look_at(place) == []
    assert look_at(replace(place, supervised_since=None)) == []


def test_a_queue_whose_canary_nobody_takes_is_an_error(place: Place) -> None:
    """X9: the others are taken, so it is not beat that is silent."""
    running_long = replace(place, supervised_since=real_now() - LONG_AGO)
    assert place.database is not None
    with place.database.transaction() as conn:
        for entry in TIMETABLE:
            late = entry.task == "canary.notices"
            sweeps.ran(conn, entry.task, 0, real_now() - (LONG_AGO if late else timedelta(0)))
    found = look_at(running_long)
    assert (codes(found), severity(found)) == (["CANARY_LATE"], "error")
    assert "notices (for 10 minutes)." in found[0].message
    assert look_at(place) == []


def test_jobs_letters_and_messages_that_wait_for_somebody_are_found(place: Place, owner: psycopg.Connection) -> None:
    """Given up, parked, odd: a finding each, and a parked letter is not told of twice."""
    assert place.database is not None
    with place.database.transaction() as conn:
        for task in ("orders.cancel", "notices.deliver"):
            dead_jobs.park(conn, task=task, arguments={}, error="KeyError", attempts=3, now=real_now())
    found = look_at(place)
    assert (codes(found), severity(found)) == (["DEAD_JOBS"], "warning")
    assert "One job is given up" in found[0].message
    owner.execute("UPDATE unwind.dead_jobs SET replayed_at = clock_timestamp()")
    owner.execute(
        "INSERT INTO unwind.notices (key, event, recipient, role, state, letter, message_id, created_at) "
        "VALUES ('a', 'ocr_filed', 'sam', 'seller', 'parked', '{}', 'a', clock_timestamp())"
    )
    assert codes(look_at(place)) == ["NOTICES_PARKED"]
    owner.execute("UPDATE unwind.notices SET state = 'sent', sent_at = clock_timestamp()")
    with place.database.transaction() as conn:
        odd = {"reason": "TASK_UNKNOWN", "named": "x", "message_id": "a", "queue": "commands", "body": b"private"}
        odd_messages.keep(conn, **odd, now=real_now())  # type: ignore[arg-type]
    found = look_at(place)
    assert (codes(found), severity(found)) == (["ODD_MESSAGES"], "note")


# -- the marketplace ---------------------------------------------------------------------------------------------------


def test_three_alerts_open_at_once_against_one_member_are_a_warning(market: Market, place: Place) -> None:
    """R98, A20: for people to look at. Before any sweep came the unlocks are late, too."""
    for order_id in (1, 2, 3):
        market.order(order_id)
    market.at(FILED)
    for order_id in (1, 2, 3):
        market.done("npb.file", order_id=order_id, member_id="seller")
    assert codes(look_at(place)) == ["MANY_ALERTS", "UNLOCKS_LATE"]
    market.stage.advance(FILED + timedelta(days=8))
    found = [one for one in look_at(place) if one.code == "MANY_ALERTS"]
    assert severity(found) == "warning"
    assert "buyer as buyer (3)" in found[0].message
    assert codes(look_at(place)) == ["BILLS_PAST_DUE", "MANY_ALERTS"]


def test_a_request_that_nobody_answers_is_a_note(market: Market, place: Place) -> None:
    """R16, A13: past the last reminder; and a bill that nobody pays is one, too."""
    market.order(1)
    market.done(
        "ocr.file", order_id=1, member_id="buyer", reason="B_OTHER", comment="I ordered the wrong colour, sorry."
    )
    market.stage.advance(FILED + timedelta(days=90))
    found = look_at(place)
    assert codes(found) == ["BILLS_PAST_DUE", "REQUESTS_UNANSWERED"]
    assert exit_status(found) == 0


@pytest.mark.breaks_invariants("an amount is falsified on purpose")
def test_what_must_always_hold_and_does_not_is_an_error_with_its_ids(
    market: Market, place: Place, owner: psycopg.Connection
) -> None:
    """Promises, Invariants: as many findings as sentences are broken."""
    market.order(1003)
    owner.execute("SET session_replication_role = replica")
    owner.execute("UPDATE unwind.orders SET version = version + 1")
    found = look_at(place)
    assert set(codes(found)) == {"INVARIANT_BROKEN"}
    assert exit_status(found) == 2
    assert "1003" in found[0].message


# -- the list is whole -------------------------------------------------------------------------------------------------


def test_every_code_is_broken_on_purpose_here() -> None:
    """A code that no test brings about may never come when it should."""
    told = set()
    for file in (CHECKOUT / "workers" / "doctor").glob("*.py"):
        told |= set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+)"', file.read_text()))
    asserted = set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+)"', Path(__file__).read_text()))
    assert told - asserted == set()
