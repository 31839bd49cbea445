"""The figures of `./run torture` in `docs/guarantees.md`, summed up from the reports in `docs/stress/`."""

from __future__ import annotations

import json
import re
from typing import Any

from workers.settings import CHECKOUT

REPORTS = CHECKOUT / "docs" / "stress"
_FIGURES = re.compile(r"^(<!-- figures of ./run torture -->\n).*?(?=^<!-- end -->$)", re.MULTILINE | re.DOTALL)
ADDED_UP = (
    ("commands", "commands sent"),
    ("orders_cancelled", "orders cancelled"),
    ("worker_kills", "whole workers killed"),
    ("child_kills", "worker processes killed"),
    ("pauses", "workers or children stopped for longer than the visibility timeout"),
    ("broker_losses", "times the broker died or lost all data"),
    ("storms", "connection storms"),
    ("database_kills", "times the database died"),
    ("hostile_messages", "hostile messages"),
    ("redeliveries", "copies and repeats of messages"),
    ("duplicates_suppressed", "of these answered again without a second effect"),
    ("lost", "**lost**"),
    ("doubled", "**doubled**"),
    ("early", "**early**"),
)


def with_figures(page: str) -> str:
    """Insert the figures between the page's markers."""
    return _FIGURES.sub(lambda match: match.group(1) + figures(reports()) + "\n", page)


def reports() -> list[dict[str, Any]]:
    """The stored reports, by file name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(REPORTS.glob("*.json"))]


def figures(runs: list[dict[str, Any]]) -> str:
    """All runs as one table, followed by their seeds and dates."""
    if not runs:
        return "No long run is stored yet.\n"
    rows = [("minutes", f"{sum(run['seconds'] for run in runs) / 60:,.0f}")]
    rows += [(label, f"{sum(run[name] for run in runs):,}") for name, label in ADDED_UP]
    rows.append(("violations of any kind", f"{sum(len(run['violations']) for run in runs):,}"))
    rows.append(
        (
            "longest time from the last fault until all work was done",
            f"{max(run['seconds_to_idle']['longest'] for run in runs):.0f} s",
        )
    )
    rows.append(
        (
            "publishes per outbox message, in the run with most",
            f"{max(run['publishes_per_outbox_message'] for run in runs):.2f}",
        )
    )
    table = "".join(f"| {label} | {value} |\n" for label, value in rows)
    cores = "/".join(str(n) for n in sorted({run["machine"]["cores"] for run in runs}))
    seeds = ", ".join(f"{run['seed']} ({run['began'][:10]}{_intensity(run)})" for run in runs)
    return f"| {len(runs)} runs on {cores} cores | together |\n| --- | ---: |\n{table}\nSeeds: {seeds}.\n"


def _intensity(run: dict[str, Any]) -> str:
    times = run.get("intensity", 1.0)
    return f", {times:g} times the usual faults" if times != 1 else ""
