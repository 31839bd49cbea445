"""Stores results as one JSON per machine and run, and renders them as a table."""

from __future__ import annotations

import json
import os
import platform
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.harness import Result, Scale

WIDTH = 124
"""Columns that the table needs, where nobody says how wide the terminal is."""


def record(results: list[Result], scale: Scale, seconds: float) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).strftime("%Y-%m-%d"),  # noqa: TID251 - a date for people
        "machine": machine(),
        "scale": scale.name,
        "seconds": round(seconds),
        "results": [one.as_json() for one in results],
    }


def machine() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores,
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def write(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Merge the results into the stored file and return the merged record."""
    folder.mkdir(exist_ok=True)
    path = folder / "latest.json"
    if path.exists():
        made = {one["measure"] for one in record["results"]}
        earlier = json.loads(path.read_text(encoding="utf-8"))["results"]
        every = [*(one for one in earlier if one["measure"] not in made), *record["results"]]
        record = record | {"results": sorted(every, key=lambda one: (int(one["measure"][1:3]), one["measure"]))}
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return record


def table(results: list[Result]) -> Table:
    shown = Table(title="Ours against the references, by turns in one run", title_style="bold")
    shown.add_column("", no_wrap=True)
    shown.add_column("measure", min_width=34)
    for column in ("ours", "reference"):
        shown.add_column(column, justify="right")
    shown.add_column("ratio", no_wrap=True)
    shown.add_column("bar", justify="right", no_wrap=True)
    shown.add_column("met", no_wrap=True)
    for one in results:
        shown.add_row(
            one.measure,
            one.what,
            figure(statistics.median(one.ours), one.unit),
            figure(statistics.median(one.reference), one.unit) if one.reference else "",
            f"{one.value:.3g} ({min(one.values):.3g} … {max(one.values):.3g})",
            one.bar,
            "[green]yes[/]" if one.met else "[red]no[/]",
        )
        for name, value in one.peers.items():
            shown.add_row("", f"[dim]{name}", "", f"[dim]{figure(value, one.unit)}", "", "", "")
        for note in one.notes:
            shown.add_row("", f"[dim]{note}", "", "", "", "", "")
    return shown


def figure(value: float, unit: str) -> str:
    """Format a figure with three significant digits and its unit."""
    return f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"


def short_line(one: Result) -> str:
    return f"{one.measure} {one.value:.2f} ({one.bar})"
