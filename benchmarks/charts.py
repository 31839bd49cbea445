"""Charts of the results: one bar chart per group with Unwind, the other libraries and PostgreSQL's limit."""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pygal
from pygal.style import Style

# pygal installs a deprecated import finder, so every later import warns; what its plugins need has been imported by
# now.
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "PluginImportFixer"]

Record = dict[str, Any]
Figures = dict[str, Record]
OURS, REFERENCE, REACHED, MISSED = "#1f6f8b", "#b8bec4", "#2f8f5b", "#c0513f"
STYLE = Style(
    background="white",
    plot_background="white",
    font_family="sans-serif",
    label_font_size=12,
    major_label_font_size=12,
    title_font_size=15,
    value_font_size=11,
)


def draw(record: Record, folder: Path) -> list[Path]:
    results: Figures = {record["measure"]: record for record in record["results"]}
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, (title, rows) in GROUPS.items():
        bars = [bar for row in rows if (bar := row(results)) is not None]
        if bars:
            path = folder / f"speed-{name}.svg"
            path.write_bytes(_chart(title, bars))
            paths.append(path)
    path = folder / "speed-bars.svg"
    path.write_bytes(
        _chart(
            "Distance to the bar: 100 is the bar, longer is better", [_distance(record) for record in results.values()]
        )
    )
    return [*paths, path]


Bar = tuple[str, float, str]
Row = Callable[[Figures], Bar | None]


def _side(measure: str, side: str, label: str, colour: str) -> Row:
    def bar(results: Figures) -> Bar | None:
        figures = results.get(measure, {}).get(side)
        return (label, statistics.median(figures), colour) if figures else None

    return bar


def _peer(measure: str, label: str) -> Row:
    def bar(results: Figures) -> Bar | None:
        peers = results.get(measure, {}).get("peers")
        return (label, next(iter(peers.values())), REFERENCE) if peers else None

    return bar


GROUPS: dict[str, tuple[str, tuple[Row, ...]]] = {
    "cancelling": (
        "Orders cancelled per second, everything that belongs to it included",
        (
            _side("B1", "reference", "PostgreSQL's bound (pgbench, batches of 100)", REFERENCE),
            _side("B1", "ours", "Unwind, batches of 100", OURS),
            _side("B5", "ours", "Unwind, SQL interface, one worker", OURS),
            _peer("B2", "dramatiq + one SQL function, no rules"),
            _side("B4", "reference", "bare Celery + one SQL function, no rules", REFERENCE),
            _side("B4", "ours", "Unwind, one order a message", OURS),
            _side("B2", "reference", "dramatiq + Unwind's body, one order a job", REFERENCE),
            _side("B3", "reference", "Celery + ORM, one order a job", REFERENCE),
        ),
    ),
    "scanning": (
        "Seconds to unlock all due alerts, with events and outbox rows",
        (
            _side("B6", "reference", "one raw SQL statement", REFERENCE),
            _side("B6", "ours", "Unwind, one worker", OURS),
            _side("B7", "ours", "Unwind, two workers", OURS),
        ),
    ),
    "waiting": (
        "Milliseconds that somebody waits",
        (
            _side("B11 p50", "reference", "bare Celery task, p50", REFERENCE),
            _side("B11 p50", "ours", "Unwind's answer, p50", OURS),
            _side("B11 p99", "reference", "bare Celery task, p99", REFERENCE),
            _side("B11 p99", "ours", "Unwind's answer, p99", OURS),
            _side("B12", "ours", "credit posted and mails gone, p99", OURS),
        ),
    ),
    "relay": (
        "Handed over per second",
        (
            _side("B10", "reference", "bare send_task, messages", REFERENCE),
            _side("B10", "ours", "Unwind's relay, outbox rows", OURS),
        ),
    ),
}


def _distance(record: Record) -> Bar:
    gain = record["bar"].startswith("≥")
    share = record["value"] / record["limit"] if gain else record["limit"] / record["value"]
    return f"{record['measure']} ({record['bar']})", min(share * 100, 400), REACHED if record["met"] else MISSED


def _chart(title: str, bars: list[Bar]) -> bytes:
    chart = pygal.HorizontalBar(
        style=STYLE,
        title=title,
        show_legend=False,
        print_values=True,
        js=[],  # an image must not load anything
        no_prefix=True,  # equal figures must give an equal file
        height=70 + 34 * len(bars),
        width=860,
        value_formatter=lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.3g}",
        x_labels=[label for label, _, _ in reversed(bars)],
    )
    chart.add("", [{"value": value, "color": colour} for _, value, colour in reversed(bars)])
    svg: bytes = chart.render()
    return re.sub(rb"<script\b.*?</script>", b"", svg, flags=re.DOTALL)
