"""What did the long runs of `./run torture` show?  The reports kept in `docs/stress/`, added up for `docs/guarantees.md`."""

from __future__ import annotations

import json
import re
from typing import Any

from workers.settings import CHECKOUT

REPORTS = CHECKOUT / "docs" / "stress"
_FIGURES = re.compile(r"^(<!-- figures of ./run torture -->\n).*?(?=^<!-- end -->$)", re.MULTILINE | re.DOTALL)
ADDED_UP = (
    ("commands", "commands sent through all doors"),
    ("orders_cancelled", "orders cancelled"),
    ("worker_kills", "whole workers killed"),
    ("child_kills", "worker children killed"),
    ("pauses", "workers or children stopped for longer than the visibility timeout"),
    ("broker_losses", "times the broker died or forgot everything"),
    ("storms", "connection storms"),
    ("database_kills", "times the database died"),
    ("hostile_messages", "hostile messages"),
    ("redeliveries", "copies and repeats of messages"),
    ("duplicates_suppressed", "of these answered again and not done again"),
    ("lost", "**lost**"),
    ("doubled", "**doubled**"),
    ("early", "**early**"),
)


def with_figures(page: str) -> str:
    """The page with the figures of the reports that are kept, where it asks for them."""
    return _FIGURES.sub(lambda found: found.group(1) + figures(reports()) + "\n", page)


def reports() -> list[dict[str, Any]]:
    """The reports that are kept, in the order of their names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(REPORTS.glob("*.json"))]


def figures(runs: list[dict[str, Any]]) -> str:
    """All runs as one table, and from when and which seed each was."""
    if not runs:
        return "No long run is kept yet.\n"
    rows = [("minutes", f"{sum(run['seconds'] for run in runs) / 60:,.0f}")]
    rows += [(says, f"{sum(run[name] for run in runs):,}") for name, says in ADDED_UP]
    rows.append(("violations of any kind", f"{sum(len(run['violations']) for run in runs):,}"))
    rows.append(
        ("all done after the last fault, at the latest", f"{max(run['dry_after']['longest'] for run in runs):.0f} s")
    )
    rows.append(("rings per promise, in the run with most", f"{max(run['rings_per_job'] for run in runs):.2f}"))
    table = "".join(f"| {says} | {value} |\n" for says, value in rows)
    cores = "/".join(str(n) for n in sorted({run["machine"]["cores"] for run in runs}))
    seeds = ", ".join(f"{run['seed']} ({run['began'][:10]}{_fierce(run)})" for run in runs)
    return f"| {len(runs)} runs on {cores} cores | together |\n| --- | ---: |\n{table}\nSeeds: {seeds}.\n"


def _fierce(run: dict[str, Any]) -> str:
    """Said of a run with more than the usual kills, losses and storms."""
    times = run.get("fierce", 1.0)
    return f", {times:g} times the kills" if times != 1 else ""
