"""The `whatif` command: replays recorded cases under other terms, lists the differences and adds them up."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import orjson

from models.db.session_settings import lift_time_limits
from models.ddl.grants import READER_ROLE
from models.queries.whatif import WhatIfDifference, load_recorded_conditions, load_recorded_extent, replay_cases
from models.stored_answers import Answer
from policies.automation_settings import AUTOMATION_SETTINGS, AutomationSetting
from policies.bills import MIN_BILLING_MONTH
from policies.fees import ZERO
from policies.recorded_cases import RecordedCase
from policies.term_parsing import terms_from_mapping
from policies.timestamps import format_optional_timestamp, format_timestamp
from policies.whatif import CaseOutcome, WhatIfConditions
from tasks.automation import SetAutomation
from tasks.command_parsing import parse_command
from workers.cli.database import open_transaction
from workers.cli.options import json_option, zone_option
from workers.cli.terminal_text import echo, echo_literally
from workers.cli.terms import parse_start, read_terms_file

MAX_DIFFERENCES_SHOWN = 50
WHATIF_BEGINNING = datetime.combine(MIN_BILLING_MONTH, time(), tzinfo=UTC)  # no record is older
WHATIF_LABELS = {
    "filed": "filed",
    "unlocked": "unlocked",
    "cancelled": "cancelled",
    "strike": "strike for",
    "fee": "fee",
    "fee_month": "charged in",
}
SIDES = ("was", "would_be")


@dataclass(slots=True)
class WhatIfTotals:
    orders: int = 0
    events: int = 0
    different: int = 0
    counts: dict[str, dict[str, int]] = field(
        default_factory=lambda: {
            name: dict.fromkeys(SIDES, 0) for name in ("filed", "unlocked", "cancelled", "strikes")
        }
    )
    fee: dict[str, Decimal] = field(default_factory=lambda: dict.fromkeys(SIDES, ZERO))

    def add(self, case: RecordedCase, *outcomes: CaseOutcome) -> None:
        self.orders += 1
        self.events += len(case.events)
        self.different += outcomes[0] != outcomes[1]
        for side, outcome in zip(SIDES, outcomes, strict=True):
            self.counts["filed"][side] += len(outcome.alerts)
            self.counts["unlocked"][side] += sum(alert.unlocked_at is not None for alert in outcome.alerts)
            self.counts["cancelled"][side] += outcome.cancelled_at is not None
            self.counts["strikes"][side] += outcome.strike is not None
            self.fee[side] += outcome.fee

    def as_json(self) -> dict[str, Any]:
        fee = {side: str(amount) for side, amount in self.fee.items()} | {"difference": f"{self.fee_difference:+}"}
        totals = {"orders": self.orders, "events": self.events, "different": self.different}
        return {**totals, **self.counts, "fee": fee}

    @property
    def fee_difference(self) -> Decimal:
        return self.fee["would_be"] - self.fee["was"]


@click.command()
@click.argument("file", metavar="TERMS.toml", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--since",
    metavar="DATE",
    help="Try them from then on: 2026-01-01 (midnight in the billing zone) or a timestamp; else from the beginning.",
)
@json_option
@zone_option
def whatif(file: Path, since: str | None, as_json: bool) -> None:
    """Replay every case under the terms of TERMS.toml, and list what would have been different. Nothing is written.

    The file has terms as for `terms apply`, and settings of automation for all sellers, such as cancel_after_unlock = 3
    (false: off). What it does not name stays as it was. Docs: docs/operate.md.
    """
    settings, totals = read_terms_file(file), WhatIfTotals()
    with open_transaction(snapshot=True, role=READER_ROLE) as (conn, _):
        lift_time_limits(conn)
        recorded = load_recorded_conditions(conn)
        tried = _parse_whatif_arguments(settings, since, recorded)
        event_count, until = load_recorded_extent(conn)
        cases = replay_cases(conn, recorded, tried, until or WHATIF_BEGINNING)
        differences = _find_differences(cases, totals, event_count)
        (_print_whatif_json if as_json else _print_whatif_text)(differences, totals, until)


def _parse_whatif_arguments(
    settings: dict[str, Any], since: str | None, recorded: WhatIfConditions
) -> WhatIfConditions:
    named_terms = {name: value for name, value in settings.items() if name not in AUTOMATION_SETTINGS}
    # TOML has no null.
    named_settings = {
        name: None if value is False else value for name, value in settings.items() if name in AUTOMATION_SETTINGS
    }
    start = WHATIF_BEGINNING if since is None else parse_start(since, recorded.periods[-1][1].zone, "--since")
    periods = [period for period in recorded.periods if period[0] < start]
    problems: dict[str, str] = {}
    for begin, base in [(start, recorded.terms_at(start)), *(p for p in recorded.periods if p[0] > start)]:
        terms = terms_from_mapping(named_terms, base=base)
        if isinstance(terms, list):
            problems |= dict(terms)
        else:
            periods.append((begin, terms))
    command = parse_command(SetAutomation, {"member_id": "-", **named_settings}, "whatif")
    if isinstance(command, Answer):
        problems |= {error["path"]: error["message"] for error in command.errors}
    if problems:
        lines = [f"  {name}: {message}" for name, message in problems.items()]
        raise click.ClickException("\n".join(["These terms cannot be tried.", *lines]))
    values = {
        name: None if value is None else AutomationSetting(value, start) for name, value in named_settings.items()
    }
    return WhatIfConditions(periods, values, start)


def _find_differences(
    cases: Iterable[WhatIfDifference], totals: WhatIfTotals, event_count: int
) -> Iterator[WhatIfDifference]:
    shown = 0
    for case, was, would_be in cases:
        totals.add(case, was, would_be)
        if totals.events >= shown + 100_000:
            shown = totals.events
            echo_literally(f"{totals.events:,} of {event_count:,} events replayed.", err=True)
        if was != would_be:
            yield case, was, would_be


def _print_whatif_json(differences: Iterable[WhatIfDifference], totals: WhatIfTotals, until: datetime | None) -> None:
    # Each case at once: a market may have a million that differ.
    sys.stdout.write('{"cases": [')
    separator = "\n "
    for case, was, would_be in differences:
        before, after = _outcome_json(was), _outcome_json(would_be)
        fields = {
            "order_id": case.order_id,
            "seller_id": case.seller_id,
            "buyer_id": case.buyer_id,
            "differences": _differing_aspects(before, after),
            "was": before,
            "would_be": after,
        }
        sys.stdout.write(separator + orjson.dumps(fields).decode())
        separator = ",\n "
    click.echo(
        f'],\n "until": {json.dumps(format_optional_timestamp(until))},\n "totals": {json.dumps(totals.as_json())}}}'
    )


def _print_whatif_text(differences: Iterable[WhatIfDifference], totals: WhatIfTotals, until: datetime | None) -> None:
    for case, was, would_be in differences:
        if totals.different <= MAX_DIFFERENCES_SHOWN:
            echo(f"Order {case.order_id} (seller {case.seller_id}, buyer {case.buyer_id})")
            before, after = _outcome_words(was), _outcome_words(would_be)
            for aspect in _differing_aspects(before, after):
                echo(f"  {WHATIF_LABELS[aspect]}: {after[aspect]} instead of {before[aspect]}")
    if totals.different > MAX_DIFFERENCES_SHOWN:
        echo(f"and {totals.different - MAX_DIFFERENCES_SHOWN:,} more: --json prints all")
    extent = f"{_whatif_count(totals.events, 'event')} of {_whatif_count(totals.orders, 'order')}"
    if until is not None:
        extent += f", up to {format_timestamp(until)}"
    if not totals.different:
        echo(f"Nothing would have been different: {extent}.")
        return
    echo(f"{_whatif_count(totals.different, 'order')} would have been different: {extent}.")
    for name, counts in totals.counts.items():
        echo(f"  {name:<10} {counts['would_be']:>12,} instead of {counts['was']:,}")
    fee = f"{totals.fee['would_be']:>12,} USD instead of {totals.fee['was']:,} ({totals.fee_difference:+,})"
    echo(f"  {'fees':<10} {fee}")


def _differing_aspects(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [aspect for aspect in WHATIF_LABELS if before[aspect] != after[aspect]]


def _outcome_json(outcome: CaseOutcome) -> dict[str, Any]:
    def acts(instants: Iterable[tuple[str, datetime | None]]) -> list[dict[str, str]]:
        return [{"kind": kind, "at": format_timestamp(at)} for kind, at in instants if at is not None]

    cancelled_at = format_optional_timestamp(outcome.cancelled_at)
    return {
        "filed": acts((alert.kind, alert.filed_at) for alert in outcome.alerts),
        "unlocked": acts((alert.kind, alert.unlocked_at) for alert in outcome.alerts),
        "cancelled": {"basis": outcome.basis, "at": cancelled_at} if cancelled_at else None,
        "strike": outcome.strike,
        "fee": str(outcome.fee),
        "fee_month": outcome.fee_month,
    }


def _outcome_words(outcome: CaseOutcome) -> dict[str, str]:
    fields = _outcome_json(outcome)
    cancelled = fields["cancelled"]
    acts = {
        name: ", ".join(f"{entry['kind']} {entry['at']}" for entry in fields[name]) or "never"
        for name in ("filed", "unlocked")
    }
    return acts | {
        "cancelled": f"{cancelled['basis']} {cancelled['at']}" if cancelled else "never",
        "strike": f"the {outcome.strike}" if outcome.strike else "nobody",
        "fee": f"{outcome.fee} USD",
        "fee_month": outcome.fee_month or "no month",
    }


def _whatif_count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
