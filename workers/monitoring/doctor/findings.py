"""Findings of the doctor: code, severity, message and fix.  They never contain a secret."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from policies.texts import printable
from workers.local import name_commands


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

    def as_json(self) -> dict[str, str]:
        return {"code": self.code, "severity": self.severity.value, "message": self.message, "fix": self.fix}

    def as_line(self) -> str:
        return f"{self.severity.value:<7}  {self.code}: {self.message} Fix: {self.fix}"


def note(code: str, message: str, fix: str) -> Finding:
    return Finding(code, Severity.NOTE, name_commands(printable(message, " ")), name_commands(fix))


def warning(code: str, message: str, fix: str) -> Finding:
    return Finding(code, Severity.WARNING, name_commands(printable(message, " ")), name_commands(fix))


def error(code: str, message: str, fix: str) -> Finding:
    return Finding(code, Severity.ERROR, name_commands(printable(message, " ")), name_commands(fix))


def exit_status(findings: Iterable[Finding]) -> int:
    severities = {finding.severity for finding in findings}
    return 2 if Severity.ERROR in severities else 1 if Severity.WARNING in severities else 0


def abbreviate(names: Iterable[object], limit: int = 5) -> str:
    shown = [str(name) for name in names]
    more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + more


def describe_age(now: datetime, then: datetime) -> str:
    seconds = (now - then).total_seconds()
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
