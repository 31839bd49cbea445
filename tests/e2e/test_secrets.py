"""Tests that planted secrets and private words appear in no log, report or broker key."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from celery import Celery

from models.dead_letters import DeadLetterRow
from models.notices import NoticeRow
from tests.plugins.market import Market
from tests.plugins.servers import libpq_url
from tests.plugins.upstream import (
    ANSWER_TIMEOUT_SECONDS,
    START_TIMEOUT_SECONDS,
    Installation,
    submit_orders,
    temporary_installation,
)
from tests.waiting import wait_until
from workers.embedded.client import ServerUrls
from workers.local.process_specs import WORKER_GROUPS, beat_program, worker_program
from workers.local.supervisor import Supervisor
from workers.settings import CHECKOUT, Settings

pytestmark = [pytest.mark.e2e, pytest.mark.long]

PRIVATE = "planted-private-words"
SMTP_PASSWORD = "planted-smtp-password"
FLOWER_PASSWORD = "planted-flower-password"


def seed(market: Market) -> None:
    submit_orders(market, range(2001, 2004), buyer_id="stranger")


@pytest.fixture(scope="module")
def installation(
    servers: ServerUrls, admin: psycopg.Connection, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with temporary_installation(servers, admin, template_database, tmp_path_factory.mktemp("secrets"), seed) as running:
        running.settings = Settings.model_validate(
            running.settings.environment()
            | {
                "UNWIND_SMTP_URL": f"smtp://me:{SMTP_PASSWORD}@127.0.0.1:1",
                "UNWIND_FLOWER_LOGIN": f"ops:{FLOWER_PASSWORD}",
                "UNWIND_LOG_LEVEL": "DEBUG",
            }
        )
        for group in WORKER_GROUPS:
            running.supervisor.start(worker_program(running.settings, group))
        running.supervisor.start(beat_program(running.settings))
        running.supervisor.wait_ready(START_TIMEOUT_SECONDS)
        yield running


def secrets_of(installation: Installation) -> set[str]:
    passwords = {
        url.partition("://")[2].rpartition("@")[0].rpartition(":")[2]
        for url in (installation.database_url, installation.broker_url)
    }
    assert all(len(password) > 10 for password in passwords)
    return passwords | {PRIVATE, SMTP_PASSWORD, FLOWER_PASSWORD}


def places_containing(installation: Installation, text: str) -> set[str]:
    return {secret for secret in secrets_of(installation) if secret in text}


def use_every_feature(installation: Installation, client: Celery) -> None:
    arguments = {"order_id": 2001, "member_id": "seller", "reason": "S_MUTUAL", "comment": PRIVATE}
    done = client.send_task("ocr.file", kwargs=arguments, queue="commands").get(timeout=ANSWER_TIMEOUT_SECONDS)
    assert done["outcome"] == "done", done
    assert (
        client.send_task("ocr.file", kwargs=arguments, queue="commands").get(timeout=ANSWER_TIMEOUT_SECONDS)["outcome"]
        == "refused"
    )
    invalid = arguments | {"surprise": PRIVATE, "comment": [PRIVATE]}
    assert (
        client.send_task("ocr.file", kwargs=invalid, queue="commands").get(timeout=ANSWER_TIMEOUT_SECONDS)["outcome"]
        == "invalid"
    )
    client.send_task("no.such_task", kwargs=arguments, queue="commands")
    with psycopg.connect(libpq_url(installation.database_url), autocommit=True) as owner:
        owner.execute("ALTER TABLE unwind.ocrs RENAME TO ocrs_away")  # an unexpected error for the worker
        broken = client.send_task("ocr.file", kwargs=arguments | {"order_id": 2002}, queue="commands")
        wait_until(lambda: "task_retry" in installation.log())
        owner.execute("ALTER TABLE unwind.ocrs_away RENAME TO ocrs")
    assert broken.get(timeout=ANSWER_TIMEOUT_SECONDS)["outcome"] == "done"
    wait_until(lambda: installation.notices(NoticeRow.attempts > 0, NoticeRow.last_error.is_not(None)))
    wait_until(lambda: installation.count(DeadLetterRow) > 0)


@pytest.mark.guarantee("P9")
def test_no_secret_or_private_text_leaks(installation: Installation, servers: ServerUrls) -> None:
    with installation.client() as client:
        use_every_feature(installation, client)
        inspect = client.control.inspect(timeout=5)
        leaks = {
            name: getattr(inspect, name)()
            for name in ("active", "reserved", "scheduled", "stats", "conf", "registered", "report", "active_queues")
        }
    assert leaks["stats"]
    assert {
        name: leaked for name, answer in leaks.items() if (leaked := places_containing(installation, repr(answer)))
    } == {}
    report = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers.app", "report"],
        env=installation.environment(), cwd=CHECKOUT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "alerts.scan_seller_alerts" in report.stdout
    assert places_containing(installation, report.stdout + report.stderr) == set()
    logs = {path.name: path.read_text(errors="replace") for path in installation.supervisor.logs.glob("*.log")}
    assert {*(f"{group}.log" for group in WORKER_GROUPS), "beat.log"} <= set(logs)
    assert {name: leaked for name, text in logs.items() if (leaked := places_containing(installation, text))} == {}
    for connection in (installation.redis(), installation.redis(results=True)):
        with connection:
            held = {key: connection.dump(key) for key in connection.scan_iter()}
        assert {
            key: leaked
            for key, raw in held.items()
            if raw is not None
            and (leaked := places_containing(installation, raw.decode("latin-1")))  # None: taken meanwhile
        } == {}


def test_workers_ignore_remote_control(installation: Installation) -> None:
    with installation.client() as client:
        before = {name: installation.supervisor.pid(name) for name in WORKER_GROUPS}
        logged = {
            name: len(installation.supervisor.log(name).read_text()) for name in before
        }  # earlier tests plant errors
        arguments = {"order_id": 2003, "member_id": "seller", "reason": "S_MUTUAL", "comment": "agreed by mail"}
        client.control.revoke("to-be-dropped", reply=False)
        client.control.cancel_consumer("commands", reply=False)
        answers = client.control.broadcast("shutdown", reply=True, timeout=5)
        assert len(answers) == len(WORKER_GROUPS)
        assert all("disabled" in repr(answer) for answer in answers), answers
        answer = client.send_task("ocr.file", kwargs=arguments, queue="commands", task_id="to-be-dropped").get(
            timeout=ANSWER_TIMEOUT_SECONDS
        )
        assert answer["outcome"] == "done"
        assert {name: installation.supervisor.pid(name) for name in before} == before
        alive = {name.partition("@")[0] for name in client.control.inspect(timeout=5).ping() or {}}
        assert alive == {*WORKER_GROUPS, "celerybeat"}
    for name in before:
        assert "Traceback" not in installation.supervisor.log(name).read_text()[logged[name] :]


def test_supervisor_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "data") as supervisor:
        for folder in (tmp_path / "data", supervisor.logs, supervisor.run):
            assert folder.stat().st_mode & 0o077 == 0, folder
