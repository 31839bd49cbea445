"""Tests of docs/integrate.md: every snippet runs as printed, under logins with only the rights the page grants."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import jsonschema
import psycopg
import pytest
import redis

from tests.plugins.market import Market
from tests.plugins.servers import in_database, libpq_url
from tests.plugins.upstream import Installation, temporary_installation
from tests.waiting import wait_until
from tools.contract_files import options_schema, public_tasks
from workers.embedded.client import ServerUrls
from workers.local.process_specs import flower_program
from workers.monitoring.metrics_server import MetricsCollector
from workers.settings import CHECKOUT, Settings

pytestmark = pytest.mark.e2e

PAGE = CHECKOUT / "docs" / "integrate.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
RIGHTS = [text for language, text in BLOCKS if language == "redis" or "CREATE ROLE" in text]
SNIPPETS = [(language, text) for language, text in BLOCKS if text not in RIGHTS]
LOGINS = ("storefront", "dashboard", "unwind_worker")
ALL_TASKS = "draw=1&start=0&length=100&order[0][column]=0&order[0][dir]=desc&columns[0][data]=received"
USERS = ("unwind-producer", "unwind-asker", "unwind-worker", "unwind-flower")


def as_user(url: str, user: str, password: str) -> str:
    """The URL of a server with another login."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}"))


def nothing(market: Market) -> None:
    """The page says itself what it needs."""


@pytest.fixture(scope="module")
def installation(
    servers: ServerUrls, admin: psycopg.Connection, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """An installation whose rights were granted by the page's own statements."""
    with (
        temporary_installation(
            servers, admin, template_database, tmp_path_factory.mktemp("integrate"), nothing
        ) as ours,
        contextlib.closing(ours.redis()) as broker,
    ):
        _drop_logins(admin, broker)
        try:
            for text in RIGHTS:
                if "CREATE ROLE" in text:
                    address = in_database(servers.admin_url, ours.database_url.rpartition("/")[2])
                    with psycopg.connect(libpq_url(address), autocommit=True) as conn:
                        conn.execute(text)
                    continue
                for line in text.splitlines():
                    broker.execute_command(*line.split())
            ours.settings = type(ours.settings).model_validate(
                ours.settings.environment()
                | {
                    "UNWIND_APP_DATABASE_URL": as_user(ours.database_url, "unwind_worker", "worker-secret"),
                    "CELERY_BROKER_URL": as_user(ours.broker_url, "unwind-worker", "worker-secret"),
                    "CELERY_RESULT_BACKEND": as_user(ours.result_backend, "unwind-worker", "worker-secret"),
                }
            )
            ours.start_worker()
            yield ours
            ours.supervisor.stop(["commands"])
        finally:
            _drop_logins(admin, broker)


def _drop_logins(admin: psycopg.Connection, broker: Any) -> None:
    """Remove logins, which belong to the shared server."""
    for name in LOGINS:
        admin.execute(f"DROP ROLE IF EXISTS {name}")
    broker.execute_command("ACL", "DELUSER", *USERS)


def environment_of_a_producer(installation: Installation) -> dict[str, str]:
    """The variables of a storefront, which may push commands and wait for answers, as `./run env` writes them."""
    return installation.environment() | {
        "DATABASE_URL": libpq_url(installation.database_url),
        "CELERY_BROKER_URL": as_user(installation.broker_url, "unwind-producer", "producer-secret"),
        "CELERY_RESULT_BACKEND": as_user(installation.result_backend, "unwind-asker", "asker-secret"),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    }


@pytest.mark.timeout(300)
@pytest.mark.long
def test_every_snippet_works(installation: Installation) -> None:
    """The snippets run in their order, because one may use the results of another."""
    for number, (language, text) in enumerate(SNIPPETS):
        try:
            _try_snippet(installation, language, text)
        except Exception as error:
            error.add_note(f"snippet {number} of the page:\n{text}")
            raise


def _try_snippet(installation: Installation, language: str, text: str) -> None:
    if language == "json":
        shown = json.loads(text.replace("…", "."))
        if "steps" in shown:
            jsonschema.validate(shown, options_schema()["properties"]["routes"]["items"])
        else:
            assert shown["outcome"] in ("done", "refused", "invalid", "conflict")
    elif language == "sql":
        login = ("storefront", "storefront-secret") if "submit_command" in text else ("dashboard", "dashboard-secret")
        if "command_answers" in text:
            installation.answer_of("nightly-1006-npb")
        with psycopg.connect(libpq_url(as_user(installation.database_url, *login)), autocommit=True) as conn:
            cursor = conn.execute(text)
            if "SELECT" in text and "BEGIN" not in text:
                rows = cursor.fetchall()
                assert rows
                assert "command_answers" not in text or rows[0][:3] == ("answered", "done", None)
    elif language == "python":
        _try_python(installation, text)
    else:
        assert language == "sh", f"nobody runs {language}"
        for request_id in re.findall(r"show request (\S+)", text):
            installation.answer_of(request_id)
        done = _run(installation, ["bash", "-e", "-c", text.replace("./run ", f"{sys.executable} -m workers ")])
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.strip()


def _try_python(installation: Installation, text: str) -> None:
    done = _run(installation, [sys.executable, "-c", text])
    assert done.returncode == 0, done.stderr
    if "billing-1005-npb" in text:
        assert installation.answer_of("billing-1005-npb")["outcome"] == "done"
    if "batch-1007-npb" in text:
        assert installation.answer_of("batch-1007-npb")["outcome"] == "done"
    if "print(answer" in text and "npb.file" in text:
        assert done.stdout.startswith("done ")
    if "inventory.record_lot" in text:
        assert re.findall(r"^(\S+) done ", done.stdout, re.MULTILINE) == (
            ["members.record"] * 2 + ["inventory.record_lot"] + ["orders.submit"] * 5
        ), done.stdout


def _run(installation: Installation, words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = environment_of_a_producer(installation)
    if "-m workers" in words[-1]:
        environment |= {
            "CELERY_BROKER_URL": installation.broker_url,
            "CELERY_RESULT_BACKEND": installation.result_backend,
        }
    return subprocess.run(words, check=False, env=environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)


def test_redis_user_has_only_the_rights_of_its_role(installation: Installation) -> None:
    refused = {
        "unwind-producer:producer-secret": (
            ("RPOP", "commands"),
            ("LRANGE", "commands", "0", "-1"),
            ("LPUSH", "sweeps", "x"),
            ("LPUSH", "celery-task-meta-x", "x"),
            ("DEL", "commands"),
            ("GET", "celery-task-meta-x"),
            ("FLUSHDB",),
            ("KEYS", "*"),
        ),
        "unwind-asker:asker-secret": (
            ("LPUSH", "commands", "x"),
            ("SET", "celery-task-meta-x", "x"),
            ("GET", "commands"),
        ),
        "unwind-worker:worker-secret": (("FLUSHALL",), ("CONFIG", "GET", "*"), ("ACL", "LIST")),
        "unwind-flower:flower-secret": (
            ("LPUSH", "commands", "x"),
            ("DEL", "commands"),
            ("SET", "x", "y"),
            ("FLUSHDB",),
        ),
    }
    for login, commands in refused.items():
        with contextlib.closing(
            redis.Redis.from_url(as_user(installation.broker_url, *login.split(":")))
        ) as connection:
            assert connection.ping()
            for words in commands:
                with pytest.raises(redis.exceptions.NoPermissionError):
                    connection.execute_command(*words)  # type: ignore[no-untyped-call]


def test_flower_and_metrics_work_with_their_redis_users(installation: Installation) -> None:
    variables = {"CELERY_BROKER_URL": as_user(installation.broker_url, "unwind-flower", "flower-secret")}
    settings = Settings.model_validate(installation.settings.environment() | variables)
    program, address = flower_program(settings)
    installation.supervisor.start(program)
    try:
        installation.supervisor.wait_ready(60, ["flower"])
        with installation.client() as client:

            def is_visible() -> bool:  # Flower shows only events since its start
                arguments = {"order_id": 1, "member_id": "s-881"}
                client.send_task("orders.options", kwargs=arguments, queue="commands").get(timeout=30)
                return "refused ORDER_UNKNOWN" in page(f"{address}tasks/datatable?{ALL_TASKS}")

            wait_until(is_visible)
        wait_until(lambda: "commands@" in page(f"{address}workers"))
        workers = re.findall(r"commands@[\w.-]+", page(f"{address}workers"))
        assert "commands" in page(f"{address}worker/{workers[0]}")  # the answers of the worker, read by BRPOP
        assert all(queue in page(f"{address}broker") for queue in ("commands", "consequences"))
    finally:
        installation.supervisor.stop(["flower"])
    with contextlib.closing(MetricsCollector(settings)) as gauges:
        assert gauges.ready() == {"database": True, "broker": True}


def page(url: str) -> str:
    """The text of a page of Flower."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def test_acl_file_has_the_rights_of_the_page() -> None:
    """Containers load deploy/redis/users.acl.example."""
    file = (CHECKOUT / "deploy" / "redis" / "users.acl.example").read_text()
    rules = [line.removeprefix("ACL SETUSER ") for text in RIGHTS if "ACL" in text for line in text.splitlines()]
    users = {line.split()[0]: line.partition(" reset on ")[2] for line in rules}
    rights_by_user = dict(re.findall(r"^user (\S+) on (.*)$", file, re.MULTILINE))
    assert rights_by_user.pop("unwind-ops") == ">ops-secret ~* &* +@all"
    assert rights_by_user == users
    assert "user default off\n" in file


def test_postgresql_login_has_only_the_rights_of_its_role(installation: Installation) -> None:
    refused = {
        "storefront:storefront-secret": (
            "SELECT * FROM unwind.orders",
            "SELECT * FROM unwind.command_answers",
            "SELECT * FROM unwind.events_after(NULL, 1)",
        ),
        "dashboard:dashboard-secret": (
            "SELECT * FROM unwind.members",
            "SELECT * FROM unwind.dead_letters",
            "SELECT unwind.submit_command('npb.file', '{}', 'x')",
            "UPDATE unwind.orders SET status = 'PAID'",
            "SET ROLE unwind_app",
        ),
        "unwind_worker:worker-secret": (
            "DELETE FROM unwind.events",
            "UPDATE unwind.ledger_lines SET amount = 0",
            "DELETE FROM unwind.requests",
            "SELECT unwind.prune_requests('2020-01-01')",
            "CREATE TABLE unwind.x (y int)",
        ),
    }
    for login, statements in refused.items():
        with psycopg.connect(libpq_url(as_user(installation.database_url, *login.split(":"))), autocommit=True) as conn:
            for statement in statements:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute(statement)


def test_names_on_the_page_exist() -> None:
    page = PAGE.read_text(encoding="utf-8")
    documented = {
        name
        for name in re.findall(r'send_task\(\s*"(\w+\.\w+)"|(?:call|send) (\w+\.\w+)', page)
        for name in name
        if name
    }
    assert documented
    assert documented <= set(public_tasks())
    assert "at least 30 days" in page
    assert "(support.md#refusal-codes)" in page
    assert "## Refusal codes" in (CHECKOUT / "docs" / "support.md").read_text(encoding="utf-8")
