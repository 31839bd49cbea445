"""How does one read from the command line what happened?  The feed of `unwind.events_after`, page by page, by cursor.

./run events --limit 100
./run events --after 812.1.4711 --follow --json
"""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import click

from workers.cli import data_option
from workers.cli.database import open_database

PAGE = 1000
POLL_INTERVAL = 0.5
CURSOR = re.compile(r"[0-9]{1,18}\.[0-9]\.[0-9]{1,18}")


def _cursor(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not CURSOR.fullmatch(value):
        raise click.BadParameter("is no cursor: take the one that stands beside the last event you handled")
    return value


@click.command()
@click.option(
    "--after", "cursor", metavar="CURSOR", callback=_cursor, help="Go on after this one; else from the beginning."
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most this many.")
@click.option("--follow", is_flag=True, help="Do not end: go on with what happens from now on.")
@click.option("--json", "as_json", is_flag=True, help='One object a line: {"cursor": ..., "event": {...}}.')
@data_option
def events(cursor: str | None, limit: int | None, follow: bool, as_json: bool) -> None:
    """What happened, in order, for systems that mirror it: no gap and no repeat for a reader that remembers its cursor.

    Remember a cursor only after its event is handled. What people wrote is not in the feed.
    """
    from models import feed

    left = limit
    with open_database() as database:
        while True:
            with database.transaction() as conn:
                found = feed.events_after(conn, cursor, PAGE if left is None else min(PAGE, left))
            for at, event in found:
                click.echo(json.dumps({"cursor": at, "event": event}) if as_json else _line(at, event))
                cursor = at
            left = None if left is None else left - len(found)
            if left == 0 or (not found and not follow):
                return
            if not found:
                threading.Event().wait(POLL_INTERVAL)


def _line(cursor: str, event: dict[str, Any]) -> str:
    data = event["data"]
    said = " ".join(f"{name}={data[name]}" for name in sorted(data) if isinstance(data[name], str | int))
    return f"{cursor:<16} {event['time']:<27} {event['type']:<24} {event.get('subject', ''):<20} {said}"
