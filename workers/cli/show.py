"""The commands that read, `show`, `explain` and `credits`: what they print of each noun, for people or as JSON."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from itertools import groupby
from textwrap import indent
from typing import Any

import click
from rich.text import Text

from policies.options import ACTIONS
from policies.texts import pluralize
from policies.timestamps import describe_duration, format_timestamp, parse_timestamp, rewrite_timestamps_for_people
from policies.verdicts import ASK_AGAIN
from tasks.declarations import all_commands
from workers import show_queries
from workers.cli.bill_page import render_html as render_bill_page
from workers.cli.bill_page import render_text
from workers.cli.database import open_transaction
from workers.cli.options import json_option, zone_of_option, zone_option
from workers.cli.show_lots import LOTS_OPTIONS, lot_rows, print_lots
from workers.cli.terminal_text import PeopleConsole, echo, escape_for_terminal
from workers.local.run_command import RUN_COMMAND


@click.group()
@json_option
def show(as_json: bool) -> None:
    """Show something as it is now; an order with --at T as it was at any time."""


@click.group()
@json_option
def explain(as_json: bool) -> None:
    """Explain what the parties of an order can do, and why the rest is refused."""


def print_query_result(query: show_queries.Query, as_json: bool, *, as_html: bool = False, **options: Any) -> None:
    if as_html and as_json:
        raise click.UsageError("A bill is printed with --html or with --json.")
    all_commands()  # declares the actions that orders are explained with
    with open_transaction(snapshot=True) as (conn, now):
        result: Any = query.read(conn, now)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    if result is None:
        raise click.ClickException(rewrite_timestamps_for_people(query.missing, zone_of_option()))
    if as_html:
        click.echo(render_bill_page(result), nl=False)
        return
    if query.noun == "order" and query.at is not None:  # `explain` names its time itself, and can look ahead
        echo(
            f"As of {format_timestamp(query.at)}:"
            if query.at <= now
            else "That time is in the future. This is the order now:"
        )
    print_result(query.noun, result, **options)


def print_result(noun: str, result: Any, **options: Any) -> None:
    console = PeopleConsole()
    for line in [*SHOWN_LINES[noun](escape_for_terminal(result), **options)] or [NOTHING_SHOWN[noun]]:
        console.write(line)


Line = str | Text


def _bold(text: str) -> Text:
    return Text(text, style="bold")


def _order_lines(result: dict[str, Any]) -> Iterator[Line]:
    yield _bold(f"Order {result['order_id']} is {result['status']}.")
    yield result["verdict"]
    names = {result[role]["member_id"]: _member_name_text(result[role]) for role in ("buyer", "seller")}
    buyer, seller = names[result["buyer_id"]], names[result["seller_id"]]
    payment = "unpaid" if result["payment_status"] == "None" else f"payment {result['payment_status']}"
    yield (
        f"{buyer} bought from {seller} for {result['total']} {result['currency']} "
        f"(order date {result['order_date']}, {payment})."
    )
    less = [f"{result[kind]} {kind}" for kind in ("credit", "coupon") if float(result[kind])]
    if less:
        yield f"The buyer pays less by {' and '.join(less)}; the fee is of the goods before that."
    if result["cancelled_at"]:
        by = names.get(result["cancelled_by"], result["cancelled_by"])
        yield f"Cancelled on {result['cancelled_at']} by {by}, on the ground {result['basis']}."
    yield from (f"  {_order_line_text(line)}" for line in result["lines"])
    if ocr := result["ocr"]:
        yield f"Cancel request of the {ocr['filed_by']}: {ocr['state']}, filed {ocr['filed_at']}."
    if alert := result["alert"]:
        answered = f"answered {alert['responded_at']}; " if alert["responded_at"] else ""
        unlock = f"{answered}cancellation possible from {alert['unlocks_at']}"
        yield f"Alert {alert['kind']}: {alert['state']}, filed {alert['filed_at']}; {unlock}."
    if late := result["late_payment"]:
        state = f"settled {late['settled_at']} by {late['settled_by']}" if late["settled_at"] else "not settled"
        yield f"Payment after the cancellation: {late['payment_status']}, {late['recorded_at']}; {state}."
    for removal in result["removals"]:
        yield f"Removal request {removal['removal_id']} of the {removal['requested_by']}: {removal['state']}."
    yield _describe_fee(result["fee"])
    yield from (f"  {credit['where']}" for credit in result["credits"])
    yield "What happened:"
    for row in result["timeline"]:
        by = row["actor"] if row["role"] == "system" else f"{names.get(row['actor'], row['actor'])}, {row['role']}"
        change = f"  [{row['from'] or 'new'} → {row['to']}]" if row["from"] != row["to"] else ""
        yield _dated_line(row["at"], f"{by}: {row['note']}{change}")
    yield "Inventory movements:" if result["stock"] else "No inventory movements."
    for (at, kind), group in groupby(result["stock"], key=lambda move: (move["at"], move["kind"])):
        units = ", ".join(f"{move['delta']:+} in lot {move['lot_id']} (line {move['line_no']})" for move in group)
        yield _dated_line(at, f"{kind}: {units}")
    yield "Emails:" if result["notices"] else "No emails."
    yield from _notice_lines(result["notices"])


def _dated_line(at: str, text: str) -> Text:
    return Text.assemble("  ", (at, "dim"), f"  {text}")


def _order_line_text(line: dict[str, Any]) -> str:
    colour = f" in colour {line['color_id']}" if line["color_id"] else ""
    item = f"{line['quantity']} × {line['item']['type'].lower()} {line['item']['no']}{colour}"
    text = f"Line {line['line_no']}: {item} of lot {line['lot_id']} at {line['unit_price']}"
    if line["removed"]:
        text += f", {line['removed']} removed"
    if line["returned"]:
        text += f", {line['returned']} returned to lot {line['returned_to_lot']}"
    return text + (f" ({line['note']})" if line["note"] else "")


def _describe_fee(fee: dict[str, Any]) -> str:
    text = f"Fee: {fee['charged']} USD charged for {fee['charged_month'] or 'no month'}"
    if fee["reset"]:
        text += f", reset by {fee['reset']} in the same month"
    if fee["credit"]:
        text += f", credited {fee['credit']} on the bill of {fee['credit_month']}"
    return f"{text}; {fee['net']} USD remains."


def _member_name_text(member: dict[str, Any]) -> str:
    return f"{member['handle']} ({member['member_id']})" if member["handle"] else str(member["member_id"])


def _explain_lines(result: dict[str, Any], *, show_all: bool = False) -> Iterator[Line]:
    yield _bold(f"Order {result['order_id']} is {result['status']} (at {result['at']}).")
    yield result["verdict"]
    hidden = 0
    for role in ("seller", "buyer"):
        yield _bold(f"The {role}")
        refused: dict[str, list[str]] = {}
        for option in result[role]:
            if option["possible"]:
                yield Text(f"  can {_describe_action(option)}. {option['why']}", style="green")
            elif option["code"] not in ("WRONG_ROLE", "NO_LATE_PAYMENT"):  # these explain nothing about the order
                why = option["why"].replace(ASK_AGAIN, ".")  # nothing was asked yet
                refused.setdefault(f"{why}{_describe_unblock(option)}", []).append(_describe_action(option))
        if not any(option["possible"] for option in result[role]):
            yield "  can do nothing now."
        hidden += sum(len(actions) for actions in refused.values())
        for reason, actions in refused.items() if show_all else ():
            yield f"  cannot {' or '.join(actions) if len(actions) <= 3 else 'do anything else'}: {reason}"
    if hidden and not show_all:
        yield f"With --all: why {pluralize(hidden, 'other action is', 'other actions are')} not possible."


def _describe_action(option: dict[str, Any]) -> str:
    removal = f" {option['removal_id']}" if option.get("removal_id") else ""
    return f"{ACTIONS[option['action']].label}{removal} ({option['action']})"


def _describe_unblock(option: dict[str, Any]) -> str:
    if option["possible_from"]:
        return f" Possible from {option['possible_from']}."
    return f" What would change it: {option['unblocked_by']}." if option["unblocked_by"] else ""


def _bill_lines(result: dict[str, Any]) -> Iterator[Line]:
    heading, _, rest = render_text(result).partition("\n")
    yield _bold(heading)
    yield rest.rstrip()


def _member_lines(result: dict[str, Any]) -> Iterator[Line]:
    privileges = [word for word, allowed in (("buy", result["can_buy"]), ("sell", result["can_sell"])) if allowed]
    yield _bold(f"{_member_name_text(result)} is {result['state']}.")
    yield f"Privileges: {' and '.join(privileges) or 'none'}."
    yield f"Strikes that count: {', '.join(str(strike) for strike in result['strikes']) or 'none'}."
    excluded = result["automation"].pop("exclude_buyers")
    for name, setting in result["automation"].items():
        yield f"Automation: {name} = {setting['value']}, set on {setting['set_at']}."
    if excluded:
        yield f"Never touched by automation: orders of {', '.join(excluded)}."
    for change in result["automation_history"]:
        yield Text(f"  {change['at']}  {change['by']}: {change['note']}", style="dim")


def _notice_lines(result: list[dict[str, Any]]) -> Iterator[Line]:
    for notice in result:
        yield _dated_line(notice["sent_at"] or notice["state"], f"to {notice['recipient']}: {notice['subject']}")
        yield Text(indent(notice["text"], "      "), style="dim")


def _alert_lines(result: list[dict[str, Any]]) -> Iterator[Line]:
    for alert in result:
        yield f"  {alert['unlocks_at']}  order {alert['order_id']}: {alert['kind']}, order {alert['status']}"


def _request_lines(result: dict[str, Any]) -> Iterator[Line]:
    heading = f"Request {result['request_id']}: {result['task']}"
    if result["state"] == "waiting":
        since = f" since {result['submitted_at']}" if result["submitted_at"] else ""
        yield _bold(f"{heading}, waiting{since} for a worker.")
    elif result["state"] == "dead":
        yield _bold(f"{heading}, given up {result['answered_at']}.")
        yield f"None of it was done. {RUN_COMMAND} jobs dead shows why; {RUN_COMMAND} jobs replay ID tries again."
    else:
        yield _bold(f"{heading}, answered {result['answered_at']}.")
        yield describe_answer(result["answer"])


def _credit_lines(result: dict[str, Any]) -> Iterator[Line]:
    for credit in result["credits"]:
        order = f"Order {credit['order_id']}" if credit["order_id"] is not None else "By staff"
        if credit["basis"] is not None:
            order += f", cancelled {credit['cancelled_at']} on the ground {credit['basis']}"
            order += f" (fee {credit['charged']} USD, charged for {credit['charged_month'] or 'no month'})"
        yield f"  {order}: {credit['where']}"
    if not result["credits"]:
        yield f"No order of {result['seller_id']} was cancelled, and no credit was given."


def _sweep_lines(result: list[dict[str, Any]]) -> Iterator[Line]:
    for sweep, group in groupby(result, key=lambda row: row["sweep"]):
        hours = list(group)
        yield _bold(f"{sweep}: last ran {hours[0]['last_ran_at']}, found {hours[0]['found_ever']} in total.")
        for row in hours:
            if row["hour"] is not None:
                gap = row["longest_gap_seconds"]
                longest = f"; longest gap {describe_duration(gap)}" if gap else ""
                runs = pluralize(row["runs"], "run", "runs")
                yield _dated_line(row["hour"], f"found {row['found']} in {runs}{longest}")


def _late_payment_lines(result: list[dict[str, Any]]) -> Iterator[Line]:
    for late in result:
        members = f"{_member_name_text(late['buyer'])} paid {_member_name_text(late['seller'])}"
        yield f"  {late['recorded_at']}  order {late['order_id']}: {late['payment_status']}, {members}"


def forecast_lines(forecast: dict[str, Any]) -> Iterator[Line]:
    # A row per day and a cell per hour, darker where more alerts unlock.
    overdue, total, later = forecast["overdue"], forecast["total"], forecast["later"]
    if overdue:
        subject = pluralize(overdue, "alert is", "alerts are")
        text = f"Overdue: {subject} due and not unlocked yet. Are sweeps running? ({RUN_COMMAND} doctor)"
        yield Text(text, "bold red")
        for alert in forecast["overdue_orders"]:
            yield f"  {alert['unlocks_at']}  order {alert['order_id']}: {alert['kind']}"
        if overdue > len(forecast["overdue_orders"]):
            yield f"  and {overdue - len(forecast['overdue_orders'])} more"
    else:
        yield Text("Nothing is overdue.", "green")
    if forecast["hours"]:
        max_per_hour = max(int(row["total"]) for row in forecast["hours"])
        hours = f"hours in {zone_of_option()}, the darkest has {max_per_hour}"
        yield f"{pluralize(total, 'unlocks', 'unlock')} by {forecast['until']} ({hours}):"
        yield from _chart_day_lines(forecast, max_per_hour)
    else:
        yield f"Nothing unlocks by {forecast['until']}."
    if later:
        yield f"{pluralize(later, 'unlocks', 'unlock')} after that."


def _chart_day_lines(forecast: dict[str, Any], max_per_hour: int) -> Iterator[Text]:
    counts: dict[date, Counter[int]] = defaultdict(Counter)
    for row in forecast["hours"]:
        hour = parse_timestamp(row["hour"]).astimezone(zone_of_option())
        counts[hour.date()][hour.hour] += row["total"]
    day, last = parse_timestamp(forecast["at"]).astimezone(zone_of_option()).date(), max(counts)
    shades = " ░▒▓█"
    max_per_day = max(hours.total() for hours in counts.values())
    yield Text(f"{'':<15}|{'00':<6}{'06':<6}{'12':<6}{'18':<6}|", "dim")
    while day <= last:
        # Blank for zero only: one unlock stays visible beside a million.
        cells = "".join(shades[-(-counts[day][hour] * (len(shades) - 1) // max_per_hour)] for hour in range(24))
        total = counts[day].total()
        bar = "█" * -(-total * 20 // max_per_day)
        yield Text.assemble((f"{day:%a %Y-%m-%d} ", "dim"), "|", (cells, "cyan"), f"| {bar} {total or ''}".rstrip())
        day += timedelta(days=1)


def describe_answer(answer: dict[str, Any]) -> str:
    if answer["outcome"] == "done":
        effects = ", ".join(f"{name}: {shorten_answer_value(value)}" for name, value in answer["effects"].items())
        return f"done. {effects}" if effects else "done."
    if answer["outcome"] == "invalid":
        return f"invalid. {describe_answer_errors(answer)}"
    return f"{answer['outcome']} ({answer['code']}). {answer['message']}"


def describe_answer_errors(answer: dict[str, Any]) -> str:
    return "; ".join(f"{error['path']} {error['message']}" for error in answer["errors"])


def shorten_answer_value(value: Any) -> str:
    text = _plain_answer_value(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _plain_answer_value(value: Any) -> str:
    if isinstance(value, dict):
        items = (f"{name} {_plain_answer_value(item)}" for name, item in value.items() if item is not None)
        return f"({', '.join(items)})"
    if isinstance(value, list):
        return ", ".join(_plain_answer_value(item) for item in value) or "none"
    if value is None:
        return "none"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


SHOWN_LINES: dict[str, Callable[..., Iterable[Line]]] = {
    "order": _order_lines,
    "explain": _explain_lines,
    "bill": _bill_lines,
    "lots": lot_rows,
    "member": _member_lines,
    "notices": _notice_lines,
    "alerts": _alert_lines,
    "request": _request_lines,
    "credits": _credit_lines,
    "forecast": forecast_lines,
    "sweeps": _sweep_lines,
    "late-payments": _late_payment_lines,
}
NOTHING_SHOWN = {
    "notices": "No emails.",
    "alerts": "No alert is due by then.",
    "sweeps": "No sweep has run yet.",
    "late-payments": "No payment for a cancelled order is open.",
}


def _show_command(noun: click.Command, print_query: Callable[..., None], *options: Any) -> click.Command:
    def run(as_json: bool, **arguments: Any) -> None:
        assert noun.callback is not None
        query = noun.callback(**{param.name: arguments.pop(param.name) for param in noun.params})
        parent = click.get_current_context().parent
        print_query(query, as_json or (parent is not None and parent.params.get("as_json", False)), **arguments)

    for option in (zone_option, *reversed(options), json_option):
        run = option(run)
    settings = noun.context_settings
    return click.command(noun.name, params=[*noun.params], context_settings=settings, help=noun.help)(run)


BILL_OPTIONS = (click.option("--html", "as_html", is_flag=True, help="Print a page that can be sent to the seller."),)
EXPLAIN_OPTIONS = (
    click.option("--all", "show_all", is_flag=True, help="Also list impossible actions, grouped by the reason."),
)

for _name, _noun in show_queries.nouns.commands.items():
    if isinstance(_noun, click.Group):
        explain.add_command(_show_command(_noun.commands["order"], print_query_result, *EXPLAIN_OPTIONS))
    elif _name == "lots":
        show.add_command(_show_command(_noun, print_lots, *LOTS_OPTIONS))
    else:
        show.add_command(_show_command(_noun, print_query_result, *(BILL_OPTIONS if _name == "bill" else ())))

credits = _show_command(show_queries.nouns.commands["credits"], print_query_result)  # noqa: A001 - the command's name
credits.context_settings = {}
credits.help = "Show the fee of each cancelled order of SELLER: reset or credited, and on which bill."
