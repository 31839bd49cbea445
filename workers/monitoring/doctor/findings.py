"""Findings of the doctor: code, severity, message and fix.  They never contain a secret."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial

from policies.texts import replace_unprintable
from policies.timestamps import describe_duration
from workers.local.run_command import replace_run_command

MAX_NAMED = 5
NO_ACTION = "no action is needed."


class Severity(StrEnum):
    """`note`: for information.  `warning`: look at it today.  `error`: something does not work or is not true."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    code: str
    severity: Severity
    message: str
    fix: str


def _finding(severity: Severity, code: str, message: str, fix: str) -> Finding:
    return Finding(code, severity, replace_run_command(replace_unprintable(message, " ")), replace_run_command(fix))


note, warning, error = (partial(_finding, severity) for severity in Severity)


def exit_status(findings: Iterable[Finding]) -> int:
    return max((list(Severity).index(finding.severity) for finding in findings), default=0)


def finding_names(names: Iterable[object]) -> str:
    shown = [str(name) for name in names]
    more = f" and {len(shown) - MAX_NAMED} more" if len(shown) > MAX_NAMED else ""
    return ", ".join(shown[:MAX_NAMED]) + more


def finding_age(now: datetime, then: datetime) -> str:
    return describe_duration((now - then).total_seconds())
