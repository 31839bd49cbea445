"""How does one see two weeks of unlocks at a glance?  A row a day, a cell an hour: the darker, the more unlock then."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.text import Text

from policies.timestamps import parse_timestamp

SHADES = " ░▒▓█"
FULL_HEIGHT = 20
"""Characters of the longest bar of a day's total."""


def forecast_chart(console: Console, seen: dict[str, Any]) -> None:
    """Print a forecast (`models.queries.forecast`): what is overdue, then the hours of each day (UTC), then what is later."""
    if seen["overdue"]:
        console.print(
            Text(f"Overdue: {seen['overdue']} are due and not unlocked yet. Do sweeps run? (./run doctor)", "bold red")
        )
        for one in seen["overdue_orders"]:
            console.print(f"  {one['unlocks_at']:<22} order {one['order_id']}: {one['kind']}")
        if seen["overdue"] > len(seen["overdue_orders"]):
            console.print(f"  and {seen['overdue'] - len(seen['overdue_orders'])} more")
    else:
        console.print(Text("Nothing is overdue.", "green"))
    if seen["hours"]:
        console.print(f"{seen['total']} unlock by {seen['until']} (hours in UTC, the darkest has {_most(seen)}):")
        _days(console, seen)
    else:
        console.print(f"Nothing unlocks by {seen['until']}.")
    if seen["later"]:
        console.print(f"{seen['later']} unlock after that.")


def _days(console: Console, seen: dict[str, Any]) -> None:
    counts: dict[Any, dict[int, int]] = defaultdict(dict)
    for one in seen["hours"]:
        hour = parse_timestamp(one["hour"])
        counts[hour.date()][hour.hour] = one["total"]
    first, last = parse_timestamp(seen["at"]).date(), max(counts)
    most_of_an_hour, most_of_a_day = _most(seen), max(sum(hours.values()) for hours in counts.values())
    console.print(Text(f"{'':<15}|{'00':<6}{'06':<6}{'12':<6}{'18':<6}|", "dim"))
    day = first
    while day <= last:
        hours = counts.get(day, {})
        cells = "".join(_shade(hours.get(hour, 0), most_of_an_hour) for hour in range(24))
        total = sum(hours.values())
        bar = "█" * -(-total * FULL_HEIGHT // most_of_a_day)
        console.print(
            Text.assemble((f"{day:%a %Y-%m-%d} ", "dim"), "|", (cells, "cyan"), f"| {bar} {total or ''}".rstrip())
        )
        day += timedelta(days=1)


def _most(seen: dict[str, Any]) -> int:
    return max(int(one["total"]) for one in seen["hours"])


def _shade(count: int, most: int) -> str:
    """None is blank, and one is seen beside a million."""
    return SHADES[0] if count == 0 else SHADES[max(1, -(-count * (len(SHADES) - 1) // most))]
