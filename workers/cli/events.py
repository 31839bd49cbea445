"""The `events` command: pages through the feed of `unwind.events_after`, by cursor.

./run events --limit 100
./run events --after 812.1.4711 --follow --json
"""

from __future__ import annotations

import json
import threading

import click

from models import feed
from workers.cli.database import open_database
from workers.cli.options import check_cursor_option
from workers.cli.terminal_text import echo_literally

EVENTS_PER_PAGE = 1000


@click.command()
@click.option("--after", "cursor", metavar="CURSOR", callback=check_cursor_option, help="Start after this cursor.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Print at most N events.")
@click.option("--follow", is_flag=True, help="Keep printing new events as they happen.")
@click.option("--json", "as_json", is_flag=True, help='Print one object per line: {"cursor": ..., "event": {...}}.')
def events(cursor: str | None, limit: int | None, follow: bool, as_json: bool) -> None:
    """Print events in order, for systems that mirror them: no gap and no repeat for a reader that stores its cursor.

    Store a cursor only after its event is handled. The feed contains no comments or other free text.
    """
    remaining = limit
    with open_database() as database:
        while remaining != 0:
            with database.transaction() as conn:
                page = feed.events_after(conn, cursor, min(EVENTS_PER_PAGE, remaining or EVENTS_PER_PAGE))
            for position, event in page:
                if as_json:
                    click.echo(json.dumps({"cursor": position, "event": event}))
                else:
                    data = event["data"]
                    fields = " ".join(
                        f"{name}={data[name]}" for name in sorted(data) if isinstance(data[name], str | int)
                    )
                    about = f"{event['type']:<24} {event.get('subject', ''):<20}"
                    echo_literally(f"{position:<16} {event['time']:<27} {about} {fields}")
                cursor = position
            remaining = None if remaining is None else remaining - len(page)
            if not page:
                if not follow:
                    return
                threading.Event().wait(0.5)
