"""The `metrics` command: serve metrics and health probes, or print the metrics once."""

from __future__ import annotations

import contextlib
import signal

import click
from prometheus_client import generate_latest

from workers import logs
from workers.embedded.processes import interrupt_on_signals
from workers.local.process_specs import http_url
from workers.monitoring import probes
from workers.monitoring.metrics_server import MetricsCollector, make_metrics_server
from workers.settings import settings_of_running_servers


@click.command()
@click.option("--once", is_flag=True, help="Print the metrics and exit.")
def metrics(once: bool) -> None:
    """Serve /metrics, /livez and /readyz on UNWIND_METRICS_ADDRESS and UNWIND_METRICS_PORT; starts no servers.

    Answers while PostgreSQL or Redis is down, and reports it in unwind_up. Needs no login: metrics contain no ids.
    """
    with settings_of_running_servers() as settings, contextlib.closing(MetricsCollector(settings)) as gauges:
        logs.configure(settings.log_format, settings.log_level)
        if once:
            click.echo(generate_latest(gauges).decode(), nl=False)
            return
        with make_metrics_server(gauges, settings.metrics_address, settings.metrics_port) as server:
            interrupt_on_signals(signal.SIGTERM, signal.SIGINT)
            click.echo(f"{http_url(settings.metrics_address, server.server_port)}/metrics")
            probes.report_ready_to_probes()
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()
