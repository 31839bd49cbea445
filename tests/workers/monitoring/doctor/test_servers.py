"""Tests of the doctor's checks of PostgreSQL, Redis and the workers that read the queues."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from pydantic import SecretStr

from models.db import database as db
from models.feed import EVENTS_AFTER_SIGNATURE
from models.migrations import upgrade
from tests.plugins.servers import in_valkey_database, libpq_url
from tests.workers.monitoring.doctor.findings import codes, run, severity
from workers.embedded.client import ServerUrls
from workers.embedded.data_dir import free_port, write_json
from workers.embedded.processes import identify_process, wait_until
from workers.embedded.servers import Valkey
from workers.lifecycle import SUPPORTED_POOLS
from workers.monitoring.doctor import broker, connect_to_servers, database, examine, run_checks
from workers.monitoring.doctor.context import Context, Pool, open_context
from workers.monitoring.doctor.findings import Finding
from workers.settings import load_settings


def test_each_unreachable_server_is_reported_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody:secret-word@127.0.0.1:1/unwind")
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://:secret-word@127.0.0.1:1/0")
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path))
    result = run()
    assert result.exit_code == 2
    assert re.findall(r"[A-Z]+_[A-Z_]+(?=: )", result.output) == [
        "DATABASE_UNREACHABLE",
        "BROKER_UNREACHABLE",
        "MAIL_TO_FILES",
    ]
    assert "secret-word" not in result.output


def test_embedded_servers_that_cannot_be_reached_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "servers" / "starting.lock").mkdir(parents=True)
    us = identify_process(os.getpid())
    mark = {"pid": us.pid, "started": us.started, "port": 1}
    write_json(tmp_path / "servers" / "running.json", dict.fromkeys(("daemon", "postgres", "valkey"), mark))
    with open_context(load_settings(data_dir=tmp_path)) as context:
        assert codes(connect_to_servers(context)) == ["SERVERS_UNREACHABLE"]


@pytest.mark.usefixtures("at_bad_servers")
def test_unsuitable_servers_are_reported(bad_servers: ServerUrls) -> None:
    assert codes(examine()[0]) == [
        "ANSWERS_UNREACHABLE",
        "BROKER_EVICTS",
        "BROKER_FORGETS",
        "CONNECTIONS_TOO_FEW",
        "MAIL_TO_FILES",
        "SCHEMA_MISSING",
        "WORKERS_MISSING",
    ]


@pytest.mark.usefixtures("at_bad_servers")
def test_login_that_may_change_history_is_reported(bad_servers: ServerUrls, monkeypatch: pytest.MonkeyPatch) -> None:
    """P5: the role is missing, not granted, or the login has too many rights."""
    upgrade(bad_servers.database_url)

    def run_check(check: Callable[[Context], Iterable[Finding]] = database.check_database_rights) -> list[str]:
        settings = load_settings(concurrency=1)
        url = settings.app_database_url or settings.database_url
        assert url is not None
        context = Context(settings, database=db.connect(url.get_secret_value()), has_schema=True)
        assert context.database is not None
        try:
            with context.transaction():
                return codes(check(context))
        finally:
            context.database.dispose()

    assert run_check() == []
    outsider = re.sub(r"//[^@]*@", "//outsider:secret-word@", bad_servers.database_url)
    with psycopg.connect(libpq_url(bad_servers.admin_url), autocommit=True) as admin:
        admin.execute("CREATE ROLE outsider LOGIN PASSWORD 'secret-word'")
        admin.execute("GRANT USAGE ON SCHEMA unwind TO outsider")
        admin.execute("GRANT ALL ON ALL TABLES IN SCHEMA unwind TO outsider")
        monkeypatch.setenv("UNWIND_APP_DATABASE_URL", outsider)
        assert run_check() == ["HISTORY_UNGUARDED"]
        monkeypatch.delenv("UNWIND_APP_DATABASE_URL")
        monkeypatch.setenv("DATABASE_URL", outsider)
        assert run_check() == ["ROLE_NOT_GRANTED"]
        admin.execute("DROP OWNED BY unwind_app")
        admin.execute("DROP ROLE unwind_app")
        assert run_check() == ["ROLE_MISSING"]
        monkeypatch.setenv("DATABASE_URL", bad_servers.database_url)
        with contextlib.ExitStack() as held:
            for _ in range(10):
                held.enter_context(psycopg.connect(libpq_url(bad_servers.database_url)))
            assert run_check(database.check_connections) == ["CONNECTIONS_NEARLY_USED"]


def test_definers_owned_by_the_owner_are_reported(context: Context, owner: psycopg.Connection) -> None:
    """A login without CREATEROLE leaves them so when it migrates."""

    def run_check() -> list[str]:
        with context.transaction():
            return codes(database.check_definers(context))

    assert run_check() == []
    owner.execute(f"ALTER FUNCTION {EVENTS_AFTER_SIGNATURE} OWNER TO CURRENT_USER")
    assert run_check() == ["DEFINERS_OF_THE_OWNER"]
    owner.execute(f"GRANT TEMPORARY ON DATABASE {owner.info.dbname} TO PUBLIC")
    assert run_check() == ["DEFINERS_OF_THE_OWNER", "TEMPORARY_OBJECTS_ALLOWED"]
    assert context.settings.database_url is not None
    upgrade(context.settings.database_url.get_secret_value())
    assert run_check() == []


def test_session_that_holds_locks_is_reported(
    context: Context, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_check() -> list[Finding]:
        with context.transaction():
            return [*database.check_locks(context)]

    with owner.transaction():
        owner.execute("SELECT FROM unwind.named_locks FOR UPDATE")
        assert run_check() == []  # it has just begun
        monkeypatch.setattr(database, "LOCKS_HELD_AFTER", timedelta(0))
        (findings,) = run_check()
        assert findings.code == "LOCKS_HELD"
        assert f"session {owner.info.backend_pid} of unwind_owner" in findings.message
    with owner.transaction():
        owner.execute("SELECT FROM unwind.named_locks")
        assert run_check() == []
    owner.execute("SELECT pg_advisory_lock(1)")
    assert codes(run_check()) == ["LOCKS_HELD"]


def test_cluster_mode_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    cluster_settings = {"cluster-enabled": "yes", "cluster-port": str(free_port(exclude=[port]))}
    server = Valkey(tmp_path, "secret", durable=False, settings=cluster_settings)
    server.start(port)
    try:
        assert wait_until(server.ready, 20)
        monkeypatch.setenv("UNWIND_DATA", str(tmp_path / "data"))
        settings = load_settings(broker_url=f"redis://:secret@127.0.0.1:{port}/0")
        with open_context(settings) as context:
            assert codes(connect_to_servers(context)) == ["BROKER_IS_CLUSTER", "SERVERS_NOT_RUNNING"]
            assert context.broker is None
            assert run_checks(context) == []
    finally:
        server.stop()


def test_missing_broker_right_is_reported_with_its_fix(servers: ServerUrls, broker_url: str) -> None:
    with redis.Redis.from_url(in_valkey_database(servers.broker_url, 0)) as server:
        server.execute_command("ACL", "SETUSER", "bare", "on", ">bare", "~*", "+info", "+select", "+ping")
        try:
            settings = load_settings(broker_url=f"redis://bare:bare@{broker_url.rpartition('@')[2]}")
            with open_context(settings) as context:
                trouble = connect_to_servers(context)
                findings = [finding for finding in trouble + run_checks(context) if finding.code == "CHECK_FAILED"]
        finally:
            server.execute_command("ACL", "DELUSER", "bare")
    assert findings
    assert {finding.fix.partition(" that ")[0] for finding in findings} == {
        "give the login of CELERY_BROKER_URL the rights"
    }


@pytest.mark.usefixtures("at_bad_servers")
def test_full_or_read_only_broker_is_reported(bad_servers: ServerUrls) -> None:
    with contextlib.closing(redis.Redis.from_url(bad_servers.broker_url)) as client:
        context = Context(load_settings(), broker=client, embedded_broker=False)

        def fresh_context() -> Context:
            info: Any = client.info()
            return replace(context, broker_info=info)

        findings = [*broker.check_broker_persistence(fresh_context())]
        assert (codes(findings), severity(findings)) == (["BROKER_FORGETS"], "warning")
        client.config_set("maxmemory-policy", "noeviction")
        assert codes(broker.check_broker_memory(fresh_context())) == []
        client.config_set("maxmemory", int(fresh_context().broker_info["used_memory"] * 1.05))
        assert codes(broker.check_broker_memory(fresh_context())) == ["BROKER_NEARLY_FULL"]
        client.config_set("maxmemory", 0)
        client.replicaof("127.0.0.1", 1)
        assert codes(broker.check_broker_persistence(fresh_context())) == ["BROKER_IS_REPLICA"]
        reported_codes = codes(examine()[0])
        assert "BROKER_IS_REPLICA" in reported_codes
        assert "BROKER_UNREACHABLE" not in reported_codes
        client.replicaof("NO", "ONE")
        failing = replace(context, broker_info={"aof_last_write_status": "err"})
        assert codes(broker.check_broker_persistence(failing)) == ["BROKER_CANNOT_SAVE"]


@pytest.mark.parametrize(("version", "expected"), [("6.0.16", ["BROKER_TOO_OLD"]), ("6.2.0", []), ("10.1", [])])
def test_broker_without_blmove_is_too_old(tmp_path: Path, version: str, expected: list[str]) -> None:
    """Without BLMOVE a killed worker would lose messages."""
    context = Context(load_settings(data_dir=tmp_path), broker_info={"redis_version": version})
    assert codes(broker.check_broker_version(context)) == expected


@pytest.mark.parametrize("off", [5.0, -5.0])
def test_clock_difference_is_reported(context: Context, off: float) -> None:
    findings = run_checks(replace(context, clock=lambda: context.clock() + off))
    assert codes(findings) == ["CLOCKS_DIFFER"]
    assert f"5 s {'ahead of' if off > 0 else 'behind'} the database's" in findings[0].message
    assert run_checks(replace(context, clock=lambda: context.clock() + off / 5)) == []
    assert codes(database.compare_clocks("The broker's clock", 100.0 + off, 100.0, 0.1)) == ["CLOCKS_DIFFER"]


def test_worker_without_usable_processes_is_reported(with_broker: Context) -> None:
    threads, unwired = Pool("celery.concurrency.thread:TaskPool", None), Pool(SUPPORTED_POOLS[0], 0)
    findings = [*broker.check_workers(replace(with_broker, pools={"a@here": threads, "b@here": unwired}))]
    assert codes(findings) == ["POOL_UNFIT", "WORKER_NOT_CONNECTED"]
    assert {severity([finding]) for finding in findings} == {"error"}
    sound = {"a@here": Pool(SUPPORTED_POOLS[0], 2), "b@here": Pool(SUPPORTED_POOLS[1], None)}
    assert codes(broker.check_workers(replace(with_broker, pools=sound))) == []


def test_messages_in_unread_queues_are_reported(with_broker: Context) -> None:
    client = with_broker.broker
    client.rpush("notices", "{}")
    reading = {"worker@here": ["commands", "consequences", "sweeps"]}
    findings = [*broker.check_queues(replace(with_broker, consumers=reading))]
    assert (codes(findings), severity(findings)) == (["QUEUE_UNREAD"], "error")
    assert "1 in notices" in findings[0].message
    assert "-Q notices" in findings[0].fix
    client.delete("notices")
    assert codes(broker.check_queues(replace(with_broker, consumers=reading))) == ["WORKERS_MISSING"]
    assert codes(broker.check_queues(replace(with_broker, consumers={}, supervised_since=None))) == ["NOTHING_RUNS"]
    client.rpush("celery", json.dumps({"headers": {"task": "orders.cancel", "id": "a"}}))
    client.rpush("commands\x06\x163", "no message")
    findings = [*broker.check_strays(with_broker)]
    assert codes(findings) == ["STRAY_MESSAGES", "STRAY_MESSAGES"]
    assert "orders.cancel" in findings[0].message


def test_mail_files_on_several_hosts_are_reported(with_broker: Context) -> None:
    one_host = {"emails@here": ["notices", "audits"], "commands@there": ["commands"]}
    several = one_host | {"emails@there": ["notices", "audits"]}
    assert codes(broker.check_mail_files(replace(with_broker, consumers=one_host))) == []
    assert codes(broker.check_mail_files(replace(with_broker, consumers=several))) == ["MAIL_FILES_SCATTERED"]
    sending = with_broker.settings.model_copy(update={"smtp_url": SecretStr("smtp://localhost")})
    assert codes(broker.check_mail_files(replace(with_broker, consumers=several, settings=sending))) == []
