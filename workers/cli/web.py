"""The `web` command: the HTTP interface, with the settings of this installation."""

from __future__ import annotations

import os
import runpy

import click

from workers import logs
from workers.cli import data_option
from workers.embedded import running_servers
from workers.monitoring import probes
from workers.settings import Settings, load_settings


@click.command()
@data_option
def web() -> None:
    """Serve the HTTP interface on UNWIND_WEB_ADDRESS and UNWIND_WEB_PORT; starts no servers.

    Needs PostgreSQL only. Requests need an API key: `./run keys create NAME --scope submit`.
    """
    settings = load_settings()
    if not _has_web_database(settings) and running_servers(settings.data_dir) is None:
        raise click.ClickException("No servers are running here. Start them with `./run up`, or set DATABASE_URL.")
    if _has_web_database(settings):
        os.environ.update(settings.environment())
        _serve_web(settings.log_format, settings.log_level)
        return
    with settings.with_servers_running() as complete:
        os.environ.update(complete.environment())
        _serve_web(settings.log_format, settings.log_level)


def _has_web_database(settings: Settings) -> bool:
    return settings.database_url is not None or settings.web_database_url is not None


def _serve_web(log_format: str, log_level: str) -> None:
    logs.configure(log_format, log_level)
    probes.report_ready_to_probes()
    # By name: the package `web` is beside this one, and neither imports the other.
    runpy.run_module("web", run_name="__main__")
