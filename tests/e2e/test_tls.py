"""A whole installation whose PostgreSQL and broker take connections only with TLS and a client's certificate."""

from __future__ import annotations

import shutil
import ssl
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from click.testing import CliRunner

from tests.plugins.postgres import CERTIFICATES, new_tls_server
from tests.plugins.proxy import Proxy
from tests.plugins.sql_interface import submit_command
from tests.plugins.stored_rows import DatabaseRows
from tests.plugins.upstream import Installation
from tests.waiting import wait_until
from workers.cli import group
from workers.local.process_specs import beat_program, flower_program, metrics_program, worker_program
from workers.local.supervisor import Supervisor
from workers.monitoring.doctor import run_checks
from workers.monitoring.doctor.context import Context
from workers.settings import load_settings

UNENCRYPTED = (
    "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_addr IS NOT NULL AND NOT ssl"
)
LISTENING = (
    "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
    "WHERE ssl AND application_name = 'unwind listen'"
)


@pytest.mark.e2e
@pytest.mark.long
def test_every_program_works_over_tls(broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Migration, workers with their listener, beat, Flower, metrics, doctor and backup."""
    key = tmp_path / "client.key"
    shutil.copy(CERTIFICATES / "client.key", key)
    key.chmod(0o600)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
    context.load_verify_locations(CERTIFICATES / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    login, number = broker_url.partition("://")[2].rpartition("@")[0], int(broker_url.rpartition("/")[2])
    with new_tls_server() as server, Proxy(urlsplit(broker_url).port or 0, tls=context) as proxy:
        with server.connect() as conn:
            conn.execute("CREATE DATABASE unwind")
        for variable, value in {
            "DATABASE_URL": server.url("unwind"),
            "CELERY_BROKER_URL": f"rediss://{login}@127.0.0.1:{proxy.port}/{number}",
            "CELERY_RESULT_BACKEND": f"rediss://{login}@127.0.0.1:{proxy.port}/{number + 1}",
            "UNWIND_TLS_CA_FILE": str(CERTIFICATES / "ca.pem"),
            "UNWIND_TLS_CERT_FILE": str(CERTIFICATES / "client.pem"),
            "UNWIND_TLS_KEY_FILE": str(key),
            "UNWIND_DATA": str(tmp_path / "data"),
        }.items():
            monkeypatch.setenv(variable, value)
        settings = load_settings()
        migrated = CliRunner().invoke(group, ["migrate"])
        assert migrated.exit_code == 0, migrated.output
        with Supervisor(settings.data_dir) as supervisor:
            for name in ("commands", "sweeps"):
                supervisor.start(worker_program(settings, name))
            supervisor.start(beat_program(settings))
            flower, flower_address = flower_program(settings)
            metrics, metrics_address = metrics_program(settings)
            supervisor.start(flower)
            supervisor.start(metrics)
            supervisor.wait_ready(120)
            # The storefront is beside the broker and uses no TLS.
            results = broker_url.rpartition("/")[0] + f"/{number + 1}"
            installation = Installation(settings, supervisor, server.url("unwind"), broker_url, results)
            for variable in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):  # Celery takes them before its arguments
                monkeypatch.delenv(variable)
            with installation.client() as client:
                answer = client.send_task("orders.options", kwargs={"order_id": 1, "member_id": "m"}, queue="commands")
                assert answer.get(timeout=60)["code"] == "ORDER_UNKNOWN"
            rows = DatabaseRows(server.socket_url("unwind"))
            with server.connect("unwind") as conn:
                assert wait_until(lambda: conn.execute(LISTENING).fetchone() == (1,))
                submit_command(conn, "orders.options", {"order_id": 1}, "by-sql")
                assert wait_until(lambda: rows.command_answer("by-sql").state == "answered")
                assert conn.execute(UNENCRYPTED).fetchone() == (0,)
            pages = {metrics_address: b"unwind_queue_messages", f"{flower_address}broker": b"commands"}
            for address, words in pages.items():
                assert wait_until(lambda address=address, words=words: words in _page(address))  # type: ignore[misc]
            codes = {finding.code for finding in run_checks(Context(settings))}
            assert not codes & {"DATABASE_UNREACHABLE", "BROKER_UNREACHABLE", "NOTHING_RUNS", "WORKERS_MISSING"}
            saved = CliRunner().invoke(group, ["backup", str(tmp_path / "unwind.dump")])
            assert saved.exit_code == 0, saved.output
        with pytest.raises(psycopg.OperationalError, match="no encryption"):
            psycopg.connect(server.url("unwind").replace("+psycopg", "") + "?sslmode=disable")


def _page(address: str) -> bytes:
    """Flower's shows the queues once the workers have named them."""
    with urllib.request.urlopen(address, timeout=60) as page:
        content: bytes = page.read()
    return content
