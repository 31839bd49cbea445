"""The chart of `./run forecast`: a row per day and a cell per hour, darker where more alerts unlock."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from rich.text import Text

from policies.texts import pluralize
from policies.timestamps import parse_timestamp
from workers.cli.options import zone_of_option
from workers.local.run_command import RUN_COMMAND

SHADES = " ░▒▓█"
MAX_BAR_WIDTH = 20


def forecast_chart_lines(forecast: dict[str, Any]) -> Iterator[str | Text]:
    overdue, total, later = forecast["overdue"], forecast["total"], forecast["later"]
    if overdue:
        subject = pluralize(overdue, "alert is", "alerts are")
        text = f"Overdue: {subject} due and not unlocked yet. Are sweeps running? ({RUN_COMMAND} doctor)"
        yield Text(text, "bold red")
        for alert in forecast["overdue_orders"]:
            yield f"  {alert['unlocks_at']}  order {alert['order_id']}: {alert['kind']}"
        if overdue > len(forecast["overdue_orders"]):
            yield f"  and {overdue - len(forecast['overdue_orders'])} more"
    else:
        yield Text("Nothing is overdue.", "green")
    if forecast["hours"]:
        max_per_hour = max(int(row["total"]) for row in forecast["hours"])
        hours = f"hours in {zone_of_option()}, the darkest has {max_per_hour}"
        yield f"{pluralize(total, 'unlocks', 'unlock')} by {forecast['until']} ({hours}):"
        yield from _chart_day_lines(forecast, max_per_hour)
    else:
        yield f"Nothing unlocks by {forecast['until']}."
    if later:
        yield f"{pluralize(later, 'unlocks', 'unlock')} after that."


def _chart_day_lines(forecast: dict[str, Any], max_per_hour: int) -> Iterator[Text]:
    counts: dict[date, Counter[int]] = defaultdict(Counter)
    for row in forecast["hours"]:
        hour = parse_timestamp(row["hour"]).astimezone(zone_of_option())
        counts[hour.date()][hour.hour] += row["total"]
    day, last = parse_timestamp(forecast["at"]).astimezone(zone_of_option()).date(), max(counts)
    max_per_day = max(hours.total() for hours in counts.values())
    yield Text(f"{'':<15}|{'00':<6}{'06':<6}{'12':<6}{'18':<6}|", "dim")
    while day <= last:
        # Blank for zero only: one unlock stays visible beside a million.
        cells = "".join(SHADES[-(-counts[day][hour] * (len(SHADES) - 1) // max_per_hour)] for hour in range(24))
        total = counts[day].total()
        bar = "█" * -(-total * MAX_BAR_WIDTH // max_per_day)
        yield Text.assemble((f"{day:%a %Y-%m-%d} ", "dim"), "|", (cells, "cyan"), f"| {bar} {total or ''}".rstrip())
        day += timedelta(days=1)
