"""The `web` command: the HTTP interface, with the settings of this installation."""

from __future__ import annotations

import contextlib
import os
import runpy

import click

from workers import logs
from workers.monitoring import probes
from workers.settings import load_settings, settings_of_running_servers


@click.command()
def web() -> None:
    """Serve the HTTP interface on UNWIND_WEB_ADDRESS and UNWIND_WEB_PORT; starts no servers.

    Needs PostgreSQL only. Requests need an API key: `./run keys create NAME --scope submit`.
    """
    own = load_settings()
    has_database = own.database_url is not None or own.web_database_url is not None
    with contextlib.nullcontext(own) if has_database else settings_of_running_servers("DATABASE_URL") as settings:
        os.environ.update(settings.environment())
        logs.configure(settings.log_format, settings.log_level)
        probes.report_ready_to_probes()
        # By name: the package `web` is beside this one, and neither imports the other.
        runpy.run_module("web", run_name="__main__")
