"""The `rehearse` command: bring an installation up as its files describe it, and count what survives kill -9."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable

import click
import psycopg
import redis

from tools.rehearsal.podman import CannotRehearse, WrongResult, install_packages

Report = Callable[[str], None]
Rehearsal = Callable[[Report], None]
PROBLEMS = (CannotRehearse, subprocess.SubprocessError, OSError, psycopg.Error, redis.RedisError)
SHORT_SECONDS = 150
SHORT_ORDERS = 100


@click.group()
def rehearse() -> None:
    """Start for real what docker-compose.yml and deploy/ describe, kill its parts, and check that nothing is lost.

    Needs root, Debian and its packages of podman; see docs/operate.md.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # containers are removed also then


@rehearse.command()
@click.option("--orders", default=2_000, show_default=True, help="Orders that are cancelled while containers die.")
@click.option("--short", is_flag=True, help="For CI: servers, workers and beat, 100 orders, one kill, 150 s at most.")
def compose(orders: int, short: bool) -> None:
    """Build the image, start docker-compose.yml with podman, kill -9 each container in turn, stop, and audit.

    In the short form the packages are installed that are missing, and a machine that cannot rehearse is no failure.
    """
    from tools.rehearsal import compose_rehearsal  # noqa: PLC0415 - the others do not need its parts

    if not short:
        _run(lambda report: compose_rehearsal.run(orders, short=False, report=report))
        return

    def rehearsal(report: Report) -> None:
        install_packages()
        compose_rehearsal.run(SHORT_ORDERS, short=True, report=report)

    run_if_possible(rehearsal)


@rehearse.command()
@click.option(
    "--orders", default=2_000, show_default=True, help="Orders that are cancelled while links and servers fail."
)
def hosts(orders: int) -> None:
    """Run five hosts as network namespaces; cut links while servers restart, kill two, fail over, stop, and audit."""
    from tools.rehearsal import hosts_rehearsal  # noqa: PLC0415 - the others do not need its parts

    _run(lambda report: hosts_rehearsal.run(orders, report=report))


@rehearse.command()
@click.option("--orders", default=2_000, show_default=True, help="Orders that are cancelled while units die.")
def systemd(orders: int) -> None:
    """Install deploy/systemd as docs/operate.md says, boot it with a late database, kill each unit, stop, and audit."""
    from tools.rehearsal import systemd_rehearsal  # noqa: PLC0415 - the others do not need its parts

    _run(lambda report: systemd_rehearsal.run(orders, report=report))


def _run(rehearsal: Rehearsal) -> None:
    started_at = time.monotonic()
    try:
        rehearsal(lambda line: click.echo(f"{time.monotonic() - started_at:6.1f} s  {line}"))
    except PROBLEMS as problem:
        raise click.ClickException(str(problem)) from None


def run_if_possible(rehearsal: Rehearsal) -> None:
    """Run it; fail if the product does wrong, and say in one line what the machine lacks."""

    def end(_signal: int, _frame: object) -> None:
        raise CannotRehearse(f"{SHORT_SECONDS} s were not enough")

    previous = signal.signal(signal.SIGALRM, end)
    signal.alarm(SHORT_SECONDS)
    try:
        _run(rehearsal)
    except click.ClickException as problem:
        if isinstance(problem.__context__, WrongResult):
            raise
        first, *others = problem.message.strip().splitlines() or [""]
        reason = " … ".join(line[:150] for line in (first, *others[-1:]))
        click.echo(f"docker-compose.yml was not started on this machine: {reason}", err=True)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
