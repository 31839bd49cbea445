"""Output of `./run torture --mutants`: every mutant with the check that caught it."""

from __future__ import annotations

import pytest
from rich.console import Console
from rich.table import Table

from stress.mutants import MUTANTS
from workers.settings import CHECKOUT


class _OutcomeRecorder:
    def __init__(self) -> None:
        self.passed: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed[report.nodeid.partition("[")[2].rstrip("]")] = report.duration


def run_mutants(console: Console) -> bool:
    """Run the tests of the mutants, print a line for each, and return whether all were caught."""
    watched = _OutcomeRecorder()
    console.print(f"{len(MUTANTS)} mutants, and each scenario without one; about two minutes.")
    words = [str(CHECKOUT / "tests" / "stress" / "test_mutants.py"), "-m", "long", "-q", "--no-header", "--tb=short"]
    status = pytest.main([*words, "-p", "no:cacheprovider", f"--rootdir={CHECKOUT}"], plugins=[watched])
    table = Table(title="Mutants", title_style="bold")
    for column in ("mutant", "scenario", "caught by", "", "seconds"):
        table.add_column(column)
    for mutant in MUTANTS.values():
        seconds = watched.passed.get(mutant.name)
        verdict = "[bold red]not caught" if seconds is None else "[green]caught"
        table.add_row(
            mutant.name,
            mutant.scenario.replace("_", " "),
            f"… {mutant.caught} …",
            verdict,
            f"{seconds:.1f}" if seconds else "",
        )
    console.print(table)
    caught = sum(name in watched.passed for name in MUTANTS)
    console.print(f"[bold]{caught} of {len(MUTANTS)} caught by name.[/]")
    return status == 0 and caught == len(MUTANTS)
