"""The `rehearse` command: bring an installation up as its files describe it, and count what survives kill -9."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import click

from tools.rehearsal.podman import CannotRehearse


@click.group()
def rehearse() -> None:
    """Start for real what docker-compose.yml and deploy/ describe, kill its parts, and check that nothing is lost.

    Needs root, podman, debootstrap and a Debian mirror; see docs/operate.md.
    """


@rehearse.command()
@click.option("--orders", default=2_000, show_default=True, help="Orders that are cancelled while containers die.")
@click.option("--short", is_flag=True, help="Only start everything, cancel 200 orders, kill one worker, and stop.")
def compose(orders: int, short: bool) -> None:
    """Build the image, start docker-compose.yml with podman, kill -9 each container in turn, stop, and audit."""
    from tools.rehearsal import compose_rehearsal  # noqa: PLC0415 - the others do not need its parts

    _run(lambda report: compose_rehearsal.run(200 if short else orders, short=short, report=report))


@rehearse.command()
@click.option(
    "--orders", default=2_000, show_default=True, help="Orders that are cancelled while links and servers fail."
)
def hosts(orders: int) -> None:
    """Run four hosts as network namespaces; cut links while servers restart, kill a host, stop, and audit."""
    from tools.rehearsal import hosts_rehearsal  # noqa: PLC0415 - the others do not need its parts

    _run(lambda report: hosts_rehearsal.run(orders, report=report))


def _run(rehearsal: Callable[[Callable[[str], None]], None]) -> None:
    started_at = time.monotonic()
    try:
        rehearsal(lambda line: click.echo(f"{time.monotonic() - started_at:6.1f} s  {line}"))
    except (CannotRehearse, subprocess.SubprocessError, OSError) as problem:
        raise click.ClickException(str(problem)) from None
