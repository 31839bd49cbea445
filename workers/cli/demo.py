"""The `demo` command: starts real servers and workers, and plays the demo on them."""

from __future__ import annotations

import email
import email.policy
import json
import shlex
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.panel import Panel

from workers.embedded.processes import interrupt_on_signals
from workers.local.process_specs import (
    WORKER_GROUPS,
    beat_program,
    describe_mail_target,
    flower_program,
    web_program,
    worker_program,
)
from workers.local.supervisor import Supervisor
from workers.settings import Settings, load_settings
from workers.simulation.demo.dashboard import Dashboard, bills_table, format_demo_event, summary_table
from workers.simulation.demo.runner import DemoRun, connect_to_demo
from workers.simulation.demo.sample_market import SELLERS, SampleMarket, build_sample_market
from workers.simulation.engine import simulation_in_empty_database
from workers.simulation.replay import parse_lines, play

READY_TIMEOUT = 60.0


@click.command()
@click.option("--once", is_flag=True, help="Stop at the end of the story; exit 0 when everything in it happened.")
def demo(once: bool) -> None:
    """Play a sample marketplace: alerts unlock, sellers are notified, and orders are cancelled with all effects.

    Uses its own servers in its own directory, which is removed at the end, or those of DATABASE_URL (an empty database)
    and CELERY_BROKER_URL.
    """
    interrupt_on_signals(signal.SIGTERM, signal.SIGHUP)
    console = Console(highlight=False)
    base = load_settings()
    base.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="demo-", dir=base.data_dir, ignore_cleanup_errors=True) as folder,
            base.model_copy(update={"data_dir": Path(folder)}).with_servers_running() as settings,
        ):
            _play_demo(console, settings, once=once)
    except KeyboardInterrupt:
        console.print("\nThe demo has ended; its servers are stopped and its data is removed.")


def _play_demo(console: Console, settings: Settings, *, once: bool) -> None:
    console.rule("[bold]Unwind: a marketplace unwinds its problem orders")
    sample = _write_demo_history(console, settings)
    with connect_to_demo(settings) as (database, client):
        # Before the workers start: on a slow machine alerts unlock in the meantime.
        run = DemoRun(sample, database, client)
        with Supervisor(settings.data_dir, on_event=lambda message: console.print(f"  [red]{message}")) as supervisor:
            for group in WORKER_GROUPS:
                supervisor.start(worker_program(settings, group))
            supervisor.start(beat_program(settings))
            flower_spec, address = flower_program(settings.model_copy(update={"flower_read_only": False}))
            with console.status(f"Starting {len(WORKER_GROUPS)} worker groups and beat …"):
                supervisor.wait_ready(READY_TIMEOUT)
            supervisor.start(flower_spec)
            queues = sum(map(len, WORKER_GROUPS.values()))
            console.print(
                f"  [bold]workers[/]  {len(WORKER_GROUPS)} groups for {queues} queues; beat schedules the sweeps"
            )
            console.print(f"  [bold]Flower[/]   [link={address}]{address}[/link]")
            console.print(f"  [bold]emails[/]   {describe_mail_target(settings)}\n")
            run.open()
            if console.is_terminal:
                dashboard = Dashboard(sample, run.unlocks, run.now, address)
                with Live(dashboard, console=console, refresh_per_second=5):
                    for event in run.follow():
                        dashboard.apply(event)
            else:
                for event in run.follow():
                    console.print(format_demo_event(event), no_wrap=True, overflow="ellipsis")
            _show_demo_email(console, settings)
            console.print(summary_table(database, run.started_at))
            sellers = [sample.parties[order_id][0] for order_id in sorted(sample.ending_cancelled)]
            console.print(bills_table(database, max(sellers, key=sellers.count), run.started_at))
            supervisor.wait_ready(READY_TIMEOUT, ["flower"])
            if once:
                return
            web_spec, web_address = web_program(settings, demo=True)
            supervisor.start(web_spec)
            supervisor.wait_ready(READY_TIMEOUT, ["web"])
            _print_suggestions(console, settings, sample, address, web_address)
            while True:
                signal.pause()


def _print_suggestions(
    console: Console, settings: Settings, sample: SampleMarket, address: str, web_address: str
) -> None:
    seller_id = sample.parties[min(sample.untouched)][0]
    console.print(f"\nEverything keeps running: open Flower at {address}")
    console.print(
        f"or cancel an order on its Problem Order page: act as {SELLERS[seller_id][0]} at\n"
        f"  {web_address}/problem-order/demo and open order {min(sample.untouched)},"
    )
    console.print("or type in another terminal")
    for command in (
        f"export UNWIND_DATA={shlex.quote(str(settings.data_dir))}",
        f"./run show order {min(sample.ending_cancelled)}",
        f"./run explain order {min(sample.untouched)}",
        f"./run credits {sample.parties[min(sample.sellers_cancel)][0]}",
    ):
        console.print(f"  {command}", soft_wrap=True, markup=False)  # so that the longest one can be copied, too
    console.print("Ctrl-C ends the demo and removes its data.")
    sys.stdout.flush()


def _write_demo_history(console: Console, settings: Settings) -> SampleMarket:
    sample = build_sample_market(datetime.now(UTC))  # noqa: TID251 - the history ends at the present
    lines = parse_lines(json.dumps(line) for line in sample.lines)
    with (
        console.status(f"Writing the history: {len(lines)} commands of ten weeks …"),
        simulation_in_empty_database(settings.environment()["DATABASE_URL"], lines[0].at) as simulation,
    ):
        for played in play(lines, simulation):
            if played.result["outcome"] != "done":
                raise click.ClickException(f"A command of the sample history failed: {played.as_json()}")
    console.print(
        f"  [bold]market[/]   {len(SELLERS)} stores, {len(sample.parties)} orders of ten weeks, "
        f"{len(sample.unlocking)} alerts about to unlock"
    )
    return sample


def _show_demo_email(console: Console, settings: Settings) -> None:
    paths = sorted(settings.mail_dir.glob("**/*.eml"))
    for path in paths:
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        if "@sellers.example" in str(message["To"]) and "cancel" in str(message["Subject"]).lower():
            body = message.get_body(("plain",))
            text = body.get_content().strip() if body is not None else ""
            title = f"one of {len(paths)} emails, to {message['To']}: {message['Subject']}"
            console.print()
            console.print(Panel(text, title=title, border_style="dim"), markup=False)
            return
