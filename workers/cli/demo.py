"""How does a newcomer see the main job run?  `./run demo`: a sample marketplace, real servers, the whole story live."""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
from celery import Celery
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from models import bills, terms
from models.db import database as db
from policies.billing_months import month_of, previous_month
from workers.cli import data_option
from workers.local.process_specs import (
    WORKER_GROUPS,
    beat_program,
    describe_mail_target,
    flower_program,
    worker_program,
)
from workers.local.supervisor import ProgramFailed, Supervisor
from workers.settings import Settings, load_settings, settings_with_servers
from workers.simulation.demo.dashboard import EVENT_STYLES, Dashboard
from workers.simulation.demo.runner import DemoFailed, DemoRun, TimelineEvent
from workers.simulation.demo.sample_market import SELLERS, SampleMarket, build_sample_market
from workers.simulation.replay import DatabaseNotEmpty, parse_lines, play, simulation_in_empty_database

READY_SECONDS = 60.0


@click.command()
@click.option("--once", is_flag=True, help="Stop by itself once the story is told; exit 0 when all of it came true.")
@data_option
def demo(once: bool) -> None:
    """Play a sample marketplace: alerts unlock, sellers are told, orders are cancelled with everything that follows.

    Uses servers of its own in a folder of its own, which goes with it, or those of DATABASE_URL (an empty database) and
    CELERY_BROKER_URL.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    console = Console(highlight=False)
    given = load_settings()
    try:
        with _folder(given) as folder, settings_with_servers(given.model_copy(update={"data_dir": folder})) as settings:
            _play(console, settings, once=once)
    except KeyboardInterrupt:
        console.print("\nThe demo has ended; its servers and its data are gone.")
    except (DemoFailed, ProgramFailed, DatabaseNotEmpty) as problem:
        raise click.ClickException(str(problem)) from None


def _play(console: Console, settings: Settings, *, once: bool) -> None:
    console.rule("[bold]Unwind: a marketplace unwinds its problem orders")
    sample = _write_past(console, settings)
    with _opened(settings) as (database, client):
        story = DemoRun.from_now(
            sample, database, client
        )  # before anybody works: on a slow machine alerts unlock meanwhile
        with Supervisor(settings.data_dir, on_event=lambda said: console.print(f"  [red]{said}")) as supervisor:
            for group in WORKER_GROUPS:
                supervisor.start(worker_program(settings, supervisor, group))
            supervisor.start(beat_program(settings, supervisor))
            window, address = flower_program(settings.model_copy(update={"flower_read_only": False}))
            with console.status("Starting two worker groups and beat …"):
                supervisor.wait_ready(READY_SECONDS)
            supervisor.start(window)
            queues = sum(map(len, WORKER_GROUPS.values()))
            console.print(
                f"  [bold]workers[/]  {len(WORKER_GROUPS)} groups for {queues} queues; beat looks for due alerts"
            )
            console.print(f"  [bold]Flower[/]   [link={address}]{address}[/link]")
            console.print(f"  [bold]mails[/]    {describe_mail_target(settings)}\n")
            _tell(console, settings, story, address)
            supervisor.wait_ready(READY_SECONDS, ["flower"])
            if once:
                return
            _invite(console, settings, sample, address)
            while True:
                signal.pause()


def _invite(console: Console, settings: Settings, sample: SampleMarket, address: str) -> None:
    """What one can look at while everything keeps running."""
    console.print(
        f"\nEverything keeps running: look around in Flower at {address}, or ask in another terminal, for example"
    )
    console.print(f"  ./run show order {min(sample.ending_cancelled)} --data {settings.data_dir}")
    console.print(f"  ./run explain order {min(sample.left_alone)} --data {settings.data_dir}")
    console.print(f"  ./run credits {sample.parties[min(sample.sellers_cancel)][0]} --data {settings.data_dir}")
    console.print("Ctrl-C ends the demo and takes its data with it.")
    sys.stdout.flush()


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator[tuple[db.Database, Celery]]:
    """The database to look into, and a client as any upstream system has one."""
    assert settings.database_url is not None
    assert settings.broker_url is not None
    assert settings.result_backend is not None
    database = db.connect(settings.database_url.get_secret_value())
    client = Celery(
        "storefront",
        broker=settings.broker_url.get_secret_value(),
        backend=settings.result_backend.get_secret_value(),
    )
    try:
        yield database, client
    finally:
        database.dispose()
        client.close()


def _write_past(console: Console, settings: Settings) -> SampleMarket:
    """Ten weeks of history, whose last instant is the present, into an empty database."""
    assert settings.database_url is not None
    sample = build_sample_market(datetime.now(UTC))  # noqa: TID251 - the present, at which the history ends
    lines = parse_lines(json.dumps(line) for line in sample.lines)
    with (
        console.status(f"Writing the past: {len(lines)} facts and commands of ten weeks …"),
        simulation_in_empty_database(settings.database_url.get_secret_value(), lines[0].at) as simulation,
    ):
        for played in play(lines, simulation):
            if played.result["outcome"] != "done":
                raise DemoFailed(f"The past does not fit: {played.as_json()}")
    console.print(
        f"  [bold]market[/]   {len(SELLERS)} stores, {len(sample.parties)} orders of ten weeks, "
        f"{len(sample.unlocking)} alerts about to fall due"
    )
    return sample


def _tell(console: Console, settings: Settings, story: DemoRun, flower_address: str) -> None:
    story.open()
    _follow(console, story, Dashboard(story.sample, story.unlocks, story.now, {"Flower": flower_address}))
    _show_mail(console, settings)
    console.print(_summary(story.summary()))
    console.print(_bills(story.database, story.sample, story.began))


def _follow(console: Console, story: DemoRun, board: Dashboard) -> None:
    """Tell the story to its end: on a terminal as one screen that changes, elsewhere as a line for each piece of news."""
    if not console.is_terminal:
        for news in story.follow():
            console.print(_sentence(news), no_wrap=True, overflow="ellipsis")
        return
    with Live(board, console=console, refresh_per_second=5):
        for news in story.follow():
            board.apply(news)


def _sentence(news: TimelineEvent) -> str:
    verb, colour, note = EVENT_STYLES.get(news.type, (news.type, "white", news.note))
    about = f"order {news.order_id}" if news.order_id is not None else f"{news.member_id}"
    return f"{news.at.astimezone():%H:%M:%S}  [{colour}]{verb:<17}[/] {about:<12} {note}"


def _show_mail(console: Console, settings: Settings) -> None:
    """One of the mails that sellers got, whole."""
    wanted = {f"{seller_id}@sellers.example" for seller_id in SELLERS}
    found = sorted(settings.mail_dir.glob("**/*.eml"))
    for path in found:
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        to_seller = any(address in str(message["To"]) for address in wanted)
        if to_seller and "cancel" in str(message["Subject"]).lower():
            body = message.get_body(("plain",))
            words = body.get_content().strip() if body is not None else ""
            title = f"one of {len(found)} mails, to {message['To']}: {message['Subject']}"
            console.print()
            console.print(Panel(words, title=title, border_style="dim"), markup=False)
            return


def _summary(counts: dict[str, Any]) -> Table:
    table = Table(title="What was done while you watched", title_style="bold", show_header=False, min_width=60)
    for what, figure in (
        ("alerts unlocked, each once", counts["unlocked"]),
        ("orders cancelled", counts["cancelled"]),
        ("units returned to inventory", f"{counts['units']} in {counts['lots']} lots"),
        ("fees credited on the next bill", f"{counts['credits']}, {counts['credited']} USD"),
        ("fees reset in the same month", f"{counts['resets']}, {counts['reset']} USD"),
        ("pending removal requests cancelled", counts["removals"]),
        ("sellers told", counts["sellers_told"]),
        ("buyers told", counts["buyers_told"]),
        ("strikes given", counts["strikes"]),
    ):
        table.add_row(what, str(figure))
    return table


def _bills(database: db.Database, sample: SampleMarket, now: datetime) -> Table:
    """The last bills of the store whose orders were cancelled most: issued ones stand, the open one has the credits."""
    sellers = [sample.parties[order_id][0] for order_id in sorted(sample.ending_cancelled)]
    seller_id = max(sellers, key=sellers.count)
    table = Table(title=f"Bills of {SELLERS[seller_id][0]}", title_style="bold", min_width=60)
    for column in ("month", "state", "charges", "credits", "carried in", "total"):
        table.add_column(column, justify="left" if column in ("month", "state") else "right")
    with database.transaction() as conn:
        this = month_of(now, terms.load_terms(conn).at(now))
        for month in (previous_month(previous_month(this)), previous_month(this), this):
            if bill := bills.load_bill_json(conn, seller_id, month, now):
                amounts = [Decimal(line["amount"]) for line in bill["lines"]]
                charged, credited = (
                    sum((a for a in amounts if (a > 0) is up), Decimal("0.00")) for up in (True, False)
                )
                table.add_row(
                    bill["billing_month"],
                    bill["state"],
                    str(charged),
                    str(credited),
                    bill["opening_credit"],
                    bill["total"],
                )
    return table


@contextlib.contextmanager
def _folder(settings: Settings) -> Iterator[Path]:
    """A folder of the demo's own, so that it meets neither `up` nor another demo; it goes with the demo."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="demo-", dir=settings.data_dir))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
