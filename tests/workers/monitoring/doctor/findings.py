"""Helpers of the doctor's tests: codes and severity of findings, and runs of the command."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from click.testing import CliRunner, Result

from workers.cli.doctor import doctor
from workers.monitoring.doctor.context import Context
from workers.monitoring.doctor.findings import Finding

LONG_AGO = timedelta(minutes=10)


def real_now() -> datetime:
    """The machine's clock."""
    return datetime.fromtimestamp(Context.clock(), UTC)


def codes(checked: Iterable[Finding]) -> list[str]:
    """The sorted codes of the findings, each of which must have a message and a fix."""
    findings = [*checked]
    assert all(finding.message and finding.fix and "\n" not in finding.message + finding.fix for finding in findings)
    return sorted(finding.code for finding in findings)


def severity(findings: list[Finding]) -> str:
    """The severity of the only finding."""
    (finding,) = findings
    return finding.severity.value


def run(*words: str) -> Result:
    """`./run doctor …`."""
    return CliRunner().invoke(doctor, list(words))
