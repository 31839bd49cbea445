"""How does one ask what is wrong here?  `./run doctor`, for people, for scripts by its exit code, or as JSON."""

from __future__ import annotations

import json

import click

from workers.cli import data_option


@click.command()
@click.option("--json", "as_json", is_flag=True, help='For programs: {"findings": [{code, severity, message, fix}]}.')
@data_option
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Say what is wrong with this installation, one line a finding with its fix.

    Looks at settings, servers, workers, what waits, and what must always hold; starts and changes nothing. Exit code 0:
    nothing but notes; 1: warnings; 2: errors.
    """
    from workers.monitoring.doctor import Severity, examine, exit_status

    found = sorted(examine(), key=lambda one: list(Severity)[::-1].index(one.severity))
    if as_json:
        click.echo(json.dumps({"findings": [one.as_json() for one in found]}, indent=2))
    else:
        colours = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: None}
        for one in found:
            click.echo(click.style(one.as_line(), fg=colours[one.severity]))
        if all(one.severity is Severity.NOTE for one in found):
            click.echo("Nothing is wrong.")
    context.exit(exit_status(found))
