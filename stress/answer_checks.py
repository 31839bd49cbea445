"""Checks that all answers to a request agree: the producers' record, the workers' file and the database."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from psycopg import Connection

from stress.environment import Environment
from stress.plan import PRIVATE_WORDS
from stress.sent_commands import Ledger

STORED_ANSWERS = "SELECT request_id, answer FROM unwind.requests WHERE request_id = ANY(%s)"


def compare_answers(environment: Environment, ledger: Ledger, conn: Connection[Any]) -> tuple[int, int, list[str]]:
    """Return how many commands were lost, how many ran twice, and a sentence for each violation."""
    answered = [
        (sent.request_id, [sent.answer, *sent.later]) for sent in list(ledger.sent.values()) if sent.answer is not None
    ]
    lost, violations = contradictions(conn, [(request_id, answer) for request_id, all_ in answered for answer in all_])
    violations += [
        f"{request_id}: was answered with different outcomes"
        for request_id, all_ in answered
        if len({answer["outcome"] for answer in all_} - {"dead"}) > 1  # one copy may be dead and another answered
    ]
    first_time, copies = read_effects(environment.effects)
    doubled = [request_id for request_id, times in first_time.items() if times > 1]
    violations += [f"{request_id}: was carried out {first_time[request_id]} times" for request_id in doubled]
    ledger.counts["duplicates suppressed"] = copies
    return lost, len(doubled), violations


def contradictions(conn: Connection[Any], answers: Iterable[tuple[str, dict[str, Any]]]) -> tuple[int, list[str]]:
    """Return how many of these answers are not stored, and a sentence for each missing or different one."""
    answers = [(request_id, answer) for request_id, answer in answers if answer["outcome"] in ("done", "refused")]
    stored = dict(conn.execute(STORED_ANSWERS, [[request_id for request_id, _ in answers]]).fetchall())
    lost, violations = 0, []
    for request_id, answer in answers:
        if request_id not in stored:
            lost += 1
            violations.append(f"{request_id}: was answered {answer['outcome']}, and nothing of it is kept")
        elif _comparable(answer) != _comparable(stored[request_id]):
            violations.append(f"{request_id}: was answered in two ways")
    return lost, violations


def _comparable(answer: dict[str, Any]) -> dict[str, Any]:
    comparable = {name: value for name, value in answer.items() if name != "replayed"}
    if "answers" in answer["effects"]:
        items = [_comparable(item) for item in answer["effects"]["answers"]]
        comparable["effects"] = answer["effects"] | {"answers": items}
    return comparable


def read_effects(effects: Path) -> tuple[Counter[str], int]:
    """Count in the workers' file how often each request ran, and how many were answered from storage."""
    first_time: Counter[str] = Counter()
    again = 0
    if effects.exists():
        for line in effects.read_text().splitlines():
            _, request_id, outcome, replayed = json.loads(line)
            if replayed:
                again += 1
            elif outcome in ("done", "refused") and request_id.startswith("t-"):
                first_time[request_id] += 1
    return first_time, again


def find_private_words(folder: Path) -> list[str]:
    """Return files of a run, other than the database's own, that contain planted private words."""
    logs = [*folder.glob("logs/*.log"), *folder.glob("servers/*.log"), folder / "preforker.log"]
    return [
        f"{path.relative_to(folder)} holds private words" for path in logs if PRIVATE_WORDS.encode() in _bytes(path)
    ]


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
