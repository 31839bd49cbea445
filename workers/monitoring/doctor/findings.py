"""What does a finding say?  What is wrong, how bad that is, and the command or setting that mends it; never a secret."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """`note`: good to know.  `warning`: somebody should look today.  `error`: something does not work or is not true."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    code: str
    severity: Severity
    message: str
    fix: str

    def as_json(self) -> dict[str, str]:
        """`{code, severity, message, fix}` (contract 1)."""
        return {"code": self.code, "severity": self.severity.value, "message": self.message, "fix": self.fix}

    def as_line(self) -> str:
        """The same for a person."""
        return f"{self.severity.value:<7}  {self.code}: {self.message} Mend: {self.fix}"


def note(code: str, message: str, fix: str) -> Finding:
    """Good to know."""
    return Finding(code, Severity.NOTE, _one_line(message), fix)


def warning(code: str, message: str, fix: str) -> Finding:
    """Somebody should look today."""
    return Finding(code, Severity.WARNING, _one_line(message), fix)


def error(code: str, message: str, fix: str) -> Finding:
    """Something does not work or is not true."""
    return Finding(code, Severity.ERROR, _one_line(message), fix)


def exit_status(findings: Iterable[Finding]) -> int:
    """0 none or notes, 1 warnings, 2 errors (contract 1)."""
    severities = {finding.severity for finding in findings}
    return 2 if Severity.ERROR in severities else 1 if Severity.WARNING in severities else 0


def abbreviate(names: Iterable[object], most: int = 5) -> str:
    """The first few of a list, and how many more there are."""
    shown = [str(name) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def _one_line(message: str) -> str:
    """Servers and members may have said part of it: one line, nothing that acts on a terminal."""
    return "".join(c if c.isprintable() else " " for c in message)
