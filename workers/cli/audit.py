"""The `audit` command: check the invariants, and prove the bills of a month from orders and events."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import click
from sqlalchemy import func, select

from models import terms
from models.db.session_settings import set_local
from models.integrity import invariants, month_audit, violation_log
from models.orders import OrderRow
from policies.bills import billing_month_of
from policies.texts import pluralize
from workers.cli.database import open_transaction
from workers.cli.options import json_option
from workers.cli.terminal_text import echo
from workers.show_queries import MONTH


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def audit(context: click.Context, as_json: bool) -> None:
    """Check every invariant, including the bills of every closed month; `audit month 2026-03` prints one month's
    certificate. Exit code 1 when something is violated."""
    if context.invoked_subcommand is not None:
        return
    with open_transaction() as (conn, now):
        set_local(conn, statement_timeout="0")
        months = month_audit.months_to_audit(conn)
        violations = invariants.query_invariants(conn, now, months=months)
        sentences = [invariant.sentence for invariant in (*invariants.ALWAYS, *invariants.IN_TIME)]
        checked = [*sentences, invariants.MONTHS_INVARIANT]
        violation_log.log_violations(conn, violations, now, checked_everywhere=checked)
        order_count = conn.scalar(select(func.count(OrderRow.order_id)))
    if as_json:
        rows = [{"sentence": sentence, "ids": ids} for sentence, ids in violations.items()]
        click.echo(json.dumps({"violations": rows}, indent=2))
    else:
        for sentence, ids in violations.items():
            echo(f"Violated: {sentence}: {', '.join(ids)}")
    if violations:
        raise click.ClickException(f"{pluralize(len(violations), 'invariant is', 'invariants are')} violated.")
    if not as_json:
        checked_orders = f"{order_count:,} {'order' if order_count == 1 else 'orders'}"
        closed = pluralize(len(months), "closed month", "closed months")
        echo(f"{len(sentences)} invariants over {checked_orders} and {closed}: nothing is wrong.")


@audit.command("month")
@click.argument("month", type=MONTH)
@json_option
def audit_month(month: date, as_json: bool) -> None:
    """Prove the bills of MONTH (such as 2026-03) from orders and events, or list every row that differs."""
    with open_transaction() as (conn, now):
        if month > billing_month_of(now, terms.load_terms(conn).at(now)):
            raise click.ClickException(f"{month:%Y-%m} has not begun, so there is nothing to prove.")
        certificate = month_audit.audit_month(conn, month)
    fields = certificate.as_json()
    click.echo(json.dumps(fields, indent=2) if as_json else "\n".join(_audit_month_lines(fields)))
    if not certificate.holds:
        rows = pluralize(len(certificate.differences), "row differs", "rows differ")
        raise click.ClickException(f"{rows} from what orders and events say.")


def _audit_month_lines(fields: dict[str, Any]) -> list[str]:
    state = "closed" if fields["closed"] else "still open: as of now"
    lines = [
        f"Month {fields['month']} ({state}), computed from orders and events",
        f"  sellers         {fields['sellers']:>14}",
        f"  bills issued    {fields['bills']:>14}",
        f"  lines           {fields['lines']:>14}",
        *(f"  {kind + ' lines':<16}{amount:>14} USD" for kind, amount in fields["sums"].items()),
        f"  billed          {fields['billed']:>14} USD",
        f"  carried forward {fields['carried_forward']:>14} USD",
        f"  paid so far     {fields['paid']:>14} USD",
    ]
    if fields["moved_on"]:
        lines.append(f"  on a later bill {fields['moved_on']:>14} (posted after the month's bill was issued)")
    if fields["differences"]:
        return [*lines, "These rows differ:", *(f"  - {difference}" for difference in fields["differences"])]
    return [*lines, f"  certificate     {fields['hash']}", "Every line and every bill is correct."]
