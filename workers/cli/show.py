"""The commands that read, `show`, `explain` and `credits`: what they print of each noun, for people or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import groupby
from textwrap import indent
from typing import Any

import click
from rich.text import Text

from models.db.database import use_snapshot_isolation
from policies.options import ACTIONS
from policies.timestamps import describe_duration, describe_timestamp, format_timestamp, parse_timestamp
from policies.verdicts import ASK_AGAIN
from tasks.declarations import all_commands
from workers import show_queries
from workers.cli import data_option
from workers.cli.answer_text import describe_answer
from workers.cli.bill_page import render_html as render_bill_page
from workers.cli.bill_page import render_text
from workers.cli.database import open_database
from workers.cli.forecast_chart import print_forecast_chart
from workers.cli.show_lots import LOTS_OPTIONS, print_lots, print_lots_table
from workers.cli.terminal_text import PeopleConsole, echo, escape_control_characters, for_people, zone_option
from workers.local.run_command import RUN_COMMAND

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class NothingToShow(click.ClickException):
    pass


@click.group()
@json_option
@data_option
def show(as_json: bool) -> None:
    """Show something as it is now; an order with --at T as it was at any time."""


@click.group()
@json_option
@data_option
def explain(as_json: bool) -> None:
    """Explain what the parties of an order can do, and why the rest is refused."""


@click.command()
@json_option
@click.argument("seller", type=show_queries.NAME)
@zone_option
@data_option
def credits(seller: str, as_json: bool) -> None:  # noqa: A001 - the command's name
    """Show the fee of each cancelled order of SELLER: reset or credited, and on which bill."""
    print_query_result(show_queries.parse_query(["credits", seller]), as_json)


def print_query_result(query: show_queries.Query, as_json: bool, *, as_html: bool = False, **options: Any) -> None:
    if as_html and as_json:
        raise click.UsageError("A bill is printed with --html or with --json.")
    all_commands()  # declares the actions that orders are explained with
    with open_database() as database, database.transaction() as conn:
        use_snapshot_isolation(conn)
        now = database.clock.now(conn)
        result: Any = query.read(conn, now)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    if result is None:
        raise NothingToShow(for_people(query.missing))
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
    PRINTERS[noun](PeopleConsole(), escape_control_characters(result), **options)


def _print_order(console: PeopleConsole, result: dict[str, Any]) -> None:
    console.write(Text(f"Order {result['order_id']} is {result['status']}.", style="bold"))
    console.write(result["verdict"])
    names = {result[role]["member_id"]: _member_name_text(result[role]) for role in ("buyer", "seller")}
    buyer, seller = names[result["buyer_id"]], names[result["seller_id"]]
    payment = "unpaid" if result["payment_status"] == "None" else f"payment {result['payment_status']}"
    console.write(
        f"{buyer} bought from {seller} for {result['total']} {result['currency']} "
        f"(order date {result['order_date']}, {payment})."
    )
    less = [f"{result[kind]} {kind}" for kind in ("credit", "coupon") if float(result[kind])]
    if less:
        console.write(f"The buyer pays less by {' and '.join(less)}; the fee is of the goods before that.")
    if result["cancelled_at"]:
        by = names.get(result["cancelled_by"], result["cancelled_by"])
        console.write(f"Cancelled on {result['cancelled_at']} by {by}, on the ground {result['basis']}.")
    for line in result["lines"]:
        console.write(f"  {_order_line_text(line)}")
    if ocr := result["ocr"]:
        console.write(f"Cancel request of the {ocr['filed_by']}: {ocr['state']}, filed {ocr['filed_at']}.")
    if alert := result["alert"]:
        console.write(f"Alert {alert['kind']}: {alert['state']}, filed {alert['filed_at']}; {_describe_unlock(alert)}.")
    if late := result["late_payment"]:
        state = f"settled {late['settled_at']} by {late['settled_by']}" if late["settled_at"] else "not settled"
        console.write(f"Payment after the cancellation: {late['payment_status']}, {late['recorded_at']}; {state}.")
    for removal in result["removals"]:
        console.write(f"Removal request {removal['removal_id']} of the {removal['requested_by']}: {removal['state']}.")
    console.write(_describe_fee(result["fee"]))
    for credit in result["credits"]:
        console.write(f"  {credit['where']}")
    console.write("What happened:")
    for row in result["timeline"]:
        by = row["actor"] if row["role"] == "system" else f"{names.get(row['actor'], row['actor'])}, {row['role']}"
        change = f"  [{row['from'] or 'new'} → {row['to']}]" if row["from"] != row["to"] else ""
        console.write(Text.assemble("  ", (row["at"], "dim"), f"  {by}: {row['note']}{change}"))
    console.write("Inventory movements:" if result["stock"] else "No inventory movements.")
    _print_stock_moves(console, result["stock"])
    console.write("Emails:" if result["notices"] else "No emails.")
    _print_emails(console, result["notices"])


def _print_stock_moves(console: PeopleConsole, moves: list[dict[str, Any]]) -> None:
    for (at, kind), group in groupby(moves, key=lambda move: (move["at"], move["kind"])):
        units = ", ".join(f"{move['delta']:+} in lot {move['lot_id']} (line {move['line_no']})" for move in group)
        console.write(Text.assemble("  ", (at, "dim"), f"  {kind}: {units}"))


def _order_line_text(line: dict[str, Any]) -> str:
    item = f"{line['quantity']} × {_item_text(line)}"
    text = f"Line {line['line_no']}: {item} of lot {line['lot_id']} at {line['unit_price']}"
    if line["removed"]:
        text += f", {line['removed']} removed"
    if line["returned"]:
        text += f", {line['returned']} returned to lot {line['returned_to_lot']}"
    return text + (f" ({line['note']})" if line["note"] else "")


def _item_text(lot: dict[str, Any]) -> str:
    colour = f" in colour {lot['color_id']}" if lot["color_id"] else ""
    return f"{lot['item']['type'].lower()} {lot['item']['no']}{colour}"


def _describe_unlock(alert: dict[str, Any]) -> str:
    answered = f"answered {alert['responded_at']}; " if alert["responded_at"] else ""
    return f"{answered}cancellation possible from {_describe_possible_from(alert['unlocks_at'])}"


def _describe_fee(fee: dict[str, Any]) -> str:
    text = f"Fee: {fee['charged']} USD charged for {fee['charged_month'] or 'no month'}"
    if fee["reset"]:
        text += f", reset by {fee['reset']} in the same month"
    if fee["credit"]:
        text += f", credited {fee['credit']} on the bill of {fee['credit_month']}"
    return f"{text}; {fee['net']} USD remains."


def _member_name_text(member: dict[str, Any]) -> str:
    return f"{member['handle']} ({member['member_id']})" if member["handle"] else str(member["member_id"])


def _print_explain(console: PeopleConsole, result: dict[str, Any], *, show_all: bool = False) -> None:
    console.write(Text(f"Order {result['order_id']} is {result['status']} (at {result['at']}).", style="bold"))
    console.write(result["verdict"])
    hidden = 0
    for role in ("seller", "buyer"):
        console.write(Text(f"The {role}", style="bold"))
        refused: dict[str, list[str]] = {}
        for option in result[role]:
            if option["possible"]:
                console.write(Text(f"  can {_describe_action(option)}. {option['why']}", style="green"))
            elif option["code"] not in ("WRONG_ROLE", "NO_LATE_PAYMENT"):  # these explain nothing about the order
                why = option["why"].replace(ASK_AGAIN, ".")  # nothing was asked yet
                refused.setdefault(f"{why}{_describe_unblock(option)}", []).append(_describe_action(option))
        if not any(option["possible"] for option in result[role]):
            console.write("  can do nothing now.")
        hidden += sum(len(actions) for actions in refused.values())
        for reason, actions in refused.items() if show_all else ():
            console.write(
                f"  cannot {' or '.join(actions) if len(actions) <= MAX_ACTIONS else 'do anything else'}: {reason}"
            )
    if hidden and not show_all:
        console.write(f"With --all: why {hidden} other {'action is' if hidden == 1 else 'actions are'} not possible.")


MAX_ACTIONS = 3
"""Actions that are listed before one reason; more are summed up."""


def _describe_action(option: dict[str, Any]) -> str:
    removal = f" {option['removal_id']}" if option.get("removal_id") else ""
    return f"{ACTIONS[option['action']].label}{removal} ({option['action']})"


def _describe_unblock(option: dict[str, Any]) -> str:
    if option["possible_from"]:
        return f" Possible from {_describe_possible_from(option['possible_from'])}."
    return f" What would change it: {option['unblocked_by']}." if option["unblocked_by"] else ""


def _print_bill(console: PeopleConsole, result: dict[str, Any]) -> None:
    heading, _, rest = render_text(result).partition("\n")
    console.write(Text(heading, "bold"))
    console.write(rest.rstrip())


def _print_member(console: PeopleConsole, result: dict[str, Any]) -> None:
    privileges = [word for word, allowed in (("buy", result["can_buy"]), ("sell", result["can_sell"])) if allowed]
    console.write(Text(f"{_member_name_text(result)} is {result['state']}.", style="bold"))
    console.write(f"Privileges: {' and '.join(privileges) or 'none'}.")
    console.write(f"Strikes that count: {', '.join(str(strike) for strike in result['strikes']) or 'none'}.")
    excluded = result["automation"].pop("exclude_buyers")
    for name, setting in result["automation"].items():
        console.write(f"Automation: {name} = {setting['value']}, set on {setting['set_at']}.")
    if excluded:
        console.write(f"Never touched by automation: orders of {', '.join(excluded)}.")
    for change in result["automation_history"]:
        console.write(Text(f"  {change['at']}  {change['by']}: {change['note']}", style="dim"))


def _print_notices(console: PeopleConsole, result: list[dict[str, Any]]) -> None:
    _print_emails(console, result)
    if not result:
        console.write("No emails.")


def _print_emails(console: PeopleConsole, notices: list[dict[str, Any]]) -> None:
    for notice in notices:
        heading = f"  to {notice['recipient']}: {notice['subject']}"
        console.write(Text.assemble("  ", (notice["sent_at"] or notice["state"], "dim"), heading))
        console.write(Text(indent(notice["text"], "      "), style="dim"))


def _print_alerts(console: PeopleConsole, result: list[dict[str, Any]]) -> None:
    for alert in result:
        due = _describe_possible_from(alert["unlocks_at"])
        console.write(f"  {due}  order {alert['order_id']}: {alert['kind']}, order {alert['status']}")
    if not result:
        console.write("No alert is due by then.")


def _print_request(console: PeopleConsole, result: dict[str, Any]) -> None:
    if result["state"] == "waiting":
        when = f" since {result['submitted_at']}" if result["submitted_at"] else ""
        console.write(
            Text(f"Request {result['request_id']}: {result['task']}, waiting{when} for a worker.", style="bold")
        )
        return
    if result["state"] == "dead":
        console.write(
            Text(f"Request {result['request_id']}: {result['task']}, given up {result['answered_at']}.", style="bold")
        )
        console.write(
            f"None of it was done. {RUN_COMMAND} jobs dead shows why; {RUN_COMMAND} jobs replay ID tries again."
        )
        return
    console.write(
        Text(f"Request {result['request_id']}: {result['task']}, answered {result['answered_at']}.", style="bold")
    )
    console.write(describe_answer(result["answer"]))


def _print_credits(console: PeopleConsole, result: dict[str, Any]) -> None:
    for credit in result["credits"]:
        order = f"Order {credit['order_id']}" if credit["order_id"] is not None else "By staff"
        if credit["basis"] is not None:
            order += f", cancelled {credit['cancelled_at']} on the ground {credit['basis']}"
            order += f" (fee {credit['charged']} USD, charged for {credit['charged_month'] or 'no month'})"
        console.write(f"  {order}: {credit['where']}")
    if not result["credits"]:
        console.write(f"No order of {result['seller_id']} was cancelled, and no credit was given.")


def _print_sweeps(console: PeopleConsole, result: list[dict[str, Any]]) -> None:
    for sweep, group in groupby(result, key=lambda row: row["sweep"]):
        hours = list(group)
        latest = hours[0]
        console.write(
            Text(f"{sweep}: last ran {latest['last_ran_at']}, found {latest['found_ever']} in total.", style="bold")
        )
        for row in hours:
            if row["hour"] is not None:
                runs = "1 run" if row["runs"] == 1 else f"{row['runs']} runs"
                gap = (
                    f"; longest gap {describe_duration(row['longest_gap_seconds'])}"
                    if row["longest_gap_seconds"]
                    else ""
                )
                console.write(Text.assemble("  ", (row["hour"], "dim"), f"  found {row['found']} in {runs}{gap}"))
    if not result:
        console.write("No sweep has run yet.")


def _print_late_payments(console: PeopleConsole, result: list[dict[str, Any]]) -> None:
    for late in result:
        console.write(
            f"  {late['recorded_at']}  order {late['order_id']}: {late['payment_status']}, "
            f"{_member_name_text(late['buyer'])} paid {_member_name_text(late['seller'])}"
        )
    if not result:
        console.write("No payment for a cancelled order is open.")


def _describe_possible_from(timestamp: str) -> str:
    return describe_timestamp(parse_timestamp(timestamp))


PRINTERS: dict[str, Callable[..., None]] = {
    "order": _print_order,
    "explain": _print_explain,
    "bill": _print_bill,
    "lots": print_lots_table,
    "member": _print_member,
    "notices": _print_notices,
    "alerts": _print_alerts,
    "request": _print_request,
    "credits": _print_credits,
    "forecast": print_forecast_chart,
    "sweeps": _print_sweeps,
    "late-payments": _print_late_payments,
}


def _add_show_command(group: click.Group, noun: click.Command, print_query: Callable[..., None], *options: Any) -> None:
    of_query = {param.name for param in noun.params}

    def run(as_json: bool, **arguments: Any) -> None:
        assert noun.callback is not None
        query = noun.callback(**{name: arguments[name] for name in of_query})
        parent = click.get_current_context().parent
        as_json = as_json or (parent is not None and parent.params["as_json"])
        print_query(query, as_json, **{name: value for name, value in arguments.items() if name in printed})

    for option in (data_option, zone_option, *reversed(options), json_option):
        run = option(run)
    command = click.command(noun.name, context_settings=noun.context_settings, help=noun.help)(run)
    printed = {param.name for param in command.params} | ({"seller"} if noun.name == "lots" else set())
    command.params = [*noun.params, *command.params]
    group.add_command(command)


BILL_OPTIONS = (click.option("--html", "as_html", is_flag=True, help="Print a page that can be sent to the seller."),)
EXPLAIN_OPTIONS = (
    click.option("--all", "show_all", is_flag=True, help="Also list impossible actions, grouped by the reason."),
)

for _name, _noun in show_queries.nouns.commands.items():
    if isinstance(_noun, click.Group):
        _add_show_command(explain, _noun.commands["order"], print_query_result, *EXPLAIN_OPTIONS)
    elif _name == "lots":
        _add_show_command(show, _noun, print_lots, *LOTS_OPTIONS)
    else:
        _add_show_command(show, _noun, print_query_result, *(BILL_OPTIONS if _name == "bill" else ()))
