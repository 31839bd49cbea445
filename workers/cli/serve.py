"""How is an installation started, stopped, migrated, and how do other programs find its servers?"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from workers.cli import data_option
from workers.embedded import running_servers
from workers.embedded.data_dir import FileLock, ensure_servers_dir, read_json, write_json
from workers.embedded.processes import ProcessIdentity, identify_process, is_alive, wait_until
from workers.local.preforker import Preforker
from workers.local.process_specs import (
    WORKER_GROUPS,
    beat_program,
    describe_mail_target,
    display_path,
    flower_program,
    metrics_program,
    worker_program,
)
from workers.local.supervisor import ProgramFailed, Supervisor
from workers.settings import CHECKOUT, Settings, load_settings, settings_with_servers

READY_SECONDS = 90.0
DOWN_SECONDS = 75.0  # longer than the supervisor's TERM, QUIT and KILL together


@click.command()
@click.option("--detach", is_flag=True, help="Return once everything is ready; `./run down` ends it.")
@data_option
def up(detach: bool) -> None:
    """Start servers, workers, beat, Flower and metrics, and keep them running until Ctrl-C.

    Uses the servers of DATABASE_URL and CELERY_BROKER_URL where given, embedded ones otherwise. Data is kept between
    runs. All of it listens on loopback only.
    """
    settings = load_settings()
    run = _run_folder(settings)
    if detach:
        _start_detached(settings, run)
        return
    lock = FileLock(run / "up.lock")
    if not lock.acquire():
        raise click.ClickException(
            f"It is running already for {display_path(settings.data_dir)}. `./run down` ends it."
        )
    report = run / "up.json"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        _serve(settings, report)
    except KeyboardInterrupt:
        click.echo("Stopped: everything has ended in good order.")
    except ProgramFailed as problem:
        raise click.ClickException(str(problem)) from None
    finally:
        report.unlink(missing_ok=True)
        lock.close()


@click.command()
@data_option
def down() -> None:
    """Stop what `up --detach` left running (or an `up` in another terminal)."""
    settings = load_settings()
    report = read_json(settings.data_dir / "run" / "up.json")
    mark = ProcessIdentity(int(report.get("pid", 0)), int(report.get("started", 0)))
    if not is_alive(mark):
        click.echo("Nothing is running.")
        return
    os.kill(mark.pid, signal.SIGTERM)
    if not wait_until(lambda: not is_alive(mark), DOWN_SECONDS):
        os.kill(mark.pid, signal.SIGKILL)  # its programs and servers end with it: the kernel sees to that
        raise click.ClickException(f"It did not end within {DOWN_SECONDS:.0f} s and was killed.")
    click.echo("Stopped.")


@click.command()
@data_option
def migrate() -> None:
    """Bring the database schema to its newest form. Safe to repeat, and safe for two at once."""
    with settings_with_servers() as settings:
        migrate_database(settings)
    click.echo("The schema is at its newest form.")


@click.command()
@data_option
def env() -> None:
    """Print where the running embedded servers are, as lines for a shell: eval "$(./run env)"."""
    settings = load_settings()
    if not settings.has_servers:
        if running_servers(settings.data_dir) is None:
            raise click.ClickException("No embedded servers are running here. Start them with `./run up`.")
        with settings_with_servers(settings) as found:
            settings = found
    wanted = ("DATABASE_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "UNWIND_DATA")
    for name, value in settings.environment().items():
        if name in wanted:
            click.echo(f"export {name}={shlex.quote(value)}")


def migrate_database(settings: Settings) -> None:
    """The schema to head, as the owner."""
    from sqlalchemy.exc import OperationalError

    from models.db.database import SessionRefused
    from models.migrations import upgrade

    if settings.database_url is None:
        raise click.ClickException("No database to migrate.")
    try:
        upgrade(settings.database_url.get_secret_value())
    except OperationalError as problem:
        if not isinstance(problem.orig, SessionRefused):
            raise
        raise click.ClickException(f"{problem.orig}. Mend: {problem.orig.fix}") from None


def _serve(settings: Settings, report: Path) -> None:
    began = time.monotonic()
    mark = identify_process(os.getpid())
    state: dict[str, Any] = {"pid": mark.pid, "started": mark.started, "ready": False}
    write_json(report, state)
    with (
        contextlib.closing(Preforker(_log_folder(settings) / "preforker.log")) as preforker,
        settings_with_servers(settings) as found,
        Supervisor(settings.data_dir, on_event=_tell, preforker=preforker) as supervisor,
    ):
        _line("servers", _servers_line(settings))
        migrate_database(found)
        _line("schema", "at its newest form")
        for group in WORKER_GROUPS:
            supervisor.start(worker_program(found, supervisor, group))
        supervisor.start(beat_program(found, supervisor))
        supervisor.wait_ready(READY_SECONDS)
        for group, queues in WORKER_GROUPS.items():
            _line(f"{group}", f"a worker of {found.concurrency} processes for {' and '.join(queues)}")
        window, address = flower_program(found)
        supervisor.start(window)
        numbers, told_at = metrics_program(found)
        supervisor.start(numbers)
        supervisor.wait_ready(READY_SECONDS, ["flower", "metrics"])
        _line("flower", f"{address}  (looks only)")
        _line("metrics", told_at)
        _line("mail", describe_mail_target(found))
        _line("logs", display_path(found.log_dir))
        click.echo(f"Ready after {time.monotonic() - began:.1f} s. Ctrl-C or `./run down` ends everything.")
        write_json(report, {**state, "ready": True, "flower": address, "metrics": told_at})
        sys.stdout.flush()
        while True:
            signal.pause()


def _start_detached(settings: Settings, run: Path) -> None:
    output = _log_folder(settings) / "up.log"
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers", "up"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "UNWIND_DATA": str(settings.data_dir), "PYTHONPATH": str(CHECKOUT)},
            start_new_session=True,
        )

    def ready() -> bool:  # a killed predecessor's report may still lie there
        report = read_json(run / "up.json")
        return report.get("pid") == process.pid and report.get("ready") is True

    wait_until(lambda: ready() or process.poll() is not None, 2 * READY_SECONDS)
    click.echo(output.read_text(errors="replace").rstrip())
    if process.poll() is not None or not ready():
        raise click.ClickException("It did not start.")


def _servers_line(settings: Settings) -> str:
    running = running_servers(settings.data_dir)
    parts = ["PostgreSQL of DATABASE_URL"] if settings.database_url is not None else []
    parts += ["Redis of CELERY_BROKER_URL"] if settings.broker_url is not None else []
    if running is not None and settings.database_url is None:
        parts.append(f"PostgreSQL on 127.0.0.1:{running.postgres_port}")
    if running is not None and settings.broker_url is None:
        parts.append(f"Valkey on 127.0.0.1:{running.valkey_port}")
    kept = "" if settings.has_servers else f", data in {display_path(ensure_servers_dir(settings.data_dir))}"
    return " and ".join(parts) + kept


def _run_folder(settings: Settings) -> Path:
    folder = ensure_servers_dir(settings.data_dir).parent / "run"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _log_folder(settings: Settings) -> Path:
    settings.log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return settings.log_dir


def _interrupt(*_: object) -> None:
    """One interruption is enough: a second one must not disturb the good order of the end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _line(what: str, text: str) -> None:
    click.echo(f"  {click.style(f'{what:<9}', bold=True)} {text}")


def _tell(sentence: str) -> None:
    click.echo(f"  {sentence}", err=True)
