"""Helpers of the doctor's tests: codes and severity of findings, and runs of the command."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from click.testing import CliRunner, Result

from workers.cli.doctor import doctor
from workers.monitoring.doctor import Finding
from workers.monitoring.doctor.context import wall_clock

LONG_AGO = timedelta(minutes=10)


def real_now() -> datetime:
    """What the machine's clock says."""
    return datetime.fromtimestamp(wall_clock(), UTC)


def codes(found: list[Finding]) -> list[str]:
    """Their codes, sorted; every finding must have something to say and a way out."""
    assert all(one.message and one.fix and "\n" not in one.as_line() for one in found)
    return sorted(one.code for one in found)


def severity(found: list[Finding]) -> str:
    """Of the only finding there is."""
    (one,) = found
    return one.severity.value


def run(*words: str) -> Result:
    """`./run doctor …`."""
    return CliRunner().invoke(doctor, list(words))
