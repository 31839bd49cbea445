"""The `up`, `down` and `env` commands: run an installation, and print where its servers are."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

from policies.texts import pluralize
from workers.embedded.client import running_servers
from workers.embedded.daemon import DAEMON_START_SECONDS
from workers.embedded.data_dir import FileLock, ensure_servers_dir, read_json, start_process, write_json
from workers.embedded.processes import (
    ProcessIdentity,
    identify_process,
    interrupt_on_signals,
    is_alive,
    terminate,
    wait_until,
)
from workers.local.preforker import Preforker
from workers.local.process_specs import (
    WORKER_GROUPS,
    beat_program,
    describe_mail_target,
    display_path,
    flower_program,
    metrics_program,
    web_program,
    worker_program,
)
from workers.local.run_command import RUN_COMMAND
from workers.local.supervisor import Supervisor, up_report
from workers.settings import CHECKOUT, Settings, load_settings, settings_of_running_servers

READY_TIMEOUT = 90.0
DOWN_TIMEOUT = 75.0  # longer than the supervisor's TERM, QUIT and KILL together


@click.command()
@click.option("--detach", is_flag=True, help="Return once everything is ready; stop it with `./run down`.")
def up(detach: bool) -> None:
    """Start servers, workers, beat, Flower, metrics and HTTP, and keep them running until Ctrl-C.

    Uses the servers of DATABASE_URL and CELERY_BROKER_URL where set, embedded ones otherwise. Data is kept between
    runs. Everything listens on loopback only.
    """
    settings = load_settings()
    report = up_report(ensure_servers_dir(settings.data_dir).parent)
    report.parent.mkdir(mode=0o700, exist_ok=True)
    if detach:
        _start_detached(settings, report)
        return
    lock = FileLock(report.with_suffix(".lock"))
    if not lock.acquire():
        raise click.ClickException(f"Already running for {display_path(settings.data_dir)}. Stop it with `./run down`.")
    interrupt_on_signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    try:
        _serve_installation(settings, report)
    except KeyboardInterrupt:
        click.echo("Stopped: everything has shut down cleanly.")
    finally:
        report.unlink(missing_ok=True)
        lock.close()


@click.command()
def down() -> None:
    """Stop what `up --detach` (or an `up` in another terminal) started."""
    settings = load_settings()
    identity = ProcessIdentity.from_json(read_json(up_report(settings.data_dir)))
    if not is_alive(identity):
        click.echo("Nothing is running.")
        return
    terminate(identity, (signal.SIGTERM, DOWN_TIMEOUT))
    if is_alive(identity):
        os.kill(identity.pid, signal.SIGKILL)  # the kernel ends its programs and servers with it
        raise click.ClickException(f"It did not stop within {DOWN_TIMEOUT:.0f} s and was killed.")
    click.echo("Stopped.")


@click.command()
def env() -> None:
    """Print the addresses of the running embedded servers as shell exports: eval "$(./run env)"."""
    with settings_of_running_servers() as settings:
        for name in ("DATABASE_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
            # For psql and psycopg, too.
            url = settings.environment()[name].replace("postgresql+psycopg:", "postgresql:")
            click.echo(f"export {name}={shlex.quote(url)}")


def _serve_installation(settings: Settings, report: Path) -> None:
    from workers.migrate import migrate_database  # noqa: PLC0415 - `down` and `env` don't import all tasks

    started_at = time.monotonic()
    state: dict[str, Any] = {**identify_process(os.getpid()).as_json(), "ready": False}
    write_json(report, state)
    with (
        contextlib.closing(Preforker(settings.log_dir / "preforker.log")) as preforker,
        settings.with_servers_running() as complete,
        Supervisor(
            settings.data_dir, on_event=lambda sentence: click.echo(f"  {sentence}", err=True), preforker=preforker
        ) as supervisor,
    ):
        _print_up_line("servers", _describe_servers_of_up(settings))
        migrate_database(complete)
        _print_up_line("schema", "up to date")
        for group in WORKER_GROUPS:
            supervisor.start(worker_program(complete, group))
        supervisor.start(beat_program(complete))
        supervisor.wait_ready(READY_TIMEOUT)
        for group, queues in WORKER_GROUPS.items():
            processes = pluralize(complete.concurrency, "process", "processes")
            _print_up_line(group, f"a worker with {processes} for {', '.join(queues)}")
        services = (flower_program(complete), metrics_program(complete), web_program(complete))
        for program, _ in services:
            supervisor.start(program)
        supervisor.wait_ready(READY_TIMEOUT, [program.name for program, _ in services])
        flower_address, metrics_address, web_address = (address for _, address in services)
        _print_up_line("flower", f"{flower_address}  (read-only)")
        _print_up_line("metrics", metrics_address)
        _print_up_line("http", f"{web_address}/v1  (keys: {RUN_COMMAND} keys create)")
        _print_up_line("mail", describe_mail_target(complete))
        _print_up_line("logs", display_path(complete.log_dir))
        click.echo(f"Ready after {time.monotonic() - started_at:.1f} s. Ctrl-C or `./run down` stops everything.")
        write_json(report, {**state, "ready": True, "flower": flower_address, "metrics": metrics_address})
        sys.stdout.flush()
        while True:
            signal.pause()


def _start_detached(settings: Settings, report: Path) -> None:
    output = settings.log_dir / "up.log"
    output.unlink(missing_ok=True)
    environment = {**os.environ, "UNWIND_DATA": str(settings.data_dir), "PYTHONPATH": str(CHECKOUT)}
    process = start_process([sys.executable, "-m", "workers", "up"], output, environment, start_new_session=True)

    def ready() -> bool:  # a killed predecessor may have left its report
        state = read_json(report)
        return state.get("pid") == process.pid and state.get("ready") is True

    wait_until(lambda: ready() or process.poll() is not None, DAEMON_START_SECONDS + 2 * READY_TIMEOUT)
    click.echo(output.read_text(errors="replace").rstrip())
    if process.poll() is not None or not ready():
        raise click.ClickException("It did not start: see the output above.")


def _describe_servers_of_up(settings: Settings) -> str:
    running = running_servers(settings.data_dir)
    parts = ["PostgreSQL of DATABASE_URL"] if settings.database_url is not None else []
    parts += ["Redis of CELERY_BROKER_URL"] if settings.broker_url is not None else []
    if running is not None and settings.database_url is None:
        parts.append(f"PostgreSQL on 127.0.0.1:{running.postgres_port}")
    if running is not None and settings.broker_url is None:
        parts.append(f"Valkey on 127.0.0.1:{running.valkey_port}")
    data = "" if settings.has_servers else f", data in {display_path(ensure_servers_dir(settings.data_dir))}"
    return " and ".join(parts) + data


def _print_up_line(label: str, text: str) -> None:
    click.echo(f"  {click.style(f'{label:<9}', bold=True)} {text}")
