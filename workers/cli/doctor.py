"""The `doctor` command: findings for people, as an exit code for scripts, or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from workers.cli.terminal_text import echo
from workers.monitoring.doctor import examine
from workers.monitoring.doctor.findings import Severity, exit_status


@click.command()
@click.option("--json", "as_json", is_flag=True, help='Print JSON: {"findings": [{code, severity, message, fix}]}.')
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Report what is wrong with this installation, each finding with its fix.

    Examines settings, servers, workers, queues and invariants; starts and changes nothing. Exit code 0: nothing but
    notes; 1: warnings; 2: errors.
    """
    findings, check_count = examine()
    findings.sort(key=lambda finding: list(Severity)[::-1].index(finding.severity))
    if as_json:
        click.echo(json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        colours = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: ""}
        for finding in findings:
            line = f"{finding.severity.value:<7}  {finding.code}: {finding.message} Fix: {finding.fix}"
            echo(line, colours[finding.severity])
        if all(finding.severity is Severity.NOTE for finding in findings):
            echo(f"{check_count} checks: nothing is wrong.")
    context.exit(exit_status(findings))
