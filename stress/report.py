"""The JSON report of a run, and the files of a failed one."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from policies.timestamps import format_timestamp
from stress.plan import SERVERS
from stress.run import Outcome

WORKER_KILLS = ("kill_worker",)
CHILD_KILLS = ("kill_child",)
BROKER_LOSSES = ("flush_broker", *SERVERS["broker"])
DATABASE_KILLS = ("stop_database", "kill_database", "close_database")
PAUSES = ("stop_worker", "stop_child")


def report(outcome: Outcome) -> dict[str, Any]:
    counts = outcome.counts

    def faults(kinds: Iterable[str]) -> int:
        return sum(counts[f"fault {kind}"] for kind in kinds)

    return {
        "seed": outcome.options.seed,
        "intensity": outcome.options.intensity,
        "sentinel": outcome.options.sentinel,
        "began": format_timestamp(outcome.began.replace(microsecond=0)),
        "seconds": outcome.lasted,
        "machine": {"cores": _cores(), "python": platform.python_version(), "system": platform.system()},
        "rounds": counts["rounds"],
        "commands": counts["commands"],
        "accepted": counts["accepted"],
        "answered": counts["answered"],
        "given_up": counts["given up"],
        "invalid": counts["invalid"],
        "orders_cancelled": counts["cancelled"],
        "orders_cancelled_automatically": counts["automatic cancel"],
        "alerts_filed_automatically": counts["automatic file"],
        "requests_declined_automatically": counts["automatic decline"],
        "messages": counts["messages"],
        "http_requests": counts["http requests"],
        "http_answers": counts["http answers"],
        "redeliveries": counts["copies"] + counts["sent again"],
        "duplicates_suppressed": counts["duplicates suppressed"],
        "worker_kills": faults(WORKER_KILLS),
        "child_kills": faults(CHILD_KILLS),
        "web_kills": faults(("kill_web",)),
        "restarts": counts["restarts"],
        "pauses": faults(PAUSES),
        "broker_losses": faults(BROKER_LOSSES),
        "failovers": counts["failovers"],
        "lost_tail_bytes": counts["lost tail bytes"],
        "storms": faults(("storm",)),
        "database_kills": faults(DATABASE_KILLS),
        "hostile_messages": faults(("hostile", "poison")),
        "faults": {name.removeprefix("fault "): n for name, n in sorted(counts.items()) if name.startswith("fault ")},
        "emails_sent": counts["emails sent"],
        "publishes_per_outbox_message": outcome.publishes_per_outbox_message,
        "max_publishes": outcome.max_publishes,
        "seconds_to_idle": {"longest": max(outcome.seconds_to_idle, default=None), "all": outcome.seconds_to_idle},
        "waited_for": outcome.waited_for,
        "lost": counts["lost"],
        "doubled": counts["doubled"],
        "early": counts["early"],
        "violations": outcome.violations,
    }


def keep_failure(outcome: Outcome, history: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Write the commands of a failed run as a replay file, its faults, and the state when it stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"torture-{outcome.options.seed}"
    lines = list(history)
    latest = outcome.began - timedelta(hours=1)
    for at, task, arguments in outcome.judged:
        latest = max(latest, at)  # a command by SQL counts from its insert, and a history is sorted by time
        lines.append({"at": format_timestamp(latest), "task": task, "kwargs": arguments})
    files = {
        folder / f"{name}.jsonl": "".join(json.dumps(line) + "\n" for line in lines),
        folder / f"{name}-faults.json": json.dumps(outcome.timeline, indent=1) + "\n",
        folder / f"{name}-violations.txt": "\n".join([*outcome.violations, "", outcome.dump]) + "\n",
    }
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return list(files)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
