"""The `forecast` command: upcoming unlocks as a chart or JSON, and everything with a date as a calendar."""

from __future__ import annotations

import click

from models.queries.forecast import DEFAULT_DAYS, MAX_DAYS, list_bill_days, list_forecast_acts
from workers import show_queries
from workers.cli.calendar_file import calendar_parts
from workers.cli.database import open_transaction
from workers.cli.options import data_option, json_option, zone_option
from workers.cli.show import print_query_result


@click.command()
@click.option("--days", default=DEFAULT_DAYS, show_default=True, type=click.IntRange(1, MAX_DAYS), help="Days ahead.")
@click.option("--ics", "as_calendar", is_flag=True, help="Print unlocks, automatic acts and bill days as iCalendar.")
@json_option
@zone_option
@data_option
def forecast(days: int, as_calendar: bool, as_json: bool) -> None:
    """Show when alerts will unlock, hour by hour, with the overdue ones on top."""
    if not as_calendar:
        print_query_result(show_queries.parse_query(["forecast", "--days", days]), as_json)
        return
    if as_json:
        raise click.UsageError("A forecast is printed with --ics or with --json.")
    with open_transaction(snapshot=True) as (conn, now):
        bill_days = list_bill_days(conn, days=days, now=now)
        for part in calendar_parts(list_forecast_acts(conn, days=days, now=now), bill_days, now):
            click.echo(part, nl=False)
