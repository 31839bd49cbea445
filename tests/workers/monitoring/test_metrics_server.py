"""Tests of the metrics endpoint, also while a server is down, and of every alert rule that reads it."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
import yaml
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine, text

from models import dead_jobs
from models.db import database as db
from models.db.pipeline import driver_sql
from models.monitoring import metrics as readings
from models.outbox import OUTBOX_CONSUMERS
from policies.verdicts import Code
from schedules.routes import QUEUES
from schedules.timetable import TIMETABLE
from tasks.queue_heartbeat import heartbeat_run
from tests.plugins.market import FILED, ORDERED, Market
from tests.plugins.servers import libpq_url
from tests.plugins.sql_interface import submit_command
from workers.app import app
from workers.cli.metrics import metrics
from workers.embedded.data_dir import free_port
from workers.monitoring.metrics_server import MetricsCollector, make_metrics_server
from workers.settings import CHECKOUT, Settings, load_settings

RULES: list[dict[str, Any]] = yaml.safe_load((CHECKOUT / "deploy/prometheus/alerts.yml").read_text())["groups"][0][
    "rules"
]
DASHBOARD = CHECKOUT / "deploy/grafana/dashboards/unwind.json"
Metrics = dict[str, dict[tuple[str, ...], float]]


@pytest.fixture
def settings(database_url: str, broker_url: str, result_backend: str, tmp_path: Path) -> Settings:
    """An installation with its servers."""
    return load_settings(
        database_url=database_url, broker_url=broker_url, result_backend=result_backend, data_dir=tmp_path
    )


@contextlib.contextmanager
def serving(settings: Settings, address: str = "127.0.0.1") -> Iterator[str]:
    """Serve its metrics over HTTP."""
    with (
        contextlib.closing(MetricsCollector(settings)) as gauges,
        make_metrics_server(gauges, address, 0) as server,
    ):
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://{f'[{address}]' if ':' in address else address}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def page(url: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def parse_metrics(body: str) -> Metrics:
    """The values of each metric by their labels, in the order of the labels' names."""
    return {
        family.name: {tuple(sample.labels.values()): sample.value for sample in family.samples}
        for family in text_string_to_metric_families(body)
    }


def scrape(settings: Settings) -> Metrics:
    """The metrics of one scrape."""
    with serving(settings) as address:
        status, body = page(f"{address}/metrics")
    assert status == 200
    return parse_metrics(body)


@pytest.mark.parametrize("address", ["::1", "localhost", "127.0.0.1"])
def test_metrics_listen_on_each_kind_of_address(settings: Settings, address: str) -> None:
    with serving(settings, address=address) as url:
        assert page(f"{url}/livez") == (200, "alive\n")


def test_fresh_installation_has_every_metric(settings: Settings) -> None:
    metrics = scrape(settings)
    assert metrics["unwind_up"] == {("database",): 1, ("broker",): 1}
    assert metrics["unwind_scrape_failures"] == {(): 0}
    assert {reading.name for reading in readings.METRICS} <= set(metrics)
    assert metrics["unwind_queue_messages"] == {(queue,): 0 for queue in QUEUES}
    assert metrics["unwind_outbox_due"] == {(task,): 0 for task in OUTBOX_CONSUMERS}
    assert metrics["unwind_emails"] == {("pending",): 0, ("parked",): 0}
    assert "unwind_build_info" in metrics


def test_waiting_work_is_counted_with_its_age(
    market: Market, settings: Settings, database_url: str, broker_url: str
) -> None:
    """P3, P7: overdue alerts, outbox messages, submissions, dead jobs, requests by outcome, queue lengths."""
    market.order(1003)
    market.order(1004)
    assert market.code("npb.file", order_id=1003, member_id="seller") == "TOO_EARLY"
    market.at(ORDERED + timedelta(days=7))
    market.done("npb.file", order_id=1003, member_id="seller")
    with psycopg.connect(libpq_url(database_url), autocommit=True) as owner:
        submit_command(owner, "orders.options", {"order_id": 1})
        owner.execute("UPDATE unwind.submissions SET submitted_at = submitted_at - interval '10 minutes'")
        owner.execute(
            "INSERT INTO unwind.outbox (key, task, payload, created_at, due_at) SELECT 'k' || n, "
            "'credits.post_to_next_invoice', '{}', clock_timestamp() - interval '1 hour', clock_timestamp() "
            "FROM generate_series(1, 3) AS n"
        )
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE unwind.requests SET answered_at = clock_timestamp() - interval '10 seconds'")
        owner.execute(
            "INSERT INTO unwind.sweeps VALUES ('bills.issue', clock_timestamp() - interval '90 seconds', 0, 0)"
        )
        owner.execute(
            "INSERT INTO unwind.violations (sentence, subject, found_at) SELECT 'a sentence', n, now() "
            "FROM generate_series(1, 2) AS n"
        )
    database = db.connect(database_url)
    with database.transaction() as conn:
        dead_jobs.park_job(conn, task="orders.cancel", arguments={}, error="KeyError", attempts=9, now=FILED)
    database.dispose()
    with contextlib.closing(redis.Redis.from_url(broker_url)) as client:
        client.rpush("notices", "a", "b")
        client.rpush("celery", "lost")
    metrics = scrape(settings)
    with psycopg.connect(
        libpq_url(database_url), autocommit=True
    ) as owner:  # the test suite checks the invariants afterwards
        owner.execute("DELETE FROM unwind.outbox WHERE key LIKE 'k_'")
    lag = metrics["unwind_unlock_lag_seconds"][()]
    assert lag > timedelta(days=1).total_seconds()  # filed in a past year
    assert metrics["unwind_unlock_overdue_alerts"] == {(): 1}
    assert 595 < metrics["unwind_submissions_oldest_seconds"][()] < 700
    assert metrics["unwind_submissions_waiting"] == {(): 1}
    assert metrics["unwind_credits_pending"] == {(): 3}
    assert 3595 < metrics["unwind_outbox_oldest_seconds"][()] < 3700
    assert metrics["unwind_dead_jobs"][("orders.cancel",)] == 1
    assert metrics["unwind_requests_last_minute"][("TOO_EARLY", "refused")] == 1
    assert metrics["unwind_requests_last_minute"][("", "done")] > 1
    assert 89 < metrics["unwind_sweep_age_seconds"][("bills.issue",)] < 150
    assert metrics["unwind_invariant_violations"] == {(): 2}
    assert metrics["unwind_queue_messages"][("notices",)] == 2
    assert metrics["unwind_stray_messages"] == {(): 1}


def test_no_label_is_an_id(market: Market, settings: Settings, database_url: str) -> None:
    """P9: labels come from closed lists, which also bounds the number of series."""
    market.order(1003)
    market.at(FILED)
    market.done("npb.file", order_id=1003, member_id="seller")
    market.code("npb.file", order_id=1003, member_id="stranger")
    with psycopg.connect(libpq_url(database_url), autocommit=True) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE unwind.requests SET answered_at = clock_timestamp()")

    closed = {"done", "refused", "", "pending", "parked", "database", "broker", "TASK_UNKNOWN", "NOT_A_COMMAND"}
    closed |= {"queue", "task"}
    closed |= (
        {code.value for code in Code}
        | set(QUEUES)
        | set(app.tasks)
        | {entry.name for entry in TIMETABLE}
        | set(map(heartbeat_run, QUEUES))
    )
    metrics = scrape(settings)
    labels = {
        label
        for name, values in metrics.items()
        if name != "unwind_build_info"
        for label_set in values
        for label in label_set
    }
    assert labels <= closed


def test_metrics_of_one_server_survive_the_loss_of_the_other(settings: Settings, tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    away = {
        "database": settings.environment() | {"DATABASE_URL": f"postgresql://nobody@{nowhere}/unwind"},
        "broker": settings.environment() | {"CELERY_BROKER_URL": f"redis://{nowhere}/0"},
    }
    for part, environment in away.items():
        with serving(Settings.model_validate(environment)) as address:
            metrics = parse_metrics(page(f"{address}/metrics")[1])
            assert metrics["unwind_up"] == {(server,): float(server != part) for server in ("database", "broker")}
            assert ("unwind_queue_messages" in metrics) == (part != "broker")
            assert ("unwind_outbox_due" in metrics) == (part != "database")
            assert page(f"{address}/livez") == (200, "alive\n")
            status, body = page(f"{address}/readyz")
            assert status == 503
            assert f"{part} does not answer" in body
            assert page(f"{address}/else")[0] == 404


def test_frozen_server_does_not_block_scrapes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.monitoring.metrics_server.TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/unwind"
        frozen = Settings.model_validate(settings.environment() | {"DATABASE_URL": url})
        assert scrape(frozen)["unwind_up"] == {("database",): 0, ("broker",): 1}


def test_slow_query_times_out_alone(settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "METRICS_STATEMENT_TIMEOUT_MS", 50)
    with psycopg.connect(libpq_url(database_url)) as owner:
        owner.execute("LOCK TABLE unwind.dead_jobs IN ACCESS EXCLUSIVE MODE")
        metrics = scrape(settings)
    assert metrics["unwind_scrape_failures"] == {(): 1}
    assert "unwind_dead_jobs" not in metrics
    assert metrics["unwind_up"][("database",)] == 1
    assert "unwind_emails" in metrics


def test_no_query_scans_a_large_table(database_url: str) -> None:
    """Scrapes run every few seconds."""
    engine = create_engine(database_url)
    try:
        with engine.connect() as conn:
            conn.execute(text("SET enable_seqscan = off"))
            for reading in readings.METRICS:
                plan = "\n".join(conn.execute(text(f"EXPLAIN {driver_sql(reading.query)}")).scalars())
                large = r"Seq Scan on (alerts|outbox|requests|submissions|notices|dead_jobs|violations|events)"
                assert not re.search(large, plan), plan
    finally:
        engine.dispose()


def test_command_prints_metrics_once(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path / "data"))
    nothing = CliRunner().invoke(metrics, ["--once"])
    assert (nothing.exit_code, (tmp_path / "data").exists()) == (1, False)
    assert "./run up" in nothing.output
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(metrics, ["--once"])
    assert result.exit_code == 0
    assert parse_metrics(result.stdout)["unwind_up"] == {("database",): 1, ("broker",): 1}


# -- alerts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_alert_has_a_severity_a_wait_and_a_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "warn")
    assert rule["annotations"]["summary"].endswith(".")
    assert re.fullmatch(r"\d+[mh]", rule["for"])
    assert rule["annotations"]["runbook"] == f"docs/operate.md#{rule['alert'].lower()}"
    headings = re.findall(r"^### (\w+)$", (CHECKOUT / "docs/operate.md").read_text(), re.MULTILINE)
    assert rule["alert"] in headings


def test_every_metric_of_an_alert_exists(settings: Settings, database_url: str) -> None:
    with psycopg.connect(libpq_url(database_url), autocommit=True) as owner:
        for run in {*(entry.name for entry in TIMETABLE), *map(heartbeat_run, QUEUES)}:
            owner.execute("INSERT INTO unwind.sweeps VALUES (%s, clock_timestamp(), 0, 0)", [run])
    metrics = scrape(settings)
    names = {name for rule in RULES for name in re.findall(r"\bunwind_\w+", rule["expr"])}
    assert names <= set(metrics)
    for rule in RULES:
        for name, label, sign, value in re.findall(r'(unwind_\w+)\{(\w+)(=~|!~|=)"([^"]+)"\}', rule["expr"]):
            labels = {label_set[0] for label_set in metrics[name]}
            if sign == "=" and name != "unwind_requests_last_minute":  # appears with the first refusal
                assert value in labels, json.dumps([label, value])
            if sign == "=~":
                assert any(re.fullmatch(value, label_value) for label_value in labels), value


def test_every_metric_and_label_of_the_dashboard_exists(settings: Settings, database_url: str) -> None:
    with psycopg.connect(libpq_url(database_url), autocommit=True) as owner:
        for run in {*(entry.name for entry in TIMETABLE), *map(heartbeat_run, QUEUES)}:
            owner.execute("INSERT INTO unwind.sweeps VALUES (%s, clock_timestamp(), 0, 0)", [run])
    with serving(settings) as address:
        families = list(text_string_to_metric_families(page(f"{address}/metrics")[1]))
    labels = {family.name: {label for sample in family.samples for label in sample.labels} for family in families}
    used = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            (name,) = re.findall(r"\bunwind_\w+", target["expr"])
            used.add(name)
            legends = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            selected = set(re.findall(r"(\w+)[=!]~?\"", target["expr"]))
            assert legends | selected <= labels[name], target
            for pattern in re.findall(r'sweep=~"([^"]+)"', target["expr"]):
                assert any(re.fullmatch(pattern, run) for run in map(heartbeat_run, QUEUES))
    assert used <= set(labels)
    assert {name for name in labels if re.match("unwind_(unlock|outbox|emails|dead|requests|queue)", name)} <= used


def test_every_runbook_belongs_to_an_alert() -> None:
    section = (CHECKOUT / "docs/operate.md").read_text().partition("## Alerts")[2].partition("\n## ")[0]
    assert re.findall(r"^### (\w+)$", section, re.MULTILINE) == [rule["alert"] for rule in RULES]


ANSWERED_PATHS = ("/metrics", "/livez", "/readyz")
OTHER_PATHS = ("/", "/etc/passwd", "/../../etc/passwd", "/%2e%2e/x", "/metrics/", "/livez/..")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


def test_server_has_three_pages_and_two_methods(settings: Settings) -> None:
    with serving(settings) as address:
        for path, method in itertools.product((*ANSWERED_PATHS, *OTHER_PATHS), METHODS):
            connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
            with contextlib.closing(connection):
                connection.putrequest(method, path, skip_host=True)
                connection.putheader("Host", "evil.invalid")
                connection.endheaders()
                answer = connection.getresponse()
                body = answer.read()
            allowed = ("GET",) if path == "/metrics" else ("GET", "HEAD")
            expected = 405 if method not in allowed else 200 if path in ANSWERED_PATHS else 404
            assert (path, method, answer.status) == (path, method, expected)
            assert b"root:" not in body


def test_silent_client_does_not_occupy_a_thread(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.monitoring.metrics_server._RequestHandler.timeout", 0.1)
    with serving(settings) as address:
        where = urlsplit(address)
        with socket.create_connection((str(where.hostname), where.port or 0), timeout=10) as silent:
            silent.sendall(b"GET /metrics HTT")
            assert silent.recv(1000) == b""
        assert page(f"{address}/livez") == (200, "alive\n")
