"""How does one have the books proven?  A month's bills computed again from orders and events, and the invariants asked."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import click

from workers.cli import data_option
from workers.cli.database import open_database


class DoesNotHold(click.ClickException):
    """Something is not as it must be; exit code 1."""


def _month(_context: click.Context, _parameter: click.Parameter, value: str) -> date:
    from policies.billing_months import parse_month

    try:
        return parse_month(value)
    except ValueError:
        raise click.BadParameter("must be a month such as 2026-03") from None


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@data_option
@click.pass_context
def audit(context: click.Context, as_json: bool) -> None:
    """Ask every invariant, the bills of every closed month among them; `audit month 2026-03` shows one month's
    certificate. Exit code 1 when something differs."""
    if context.invoked_subcommand is not None:
        return
    from models.integrity import audit as book
    from models.integrity import invariants, month_audit

    with open_database() as database, database.transaction() as conn:
        now = database.clock.now(conn)
        book.set_statement_timeout(conn)
        broken = invariants.check(conn, now, months=month_audit.closed_months(conn))
        sentences = [one.sentence for one in (*invariants.ALWAYS, *invariants.IN_TIME)]
        book.record_findings(conn, broken, now, checked_everywhere=[*sentences, invariants.MONTHS_PROVEN])
    if as_json:
        click.echo(json.dumps({"violations": [{"sentence": one.sentence, "ids": one.ids} for one in broken]}, indent=2))
    for one in broken if not as_json else ():
        click.echo(f"Broken: {one.sentence}: {', '.join(one.ids)}")
    if broken:
        raise DoesNotHold(f"{len(broken)} of what must always hold does not.")
    if not as_json:
        click.echo("All invariants hold.")


@audit.command("month")
@click.argument("month", callback=_month)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@data_option
def audit_month(month: date, as_json: bool) -> None:
    """Prove the bills of MONTH (such as 2026-03) from orders and events, or name every row that differs."""
    from models import bills
    from models.integrity import month_audit

    with open_database() as database, database.transaction() as conn:
        if not bills.month_has_begun(conn, month, database.clock.now(conn)):
            raise click.ClickException(f"{month:%Y-%m} has not begun, so there is nothing to prove.")
        found = month_audit.audit_month(conn, month)
    said = found.as_json()
    click.echo(json.dumps(said, indent=2) if as_json else "\n".join(_in_words(said)))
    if not found.holds:
        raise DoesNotHold(f"{len(found.differences)} rows differ from what orders and events say.")


def _in_words(said: dict[str, Any]) -> list[str]:
    lines = [
        f"Month {said['month']} ({'closed' if said['closed'] else 'still open: as of now'}), computed from orders and events",
        f"  sellers         {said['sellers']:>14}",
        f"  bills issued    {said['bills']:>14}",
        f"  lines           {said['lines']:>14}",
        *(f"  {kind + ' lines':<16}{amount:>14} USD" for kind, amount in said["sums"].items()),
        f"  billed          {said['billed']:>14} USD",
        f"  carried forward {said['carried_forward']:>14} USD",
        f"  paid so far     {said['paid']:>14} USD",
    ]
    if said["moved_on"]:
        lines.append(f"  {said['moved_on']} came after their bill was made and are on a following one.")
    if said["differences"]:
        return [*lines, "These rows differ:", *(f"  - {one}" for one in said["differences"])]
    return [*lines, f"  certificate     {said['hash']}", "Every line and every bill is as it must be."]
