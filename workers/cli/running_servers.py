"""The settings of servers that run already, for commands that start none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click

from workers.embedded.client import running_servers
from workers.settings import Settings, load_settings


@contextlib.contextmanager
def settings_of_running_servers(alternative: str = "DATABASE_URL and CELERY_BROKER_URL") -> Iterator[Settings]:
    settings = load_settings()
    if not settings.has_servers and running_servers(settings.data_dir) is None:
        raise click.ClickException(f"No servers are running here. Start them with `./run up`, or set {alternative}.")
    with settings.with_servers_running() as complete:
        yield complete
