"""The chart of `./run forecast`: a row per day and a cell per hour, darker where more alerts unlock."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import Any

from rich.text import Text

from policies.timestamps import parse_timestamp
from workers.cli.terminal_text import PeopleConsole, reader_zone
from workers.local.run_command import RUN_COMMAND

SHADES = " ░▒▓█"
MAX_BAR_WIDTH = 20


def print_forecast_chart(console: PeopleConsole, forecast: dict[str, Any]) -> None:
    overdue, total, later = forecast["overdue"], forecast["total"], forecast["later"]
    if overdue:
        subject = "1 alert is" if overdue == 1 else f"{overdue} alerts are"
        console.write(
            Text(f"Overdue: {subject} due and not unlocked yet. Are sweeps running? ({RUN_COMMAND} doctor)", "bold red")
        )
        for alert in forecast["overdue_orders"]:
            console.write(f"  {alert['unlocks_at']}  order {alert['order_id']}: {alert['kind']}")
        if overdue > len(forecast["overdue_orders"]):
            console.write(f"  and {overdue - len(forecast['overdue_orders'])} more")
    else:
        console.write(Text("Nothing is overdue.", "green"))
    if forecast["hours"]:
        verb = "unlocks" if total == 1 else "unlock"
        hours = f"hours in {reader_zone()}, the darkest has {_max_per_hour(forecast)}"
        console.write(f"{total} {verb} by {forecast['until']} ({hours}):")
        _print_chart_days(console, forecast)
    else:
        console.write(f"Nothing unlocks by {forecast['until']}.")
    if later:
        console.write(f"{later} {'unlocks' if later == 1 else 'unlock'} after that.")


def _print_chart_days(console: PeopleConsole, forecast: dict[str, Any]) -> None:
    counts: dict[Any, dict[int, int]] = defaultdict(dict)
    for row in forecast["hours"]:
        hour = parse_timestamp(row["hour"]).astimezone(reader_zone())
        counts[hour.date()][hour.hour] = counts[hour.date()].get(hour.hour, 0) + row["total"]
    first, last = parse_timestamp(forecast["at"]).astimezone(reader_zone()).date(), max(counts)
    max_per_hour, max_per_day = _max_per_hour(forecast), max(sum(hours.values()) for hours in counts.values())
    console.write(Text(f"{'':<15}|{'00':<6}{'06':<6}{'12':<6}{'18':<6}|", "dim"))
    day = first
    while day <= last:
        hours = counts.get(day, {})
        cells = "".join(_shade(hours.get(hour, 0), max_per_hour) for hour in range(24))
        total = sum(hours.values())
        bar = "█" * -(-total * MAX_BAR_WIDTH // max_per_day)
        console.write(
            Text.assemble((f"{day:%a %Y-%m-%d} ", "dim"), "|", (cells, "cyan"), f"| {bar} {total or ''}".rstrip())
        )
        day += timedelta(days=1)


def _max_per_hour(forecast: dict[str, Any]) -> int:
    return max(int(row["total"]) for row in forecast["hours"])


def _shade(count: int, max_count: int) -> str:
    # Blank for zero only: one unlock stays visible beside a million.
    return SHADES[0] if count == 0 else SHADES[max(1, -(-count * (len(SHADES) - 1) // max_count))]
