"""Stores results as one JSON per machine and run, and renders them as a table."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.harness import Result, Scale

WIDTH = 124
"""Columns of the table where the terminal's width is unknown."""


def record(results: list[Result], scale: Scale, seconds: float) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).strftime("%Y-%m-%d"),  # noqa: TID251 - a date for people
        "machine": machine(),
        "scale": scale.name,
        "seconds": round(seconds),
        "results": [entry.as_json() for entry in results],
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
        measures = {entry["measure"] for entry in record["results"]}
        earlier = json.loads(path.read_text(encoding="utf-8"))["results"]
        every = [*(entry for entry in earlier if entry["measure"] not in measures), *record["results"]]
        record = record | {"results": sorted(every, key=_number_and_name)}
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return record


def _number_and_name(entry: dict[str, Any]) -> tuple[int, str]:
    measure: str = entry["measure"]
    return int(re.findall(r"\d+", measure)[0]), measure


def table(results: list[Result]) -> Table:
    table_ = Table(title="Ours against the references, by turns in one run", title_style="bold")
    table_.add_column("", no_wrap=True)
    table_.add_column("measure", min_width=34)
    for column in ("ours", "reference"):
        table_.add_column(column, justify="right")
    table_.add_column("ratio", no_wrap=True)
    table_.add_column("bar", justify="right", no_wrap=True)
    table_.add_column("met", no_wrap=True)
    for entry in results:
        table_.add_row(
            entry.measure,
            entry.what,
            figure(statistics.median(entry.ours), entry.unit),
            figure(statistics.median(entry.reference), entry.unit) if entry.reference else "",
            f"{entry.value:.3g} ({min(entry.values):.3g} … {max(entry.values):.3g})",
            entry.bar,
            "[green]yes[/]" if entry.met else "[red]no[/]",
        )
        for name, value in entry.peers.items():
            table_.add_row("", f"[dim]{name}", "", f"[dim]{figure(value, entry.unit)}", "", "", "")
        for note in entry.notes:
            table_.add_row("", f"[dim]{note}", "", "", "", "", "")
    return table_


def figure(value: float, unit: str) -> str:
    """Format a figure with three significant digits and its unit."""
    return f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"


def short_line(result: Result) -> str:
    return f"{result.measure} {result.value:.2f} ({result.bar})"
